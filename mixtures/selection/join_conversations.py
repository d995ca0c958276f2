"""Conversations over the same clips become one sample, so that the clips are encoded once.

Of one source, conversations over equal clips in equal order and under one licence follow each other
in the order of their keys. What outgrows the bounds starts another sample; nothing is refused. A
conversation without clips, or one that opens with a system turn, stays alone.

A sample is ranked by what joins it, its clips and licence, and by which part of them it is: so it
keeps its place in the order when one of its conversations goes.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from mixtures.manifest.npy_tables import MEMBER
from mixtures.order.permutation import key_of, splitmix
from mixtures.pool.columns import Samples
from mixtures.recipe.types import JoinRule
from mixtures.versions import JOIN_ALGO
from shards.id_arrays import Ids, halves, sorting

_BETWEEN = b'","'
_SPELLED = 32 + len(_BETWEEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """Of one source: `rows` of ROW, what each is ranked by, and `members`, rows of MEMBER.

    Both tables are sorted by key. A conversation that stays alone keeps its key and has no MEMBER.
    """

    rows: NDArray[np.void]
    joined_by: Ids
    members: NDArray[np.void]


def join_by_clip(
    samples: Samples,
    indices: NDArray[np.int64],
    rows: NDArray[np.void],
    rule: JoinRule,
    clip_ids: Ids,
) -> Joined:
    """The samples at `indices`, whose rows are `rows`, joined as far as the rule's bounds allow.

    `clip_ids` are those of all clips, which samples name by index.
    """
    # sort what may be joined side by side, cut it by the bounds, then sum each run up
    order, fresh = _side_by_side(samples, indices)
    text = samples.tokens[indices][order].astype(np.int64)
    shown = rows["tokens"][order] - text
    turns = samples.num_turns[indices][order]
    first = np.flatnonzero(_begins(fresh, turns, text, shown, rule))
    sizes = np.diff(np.append(first, len(order)))
    # a run's clips cost once, as they do in its first conversation; its texts all count
    joined_rows = rows[order[first]]
    joined_rows["tokens"] = shown[first] + np.add.reduceat(text, first) if len(first) else 0
    keys = np.ascontiguousarray(rows["key"])[order]
    joined_rows["key"] = _keys(keys, first, sizes)
    by_key = sorting(np.ascontiguousarray(joined_rows["key"]))
    # a conversation that stays alone is its own sample, and no member of another
    many = by_key[sizes[by_key] > 1]
    lengths = sizes[many]
    members = np.empty(int(lengths.sum()), MEMBER)
    members["key"] = np.repeat(joined_rows["key"][many], lengths)
    # runs stand in the order of their samples' keys: member i of a run lies i behind its first
    before = np.cumsum(lengths) - lengths
    members["member"] = keys[np.repeat(first[many] - before, lengths) + np.arange(len(members))]
    return Joined(
        rows=joined_rows[by_key],
        joined_by=_joined_by(samples, indices[order], fresh, first, clip_ids)[by_key],
        members=members,
    )


def _stays_alone(samples: Samples, indices: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Without clips, or with an odd number of turns: it opens with a system turn."""
    counts = np.diff(samples.ends)[indices]
    turns = samples.num_turns[indices]
    alone: NDArray[np.bool_] = (counts == 0) | (turns % 2 == 1)
    return alone


def _side_by_side(
    samples: Samples, indices: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Indices into `indices` that put what may be joined together, and where each group begins."""
    counts = np.diff(samples.ends)[indices]
    alone = _stays_alone(samples, indices)
    order = [np.flatnonzero(alone)]
    fresh = [np.ones(len(order[0]), bool)]
    # by number of clips, so that equally many columns are compared
    for count in np.unique(counts[~alone]).tolist():
        same_count = np.flatnonzero(~alone & (counts == count))
        starts = samples.ends[indices[same_count]]
        columns = [samples.clips[starts + i] for i in range(count)]
        columns.append(samples.licence[indices[same_count]])
        # equal clips and licences stand together
        sorted_own = np.lexsort(columns)  # stable: equal ones stay in the order of their keys
        differs = [column[sorted_own][1:] != column[sorted_own][:-1] for column in columns]
        order.append(same_count[sorted_own])
        fresh.append(np.concatenate([[True], np.any(differs, axis=0)]))
    return np.concatenate(order), np.concatenate(fresh)


def _joined_by(
    samples: Samples,
    indices: NDArray[np.int64],
    fresh: NDArray[np.bool_],
    first: NDArray[np.int64],
    clip_ids: Ids,
) -> Ids:
    """Of each run of conversations, from `first` on: 8 bytes of what joins it, 8 of its part.

    What stays alone by rule has its key.
    """
    group = np.cumsum(fresh)[first]
    begins = np.ones(len(group), bool)
    begins[1:] = group[1:] != group[:-1]
    starts = np.flatnonzero(begins)
    # the number of a run in its group: its place less that of the group's first
    part = np.arange(len(group)) - np.repeat(starts, np.diff(np.append(starts, len(group))))
    first_indices = indices[first]
    # big-endian, so that the two halves are read back as they are ranked
    both = np.stack([_grouped_by(samples, first_indices, clip_ids), part.astype(np.uint64)], 1)
    joined_by: Ids = both.astype(">u8").view("V16")[:, 0]
    alone = _stays_alone(samples, first_indices)
    joined_by[alone] = samples.key[first_indices[alone]]
    return joined_by


def _grouped_by(samples: Samples, indices: NDArray[np.int64], clip_ids: Ids) -> NDArray[np.uint64]:
    """A hash of the clips, in order, and the licence of each sample."""
    # chained hashing: licence first, then each clip's two halves
    licences = np.array([key_of(name) for name in samples.licences] or [0], np.uint64)
    hashes = splitmix(licences[samples.licence[indices]])
    starts = samples.ends[indices]
    counts = np.diff(samples.ends)[indices]
    for i in range(int(counts.max(initial=0))):
        longer = np.flatnonzero(counts > i)
        clip_first, clip_last = halves(clip_ids[samples.clips[starts[longer] + i]])
        hashes[longer] = splitmix(splitmix(hashes[longer] ^ clip_first) ^ clip_last)
    return hashes


def _begins(
    fresh: NDArray[np.bool_],
    turn_counts: NDArray[np.integer],
    text: NDArray[np.int64],
    clips: NDArray[np.int64],
    rule: JoinRule,
) -> NDArray[np.bool_]:
    """Which conversations begin a sample: the first of a group, and whatever no longer fits."""
    starts = np.flatnonzero(fresh)
    # most groups fit whole: only the others are walked through one by one
    sums = (np.add.reduceat(column.astype(np.int64), starts) for column in (turn_counts, text))
    bounds = (rule.max_turns, rule.max_tokens - clips[starts])
    outgrown = np.any([found > most for found, most in zip(sums, bounds, strict=True)], axis=0)
    some = np.flatnonzero(np.repeat(outgrown, np.diff(np.append(starts, len(fresh)))))
    columns = (column[some].tolist() for column in (fresh, turn_counts, text, clips))
    begun = []
    turns_left = 0
    tokens_left = 0
    for begin, own_turns, own_text, of_clips in zip(*columns, strict=True):
        # first fit in order: what no longer fits begins the next sample
        begin = begin or own_turns > turns_left or own_text > tokens_left
        if begin:
            turns_left = rule.max_turns
            tokens_left = rule.max_tokens - of_clips
        turns_left -= own_turns
        tokens_left -= own_text
        begun.append(begin)
    begins = fresh.copy()
    begins[some] = begun
    return begins


def _keys(
    keys: NDArray[np.void], first: NDArray[np.int64], sizes: NDArray[np.int64]
) -> NDArray[np.void]:
    """The key of each run of conversations: its own if it is one, else H of theirs in order."""
    run_keys: NDArray[np.void] = keys[first]
    many = np.flatnonzero(sizes > 1)
    # H hashes canonical JSON; all keys are spelled at once, as 32 hex digits and what parts two
    spelled = np.empty((len(keys), _SPELLED), "S1")
    digits = binascii.hexlify(np.ascontiguousarray(keys).tobytes())
    spelled[:, :32] = np.frombuffer(digits, "S1").reshape(-1, 32)
    spelled[:, 32:] = np.frombuffer(_BETWEEN, "S1")
    text = spelled.view(np.uint8).reshape(-1).data
    starts = first[many] * _SPELLED
    stops = starts + sizes[many] * _SPELLED - len(_BETWEEN)
    head, tail = f'["{JOIN_ALGO}",["'.encode(), b'"]]'
    digests = b"".join(
        sha256(b"".join((head, text[start:stop], tail))).digest()[:16]
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)
    )
    run_keys[many] = np.frombuffer(digests, "V16")
    return run_keys
