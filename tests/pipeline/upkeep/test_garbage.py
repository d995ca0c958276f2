"""`pool gc`: what nobody needs goes; a kill at any removal leaves a pool, on disk and afar."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import fsspec
import pytest

from mixtures.manifest.files import load_manifest
from pipeline.upkeep.garbage import clear, garbage, manifests_in
from pipeline.upkeep.inventory import folders, holdings, uses
from pipeline.upkeep.needs import KNOWN
from shards import pool as pools
from shards.errors import UserError
from shards.pool import Pool, clearing, reading, writing
from shards.receipts import receipts_in
from shards.store import Store
from tests.pipeline.upkeep.worlds import (
    built,
    copied,
    drawn,
    indexed,
    names,
    planned,
    receipts,
)
from tests.support import small_world
from tests.support.archives import tarred
from tests.support.s3_server import s3_server

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, kw_only=True)
class World:
    """`full` draws from pictures and films, `kept` from films alone; both over one pool."""

    root: Path
    full_id: str
    kept_id: str
    sample_digest: str

    @property
    def pool(self) -> str:
        return str(self.root / "pool")

    @property
    def keep(self) -> list[str]:
        return [str(self.root / "kept")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    full = small_world.make(root, pictures=3, films=1)
    lines = [line for line in full.read_text().splitlines() if "name: pictures" not in line]
    (root / "kept.yaml").write_text("\n".join(lines) + "\n")
    pool = str(root / "pool")
    ids = [built(root / f"{name}.yaml", root / out, pool).manifest_id for name, out in OUTS]
    Pool(pool).ledger.compact()
    digest = drawn(root / "kept/manifest.json", pool)
    return World(root=root, full_id=ids[0], kept_id=ids[1], sample_digest=digest)


OUTS = (("recipe", "full"), ("kept", "kept"))


@pytest.fixture(scope="module")
def s3() -> Iterator[None]:
    with s3_server() as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        # clients are remembered without the variables that led them to another server
        files = fsspec.filesystem("s3")
        files.clear_instance_cache()
        fsspec.filesystem("s3").mkdir("lake")
        yield
        files.clear_instance_cache()


@pytest.fixture(params=["folder", "s3"])
def pool(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> Callable[[], str]:
    """Makes the pool anew, in a folder or afar."""
    if request.param == "s3":
        request.getfixturevalue("s3")
        return lambda: copied(world.pool, "s3://lake/pool")
    return lambda: copied(world.pool, str(tmp_path / "pool"))


def cleared(pool: str, keep: list[str]) -> None:
    assert not clear(Pool(pool), manifests_in(keep)).failed


def holds(world: World, pool: str) -> None:
    """The kept manifest is planned again and gives the same samples; nothing else is asked."""
    assert planned(world.root / "kept.yaml", pool) == world.kept_id
    assert drawn(world.root / "kept/manifest.json", pool) == world.sample_digest


def test_what_would_go_goes_and_nothing_else(world: World, tmp_path: Path) -> None:
    pool = copied(world.pool, str(tmp_path / "pool"))
    own = {"notes.txt", "clips/notes.tmp"}
    for name in own:
        (tmp_path / "pool" / name).write_text("mine")
    (tmp_path / "pool/clips/.cut.tar.12.0a1b2c3d.tmp").write_text("half a part")
    before = names(pool)
    found = garbage(Pool(pool), manifests_in(world.keep))
    assert names(pool) == before
    cleared(pool, world.keep)
    snapshots = {name for name in before if name.startswith("snapshots/")}
    assert before - names(pool) == set(found.files) | snapshots
    assert own | {"profile.json"} <= names(pool) and ".tmp" not in str(names(pool) - own)
    # pictures are gone, and what came before comparisons; films and held-out clips stay
    folders = {name.rpartition("/")[0] for name in names(pool)}
    assert not folders & {"candidates", "same"}
    assert len([name for name in names(pool) if name.endswith(".tar")]) == 1
    assert not garbage(Pool(pool), manifests_in(world.keep)).files
    holds(world, pool)


def test_a_kept_recipe_is_built_again_without_any_work(world: World, tmp_path: Path) -> None:
    pool = copied(world.pool, str(tmp_path / "pool"))
    cleared(pool, world.keep)
    before = names(pool)
    assert built(world.root / "kept.yaml", tmp_path / "out", pool).manifest_id == world.kept_id
    new = names(pool) - before
    assert {name.partition("/")[0] for name in new} <= {"facts", "receipts"}
    assert len(new - receipts(pool)) == 3  # facts of clips, timings and samples
    # and the other one with the work that it takes
    assert built(world.root / "recipe.yaml", tmp_path / "full", pool).manifest_id == world.full_id


RICH = """
near_text: 0.8
leaks: {{index: {root}/index}}
held_out:
  - {{name: exam, format: llava_json, annotations: {root}/exam.json, media: {root}/exam}}
sources:
  - {{name: films, dataset: d/f, format: llava_json, annotations: {root}/films.json, archives: ["{root}/films.tar"], licence: CC0-1.0, weight: 1}}
"""  # noqa: E501


def test_archives_leak_indexes_and_texts_of_a_kept_recipe_stay(tmp_path: Path) -> None:
    """Every kind of receipt that a build leaves, kept and not kept."""
    full = small_world.make(tmp_path, pictures=3, films=2)
    films = {path.name: path.read_bytes() for path in sorted((tmp_path / "films").iterdir())}
    tarred(tmp_path / "films.tar", films)
    bench = f"benchmarks: [{{name: own, format: llava_json, annotations: {tmp_path}/exam.json, "
    (tmp_path / "bench.yaml").write_text(f"{bench}media: {tmp_path}/exam}}]\n")
    indexed(tmp_path / "bench.yaml", tmp_path / "index")
    rich = tmp_path / "rich.yaml"
    rich.write_text(
        small_world.RECIPE.partition("sources:")[0].format(root=tmp_path)
        + RICH.format(root=tmp_path)
    )
    pool = str(tmp_path / "pool")
    built(full, tmp_path / "full", pool)
    made = built(rich, tmp_path / "rich", pool).manifest_id
    stages = {one.stage for one in receipts_in(Pool(pool).ledger.table())}
    # not made here: `link`, which wants the web, `tokenizer`, an address, and scores
    assert stages == KNOWN - {"link", "tokenizer", "score"}
    before = receipts(pool)
    cleared(pool, [str(tmp_path / "rich")])
    kept = receipts(pool)
    gone = {one.stage for one in receipts_in(Pool(pool).ledger.table())} ^ stages
    assert len(kept) < len(before) and gone == {"compared", "crowds", "candidates", "same", "facts"}
    again = built(rich, tmp_path / "again", pool)
    assert again.manifest_id == made
    new = [
        one
        for one in receipts_in(Pool(pool).ledger.table())
        if f"receipts/{one.work_id}.json" not in kept
    ]
    assert {one.stage for one in new} == {"facts"}
    assert drawn(tmp_path / "again/manifest.json", pool)


class Killed(BaseException):
    """What a process meets whose power fails."""


def killed_at(patch: pytest.MonkeyPatch, removals: int) -> None:
    """From so many removals on nothing is removed any more, not even the lease."""
    remove, counted = Store.remove, count()

    def until_then(self: Store, name: str) -> None:
        if next(counted) >= removals:
            raise Killed
        remove(self, name)

    patch.setattr(Store, "remove", until_then)


def clear_until(pool: str, keep: list[str], removals: int) -> bool:
    """Whether a clearing that is killed at a removal came so far."""
    with pytest.MonkeyPatch.context() as patch:
        killed_at(patch, removals)
        try:
            cleared(pool, keep)
        except Killed:
            return True
    return False


def left_over(pool: str) -> None:
    """The lease of what was killed, which lasts for minutes."""
    store = Store(pool)
    for name in store.list("leases"):
        store.remove(f"leases/{name}")


def check_kill(world: World, make: Callable[[], str], removals: int) -> bool:
    """Kill at a removal, if it comes so far; then plan, read, clear to the end, and read again."""
    pool = make()
    if not clear_until(pool, world.keep, removals):
        return False
    with pytest.raises(UserError, match=r"is being cleared.*remove the lease"):
        clear(Pool(pool), manifests_in(world.keep))
    left_over(pool)
    holds(world, pool)
    cleared(pool, world.keep)
    assert not garbage(Pool(pool), manifests_in(world.keep)).files
    holds(world, pool)
    return True


def removals(world: World) -> int:
    """How many removals there are, with the snapshot's and without the lease's."""
    return len(garbage(Pool(world.pool), manifests_in(world.keep)).files) + 1


@pytest.mark.timeout(300)
@pytest.mark.parametrize("step", [20, pytest.param(1, marks=pytest.mark.faults)])
def test_a_kill_at_any_removal_leaves_a_pool(
    world: World, pool: Callable[[], str], step: int
) -> None:
    points = range(0, removals(world) + 1, step)
    assert len(points) > 1 and all(check_kill(world, pool, number) for number in points)


def test_behind_the_last_removal_nothing_is_left_to_kill(world: World, tmp_path: Path) -> None:
    pool = copied(world.pool, str(tmp_path / "pool"))
    assert not clear_until(pool, world.keep, removals(world) + 1)


def test_what_is_built_after_a_kill_between_receipts_and_snapshots_is_read_as_it_is_then(
    world: World, pool: Callable[[], str], tmp_path: Path
) -> None:
    there = pool()
    gone = len(garbage(Pool(there), manifests_in(world.keep)).receipts)
    assert clear_until(there, world.keep, gone)
    assert Store(there).list("snapshots/1")  # which holds receipts that are gone
    left_over(there)
    full = built(world.root / "recipe.yaml", tmp_path / "out", there)
    assert full.manifest_id == world.full_id
    assert not Store(there).list("snapshots/1")
    holds(world, there)
    cleared(there, [*world.keep, str(tmp_path / "out")])
    assert planned(world.root / "recipe.yaml", there) == world.full_id


def test_a_process_that_is_killed_leaves_a_pool(world: World, tmp_path: Path) -> None:
    pool = copied(world.pool, str(tmp_path / "pool"))
    words = ["-m", "pipeline", "pool", "gc", pool, "--keep", *world.keep, "--remove"]
    slow = (
        "import shards.store as s, sys, time, runpy; r = s.Store.remove; "
        "s.Store.remove = lambda *a: (time.sleep(0.1), r(*a)); "
        "sys.argv = sys.argv[2:]; runpy.run_module(sys.argv[0], run_name='__main__')"
    )
    started = subprocess.Popen([sys.executable, "-c", slow, *words], cwd=ROOT)
    before = len(receipts(world.pool))
    while len(receipts(pool)) > before - 3 and started.poll() is None:
        time.sleep(0.01)
    started.send_signal(signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL
    left_over(pool)
    holds(world, pool)
    cleared(pool, world.keep)
    holds(world, pool)


def test_nothing_goes_while_a_build_writes_and_no_build_begins_meanwhile(
    world: World, pool: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = pool()
    store = Store(there)
    with writing(store), pytest.raises(UserError, match=r"is being written to .*wait until"):
        cleared(there, world.keep)
    with clearing(store):
        with pytest.raises(UserError, match="is being cleared"):
            built(world.root / "kept.yaml", tmp_path / "out", there)
        with pytest.raises(UserError, match="is being cleared"):
            cleared(there, world.keep)
    assert not store.list("leases")
    # what died without a word is waited for no longer than its lease lasts
    store.put("leases/writing-somewhere-1-0", b"")
    with pytest.raises(UserError, match="being written to"):
        cleared(there, world.keep)
    monkeypatch.setattr(pools, "LASTS", -1)
    cleared(there, world.keep)


def test_nothing_goes_that_a_run_trains_from(
    world: World, pool: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = pool()
    store = Store(there)
    with reading(store, world.kept_id), reading(store, world.full_id):
        with pytest.raises(UserError) as refused:
            cleared(there, world.keep)
        (line,) = map(str, refused.value.args)
        assert f"trains over manifest {world.full_id}" in line and "name that manifest by" in line
        cleared(there, [*world.keep, str(world.root / "full")])
    with clearing(store), pytest.raises(UserError, match="is being cleared"):
        with reading(store, world.kept_id):
            pass
    assert not store.list("leases")
    # what died without a word is waited for no longer than its lease lasts
    store.put("leases/reading-somewhere-1-0", world.full_id.encode())
    with pytest.raises(UserError, match="reading-somewhere-1-0"):
        cleared(there, world.keep)
    monkeypatch.setattr(pools, "LASTS", -1)
    cleared(there, world.keep)


def test_a_lease_is_renewed_as_long_as_the_work_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "RENEWED", 0.01)
    store = Store(tmp_path)
    written: list[str] = []
    put = Store.put
    monkeypatch.setattr(
        Store, "put", lambda self, name, data: (written.append(name), put(self, name, data))
    )
    with writing(store):
        while len(written) < 5:
            time.sleep(0.01)
    assert len(set(written)) == 1 and not store.list("leases")


def test_a_manifest_of_another_pool_keeps_nothing_here(world: World, tmp_path: Path) -> None:
    pool = copied(world.pool, str(tmp_path / "pool"))
    cleared(pool, world.keep)
    with pytest.raises(UserError, match="holds no source 'pictures' at revision"):
        clear(Pool(pool), manifests_in([str(world.root / "full")]))
    holds(world, pool)


def test_what_cannot_be_removed_is_said_and_stays_whole(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = copied(world.pool, str(tmp_path / "pool"))
    found = garbage(Pool(pool), manifests_in(world.keep))
    kept = next(one for one in Pool(pool).receipts("decode") if one.work_id in found.receipts)
    remove = Store.remove

    def held(self: Store, name: str) -> None:
        if name == f"receipts/{kept.work_id}.json":
            raise PermissionError(13, "Permission denied")
        remove(self, name)

    monkeypatch.setattr(Store, "remove", held)
    failed = clear(Pool(pool), manifests_in(world.keep)).failed
    assert failed == {f"receipts/{kept.work_id}.json": "Permission denied"}
    files = {f"{folder}/{name}" for folder, own in kept.outputs.items() for name in own}
    assert files <= names(pool)


def test_what_is_listed_is_what_lies_there_and_who_needs_it(world: World) -> None:
    pool = Pool(world.pool)
    manifests = manifests_in([str(world.root / "full"), *world.keep])
    held = {one.source: one for one in holdings(pool, manifests)}
    full, kept = manifests
    assert {name: one.used_by for name, one in held.items()} == {
        "pictures": (full,),
        "films": (full, kept),
        "exam": (),
    }
    needed = {one.manifest: one for one in uses(pool, manifests)}
    # what a gc that keeps one of them frees is what nobody needs and what the other needs alone
    files = garbage(pool, manifests).files
    ours = garbage(pool, {kept: manifests[kept]}).files
    freed = {name: size for name, size in ours.items() if name not in files}
    by_receipts = sum(
        size for name, size in freed.items() if not name.startswith(("receipts/", "facts/"))
    )
    assert needed[full].alone == by_receipts
    sizes = pool.store.sizes()
    found = {one.folder: one for one in folders(pool)}
    assert sum(one.nbytes for one in found.values()) == sum(sizes.values())
    assert not any(one.unnamed_files for one in found.values())


def test_the_command_says_bytes_and_removes_when_it_is_told(world: World, tmp_path: Path) -> None:
    pool = copied(world.pool, str(tmp_path / "pool"))

    def said(*words: str) -> str:
        command = [sys.executable, "-m", "pipeline", "pool", *words]
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | {"COLUMNS": "80"}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert max(map(len, done.stdout.splitlines())) <= 80 or "--json" in words
        return done.stdout

    keep = ["--keep", *world.keep]
    dry = json.loads(said("gc", pool, *keep, "--json"))
    assert not dry["removed"] and dry["nbytes"] == sum(dry["files"].values()) > 0
    assert f"{dry['nbytes']:,} bytes in {len(dry['files'])} files would go" in said(
        "gc", pool, *keep
    )
    removed = json.loads(said("gc", pool, *keep, "--remove", "--json"))
    assert removed["files"] == dry["files"] and removed["removed"]
    assert "0 bytes in 0 files would go" in said("gc", pool, *keep)
    assert load_manifest(world.root / "kept/manifest.json").manifest_id == world.kept_id
    shutil.rmtree(pool)
