"""What a recipe can choose from: the pool's samples and clips as columns, read once.

The columns are a pure function of the pool's receipts, and stand in the pool under a receipt of
their own (stage `facts`), so a second recipe over the same pool reads them and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mixtures.recipe.filters import Filter
from mixtures.sums import segment_sums
from mixtures.tokens.text import TextCodec
from shards.errors import UserError
from shards.id_arrays import ID, Ids, as_column, find, ids_of, sorting
from shards.ids import short_hash
from shards.index import CLIPS, LENGTHS, REFUSED, SAMPLES
from shards.pool import Pool, Receipt, writing
from shards.receipts import Work, last_attempts_first

FACTS_VERSION = "2"
REMEDY = "run `python -m pipeline build` with this recipe and pool first"
_CLIP_FACTS = pa.schema(
    [
        ("id", ID),
        ("kind", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("timing", pa.int32()),
        ("millis", pa.uint32()),
        ("nbytes", pa.int64()),
        ("code", pa.string()),
        ("detail", pa.string()),
    ]
)
_TIMINGS = pa.schema([("time_base", pa.list_(pa.int64())), ("pts", pa.list_(pa.int64()))])
_SAMPLE_FACTS = pa.schema(
    [
        ("key", ID),
        ("turns", ID),
        ("tokens", pa.uint32()),
        ("num_turns", pa.int32()),
        ("licence", pa.dictionary(pa.int32(), pa.string())),
        ("clips", pa.list_(pa.int32())),
    ]
)
IMAGE, VIDEO = 1, 2
"""Kinds in Clips."""
Timing = tuple[tuple[int, int], tuple[int, ...]]
"""(time base, presentation times) of a clip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clips:
    """Every clip of the pool, sorted by id; `kind` is 0 of a refused clip, 1 image, 2 video.

    `timing` counts the distinct times of clips, -1 of a refused clip; see `times`. `why` maps a
    refused clip to (code, detail).
    """

    ids: Ids
    kind: NDArray[np.uint8]
    width: NDArray[np.int32]
    height: NDArray[np.int32]
    timing: NDArray[np.int32]
    millis: NDArray[np.uint32]
    nbytes: NDArray[np.int64]
    bases: NDArray[np.int64]
    pts: NDArray[np.int64]
    ends: NDArray[np.int64]
    why: dict[int, tuple[str, str]]
    facts_id: str

    def times(self, timing: int) -> Timing:
        """(time base, presentation times) of the clips of one timing."""
        numerator, denominator = self.bases[timing].tolist()
        pts = self.pts[self.ends[timing] : self.ends[timing + 1]].tolist()
        return (numerator, denominator), tuple(pts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """The admitted samples of one source, sorted by (key, record).

    `tokens` are those of the text. The clips of sample i are `clips[ends[i]:ends[i + 1]]`, places
    in Clips; every clip of a sample is shown once.
    """

    name: str
    key: Ids
    turns: Ids
    tokens: NDArray[np.uint32]
    num_turns: NDArray[np.int32]
    licence: NDArray[np.int32]
    licences: list[str]
    clips: NDArray[np.int32]
    ends: NDArray[np.int64]

    def per_sample(self, of_clips: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which samples have a clip for which `of_clips` (one per clip of the pool) holds."""
        return segment_sums(of_clips[self.clips], self.ends) > 0


def read_clips(pool: Pool) -> Clips:
    """Every clip of the pool that was decoded or refused."""
    receipts = pool.receipts("decode")
    inputs = [short_hash([receipt.work_id for receipt in receipts])]
    # the clip index is reduced the first time; after that two small tables are read
    name, tables = _remembered(pool, {"of": "clips"}, inputs, lambda: _clip_tables(pool, receipts))
    table = tables["facts/clips"]
    timings = tables["facts/timings"]
    pts = _one(timings["pts"])
    # only the few refused clips become Python objects
    broken = np.flatnonzero(np.asarray(pc.is_valid(table["code"])))
    reasons = table.select(["code", "detail"]).take(broken).to_pylist()
    # kinds as small numbers: 0 of a refused clip, 1 image, 2 video
    kinds = pc.index_in(table["kind"], value_set=pa.array(["", "image", "video"]))
    return Clips(
        ids=ids_of(table["id"]),
        kind=np.asarray(kinds).astype(np.uint8),
        bases=_fractions(timings["time_base"]),
        pts=np.asarray(pts.values, np.int64),
        ends=np.asarray(pts.offsets, np.int64),
        why={int(i): (row["code"], row["detail"]) for i, row in zip(broken, reasons, strict=True)},
        facts_id=name,
        **{
            column: table[column].to_numpy()
            for column in ("width", "height", "timing", "millis", "nbytes")
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """How much each stored frame differs from the one before, by the place of its clip."""

    values: NDArray[np.int32]
    ends: NDArray[np.int64]
    row: NDArray[np.int64]

    def of(self, clip: int) -> tuple[int, ...]:
        """The differences of the clip at a place, one per stored frame."""
        row = self.row[clip]
        return tuple(self.values[self.ends[row] : self.ends[row + 1]].tolist())


def read_differences(pool: Pool, clips: Clips) -> Differences:
    """The differences of every decoded clip, from the pool's clip index."""
    wanted = _part(CLIPS, "clip_id differences")
    table = pa.concat_tables(_columns(pool, pool.receipts("decode"), "index/clips", wanted))
    # lists stay flat: all values in one array, and where each clip's begin
    scores = _one(table.combine_chunks()["differences"])
    row = np.zeros(len(clips.ids), np.int64)
    # from the clip's place to its row in this table
    row[find(clips.ids, ids_of(table["clip_id"]))] = np.arange(len(table))
    ends = np.asarray(scores.offsets, np.int64)
    return Differences(values=np.asarray(scores.values, np.int32), ends=ends, row=row)


def _remembered(
    pool: Pool,
    parameters: dict[str, str],
    inputs: Sequence[str],
    make: Callable[[], dict[str, pa.Table]],
) -> tuple[str, dict[str, pa.Table]]:
    """The work id and the tables of some facts, from the pool or made and put there."""
    work = Work("facts", FACTS_VERSION, parameters, inputs)
    # receipts are the cache: the same inputs have been reduced before
    if done := pool.done(work):
        folders = done.outputs.items()
        return done.work_id, {f: pool.read(f"{f}/{files[0]}") for f, files in folders}
    tables = make()
    # a pool that may only be read serves as well, only slower
    with suppress(PermissionError), writing(pool.store):
        pool.commit(work, tables)
    return work.work_id, tables


def _columns(
    pool: Pool, receipts: Sequence[Receipt], folder: str, columns: pa.Schema
) -> Iterator[pa.Table]:
    """These columns of every table that the receipts put into a folder, one table at a time."""
    yield columns.empty_table()
    yield from (
        table for _, table in pool.tables(folder, pool.files(receipts, folder), columns.names)
    )


def _part(schema: pa.Schema, columns: str) -> pa.Schema:
    return pa.schema([schema.field(name) for name in columns.split()])


def _clip_tables(pool: Pool, receipts: Sequence[Receipt]) -> dict[str, pa.Table]:
    known: dict[tuple[int, int, bytes], int] = {}
    wanted = _part(CLIPS, "clip_id kind width height time_base pts duration nbytes")
    # clips with equal times share one timing, so each distinct one is laid out once
    tables = [_clip_rows(t, known) for t in _columns(pool, receipts, "index/clips", wanted)]
    # refused clips are rows too: a sample that names one must be found and refused; what was tried
    # again comes before what became of it earlier
    receipts = last_attempts_first(receipts)
    columns = _part(REFUSED, "key code detail")
    tables += [_refused_rows(table) for table in _columns(pool, receipts, "refused", columns)]
    table = pa.concat_tables(tables)
    ids = ids_of(table["id"])
    # equal ids stand beside each other
    order = sorting(ids)  # stable: of a clip that is there twice the first, a decoded one, stays
    # the first of equal ids is kept
    fresh = np.ones(len(ids), bool)
    fresh[1:] = ids[order][1:] != ids[order][:-1]
    timings = [(key[:2], np.frombuffer(key[2], np.int64)) for key in known]
    return {
        "facts/clips": table.take(order[fresh]).combine_chunks(),
        "facts/timings": pa.table(
            [[list(base) for base, _ in timings], [pts for _, pts in timings]], schema=_TIMINGS
        ),
    }


def _clip_rows(table: pa.Table, known: dict[tuple[int, int, bytes], int]) -> pa.Table:
    """Rows of _CLIP_FACTS; `known` numbers the timings met so far."""
    pts = _one(table["pts"])
    sizes = _one(table["nbytes"])
    times = np.asarray(pts.values, np.int64)
    ends = np.asarray(pts.offsets)
    # time base and duration are fractions, kept as pairs of integers
    bases = _fractions(table["time_base"])
    seconds = _fractions(table["duration"])
    # number each distinct (time base, presentation times) in the order it is met
    timing = [
        known.setdefault((*base, times[start:stop].tobytes()), len(known))
        for base, start, stop in zip(bases.tolist(), ends[:-1], ends[1:], strict=True)
    ]
    # bytes of all frames of a clip: sums over its part of the flat list
    nbytes = segment_sums(np.asarray(sizes.values), np.asarray(sizes.offsets, np.int64))
    is_video = np.asarray(pc.equal(table["kind"], "video"), bool)
    # an image lasts no time; seconds are fractions, rounded down to milliseconds
    millis = np.where(is_video, seconds[:, 0] * 1000 // np.maximum(seconds[:, 1], 1), 0)
    values = {name: table[name] for name in ("kind", "width", "height")}
    values |= {"timing": pa.array(timing, pa.int32()), "millis": pa.array(millis, pa.uint32())}
    return _clip_facts(table["clip_id"], values | {"nbytes": pa.array(nbytes)})


def _refused_rows(table: pa.Table) -> pa.Table:
    values = {"code": table["code"], "detail": table["detail"]}
    values |= {"timing": pa.array(np.full(len(table), -1), pa.int32())}
    return _clip_facts(table["key"], values)


def _clip_facts(names: pa.ChunkedArray, values: Mapping[str, pa.Array]) -> pa.Table:
    """Rows of _CLIP_FACTS; a column without values is zero, or null if it says why."""
    columns = [as_column(ids_of(names))]
    for field in list(_CLIP_FACTS)[1:]:
        empty: int | str | None = "" if field.name == "kind" else 0
        empty = None if field.name in ("code", "detail") else empty
        # what a kind of row does not have
        missing = pa.repeat(pa.scalar(empty, field.type), len(names))
        columns.append(values.get(field.name, missing))
    return pa.table(columns, schema=_CLIP_FACTS)


def _one(column: pa.ChunkedArray) -> pa.Array:
    """The only chunk of a column read from one table."""
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _fractions(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """A column of fractions as [rows, 2]."""
    return np.asarray(pc.list_flatten(column), np.int64).reshape(-1, 2)


def read_samples(
    pool: Pool,
    name: str,
    receipts: Sequence[Receipt],
    lengths: Sequence[Receipt],
    codec: TextCodec,
    clips: Clips,
) -> Samples:
    """The samples that `receipts` admitted, counted by those of `lengths` that are of them."""
    tables = {table for receipt in receipts for table in receipt.outputs["index/samples"]}
    counted = [receipt for receipt in lengths if tables & set(receipt.inputs)]
    parameters = {"of": "samples", "source": name, "text_profile": codec.profile_id}
    inputs = [receipt.work_id for receipt in (*receipts, *counted)] + [clips.facts_id]
    _, sample_columns = _remembered(
        pool,
        parameters,
        inputs,
        lambda: _sample_tables(pool, name, receipts, counted, codec, clips),
    )
    # columns as plain arrays: filtering and costing never touch a Python object per sample
    table = sample_columns["facts/samples"].combine_chunks()
    used = _one(table["clips"])
    # a licence is a small number into one list, whatever parts it came from
    licences = table["licence"].unify_dictionaries()
    return Samples(
        name=name,
        key=ids_of(table["key"]),
        turns=ids_of(table["turns"]),
        tokens=table["tokens"].to_numpy(),
        num_turns=table["num_turns"].to_numpy(),
        licence=np.asarray(_one(licences).indices, np.int32),
        licences=_one(licences).dictionary.to_pylist(),
        clips=np.asarray(used.values, np.int32),
        ends=np.asarray(used.offsets, np.int64),
    )


def _sample_tables(
    pool: Pool,
    name: str,
    receipts: Sequence[Receipt],
    counted: Sequence[Receipt],
    codec: TextCodec,
    clips: Clips,
) -> dict[str, pa.Table]:
    rows = admitted_rows(pool, receipts, "turns_digest num_turns licence clip_ids")
    keys = ids_of(rows["key"])
    # all clip ids in one flat array, found in the sorted clips by binary search
    used = _one(rows["clip_ids"])
    ids = ids_of(used.values)
    at = find(clips.ids, ids)
    if (at < 0).any():
        missing = np.unique(np.asarray(as_column(ids[at < 0])))
        raise UserError(
            f"{pool.store.url}: {len(missing)} clips of {name!r} are not decoded (first "
            f"{missing[0].hex()}); {REMEDY}"
        )
    columns = {
        "key": as_column(keys),
        "turns": as_column(ids_of(rows["turns_digest"])),
        "tokens": pa.array(_text_tokens(pool, name, counted, codec, keys), pa.uint32()),
        "num_turns": rows["num_turns"],
        "licence": rows["licence"].dictionary_encode(),
        "clips": pa.ListArray.from_arrays(used.offsets, pa.array(at, pa.int32())),
    }
    return {"facts/samples": pa.table(columns, schema=_SAMPLE_FACTS)}


def _text_tokens(
    pool: Pool, name: str, counted: Sequence[Receipt], codec: TextCodec, keys: Ids
) -> NDArray[np.int64]:
    columns = _part(LENGTHS, "key tokens")
    folder = f"lengths/{codec.profile_id}"
    own = [one for one in counted if one.parameters["text_profile"] == codec.profile_id]
    table = pa.concat_tables(_columns(pool, own, folder, columns)).combine_chunks()
    turns = _one(table["tokens"])
    # tokens of a conversation: sums over its turns
    sums = segment_sums(np.asarray(turns.values), np.asarray(turns.offsets, np.int64))
    counted_keys = ids_of(table["key"])
    # join by key: sort the counted keys once, then look up all samples
    order = sorting(counted_keys)
    at = find(counted_keys[order], keys)
    if (at < 0).any():
        raise UserError(
            f"{pool.store.url}: sample {keys[at < 0][0].tobytes().hex()} of {name!r} is not "
            f"counted under text profile {codec.profile_id}; {REMEDY}"
        )
    found: NDArray[np.int64] = sums[order][at]
    return found


def admitted_rows(
    pool: Pool, receipts: Sequence[Receipt], columns: str, only: Ids | None = None
) -> pa.Table:
    """The key and these columns of the admitted samples, sorted by (key, record).

    `only` are the sorted keys of those that are wanted.
    """
    wanted = _part(SAMPLES, f"key {columns}")
    table = pa.concat_tables(_columns(pool, receipts, "index/samples", wanted)).combine_chunks()
    keys = ids_of(table["key"])
    # only the wanted rows are kept before anything is sorted
    if only is not None:
        table = table.filter(pa.array(find(only, keys) >= 0)).combine_chunks()
        keys = ids_of(table["key"])
    order = sorting(keys)
    # equal keys need their record to be told apart, which most reads do without
    if (keys[order][1:] == keys[order][:-1]).any() and "record" not in columns.split():
        return admitted_rows(pool, receipts, f"{columns} record", only).drop_columns(["record"])
    if (keys[order][1:] == keys[order][:-1]).any():
        return table.sort_by([("key", "ascending"), ("record", "ascending")]).combine_chunks()
    return table.take(order).combine_chunks()


def rows_at(
    pool: Pool,
    receipts: Sequence[Receipt],
    samples: Samples,
    indices: NDArray[np.int64],
    columns: str,
) -> pa.Table:
    """The key and these columns of the samples at some indices, reading the others in passing."""
    keys = np.ascontiguousarray(samples.key)
    # read by key, then put back into the order of the indices
    wanted = np.unique(keys[indices])
    wanted = wanted[sorting(wanted)]
    table = admitted_rows(pool, receipts, columns, wanted)
    at = find(ids_of(table["key"]), keys[indices])
    return table.take(at + indices - find(keys, keys[indices]))  # of equal keys, the same one


def passing(
    pool: Pool, receipts: Sequence[Receipt], samples: Samples, clips: Clips, rule: Filter
) -> NDArray[np.bool_]:
    """Which samples pass a filter."""
    if not rule.of_clips:
        return rule.holds(admitted_rows(pool, receipts, rule.column)[rule.column])
    wanted = _part(CLIPS, " ".join(dict.fromkeys(("clip_id", rule.column))))
    table = pa.concat_tables(_columns(pool, pool.receipts("decode"), "index/clips", wanted))
    # a sample passes unless it has a clip that does not; a clip that is not there does not
    passes = np.zeros(len(clips.ids), bool)
    passes[find(clips.ids, ids_of(table["clip_id"]))] = rule.holds(table[rule.column])
    return ~samples.per_sample(~passes)
