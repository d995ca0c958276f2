"""A demo held against what README records: what differs is said, and nothing else."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples import record

ROOT = Path(__file__).resolve().parents[2]
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


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The recorded demo's index in an empty folder, with stage two planned over it."""
    folder = tmp_path_factory.mktemp("recorded")
    with tarfile.open(ROOT / record.INDEX) as tar:
        tar.extractall(folder, filter="data")
    (folder / "mixtures").symlink_to(ROOT / "mixtures")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PYTHONPATH", str(ROOT))
        record._planned("demo_stage2", record.MANIFEST)
        yield


@pytest.mark.usefixtures("planned")
@pytest.mark.parametrize("name", record.EXACT)
def test_the_recorded_pool_is_planned_compared_and_explained_as_the_readme_says(name: str) -> None:
    blocks = {
        found[1]: found[2] for found in record.BLOCK.findall((ROOT / record.README).read_text())
    }
    assert record.BLOCKS[name]() == blocks[name]


def test_the_recorded_index_holds_no_media_and_stays_small() -> None:
    path = ROOT / record.INDEX
    with tarfile.open(path) as tar:
        folders = {member.name.rpartition("/")[0] for member in tar}
    assert not {f"{record.POOL}/{name}" for name in record.UNREAD} & folders
    assert path.stat().st_size < 1 << 20
