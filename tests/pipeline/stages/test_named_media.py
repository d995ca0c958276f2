"""Admission: a revision is what the records name, not what else lies beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.stages.admit_records import SourceUnit, admit
from shards.pool import Pool
from shards.profile import Profile
from shards.receipts import Receipt
from tests.hostile.images import photograph, saved


@pytest.fixture
def unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SourceUnit:
    monkeypatch.setenv("SLOWFAST_CACHE", str(tmp_path / "cache"))
    (tmp_path / "media").mkdir()
    rows = []
    for number in range(3):
        if number < 2:
            (tmp_path / f"media/{number}.jpg").write_bytes(saved(photograph(32 + number), "JPEG"))
        turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "This."}]
        rows.append({"id": f"r{number}", "image": f"{number}.jpg", "conversations": turns})
    (tmp_path / "a.json").write_text(json.dumps(rows))
    Pool(str(tmp_path / "pool"), Profile())
    return SourceUnit(
        pool=str(tmp_path / "pool"),
        name="a",
        dataset="d",
        format="llava_json",
        annotations=(str(tmp_path / "a.json"),),
        media=str(tmp_path / "media"),
        licence="MIT",
    )


def changed(unit: SourceUnit, name: str, data: bytes) -> Receipt:
    (Path(unit.media) / name).write_bytes(data)
    return admit(unit)


def test_a_file_that_no_record_names_changes_nothing(unit: SourceUnit) -> None:
    before = admit(unit)
    assert before.counts["samples_refused"] == 1
    assert changed(unit, "unrelated.jpg", b"whatever").work_id == before.work_id
    assert len(Pool(unit.pool).receipts("admit")) == 1


@pytest.mark.parametrize("name", ["0.jpg", "2.jpg"])
def test_a_file_that_a_record_names_is_another_revision(unit: SourceUnit, name: str) -> None:
    before = admit(unit).parameters["revision"]
    after = changed(unit, name, saved(photograph(99), "JPEG"))
    assert after.parameters["revision"] != before
