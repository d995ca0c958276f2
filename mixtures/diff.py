"""What two manifests share and where they part; which samples a rank sees at a step."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixtures.manifest.contents import SourceContents
from mixtures.manifest.draws import Draws, SampleReference
from mixtures.manifest.manifest import Manifest
from mixtures.manifest.sampler import BatchSampler
from mixtures.pool.clip_views import clip_views
from mixtures.pool.columns import admitted_rows, read_clips
from shards.errors import UserError
from shards.id_arrays import Ids, find, hex_of, ids_of
from shards.pool import Pool

_RULES = (
    "seed",
    "recipe",
    "length",
    "schedule",
    "permutation",
    "batch",
    "pack",
    "join",
    "canonical",
    "frames",
    "layout",
    "text",
    "profile",
)
_FOLLOWS = "schedule.table"
"""What follows from the other rules, and would say nothing to people."""
_CHUNK = 1 << 16
MOST = 1 << 16
"""Ranks, and packs of a step, that are explained."""
GONE = 100
"""Keys of a source that `diff` names at most."""


def diff(a: Manifest, b: Manifest) -> dict[str, Any]:
    """Rules that differ, each source's ratio and kept sets, and where the draw orders part.

    `in_order` of a source counts, of the samples in both, those that follow each other in the same
    order within an epoch. `reused` counts the positions of b (inside its length) that show a sample
    which a shows as often.
    """
    # sources are matched by name, wherever they stand in the two recipes
    ours, theirs = ({name: i for i, name in enumerate(m.names)} for m in (a, b))
    sources = {n: _source(a, b, ours.get(n), theirs.get(n)) for n in ours | theirs}
    return {
        "a": a.manifest_id,
        "b": b.manifest_id,
        "identical": a.manifest_id == b.manifest_id,
        "rules": _rules(a, b),
        "sources": sources,
        "length": [a.length, b.length],
        "reused": sum(one["reused"] for one in sources.values()),
        "same_positions": same_positions(a, b),
    }


def _rules(a: Manifest, b: Manifest) -> dict[str, list[Any]]:
    """`section.key` -> the two values, for every rule that differs."""
    differing = {}
    # compared as JSON: every key of a rule is one line of the answer
    sides = [m.contents.to_json() for m in (a, b)]
    for name in _RULES:
        ours, theirs = (value.get(name, {}) for value in sides)
        if not isinstance(ours, dict):
            ours = {"": ours}
            theirs = {"": theirs}
        for key in sorted(ours | theirs):
            pair = [ours.get(key), theirs.get(key)]
            rule = f"{name}.{key}".rstrip(".")
            if pair[0] != pair[1] and rule != _FOLLOWS:
                differing[rule] = pair
    return differing


def _source(a: Manifest, b: Manifest, i: int | None, j: int | None) -> dict[str, Any]:
    sides = [(a, i), (b, j)]
    ours, theirs = (_shown(*side) for side in sides)
    # keys are sorted: the rows of one found in the other, -1 where it has none
    at = find(ours.keys, theirs.keys)
    both = at >= 0
    return {
        "asked": [None if at is None else m.contents.sources[at].asked for m, at in sides],
        "share": [_share(m, at, "samples") for m, at in sides],
        "token_share": [_share(m, at, "tokens") for m, at in sides],
        "kept": [0 if at is None else len(m.tables[at]) for m, at in sides],
        "conversations": [_conversations(*side) for side in sides],
        "in_both": int(both.sum()),
        "gone": _gone(ours.keys, theirs.keys),
        "in_order": in_order(ours.turn[at[both]], theirs.turn[both]),
        "drawn": [int(ours.drawn.sum()), int(theirs.drawn.sum())],
        "reused": int(np.minimum(ours.drawn[at[both]], theirs.drawn[both]).sum()),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """Of the keys of a source: how often each is drawn inside the length, its turn in epoch 0."""

    keys: Ids
    drawn: NDArray[np.int64]
    turn: NDArray[np.int64]


def _shown(manifest: Manifest, i: int | None) -> _Shown:
    if i is None:
        none = np.empty(0, np.int64)
        return _Shown(keys=np.empty(0, "V16"), drawn=none, turn=none)
    keys = np.ascontiguousarray(manifest.tables[i]["key"])
    rows = len(keys)
    visits = int(manifest.schedule.visits(manifest.length)[i])
    drawn = np.full(rows, visits // rows)
    turn = np.empty(rows, np.int64)
    # the epoch that the length ends in shows some samples once more
    drawn[manifest.epochs.drawn(i, np.arange(visits // rows * rows, visits))[0]] += 1
    turn[manifest.epochs.drawn(i, np.arange(rows))[0]] = np.arange(rows)
    # where a recipe keeps duplicates, the copies of a sample are one key
    # the first of equal keys stands for them; what they draw is summed up
    first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    return _Shown(keys=keys[first], drawn=np.add.reduceat(drawn, first), turn=turn[first])


def in_order(ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> int:
    """The longest run, not necessarily side by side, that two orders of some samples share."""
    # the longest increasing subsequence by patience sorting (Schensted 1961), O(n log n)
    turns = theirs[np.argsort(ours)]
    if (turns[1:] > turns[:-1]).all():
        return len(turns)
    ends: list[int] = []  # the least last turn of the runs of each length
    for turn in turns.tolist():
        # a turn takes the place of the least end that is not below it: runs get longer or end lower
        at = bisect_left(ends, turn)
        ends[at : at + 1] = [turn]
    return len(ends)


def _gone(ours: Ids, theirs: Ids) -> list[str]:
    """The keys of the first samples, at most GONE, that only the first manifest keeps."""
    lost = ours[find(theirs, ours) < 0]
    return [key.tobytes().hex() for key in lost[:GONE]]


def _conversations(manifest: Manifest, i: int | None) -> int:
    """What is kept of a source before any of it is joined."""
    if i is None:
        return 0
    kept = manifest.contents.sources[i].kept
    return kept.samples if kept.conversations is None else kept.conversations


def _share(manifest: Manifest, i: int | None, what: str) -> str:
    """The share of a source in all that is drawn, as a fraction."""
    if i is None:
        return "0/1"
    drawn, total = (
        getattr(each, what)
        for each in (manifest.contents.sources[i].drawn, manifest.contents.totals)
    )
    share = Fraction(drawn, max(total, 1))
    return f"{share.numerator}/{share.denominator}"


def same_positions(a: Manifest, b: Manifest) -> int:
    """How many positions from the start on hold the same sample in both, at most a length."""
    ours = Draws(a)
    theirs = Draws(b)
    shorter = min(a.length, b.length)
    # chunk by chunk: most mixtures part early
    for start in range(0, shorter, _CHUNK):
        stop = min(start + _CHUNK, shorter)
        # raw keys are compared as bytes, a chunk at once
        left, right = (np.frombuffer(o.keys(start, stop), "V16") for o in (ours, theirs))
        differing = np.flatnonzero(left != right)
        if len(differing):
            return start + int(differing[0])
    return shorter


def check_place(step: int, rank: int, world_size: int, global_batch: int) -> None:
    """Raise UserError unless there can be such a rank and step."""
    if step < 0 or not 0 <= rank < world_size <= MOST or not 1 <= global_batch <= MOST:
        raise UserError(
            f"step {step}, rank {rank} of {world_size}, global batch {global_batch}: give "
            f"--step >= 0, 0 <= --rank < --world-size <= {MOST} and --global-batch from 1 to {MOST}"
        )


def explain(
    manifest: Manifest,
    step: int,
    rank: int,
    world_size: int,
    global_batch: int,
    pool: Pool | None = None,
    order: BatchSampler | None = None,
) -> list[list[dict[str, Any]]]:
    """The packs of a rank at a step, each a list of samples: where drawn, at what cost, what of.

    With the pool, each names its record, its own licence and its clips; else those of its source.
    A joined sample names the records of its conversations in order. `clips` are shown, `named` are
    those of its record: others where near copies are shown as one. `views` say of each of `clips`
    how its frames stand on the model's grid. `order` is the manifest's where it has been counted
    that far already.
    """
    check_place(step, rank, world_size, global_batch)
    order = order or BatchSampler(manifest, global_batch)
    if not order.has_step(step):
        raise UserError(f"step {step}: the order ends before it; give an earlier --step")
    # which packs, then what is in them, then what pool or manifest know of each
    numbers = order.packs_by_rank(step, world_size)[rank]
    packs = list(zip(numbers, order.packs(numbers), strict=True))
    known = _origins(manifest, pool, [drawn for _, pack in packs for drawn in pack])
    return [
        [
            {"pack": number}
            | {name: getattr(drawn, name) for name in drawn.__slots__}
            | known[drawn.source, drawn.key]
            for drawn in pack
        ]
        for number, pack in packs
    ]


def _origins(
    manifest: Manifest, pool: Pool | None, drawn: Sequence[SampleReference]
) -> dict[tuple[str, str], dict[str, Any]]:
    """Licence, origin, record and clips of drawn samples, and how their frames are shown."""
    origins = {}
    sizes = None if pool is None or not drawn else read_clips(pool)
    # by source, because a pool is read source by source
    by_source: dict[str, list[str]] = defaultdict(list)
    for sample in drawn:
        by_source[sample.source].append(sample.key)
    for source in manifest.contents.sources:
        members = {key: manifest.members_of(source.name, key) for key in by_source[source.name]}
        known = _known(pool, source, sorted({key for keys in members.values() for key in keys}))
        for key, conversations in members.items():
            first = known[conversations[0]]
            clips = list(manifest.shown(first.clip_ids))
            views = clip_views(sizes, clips, manifest.view, manifest.layout) if sizes else []
            origins[source.name, key] = {
                "licence": first.licence,
                "origin": f"{first.dataset}@{first.revision}",
                "record": " + ".join(known[each].record for each in conversations),
                "clips": clips,
                "views": [view.to_json() for view in views],
                "named": first.clip_ids,
                "conversations": conversations,
            }
    return origins


@dataclass(frozen=True, slots=True, kw_only=True)
class _Conversation:
    """Where a conversation comes from, under which licence, and the clips that it names."""

    dataset: str
    revision: str
    licence: str
    record: str = ""
    clip_ids: list[str] = field(default_factory=list)


def _known(
    pool: Pool | None, about: SourceContents, keys: Sequence[str]
) -> dict[str, _Conversation]:
    """What the pool, or else the manifest's entry of their source, says of conversations."""
    if pool is not None and keys:
        return dict(zip(keys, _conversations_of(pool, about, keys), strict=True))
    unknown = _Conversation(dataset=about.dataset, revision=about.revision, licence=about.licence)
    return dict.fromkeys(keys, unknown)


def _conversations_of(
    pool: Pool, about: SourceContents, keys: Sequence[str]
) -> list[_Conversation]:
    # the pool may hold the source at other revisions and under other licences too
    receipts = pool.admitted({about.name: about.provenance})
    wanted = np.frombuffer(bytes.fromhex("".join(keys)), "V16")
    # of the whole index only these columns, and only the rows of these keys
    columns = "licence record clip_ids dataset revision"
    rows = admitted_rows(pool, receipts, columns, wanted)
    at = find(ids_of(rows["key"]), wanted)
    if (at < 0).any():
        raise UserError(
            f"{pool.store.url}: holds no sample {hex_of(wanted[at < 0])[0]} of {about.name!r}; "
            "give --pool the pool that the manifest was planned over"
        )
    return [_Conversation(**row) for row in rows.drop_columns(["key"]).take(at).to_pylist()]
