"""A manifest's samples as a Hugging Face dataset: Parquet with images, and a card.

    OUT/data/<manifest>-<number>.parquet   rows of ROW, some hundred MB of frames each
    OUT/README.md                          the card, written last: licences and a datasheet

A part is written in one step, and one that is there is finished: an export that was killed goes on
where it was. Memory holds one part and where the pool's clips lie, whatever there is in all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mixtures.manifest.manifest import Manifest
from pipeline.upkeep.card import Licences, card
from pipeline.upkeep.kept_samples import Kept, kept_samples
from shards.errors import UserError
from shards.extents import Extents, pair
from shards.pool import Pool
from shards.reader import clip_of
from shards.sample import Clip, split_frames
from shards.store import Store

CARD = "README.md"
PART_BYTES = 128 << 20
_GROUP_BYTES = 16 << 20
_STRINGS = "key source dataset revision record licence".split()
_NUMBERS = pa.list_(pa.int64())
_TURN = pa.struct(
    [
        ("role", pa.string()),
        ("text", pa.string()),
        ("media", pa.list_(_NUMBERS)),
        ("loss", pa.int64()),
    ]
)
_CLIP = pa.struct(
    [
        *((name, pa.string()) for name in "clip_id kind colour".split()),
        *((name, _NUMBERS) for name in "pts time_base duration nbytes source_fps".split()),
        *((name, pa.int64()) for name in "width height rotation".split()),
        ("is_vfr", pa.bool_()),
        ("differences", _NUMBERS),
    ]
)
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
ROW = pa.schema(
    [
        *((name, pa.string()) for name in _STRINGS),
        ("turns", pa.list_(_TURN)),
        ("clips", pa.list_(_CLIP)),
        ("images", pa.list_(_IMAGE)),
    ]
)
"""A sample: its turns and clips as in shards (docs/data_model.md, "Shards"), and as `images` the
frames of all clips back to back, as many of each as it has `pts`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export came to, and the samples of each source by licence."""

    samples: int
    parts: int
    nbytes: int
    licences: Licences = field(default_factory=dict)


def export(pool: Pool, manifest: Manifest, out: str) -> Exported:
    """Write the dataset to a folder or an fsspec address; UserError if it is not empty."""
    store = Store(out)
    prefix = manifest.manifest_id[:12]
    _check_free(store, prefix)
    extents = Extents(pool.store)
    licences: Licences = {}
    samples = nbytes = parts = 0
    for number, part in enumerate(cut(kept_samples(pool, manifest), PART_BYTES)):
        name = f"data/{prefix}-{number:05d}.parquet"
        # what a part holds follows from sizes alone: no frame of a finished one is read
        if not store.exists(name):
            store.put_once(name, parquet(part, extents))
        for one in part:
            own = licences.setdefault(one.row["source"], {})
            own[one.row["licence"]] = own.get(one.row["licence"], 0) + 1
        samples, parts = samples + len(part), number + 1
        nbytes += sum(one.nbytes for one in part)
    store.put(CARD, card(manifest, licences, f"data/{prefix}-*.parquet").encode())
    return Exported(samples=samples, parts=parts, nbytes=nbytes, licences=licences)


def cut(samples: Iterable[Kept], limit: int) -> Iterator[list[Kept]]:
    """Samples in parts of about so many bytes, each of one at least."""
    part: list[Kept] = []
    total = 0
    for sample in samples:
        if part and total + sample.nbytes > limit:
            yield part
            part, total = [], 0
        part.append(sample)
        total += sample.nbytes
    if part:
        yield part


def parquet(part: Sequence[Kept], extents: Extents) -> bytes:
    """The Parquet file of a part; row groups are small, so that readers stream."""
    sink = pa.BufferOutputStream()
    schema = ROW.with_metadata({"huggingface": json.dumps({"info": {"features": features()}})})
    # frames are JPEG: compressing them again costs time and gains nothing
    with pq.ParquetWriter(sink, schema, compression={"turns.list.element.text": "zstd"}) as file:
        for group in cut(part, _GROUP_BYTES):
            rows = [_row(one, extents) for one in group]
            file.write_table(pa.Table.from_pylist(rows, schema=schema))
    data: bytes = sink.getvalue().to_pybytes()
    return data


def features() -> dict[str, Any]:
    """ROW as `datasets` names its features."""
    return {field.name: _feature(field.type) for field in ROW}


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if kind == _IMAGE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {inner.name: _feature(inner.type) for inner in kind}
    return {"dtype": str(kind), "_type": "Value"}


def _row(sample: Kept, extents: Extents) -> dict[str, Any]:
    clips: list[Clip] = []
    images: list[dict[str, Any]] = []
    for byte_range in sample.byte_ranges:
        where = extents.where(byte_range)
        described, payload = pair(extents.read(byte_range), where)
        clips.append(clip_of(json.loads(bytes(described))))
        frames = split_frames(clips[-1:], payload, where)[0]
        images += ({"bytes": bytes(frame), "path": None} for frame in frames)
    row = {name: sample.row[name] for name in _STRINGS}
    turns = json.loads(sample.row["turns"])
    return row | {"turns": turns, "clips": list(map(asdict, clips)), "images": images}


def _check_free(store: Store, prefix: str) -> None:
    """Raise UserError, before any work, if another dataset lies there."""
    store.check_writable()
    others = [name for name in store.list("data") if not name.startswith(f"{prefix}-")]
    begun = len(others) < len(store.list("data"))
    if others or (store.exists(CARD) and not begun):
        raise UserError(f"{store.url}: holds something else; give an --out that is empty")
