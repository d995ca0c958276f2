"""Who stays: facts of the pool and rules of the recipe become one verdict per sample.

Media duplicates alone never remove a sample. A sample is a duplicate when each of its clips, in
order, is of the same cluster as another's and the normalised turns are equal; the survivor is the
one that stands first by (source order in the recipe, key, record) of those not refused otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from mixtures.candidates import Account, Candidate, Facts
from shards.outcome import Books, Refused


def components(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Clip -> the least clip id of its connected component; clips without a pair are not there."""
    parent: dict[str, str] = {}

    def root(clip: str) -> str:
        while parent.setdefault(clip, clip) != clip:
            parent[clip] = clip = parent[parent[clip]]
        return clip

    for one, other in pairs:
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    return {clip: root(clip) for clip in list(parent)}


def judge(
    facts: Facts,
    allow_licences: Sequence[str] | None,
    too_long: Callable[[Candidate], str],
) -> list[Refused | None]:
    """One verdict per candidate, None for those that stay; candidates come in survivor order.

    `too_long` says why a sample with decoded clips does not fit a pack, or nothing.
    """
    cluster = components(facts.pairs)
    leaked = _leaked_clusters(facts.leaks, cluster)
    first: dict[tuple[tuple[str, ...], str], Candidate] = {}
    verdicts: list[Refused | None] = []
    for one in facts.candidates:
        clusters = tuple(cluster.get(clip, clip) for clip in one.clip_ids)
        verdict = (
            _broken(one, facts.broken)
            or _licence(one, allow_licences)
            or _leak(one, clusters, leaked)
            or _length(one, too_long)
        )
        if verdict is None:
            survivor = first.setdefault((clusters, one.turns_digest), one)
            verdict = None if survivor is one else _duplicate(one, survivor)
        verdicts.append(verdict)
    return verdicts


def _leaked_clusters(
    leaks: Mapping[str, tuple[str, str]], cluster: Mapping[str, str]
) -> dict[str, tuple[str, str]]:
    leaked: dict[str, tuple[str, str]] = {}
    for clip, place in leaks.items():
        name = cluster.get(clip, clip)
        leaked[name] = min(leaked.get(name, place), place)
    return leaked


def _refusal(one: Candidate, code: str, detail: str) -> Refused:
    return Refused(
        source=one.name,
        record=one.record,
        key=one.key,
        stage="plan",
        code=code,
        detail=detail,
        origin=one.origin,
    )


def _broken(one: Candidate, broken: Mapping[str, tuple[str, str]]) -> Refused | None:
    for clip in one.clip_ids:
        if clip in broken:
            return replace(_refusal(one, *broken[clip]), stage="decode")
    return None


def _licence(one: Candidate, allowed: Sequence[str] | None) -> Refused | None:
    if allowed is None or one.licence in allowed:
        return None
    return _refusal(one, "LICENCE_REFUSED", f"the licence is {one.licence}")


def _leak(
    one: Candidate, clusters: Sequence[str], leaked: Mapping[str, tuple[str, str]]
) -> Refused | None:
    for clip, name in zip(one.clip_ids, clusters, strict=True):
        if name in leaked:
            benchmark, held_out = leaked[name]
            return _refusal(one, "LEAK_MEDIA", f"clip {clip} matches {held_out} of {benchmark}")
    return None


def _length(one: Candidate, too_long: Callable[[Candidate], str]) -> Refused | None:
    problem = too_long(one)
    return _refusal(one, "SAMPLE_TOO_LONG", problem) if problem else None


def _duplicate(one: Candidate, survivor: Candidate) -> Refused:
    detail = f"the same as {survivor.key} of {survivor.name} (record {survivor.record})"
    return _refusal(one, "DUPLICATE_SAMPLE", detail)


def balance(
    facts: Facts,
    verdicts: Sequence[Refused | None],
    kept: Sequence[int],
    drawn: Sequence[int],
) -> list[Books]:
    """The accounts of each source, checked against what was written down; UserError if they differ.

    `kept` and `drawn` count samples of each source: chosen, and drawn with repeats.
    """
    written = Counter((r.source, r.stage) for r in (*facts.refused, *verdicts) if r is not None)
    books = []
    for account, chosen, count in zip(facts.accounts, kept, drawn, strict=True):
        name = account.name
        broken = written[name, "decode"]
        before = written[name, "admit"] + written[name, "fetch"]
        own = Books(
            source=name,
            records=account.records,
            records_refused=account.records_refused,
            samples=account.samples,
            samples_refused=account.samples_refused + broken,
            not_chosen=_admitted(facts, account) - broken - chosen,
            chosen=chosen,
            drawn=min(count, chosen),
            repeats=max(count - chosen, 0),
        )
        # Admission writes refused records and refused samples into one table: its sum is checked.
        own.check(
            before - account.samples_refused,
            account.samples_refused + broken,
            written[name, "plan"],
        )
        books.append(own)
    return books


def _admitted(facts: Facts, account: Account) -> int:
    return sum(one.name == account.name for one in facts.candidates)
