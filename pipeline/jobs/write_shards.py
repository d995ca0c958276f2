"""Manifest -> WebDataset shards in draw order: every window of every shard has the mixture's ratio.

Which positions a shard holds is arithmetic on sizes, so the bytes do not depend on workers, and a
shard that exists is finished. `index.parquet` and `receipt.json` come last; readers look for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from mixtures.manifest.draws import Draws
from mixtures.manifest.files import load_manifest
from mixtures.manifest.manifest import Manifest
from pipeline.jobs.job import Job, each
from pipeline.stages.write_shard import ShardUnit, part_of, write_shard
from shards.errors import UserError
from shards.ids import sha256_hex
from shards.index import CLIPS, SAMPLES, SHARD_INDEX, read_table, write_table
from shards.pool import Pool
from shards.store import Store
from shards.verify import RECEIPT

SHARD_BYTES = 64 << 20
_SAMPLE_OVERHEAD = 4 * 512 + 2048
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
    samples = pool.table(pool.admitted(manifest.revisions), "index/samples", SAMPLES)
    clips = pool.table(pool.receipts("decode"), "index/clips", CLIPS)
    # sizes are those of the pool's extents: nothing is opened to plan
    extents = dict(zip(clips["clip_id"].to_pylist(), clips["extent"].to_pylist(), strict=True))
    pairs = zip(samples["source"].to_pylist(), samples["key"].to_pylist(), strict=True)
    clips_of = dict(zip(pairs, samples["clip_ids"].to_pylist(), strict=True))
    sizes = []
    packed = 0
    used: set[str] = set()
    # a joined sample has the clips of its first conversation
    for drawn in Draws(manifest).samples(0, manifest.length):
        first = manifest.members_of(drawn.source, drawn.key)[0]
        names = manifest.shown(clips_of[drawn.source, first])
        used.update(names)
        packed += len(names)
        sizes.append(_SAMPLE_OVERHEAD + sum(extents[name] for name in names))
    return sizes, Sizes(
        pool_bytes=sum(extents[name] for name in used),
        shard_bytes=sum(sizes),
        clips_stored=len(used),
        clips_packed=packed,
    )


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
