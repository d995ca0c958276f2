"""Every kind of file that this project writes, in one small world, and who reads it later.

One build of a small world in this process (units one after the other, no Ray), its shards and
report, a node's index, a checkpoint, a leak index, and two files fetched from a server on loopback.
"""

from __future__ import annotations

import gc
import io
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest.mock import patch

from benchmarks.curation.text_twins import made_index
from mixtures.manifest.files import load_manifest
from pipeline import build as build_module
from pipeline.fetch import digest_cache, local_files
from pipeline.jobs import ray_executor
from pipeline.jobs.job import Job
from pipeline.jobs.progress import steps
from pipeline.jobs.write_shards import pack
from pipeline.report.page import write_report
from shards.errors import DamagedData
from shards.ids import sha256_file, sha256_hex
from shards.leak_index import open_index
from shards.pool import Pool
from shards.reader import open_data
from shards.verify import damage
from tests.support import small_world
from tests.support.fake_hub import COMMIT, REPO, serve
from tests.support.in_process import Here
from train.engine import checkpoint
from train.run_keys import Keep

Outputs = Mapping[str, str]
"""What comes out of reading a file: the sha256 of every later output by its name."""
Reading = Callable[[], Outputs]

FETCHED = {"data/train.json": b"[]", "v/a.tar.gz": bytes(i * i % 251 for i in range(9000))}
POOL = (
    "candidates clips clusters compared crowds facts/clips facts/samples facts/timings index/clips "
    "index/fingerprints index/media index/samples leaks lengths named receipts references refused "
    "same snapshots unread"
).split()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Files of one kind, and the commands that read them."""

    name: str
    files: tuple[Path, ...]
    read: Reading


class World:
    """A folder with one build and all that is made from it."""

    def __init__(self, root: Path) -> None:
        self.root, self.pool, self.out = root, root / "pool", root / "out"
        self.again, self.node, self.runs = root / "again", root / "node", root / "runs"
        self.recipe = small_world.make(root / "data")
        self.addresses = [f"hf://datasets/{REPO}@{COMMIT}/{path}" for path in FETCHED]

    def make(self) -> None:
        """Every file for the first time, half of the pool's receipts in a snapshot."""
        with patch.object(digest_cache, "SETTLED", 0):
            build_module.build(str(self.recipe), str(self.out), str(self.pool))
        self._compact_half()
        made_index(str(self.root / "leaks"))
        self._save(5)
        for read in (self.reported, self.fetched, self.streamed):
            read()

    def _compact_half(self) -> None:
        """Every other receipt of the pool is in a snapshot, the rest is loose."""
        files = sorted((self.pool / "receipts").iterdir())
        apart = {path: path.read_bytes() for path in files[::2]}
        for path in apart:
            path.unlink()
        Pool(str(self.pool)).ledger.compact()
        for path, data in apart.items():
            path.write_bytes(data)

    def _save(self, step: int) -> None:
        folder = checkpoint.pending(self.runs, step)
        checkpoint.begin(folder, {})
        (folder / "model.bin").write_bytes(bytes(range(256)) * 16)
        data = {"v": 2, "manifest_id": "m" * 64, "step": step, "window": 1, "pack": 3}
        run = {"manifest_id": "m" * 64, "config": {"k": "v"}, "precision": "fp32", "total": 9}
        state = {
            "optimizer_state": "fp32",
            "frozen": {},
            "bases": {},
            "branch": "",
            "held_out": "",
            "guard": {"losses": [], "skipped": 0},
        }
        head = run | state | {"step": step, "updates": step}
        files = {path.name: sha256_file(path) for path in folder.iterdir()}
        checkpoint.commit(folder, head | {"data": data | {"global_batch": 4}}, files, Keep())

    def kinds(self) -> list[Kind]:
        """All of them; a folder that holds nothing is a fault of this list."""
        found = [
            *(self._kind(f"pool/{name}", f"pool/{name}", self.rebuilt) for name in POOL),
            self._kind("profile.json", "pool/profile.json", self.rebuilt),
            self._kind("manifest.json", "out/manifest.json", self.packed),
            self._kind("plan tables", "out/plan/*.npy", self.packed),
            self._kind("plan tokenizer", "out/plan/*.json", self.packed),
            self._kind("books.json", "out/books.json", self.reported),
            self._kind("refused.parquet", "out/refused.parquet", self.reported),
            self._kind("leaks.parquet", "out/leaks.parquet", self.reported),
            self._kind("shards", "out/shards/*.tar", self.verified),
            self._kind("shards' index", "out/shards/index.parquet", self.verified),
            self._kind("shards' receipt", "out/shards/receipt.json", self.verified),
            self._kind("shards' parts", "out/shards/index", self.repacked),
            self._kind("shards, packed again", "out/shards/*.tar", self.repacked),
            self._kind("node index", "node/*.arrow", self.streamed),
            self._kind("node digests", "node/*.sha256", self.streamed),
            self._kind("COMMITTED.json", "runs/*/COMMITTED.json", self.resumed),
            self._kind("checkpoint", "runs/*/model.bin", self.resumed),
            self._kind("leak index", "leaks/index.json", self.leaks_read),
            self._kind("leak tables", "leaks/questions", self.leaks_read),
            self._kind("fetched", "cache/files/*/*", self.fetched),
            self._kind("fetched, entries", "cache/addresses/*.json", self.fetched),
            self._kind("digests", "cache/digests/*.json", self.rehashed),
        ]
        empty = [kind.name for kind in found if not kind.files]
        if empty:
            raise AssertionError(f"nothing to flip in {empty}")
        return found

    def _kind(self, name: str, under: str, read: Reading) -> Kind:
        paths = self.root.glob(under)
        found = [one for path in paths for one in (path, *path.rglob("*")) if one.is_file()]
        return Kind(name=name, files=tuple(sorted(set(found))), read=read)

    def rebuilt(self) -> Outputs:
        """The build once more, over the pool as it is, into another folder."""
        shutil.rmtree(self.again, ignore_errors=True)
        build_module.build(str(self.recipe), str(self.again), str(self.pool))
        return digests(self.again)

    def packed(self) -> Outputs:
        """The manifest packed into another folder."""
        shutil.rmtree(self.again, ignore_errors=True)
        self._pack(self.again / "shards")
        return digests(self.again)

    def repacked(self) -> Outputs:
        """The manifest packed again into the folder that is there."""
        self._pack(self.out / "shards")
        return digests(self.out / "shards")

    def _pack(self, out: Path) -> None:
        with steps() as bars:
            job = Job(pool=Pool(str(self.pool)), workers=Here(), bars=bars)
            pack(f"{self.out}/manifest.json", str(out), job)

    def reported(self) -> Outputs:
        """The report of the build."""
        return {"report.html": sha256_file(Path(write_report(str(self.out), str(self.pool))))}

    def verified(self) -> Outputs:
        """`python -m shards verify` over the shards."""
        if faults := list(damage(str(self.out / "shards"))):
            raise DamagedData("\n".join(faults))
        return {}

    def streamed(self) -> Outputs:
        """Every sample of the manifest by way of the node's index."""
        manifest = load_manifest(self.out / "manifest.json")
        found = {}
        for where in (self.pool, self.out / "shards"):
            data = open_data(str(where), self.node, manifest)
            for name, table in zip(manifest.names, manifest.tables, strict=True):
                for key in (row["key"].tobytes().hex() for row in table):
                    stored = data.read(name, key)
                    told = repr((stored.sample, [bytes(f) for c in stored.frames for f in c]))
                    found[f"{where.name}/{key}"] = sha256_hex(told.encode())
        return found

    def resumed(self) -> Outputs:
        """The checkpoint that a run would go on from."""
        found = checkpoint.latest(self.runs)
        if found is not None:
            checkpoint.verify(found)
        return {"checkpoint": repr(found)}

    def leaks_read(self) -> Outputs:
        """The leak index and its tables."""
        index = open_index(str(self.root / "leaks"))
        tables = {name: index.read(name) for name in index.tables}
        return {"index": index.index_id} | {n: repr(t.to_pylist()) for n, t in tables.items()}

    def fetched(self) -> Outputs:
        """The addresses as files of this machine."""
        found = [local_files.local(address) for address in self.addresses]
        return {one.address: f"{one.digest} {sha256_file(one.path)}" for one in found}

    def rehashed(self) -> Outputs:
        """The recipe's media admitted anew: their digests stand in the index."""
        shutil.rmtree(self.root / "fresh", ignore_errors=True)
        build_module.build(str(self.recipe), str(self.root / "fresh"), str(self.pool))
        return digests(self.root / "fresh")


def digests(folder: Path) -> Outputs:
    """Every file under a folder by its name in it."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256_file(path) for path in files}


def forget() -> None:
    """Empty every cache of this process, as a new one would begin."""
    for one in gc.get_objects():
        clear = getattr(type(one), "cache_clear", None)
        module = getattr(one, "__module__", None) or ""
        if clear and str(module).partition(".")[0] in ("mixtures", "pipeline", "shards", "train"):
            one.cache_clear()


@contextmanager
def world(root: Path) -> Iterator[World]:
    """A world whose commands run in this process, quietly, on a cache of its own."""
    shutil.rmtree(root, ignore_errors=True)
    quiet = io.StringIO()
    with serve(dict(FETCHED)) as server, redirect_stdout(quiet), redirect_stderr(quiet):
        variables = {"HF_ENDPOINT": server.url, "SLOWFAST_CACHE": str(root.absolute() / "cache")}
        here = partial(_here)
        with patch.dict(os.environ, variables), patch.object(ray_executor, "connect", here):
            made = World(root.absolute())
            made.make()
            yield made


@contextmanager
def _here(_: str | None) -> Iterator[Here]:
    yield Here()
