"""A demo held against what README records: what differs is said, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples import record

METRICS = {
    "manifest_id": "ab" * 32,
    "wall_s": 500.0,
    "image_accuracy": 0.943,
    "planted_found": 31,
    "by_type": {},
}


def block(name: str, text: str) -> str:
    return f"<!-- recorded: {name} -->\n{text}<!-- /recorded -->\n"


@pytest.fixture
def readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A README whose blocks are those of a demo that lies in a folder of its own."""
    monkeypatch.setattr(record, "METRICS", tmp_path / "metrics.json")
    record.METRICS.write_text(json.dumps(METRICS))
    said = {name: record.fenced(f"{name}\nof 7") for name in record.EXACT}
    for name in record.EXACT:
        monkeypatch.setitem(record.BLOCKS, name, lambda name=name: said[name])
    blocks = [block("metrics", record.metrics()), *(block(n, said[n]) for n in record.EXACT)]
    return "# A\n" + "".join(blocks)


def test_the_same_demo_differs_in_nothing(readme: str) -> None:
    assert record.differing(readme) == []


def test_seconds_and_a_score_that_is_near_are_the_machines_own(readme: str) -> None:
    now = METRICS | {"wall_s": 9000.0, "image_accuracy": 0.85}
    record.METRICS.write_text(json.dumps(now))
    assert record.differing(readme) == []


@pytest.mark.parametrize(
    ("now", "says"),
    [
        ({"manifest_id": "cd" * 32}, f"manifest_id: recorded {'ab' * 32}, here {'cd' * 32}"),
        ({"image_accuracy": 0.8}, "image_accuracy: recorded 0.943, here 0.800"),
        ({"planted_found": 30}, "planted_found: recorded 31, here 30"),
    ],
)
def test_another_id_count_or_score_is_said(readme: str, now: dict[str, object], says: str) -> None:
    record.METRICS.write_text(json.dumps(METRICS | now))
    assert record.differing(readme) == [says]


def test_lines_of_books_and_the_like_are_compared_to_the_byte(
    readme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(record.BLOCKS, "diff", lambda: record.fenced("diff\nof 8"))
    assert record.differing(readme) == ["diff: -of 7", "diff: +of 8"]


def test_every_block_of_the_readme_is_made_by_this_module() -> None:
    names = [name for _, name, _, _ in record.BLOCK.findall(record.README.read_text())]
    assert sorted(names) == sorted(record.BLOCKS) and set(record.EXACT) < set(names)
