"""A dry run counts what a build would do, and does nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mixtures.console import Console
from mixtures.recipe.load import load_recipe
from mixtures.recipe.types import Recipe
from pipeline import __main__ as command_line
from pipeline.fetch import local_files
from pipeline.jobs import collect, run_stages
from pipeline.jobs.dry_run import DryRun, Foreseen, foresee, tell
from pipeline.jobs.job import Job
from pipeline.jobs.progress import steps
from pipeline.sources.pin import Pinned, pin
from shards.pool import Pool
from shards.receipts import Work
from tests.support import small_world
from tests.support.in_process import Here, archived, gathered


def pinned(recipe: Recipe) -> tuple[list[Pinned], list[Pinned]]:
    sources, exams = recipe.sources, recipe.held_out
    return [pin(one, str(recipe.path)) for one in sources], [pin(one, "") for one in exams]


def foreseen(path: Path, retry: Sequence[str] = ()) -> DryRun:
    recipe = load_recipe(path)
    pool = str(path.parent / "pool")
    return foresee(*pinned(recipe), recipe.profile, pool, frozenset(retry))


def decoded(path: Path) -> Pool:
    """Gathered, admitted and decoded as a build does it, without Ray."""
    recipe = load_recipe(path)
    pool = Pool(str(path.parent / "pool"), recipe.profile)
    with steps() as bars:
        job = Job(pool=pool, workers=Here(), bars=bars)
        for sources, stage in zip(pinned(recipe), ("decode", "held_out"), strict=True):
            admitted = run_stages.admit(sources, collect.gather(sources, stage, job), job, "admit")
            run_stages.decode(stage, admitted, job)
    return pool


def of(found: DryRun, source: str) -> Foreseen:
    return next(one for one in found.sources if one.source == source)


def files_of(root: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in (root, *root.rglob("*"))
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_world.make(tmp_path_factory.mktemp("world"), pictures=3, films=2)


def test_a_dry_run_says_what_is_left_and_what_it_takes(world: Path) -> None:
    before = foreseen(world)
    pictures, films, exam = (of(before, name) for name in ("pictures", "films", "exam"))
    assert (pictures.records, pictures.images, pictures.missing) == (9, 7, 1)
    folder = world.parent / "pictures"
    assert pictures.nbytes == sum(path.stat().st_size for path in folder.iterdir())
    assert (films.videos, films.images, exam.images) == (3, 0, 1)
    # no receipt says how long anything takes, nor how large it is kept
    assert (before.core_hours, before.clip_bytes, before.shard_bytes) == (None, None, None)
    pool = decoded(world)
    after = foreseen(world)
    assert (of(after, "pictures").before, of(after, "films").before) == (7, 3)
    assert not any(one.images + one.videos + one.nbytes for one in after.sources)
    assert (after.core_hours, after.clip_bytes) == (0, 0)
    # of every record once: what it shows, as large as such media became
    nbytes = sum(one.counts["nbytes"] for one in pool.receipts("decode"))
    assert after.shard_bytes and after.shard_bytes > nbytes
    again = foreseen(world, ["MEDIA_EMPTY", "MEDIA_UNREADABLE"])
    assert (of(again, "pictures").images, of(again, "films").videos) == (2, 1)
    assert again.core_hours and again.clip_bytes


def test_hours_and_bytes_follow_the_receipts(world: Path, tmp_path: Path) -> None:
    recipe = load_recipe(world)
    pool = Pool(str(tmp_path), recipe.profile)
    for kind, images in (("image", 4), ("video", 0)):
        counts = {"media": 4, "refused": 0, "images": images, "nbytes": 400, "milliseconds": 7200}
        pool.commit(Work("decode", "1", {"kind": kind}, []), {}, counts=counts)
    # of a version that took no time: it says nothing
    pool.commit(Work("decode", "0", {}, []), {}, counts={"media": 50, "refused": 0})
    found = foresee(*pinned(recipe), recipe.profile, str(tmp_path))
    # 7 pictures, 3 films and a held-out picture at 1,800 ms; clips of all but that
    assert found.core_hours == round(11 * 1.8 / 3600, 6)
    assert found.clip_bytes == 1000


def test_archives_are_read_once_and_then_known(tmp_path: Path) -> None:
    recipe = archived(tmp_path, each=16, shared="*")
    recipe.write_text(recipe.read_text().replace("max_refused: 0.2", "max_refused: 1"))
    before = of(foreseen(recipe), "bad")
    archive = tmp_path / "0.tar.gz"
    assert (before.archives, before.archive_bytes) == (1, archive.stat().st_size)
    assert (before.images, before.unread, before.missing, before.nbytes) == (16, 16, 0, 0)
    # named by both sources: counted with the first
    shared = of(foreseen(recipe), "good")
    assert (shared.records, shared.archives, shared.images) == (8, 0, 0)
    gathered(recipe)
    after = of(foreseen(recipe), "bad")
    assert (after.archives, after.images, after.before) == (0, 0, 16)
    assert of(foreseen(recipe, ["MEDIA_UNREADABLE"]), "bad").images == 8


def test_what_is_still_to_be_fetched_is_asked_for_by_size(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local_files, "_fetch", None)
    monkeypatch.setattr("pipeline.fetch.object_store.size", lambda _: 1000)
    recipe = load_recipe(world)
    sources, _ = pinned(recipe)
    remote = replace(sources[0], annotations=("s3://b/a.json",), loose=(("x", "https://h/x"),))
    found = foresee([remote], [], recipe.profile, str(world.parent / "nowhere"))
    one = of(found, "pictures")
    assert (one.records, one.fetch_files, one.fetch_bytes, one.fetch_unsized) == (None, 2, 1000, 1)
    tell(Console(), found)
    told = capsys.readouterr().out
    assert "2 files, 1,000 bytes and 1 files of unknown size" in told
    assert "annotations that are still to be fetched" in told


def test_the_command_changes_no_file_and_starts_no_program(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", none)
    out, pool = world.parent / "out", world.parent / "other"
    words = ["pipeline", "build", str(world), "--out", str(out), "--pool", str(pool), "--dry-run"]
    before = files_of(world.parent)
    monkeypatch.setattr(sys, "argv", words)
    command_line.main()
    people = capsys.readouterr().out
    assert "decode  8 images and 3 videos" in people and "hours unknown" in people
    monkeypatch.setattr(sys, "argv", [*words, "--json"])
    command_line.main()
    said = json.loads(capsys.readouterr().out)
    assert [one["source"] for one in said["sources"]] == ["pictures", "films", "exam"]
    assert said["sources"][0]["shown"] == {"image": 9, "video": 0}
    assert said["core_hours"] is None
    assert files_of(world.parent) == before and not out.exists() and not pool.exists()
