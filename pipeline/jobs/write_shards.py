"""Manifest -> WebDataset shards in draw order: every window of every shard has the mixture's ratio.

Which positions a shard holds is arithmetic on sizes, so the bytes do not depend on workers, and a
shard that exists is finished. `index.parquet` and `receipt.json` come last; readers look for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mixtures.manifest.draws import Draws
from mixtures.manifest.files import load_manifest
from mixtures.manifest.manifest import Manifest
from pipeline.jobs.job import Job, each
from pipeline.stages.write_shard import ShardUnit, part_of, write_shard
from shards.errors import UserError
from shards.id_arrays import ids_of, sorting
from shards.ids import sha256_hex
from shards.index import CLIPS, SAMPLES, SHARD_INDEX, read_table, write_table
from shards.pool import Pool, Receipt
from shards.store import Store
from shards.verify import RECEIPT

SHARD_BYTES = 64 << 20
_SAMPLE_OVERHEAD = 4 * 512 + 2048
_CLIPS, _SAMPLES = (
    pa.schema([schema.field(name) for name in names.split()])
    for schema, names in ((CLIPS, "clip_id extent"), (SAMPLES, "key clip_ids"))
)
_SHARD_NAME = re.compile(r"[0-9a-f]{12}-\d{6}\.tar")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What packing will cost: bytes of all shards against bytes of the pool's clips, and reuse."""

    pool_bytes: int
    shard_bytes: int
    clips_stored: int
    clips_packed: int


def cut(sizes: Sequence[int], limit: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of consecutive positions whose sizes sum to at most `limit`, one at least."""
    start = 0
    total = 0
    for position, size in enumerate(sizes):
        # greedy: a shard ends before the sample that would make it too large
        if position > start and total + size > limit:
            yield start, position
            start = position
            total = 0
        total += size
    if len(sizes):
        yield start, len(sizes)


def sample_sizes(manifest: Manifest, pool: Pool) -> tuple[list[int], Sizes]:
    """Bytes of the sample at each position, and what they are beside the pool."""
    extents = _Extents(pool)
    clips_of = {
        one.parameters["source"]: _ClipsOf(_table(pool, [one], "index/samples", _SAMPLES))
        for one in pool.admitted(manifest.provenance)
    }
    used = np.zeros(len(extents.nbytes), np.bool_)
    sizes = []
    packed = 0
    # a joined sample has the clips of its first conversation
    for drawn in Draws(manifest).samples(0, manifest.length):
        first = manifest.members_of(drawn.source, drawn.key)[0]
        places = extents.places(manifest.shown(clips_of[drawn.source].named(first)))
        used[places] = True
        packed += len(places)
        sizes.append(_SAMPLE_OVERHEAD + int(extents.nbytes[places].sum()))
    return sizes, Sizes(
        pool_bytes=int(extents.nbytes[used].sum()),
        shard_bytes=sum(sizes),
        clips_stored=int(used.sum()),
        clips_packed=packed,
    )


def _table(pool: Pool, receipts: Sequence[Receipt], folder: str, schema: pa.Schema) -> pa.Table:
    """Some columns of what these receipts put into a folder; one whole table at a time."""
    tables = pool.tables(folder, pool.files(receipts, folder))
    columns = (table.select(schema.names) for _, table in tables)
    return pa.concat_tables([schema.empty_table(), *columns])


class _Extents:
    """Bytes of the pool's clips by their ids: sorted columns, 24 bytes a clip."""

    def __init__(self, pool: Pool) -> None:
        clips = _table(pool, pool.receipts("decode"), "index/clips", _CLIPS)
        ids = ids_of(clips["clip_id"])
        order = sorting(ids)
        self._ids = ids[order].view("S16")
        self.nbytes = np.asarray(clips["extent"], np.int64)[order]

    def places(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Where these clips stand; a clip that was decoded twice has one place."""
        return np.searchsorted(self._ids, ids_of(pa.array(names, pa.string())).view("S16"))


class _ClipsOf:
    """The clips of a source's samples by their keys, as columns."""

    def __init__(self, samples: pa.Table) -> None:
        keys = ids_of(samples["key"])
        self._order = sorting(keys)
        self._keys = keys[self._order].view("S16")
        self._clips = samples["clip_ids"]

    def named(self, key: str) -> list[str]:
        """The clips of a sample, in order."""
        place = int(np.searchsorted(self._keys, np.bytes_(bytes.fromhex(key))))
        clips: list[str] = self._clips[int(self._order[place])].as_py()
        return clips


def plan_shards(
    manifest_path: str, manifest: Manifest, pool: Pool, out: str
) -> tuple[list[ShardUnit], Sizes]:
    """The shards to write; UserError when they would outgrow the recipe's bound."""
    sizes, total = sample_sizes(manifest, pool)
    # twice the clips: repeats of a clip should be the exception in a mixture
    bound = manifest.max_shard_bytes or 2 * total.pool_bytes + len(sizes) * _SAMPLE_OVERHEAD
    if total.shard_bytes > bound:
        raise UserError(
            f"{out}: shards of {total.shard_bytes} bytes outgrow the bound of {bound} bytes "
            f"(the pool's clips hold {total.pool_bytes}); train from the pool (--data POOL), "
            "lower `length`, join conversations (`join_by_clip`), or raise `max_shard_bytes` in "
            "the recipe"
        )
    prefix = manifest.manifest_id[:12]
    return [
        ShardUnit(
            manifest=manifest_path,
            pool=pool.store.url,
            out=out,
            name=f"{prefix}-{number:06d}.tar",
            start=start,
            stop=stop,
        )
        for number, (start, stop) in enumerate(cut(sizes, SHARD_BYTES))
    ], total


def pack(manifest_path: str, out: str, job: Job) -> Sizes:
    """Write all shards of a manifest to `out` and publish them."""
    manifest = load_manifest(manifest_path)
    units, sizes = plan_shards(manifest_path, manifest, job.pool, out)
    with job.bars.step("pack") as step:
        step.begin(len(units))
        digests = dict(each(job, write_shard, units, step))
    publish(Store(out), manifest, digests)
    return sizes


def publish(store: Store, manifest: Manifest, digests: Mapping[str, str]) -> None:
    """index.parquet, then receipt.json; shards of other manifests in this folder are removed.

    `digests` are the sha256 of the shards by name.
    """
    names = [part_of(name) for name in sorted(digests)]
    # the parts' order is the order of shards, and so of positions
    parts = map(read_table, store.get_all(names), names)
    index = write_table(pa.concat_tables([SHARD_INDEX.empty_table(), *parts]))
    receipt = {
        "manifest_id": manifest.manifest_id,
        "samples": manifest.length,
        "index": sha256_hex(index),
        "shards": dict(digests),
    }
    store.put("index.parquet", index)
    # the receipt last; only then go the shards of an earlier manifest
    store.put("receipt.json", RECEIPT.seal(receipt))
    for name in store.list(""):
        if _SHARD_NAME.fullmatch(name) and name not in digests:
            store.remove(name)
            store.remove(part_of(name))
