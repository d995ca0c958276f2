"""Filters: quality, licence, exact and near deduplication, decontamination; one decision a sample.

Media duplicates alone never remove a sample. A sample is a duplicate when each of its clips, in
order, is of the same cluster as another's and the normalised turns are equal; the survivor is the
one that stands first by (source order in the recipe, key, record) of those not refused otherwise.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mixtures.pool.clusters import Comparison, Leak
from mixtures.pool.columns import Clips, Samples
from mixtures.recipe.filters import Filter
from mixtures.recipe.types import PackRule
from shards.id_arrays import find, halves, ids_of, sorting
from shards.outcome import CODES

_MARK_BITS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusals:
    """Samples of one source, by index, that are refused with one code, and why each."""

    indices: NDArray[np.int64]
    stage: str
    code: str
    details: list[str]


class FilterDecisions:
    """Of one source: which samples stay, and why the others do not."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        self.stays = np.ones(len(samples.key), bool)
        self.refusals: list[Refusals] = []

    def staying(self, where: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Places of those of the samples `where` that still stay."""
        return np.flatnonzero(where & self.stays)

    def refuse(
        self, indices: NDArray[np.int64], code: str, details: list[str], stage: str = "plan"
    ) -> None:
        """Refuse samples that still stay, each with its detail."""
        if code not in CODES:
            raise AssertionError(f"unknown refusal {code}")
        if len(indices):
            self.refusals.append(Refusals(indices=indices, stage=stage, code=code, details=details))
            self.stays[indices] = False

    def counts(self) -> dict[str, int]:
        """Refused samples by code, those of the plan only."""
        found: dict[str, int] = {}
        for each in self.refusals:
            if each.stage == "plan":
                found[each.code] = found.get(each.code, 0) + len(each.indices)
        return found

    @property
    def indices(self) -> NDArray[np.int64]:
        """Places of the refused samples, ascending."""
        return np.flatnonzero(~self.stays)

    @property
    def broken(self) -> int:
        """Samples that are refused for their media."""
        return sum(len(each.indices) for each in self.refusals if each.stage == "decode")


def refuse_broken(decisions: FilterDecisions, clips: Clips) -> None:
    """Samples with a refused clip, each with the code of its first one."""
    samples = decisions.samples
    by_code = defaultdict[str, list[tuple[int, str]]](list)
    for index in decisions.staying(samples.per_sample(clips.kind == 0)).tolist():
        # one code a sample: that of the first clip which is broken
        first = next(clip for clip in _clips_of(samples, index) if clip in clips.why)
        code, detail = clips.why[first]
        # one entry in the books for each code
        by_code[code].append((index, detail))
    for code, broken in sorted(by_code.items()):
        indices, details = zip(*broken, strict=True)
        decisions.refuse(np.array(indices, np.int64), code, list(details), "decode")


def refuse_licences(decisions: FilterDecisions, allowed: Sequence[str] | None) -> None:
    """Samples under a licence that is not on the recipe's list, if there is one."""
    samples = decisions.samples
    if allowed is None or not samples.licences:
        return
    # few licences, many samples: decide once for each licence
    fits = np.array([licence in allowed for licence in samples.licences])
    details = [f"the licence is {licence}" for licence in samples.licences]
    indices = decisions.staying(~fits[samples.licence])
    own = [details[i] for i in samples.licence[indices].tolist()]
    decisions.refuse(indices, "LICENCE_REFUSED", own)


def refuse_filtered(decisions: FilterDecisions, rule: Filter, passes: NDArray[np.bool_]) -> None:
    """Samples that do not pass a filter."""
    indices = decisions.staying(~passes)
    detail = f"the recipe wants {rule.column} {rule.wanted()}"
    decisions.refuse(indices, "FILTER_REFUSED", [detail] * len(indices))


def refuse_leaks(decisions: FilterDecisions, clips: Clips, comparison: Comparison) -> None:
    """Samples with a clip in the cluster of a clip that matches held-out media."""
    samples = decisions.samples
    indices = decisions.staying(samples.per_sample(comparison.leaked))
    details = []
    for index in indices.tolist():
        clip, leaks = next(leaks_of(samples, index, comparison))
        name = clips.ids[clip].tobytes().hex()
        doubt = "" if leaks[0].judged == "same" else ", or it is too small to tell"
        details.append(f"clip {name} matches {leaks[0].held_out} of {leaks[0].benchmark}{doubt}")
    decisions.refuse(indices, "LEAK_MEDIA", details)


def leaks_of(
    samples: Samples, index: int, comparison: Comparison
) -> Iterator[tuple[int, list[Leak]]]:
    """(clip, its cluster's leaks) of each clip of a sample that has any."""
    for clip in _clips_of(samples, index):
        if leaks := comparison.leaks.get(int(comparison.cluster[clip])):
            yield clip, leaks


def refuse_leaked_texts(decisions: FilterDecisions, leaked: pa.Table) -> None:
    """Samples that share a 12-gram with a held-out question; a shorter question proves nothing."""
    long = leaked.filter(pc.greater(leaked["shared"], 0)).sort_by(
        [("key", "ascending"), ("benchmark", "ascending")]
    )
    # of several benchmarks the first by name is told
    keys = ids_of(long["key"])
    at = find(keys, np.ascontiguousarray(decisions.samples.key))
    indices = decisions.staying(at >= 0)
    rows = long.take(pa.array(at[indices])).to_pylist()
    details = [f"asks {row['held_out']} of {row['benchmark']}" for row in rows]
    decisions.refuse(indices, "LEAK_TEXT", details)


def refuse_long(decisions: FilterDecisions, rows: NDArray[np.void], budget: PackRule) -> None:
    """Samples (their rows of ROW beside) that outgrow one pack."""
    for what, most in (("tokens", budget.tokens), ("patches", budget.patches)):
        indices = decisions.staying(rows[what] > most)
        sizes = rows[what][indices].tolist()
        details = [f"{size} {what}, a pack holds {most}" for size in sizes]
        decisions.refuse(indices, "SAMPLE_TOO_LONG", details)


def refuse_duplicates(all_decisions: Sequence[FilterDecisions], comparison: Comparison) -> None:
    """Of samples with equal turns over equal clusters, all but the first of the recipe."""
    # 64 of the 128 bits of a digest find what may be equal; only that is looked at whole
    heads = [halves(source.samples.turns)[0] for source in all_decisions]
    staying = [head[source.stays] for head, source in zip(heads, all_decisions, strict=True)]
    # heads that occur twice or more, over all sources
    every = np.sort(np.concatenate(staying))
    twice = np.unique(every[1:][every[1:] == every[:-1]])
    first: dict[tuple[bytes, bytes], str] = {}
    for decisions, head in zip(all_decisions, heads, strict=True):
        samples = decisions.samples
        indices = []
        details = []
        for index in decisions.staying(_among(head, twice)).tolist():
            # equal turns over clips of equal clusters, in order; the first of them survives
            clusters = comparison.cluster[_clips_of(samples, index)].tobytes()
            name = f"{samples.key[index].tobytes().hex()} of {samples.name}"
            # sources come in the order of the recipe, samples in that of their keys
            survivor = first.setdefault((samples.turns[index].tobytes(), clusters), name)
            if survivor is not name:
                indices.append(index)
                details.append(f"the same as {survivor}")
        decisions.refuse(np.array(indices, np.int64), "DUPLICATE_SAMPLE", details)


def refuse_near_duplicates(
    all_decisions: Sequence[FilterDecisions], comparison: Comparison, pairs: pa.Table
) -> None:
    """Samples over the clusters of an earlier one that stays and whose text a pair connects."""
    ends = [ids_of(pairs[name]) for name in ("text_a", "text_b")]
    # the graph of texts that are nearly alike, both ways
    paired_with: dict[bytes, set[bytes]] = defaultdict(set)
    for one, other in zip(*(each.tolist() for each in ends), strict=True):
        paired_with[one].add(other)
        paired_with[other].add(one)
    paired = np.concatenate(ends)
    paired = paired[sorting(paired)]
    kept: dict[bytes, dict[bytes, tuple[int, str]]] = defaultdict(dict)
    for decisions in all_decisions:
        samples = decisions.samples
        indices = []
        details = []
        turns = np.ascontiguousarray(samples.turns)
        for index in decisions.staying(find(paired, turns) >= 0).tolist():
            text = turns[index].tobytes()
            # greedy: a sample stays unless it nearly repeats one over the same clips that stays
            mates = kept[comparison.cluster[_clips_of(samples, index)].tobytes()]
            near_duplicates = paired_with[text] & mates.keys()
            if near_duplicates:
                indices.append(index)
                _, earliest = min(mates[other] for other in near_duplicates)
                details.append(f"nearly the same as {earliest}")
            else:
                name = f"{samples.key[index].tobytes().hex()} of {samples.name}"
                mates[text] = (len(mates), name)
        decisions.refuse(np.array(indices, np.int64), "DUPLICATE_NEAR", details)


def _among(heads: NDArray[np.uint64], few: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which of many evenly spread numbers are among a few; their upper bits tell most apart."""
    shift = np.uint64(64 - _MARK_BITS)
    # a Bloom filter of one hash function: most of the many are passed over by one look-up
    marked = np.zeros(1 << _MARK_BITS, bool)
    marked[few >> shift] = True
    found: NDArray[np.bool_] = marked[heads >> shift]
    found[found] = np.isin(heads[found], few)
    return found


def _clips_of(samples: Samples, index: int) -> list[int]:
    clips: list[int] = samples.clips[samples.ends[index] : samples.ends[index + 1]].tolist()
    return clips
