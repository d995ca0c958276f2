"""A pool with a synthetic index of any size: receipts and tables as stages commit them, no media.

Sizes of sources are uneven (the smallest has 1,803 samples), one sample in a hundred is a
duplicate, and lengths, frame sizes and times vary as in image and video instruction data: one video
in ten has a variable frame rate and times of its own.
"""

from __future__ import annotations

import binascii
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixtures.tokens.text import TextCodec, train_tokenizer
from pipeline.sources.spilled import TABLE
from shards.index import (
    CLIPS,
    LEAKS,
    LENGTHS,
    MEDIA,
    NAMED,
    PAIRS,
    REFERENCES,
    REFUSED,
    SAMPLES,
    UNREAD,
)
from shards.pool import Pool
from shards.profile import Profile
from shards.receipts import Work

REVISION = "r"
SMALLEST = 1803
TIMINGS = 2000
SIZES = [(384, 384), (448, 320), (320, 448), (512, 256), (256, 512), (640, 480), (480, 640)]
TOKENIZER = train_tokenizer(["which digit is this? seven, eight, nine"] * 4, 320)


def source_sizes(samples: int, sources: int) -> list[int]:
    """Uneven numbers of samples that sum to `samples`."""
    rest = samples - SMALLEST
    shares = 1 / np.arange(1, sources) ** 0.7
    sizes = np.floor(rest * shares / shares.sum()).astype(int).tolist()
    return [SMALLEST, rest - sum(sizes[1:]), *sizes[1:]]


def make_index(
    folder: Path,
    samples: int,
    sources: int = 40,
    per_receipt: int | None = None,
    per_clip: int = 5,
) -> tuple[Pool, list[str]]:
    """The pool, and the names of its sources; there is a clip to `per_clip` samples.

    Given how many clips a receipt of decoding is `per_receipt`, receipts name them, as builds' do;
    else there is one for each source, which names none.
    """
    rng = np.random.default_rng([samples, sources])
    pool = Pool(str(folder), Profile())
    (folder / "tokenizer.json").write_bytes(TOKENIZER)
    names = [f"source-{i:02d}" for i in range(sources)]
    ids = [
        _source(pool, rng, *each, per_receipt, per_clip)
        for each in zip(names, source_sizes(samples, sources), strict=True)
    ]
    pairs = np.concatenate([own[: 2 * (len(own) // 200)] for own in ids])
    columns = [_strings(np.sort(pairs.reshape(-1, 2), axis=1)[:, i]) for i in range(2)]
    count = len(pairs) // 2
    columns += [_same("near", count), pa.array(np.ones(count), pa.int32()), _same("same", count)]
    tables = {
        "clusters": pa.table(columns, schema=PAIRS),
        "leaks": LEAKS.empty_table(),
        "references": REFERENCES.empty_table(),
    }
    revisions = dict.fromkeys(names, REVISION)
    pool.commit(Work("compare", "1", {"sources": revisions, "held_out": {}}, []), tables)
    return pool, names


def _source(
    pool: Pool,
    rng: np.random.Generator,
    name: str,
    count: int,
    per_receipt: int | None,
    per_clip: int,
) -> np.ndarray:
    """Commit one source of `count` samples; its clip ids."""
    clips = _ids(rng, count // per_clip + 1)
    for at in range(0, len(clips), per_receipt or len(clips)):
        _decode(pool, rng, name, clips[at : at + (per_receipt or len(clips))], per_receipt)
    keys, turns = _ids(rng, count), _ids(rng, count)
    twins = rng.integers(0, count, count // 100)
    turns[twins] = turns[twins - 1]
    each = rng.choice([0, 1, 3], count, p=[0.1, 0.85, 0.05])
    ends = np.concatenate([[0], np.cumsum(each)]).astype(np.int32)
    shown = clips[rng.integers(0, len(clips), ends[-1])]
    values = {
        "source": _same(name, count),
        "revision": _same(REVISION, count),
        "key": _strings(keys),
        "record": pa.array(np.arange(count)).cast(pa.string()),
        "turns": _same("[]", count),
        "turns_digest": _strings(turns),
        "clip_ids": pa.ListArray.from_arrays(ends, _strings(shown)),
        "dataset": _same(f"made/{name}", count),
        "licence": _same("CC-BY-4.0", count),
        "num_turns": pa.array(np.full(count, 4), pa.int32()),
        "num_chars": pa.array(rng.integers(20, 4000, count), pa.int32()),
    }
    tables = {
        "index/samples": pa.table([values[f.name].cast(f.type) for f in SAMPLES], schema=SAMPLES),
        "index/media": MEDIA.empty_table() if per_receipt is None else _pieces(_media(clips)),
        "refused": REFUSED.empty_table(),
        "unread": UNREAD.empty_table(),
        "named": NAMED.empty_table(),
    }
    counts = {"records": count, "records_refused": 0, "samples": count, "samples_refused": 0}
    parameters = {"source": name, "dataset": "d", "licence": "MIT", "revision": REVISION}
    parameters |= {"format": "made"}
    receipt = pool.commit(Work("admit", "1", parameters, [name]), tables, counts=counts)
    per_turn = np.clip(rng.lognormal(4.2, 1.0, 4 * count), 4, 1500).astype(np.int32)
    tokens = pa.ListArray.from_arrays(np.arange(0, 4 * count + 1, 4, dtype=np.int32), per_turn)
    lengths = pa.table([values["source"], values["key"], tokens], schema=LENGTHS)
    profile = TextCodec(TOKENIZER).profile_id
    counted = receipt.outputs["index/samples"]
    pool.commit(
        Work("lengths", "1", {"text_profile": profile}, counted), {f"lengths/{profile}": lengths}
    )
    return clips


def _pieces(table: pa.Table) -> list[pa.Table]:
    """A table as admissions write it: no table is larger than so many rows."""
    return [table.slice(at, TABLE) for at in range(0, len(table), TABLE)]


def _media(clips: np.ndarray) -> pa.Table:
    """Where the original bytes of clips are said to lie."""
    names = _strings(clips)
    place = pa.scalar("file:/data/of/the/publisher/videos/", pa.string())
    columns = {
        "clip_id": names,
        "media_digest": pc.binary_join_element_wise(names, names, ""),
        "kind": _same("video", len(clips)),
        "address": pc.binary_join_element_wise(place, names, ".mp4", ""),
        "span": pa.nulls(len(clips), MEDIA.field("span").type),
    }
    return pa.table([columns[name] for name in MEDIA.names], schema=MEDIA)


def _decode(
    pool: Pool,
    rng: np.random.Generator,
    name: str,
    clips: np.ndarray,
    per_receipt: int | None,
) -> None:
    count = len(clips)
    is_video = rng.random(count) < 0.4
    lengths = np.where(rng.random(count) < 0.25, 256, rng.integers(4, 256, count))
    frames = np.where(is_video, lengths, 1)  # a quarter of the videos has 128 seconds
    steps = 500 + frames % (TIMINGS // 256)  # each length has its own rates: about TIMINGS in all
    ends = np.concatenate([[0], np.cumsum(frames)]).astype(np.int32)
    within = np.arange(ends[-1]) - np.repeat(ends[:-1], frames)
    size = np.array(SIZES)[rng.integers(0, len(SIZES), count)]
    is_vfr = is_video & (rng.random(count) < 0.1)
    late = rng.integers(0, 40, ends[-1]) * np.repeat(is_vfr, frames)
    pts = within * np.repeat(steps, frames) + late * (within > 0)
    nbytes = pa.array(rng.integers(8_000, 60_000, ends[-1]), pa.int64())
    base = np.tile([1, 1000], count)
    duration = np.stack([frames, np.full(count, 2)], 1).reshape(-1)
    values = {
        "clip_id": _strings(clips),
        "kind": pa.array(["image", "video"]).take(pa.array(is_video.astype(np.int8))),
        "pts": pa.ListArray.from_arrays(ends, pa.array(pts, pa.int64())),
        "time_base": pa.FixedSizeListArray.from_arrays(pa.array(base, pa.int64()), 2),
        "duration": pa.FixedSizeListArray.from_arrays(pa.array(duration, pa.int64()), 2),
        "width": pa.array(size[:, 0], pa.int32()),
        "height": pa.array(size[:, 1], pa.int32()),
        "nbytes": pa.ListArray.from_arrays(ends, nbytes),
    }
    columns = [values.get(f.name, pa.nulls(count, f.type)) for f in CLIPS]
    tables = {"index/clips": pa.table(columns, schema=CLIPS), "refused": REFUSED.empty_table()}
    inputs = [] if per_receipt is None else _strings(clips).to_pylist()
    counts = {"media": count, "refused": 0}
    pool.commit(Work("decode", "1", {"of": name}, inputs), tables, counts=counts)


def _ids(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.frombuffer(rng.bytes(16 * count), "V16").copy()


def _strings(ids: np.ndarray) -> pa.Array:
    data = binascii.hexlify(np.ascontiguousarray(ids).tobytes())
    offsets = np.arange(0, 32 * len(ids) + 1, 32, dtype=np.int32)
    return pa.StringArray.from_buffers(
        len(ids), pa.py_buffer(offsets.tobytes()), pa.py_buffer(data)
    )


def _same(text: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(text, pa.string()), count)


def write_recipe(path: Path, folder: Path, ratios: dict[str, str], *more: str) -> Path:
    """A recipe over a made index; `ratios` maps a source to e.g. `weight: 2`."""
    lines = ["name: made", "seed: 5", f"text: {{tokenizer: {folder / 'tokenizer.json'}}}", *more]
    lines.append("sources:")
    lines += [
        f"  - {{name: {name}, dataset: d, format: made, annotations: a, licence: MIT, {ratio}}}"
        for name, ratio in ratios.items()
    ]
    path.write_text("\n".join(lines) + "\n")
    return path
