"""Admission: fields that nobody reads are counted or refuse, and rules are part of a revision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.jobs.run_stages import unread_told
from pipeline.stages import admit_records
from pipeline.stages.admit_records import SourceUnit, admit
from shards.index import MEDIA, REFUSED, SAMPLES, UNREAD
from shards.pool import Pool, Receipt
from shards.profile import Profile

TURNS = [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "He."}]


class Source:
    """Rows in a file, and a pool that admits them under some rules."""

    def __init__(self, home: Path, rows: list[dict[str, Any]]) -> None:
        (home / "a.json").write_text(json.dumps(rows))
        self.pool = Pool(str(home / "pool"), Profile())
        self.unit: dict[str, Any] = {
            "pool": self.pool.store.url, "name": "s", "dataset": "d", "format": "llava_json",
            "annotations": (str(home / "a.json"),), "media": "", "licence": "MIT",
        }  # fmt: skip

    def admit(self, **rules: Any) -> Receipt:
        return admit(SourceUnit(**(self.unit | rules)))

    def codes(self, receipt: Receipt) -> list[str]:
        return [str(code) for code in self.pool.table([receipt], "refused", REFUSED)["code"]]

    def records(self, receipt: Receipt) -> list[str]:
        return sorted(
            str(n) for n in self.pool.table([receipt], "index/samples", SAMPLES)["record"]
        )


def rows(*fields: dict[str, Any]) -> list[dict[str, Any]]:
    said = [[TURNS[0], TURNS[1] | {"value": f"He {n}."}] for n in range(len(fields))]
    return [{"id": str(n), "conversations": said[n]} | more for n, more in enumerate(fields)]


def test_fields_that_nobody_reads_are_counted_by_name_with_one_example(tmp_path: Path) -> None:
    source = Source(
        tmp_path,
        rows(
            {"source": "web", "score": 0.5}, {"source": "book"}, {"source": ""}, {"\ud800": "x\n"}
        ),
    )
    receipt = source.admit()
    told = source.pool.table([receipt], "unread", UNREAD).to_pylist()
    assert told == [
        {"field": "'\\ud800'", "records": 1, "example": "'x\\n'"},
        {"field": "score", "records": 1, "example": "0.5"},
        {"field": "source", "records": 2, "example": "web"},
    ]
    assert receipt.counts["samples"] == 4 and source.codes(receipt) == []
    assert unread_told(told).startswith("source (2, as web); ")


def test_names_without_end_are_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admit_records, "MAX_UNREAD", 2)
    source = Source(tmp_path, rows({"a": 1, "b": 1, "c": 1, "d": "x" * 999}, {"b": 2, "z": 3}))
    table = source.pool.table([source.admit()], "unread", UNREAD).to_pylist()
    assert {row["field"]: row["records"] for row in table} == {"a": 1, "b": 2, "...": 3}
    assert all(len(row["example"]) <= 80 for row in table)


def test_unread_fields_refuse_where_the_recipe_says_so(tmp_path: Path) -> None:
    source = Source(tmp_path, rows({"source": "web"}, {"source": ""}, {}))
    kept, strict = source.admit(), source.admit(unread_fields="refuse")
    assert source.records(kept) == ["0", "1", "2"] and source.records(strict) == ["1", "2"]
    assert source.codes(strict) == ["ROW_FIELD_UNREAD"]
    assert strict.counts["records_refused"] == 1
    assert kept.parameters["revision"] != strict.parameters["revision"]


def test_ids_that_repeat_are_numbered_where_the_recipe_says_so(tmp_path: Path) -> None:
    source = Source(tmp_path, rows({"id": "film"}, {"id": "film"}))
    assert source.codes(source.admit()) == ["ROW_ID_CONFLICT"]
    assert source.records(source.admit(ids_repeat=True)) == ["film", "film#2"]


def test_another_meaning_of_columns_is_another_revision(tmp_path: Path) -> None:
    source = Source(tmp_path, [{"a": "one", "b": "two"}])
    columns = (("answer", ("a",)), ("question", ("b",)))
    first = source.admit(format="table", columns=columns)
    second = source.admit(format="table", columns=(("answer", ("b",)), ("question", ("a",))))
    assert first.parameters["revision"] != second.parameters["revision"]
    assert source.admit(format="table", columns=columns) == first


def test_turns_that_differ_in_their_loss_alone_are_two_samples(tmp_path: Path) -> None:
    said = [*TURNS, {"from": "human", "value": "And?"}, {"from": "gpt", "value": "She."}]
    masked = [said[0], said[1] | {"weight": 0}, *said[2:]]
    source = Source(
        tmp_path,
        [
            {"id": "a", "conversations": said},
            {"id": "b", "conversations": masked},
            {
                "id": "c",
                "conversations": [turn | {"weight": int(turn["from"] == "gpt")} for turn in said],
            },
        ],
    )
    receipt = source.admit()
    assert source.records(receipt) == ["a", "b"] and source.codes(receipt) == ["ROW_DUPLICATE"]
    turns = source.pool.table([receipt], "index/samples", SAMPLES)["turns"].to_pylist()
    losses = sorted([turn["loss"] for turn in json.loads(each)] for each in turns)
    assert losses == [[0, 0, 0, 1], [0, 1, 0, 1]]


def test_a_medium_has_one_row_however_many_records_show_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "media").mkdir()
    for name in "ab":
        (tmp_path / f"media/{name}.jpg").write_bytes(name.encode())
    shown = [{"image": f"{'ab'[number % 2]}.jpg"} for number in range(6)]
    named = [row | {"conversations": _shown(row)} for row in rows(*shown)]
    (tmp_path / "far").mkdir()
    near, far = (Source(home, named) for home in (tmp_path, tmp_path / "far"))
    first = near.admit(media=str(tmp_path / "media"))
    # ids are forgotten at once: every record writes the row again
    monkeypatch.setattr(admit_records, "LATELY", 1)
    again = far.admit(media=str(tmp_path / "media"))
    assert again.outputs["index/media"] == first.outputs["index/media"]
    assert len(near.pool.table([first], "index/media", MEDIA)) == 2


def _shown(row: dict[str, Any]) -> list[dict[str, str]]:
    question, answer = row["conversations"]
    return [question | {"value": f"<image>\n{question['value']}"}, answer]
