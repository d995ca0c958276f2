"""A pool of two recipes, one of which is kept, and what must hold of the pool afterwards."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path

import pytest

from mixtures.manifest.draws import Draws
from mixtures.manifest.files import load_manifest
from mixtures.plan.build_manifest import build_manifest
from mixtures.recipe.load import load_recipe
from pipeline.build import Built, build
from pipeline.jobs import ray_executor
from pipeline.jobs.leak_index import build_index
from shards.pool import Pool
from shards.reader import open_data
from shards.store import Store
from tests.support.in_process import Here


def built(recipe: Path, out: Path, pool: str) -> Built:
    """A build in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_executor, "connect", lambda _: nullcontext(Here()))
        return build(str(recipe), str(out), pool, with_shards=False)


def indexed(benchmarks: Path, out: Path) -> None:
    """A leak index, made in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_executor, "connect", lambda _: nullcontext(Here()))
        build_index(str(benchmarks), str(out), no_sandbox=False)


def planned(recipe: Path, pool: str) -> str:
    """The manifest_id of a recipe over a pool."""
    return build_manifest(load_recipe(recipe), Pool(pool)).manifest.manifest_id


def drawn(manifest: Path, pool: str) -> str:
    """A digest of every sample that a manifest draws, as it is read from a pool."""
    order = load_manifest(manifest)
    reader = open_data(pool, made=order)
    digest = sha256()
    for source, key in sorted({(s.source, s.key) for s in Draws(order).samples(0, order.length)}):
        stored = reader.read(source, key)
        digest.update(repr(stored.sample).encode())
        for frames in stored.frames:
            digest.update(b"".join(map(bytes, frames)))
    return digest.hexdigest()


def names(pool: str) -> set[str]:
    """Every file of a pool."""
    return set(Store(pool).sizes())


def receipts(pool: str) -> set[str]:
    return {name for name in names(pool) if name.startswith("receipts/")}


def copied(pool: str, to: str) -> str:
    """The same pool elsewhere, which is empty before."""
    here, there = Store(pool), Store(to)
    if there.is_local:
        shutil.rmtree(to, ignore_errors=True)
        return str(shutil.copytree(pool, to))
    for name in there.sizes():
        there.remove(name)
    for name in here.sizes():
        there.put(name, here.get(name))
    return to
