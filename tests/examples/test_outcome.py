"""How the demo judges itself: planted trouble and twins, books against written refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from examples.outcome import books_balance, check_planted, made_by
from shards.ids import sha256_hex
from shards.index import REFUSED, table_of, write_table


def outcome(tmp_path: Path, planted: list[dict[str, str]], refused: list[tuple[str, str]]) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/planted.json").write_text(json.dumps(planted))
    empty = dict.fromkeys(REFUSED.names, "")
    rows = [empty | {"source": "s", "record": name, "code": code} for name, code in refused]
    for stage, content in (("stage1", rows), ("stage2", [])):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "refused.parquet").write_bytes(write_table(table_of(REFUSED, content)))
    return tmp_path


def item(record: str, expected: str, twin: str = "") -> dict[str, str]:
    return {"source": "s", "record": record, "expected": expected, "why": "w", "twin": twin}


DUPLICATE = item("copy", "DUPLICATE_SAMPLE", twin="original")


@pytest.mark.parametrize(
    ("refused", "found", "false"),
    [
        ([("copy", "DUPLICATE_SAMPLE")], 1, 0),
        ([("original", "DUPLICATE_SAMPLE")], 1, 0),
        ([("copy", "DUPLICATE_SAMPLE"), ("original", "DUPLICATE_SAMPLE")], 0, 2),
        ([("copy", "LEAK_MEDIA")], 0, 1),
        ([("bystander", "DUPLICATE_SAMPLE")], 0, 1),
        ([], 0, 0),
    ],
)
def test_exactly_one_of_a_copy_and_its_twin_is_refused(
    tmp_path: Path, refused: list[tuple[str, str]], found: int, false: int
) -> None:
    planted = check_planted(outcome(tmp_path, [DUPLICATE], refused))
    assert (planted.expected, planted.found, len(planted.false)) == (1, found, false)


def test_what_should_be_kept_and_was_refused_is_a_miss(tmp_path: Path) -> None:
    folder = outcome(tmp_path, [item("other", "kept")], [("other", "DUPLICATE_SAMPLE")])
    planted = check_planted(folder)
    assert planted.expected == 0 and len(planted.false) == 1 and len(planted.misses) == 2


def book(**changes: Any) -> dict[str, Any]:
    counts = dict.fromkeys(
        ("records_refused", "samples_refused", "not_chosen", "repeats"), 0
    ) | dict.fromkeys(("records", "samples", "chosen", "drawn"), 3)
    return {"source": "s", **counts, **changes}


@pytest.mark.parametrize(
    ("books", "balance"),
    [
        (book(not_chosen=1, chosen=2, drawn=2), True),
        (book(), False),
        (book(not_chosen=1, chosen=2, drawn=3), False),
        (book(records=4, not_chosen=1, chosen=2, drawn=2), False),
    ],
)
def test_books_are_checked_against_written_refusals(
    tmp_path: Path, books: dict[str, Any], balance: bool
) -> None:
    folder = outcome(tmp_path, [], [("copy", "DUPLICATE_SAMPLE")])
    (folder / "stage1/books.json").write_text(json.dumps({"sources": [books]}))
    (folder / "stage2/books.json").write_text('{"sources": []}')
    assert books_balance(folder) is balance


def test_a_recording_names_its_commit_and_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.json").write_text("{}")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "no repository"))
    assert made_by(tmp_path) == {"commit": "none", "run": sha256_hex(b"{}")[:16]}
    monkeypatch.setenv("PATH", "")
    assert made_by(tmp_path)["commit"] == "none"
