"""The sections that show frames: example samples, duplicate clusters, leaks."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from mixtures.manifest.manifest import Manifest
from mixtures.pool.clusters import components
from mixtures.selection.leak_counts import by_benchmark
from mixtures.tokens.frame_selection import spread
from mixtures.tokens.frame_view import view_placement
from mixtures.tokens.text import pieces_of
from pipeline.report.build_data import Build, Name, frames_of
from pipeline.report.charts import number
from pipeline.report.html import Picture, Section, picture, section
from shards.sample import Turn, turns_from_json

_EXAMPLES, _EXAMPLES_IN_ALL = 3, 60
_FRAMES_OF_EXAMPLE, _FRAMES_OF_MEMBER = 12, 3
_CLUSTERS = 24
_MEMBERS = 6
_PAIRS = 8
_LEAKS = 24
_TURNS = 20
_CHARACTERS = 600
_CROWDS = 8
CROWD = 20  # clips that are all copies of each other, beyond which people should look at them


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Clips that duplicate facts connect, and those facts."""

    clips: tuple[str, ...]
    pairs: tuple[dict[str, Any], ...]

    @property
    def relations(self) -> tuple[str, ...]:
        """The kinds of relation among its clips, each once."""
        return tuple(sorted({said(pair) for pair in self.pairs}))


def said(fact: Mapping[str, Any]) -> str:
    """How two clips are related, and where it is not certain."""
    relation = str(fact["relation"])
    return relation if fact["judged"] == "same" else f"{relation}, undecided"


def clusters_of(pair_rows: Sequence[dict[str, Any]]) -> list[Cluster]:
    """Connected components of the pairs, by their least clip id."""
    # union-find over the pairs, by the least clip id of each component
    least = components((pair["clip_a"], pair["clip_b"]) for pair in pair_rows)
    clips, facts = defaultdict(list), defaultdict(list)
    for clip_id, name in sorted(least.items()):
        clips[name].append(clip_id)
    for pair in pair_rows:
        facts[least[pair["clip_a"]]].append(pair)
    return [Cluster(clips=tuple(clips[name]), pairs=tuple(facts[name])) for name in sorted(clips)]


def crowds_of(pair_rows: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """More than CROWD clips each two of which are a pair, each clip in one crowd, largest first.

    A copy that is published so often is rare; a template that is taken for one picture is not.
    """
    near: dict[str, set[str]] = defaultdict(set)
    for pair in pair_rows:
        near[pair["clip_a"]].add(pair["clip_b"])
        near[pair["clip_b"]].add(pair["clip_a"])
    crowds = []
    taken = set[str]()
    # greedy cliques, densest clips first: exact ones are not worth their exponential time here
    for clip in sorted(near, key=lambda name: (-len(near[name]), name)):
        crowd = [] if clip in taken else [clip]
        for other in sorted(near[clip] - taken, key=lambda name: (-len(near[name]), name)):
            if crowd and near[other].issuperset(crowd):
                crowd.append(other)
        if len(crowd) > CROWD:
            crowds.append(tuple(sorted(crowd)))
            taken.update(crowd)
    return sorted(crowds, key=lambda name: (-len(name), name))


def _crowds(build: Build) -> list[tuple[str, ...]]:
    """The same, and the copies of one reference, which are told as pairs with one of them only."""
    of_one = [clips for clips in build.copies.values() if len(clips) > CROWD]
    return sorted([*of_one, *crowds_of(build.pairs)], key=lambda name: (-len(name), name))


def _crowd(build: Build, crowd_ids: tuple[str, ...]) -> dict[str, Any]:
    """How many clips a crowd has, and the first of them."""
    shown = [
        _clip(build, clip_id, 1, _letter(n)) | {"uses": _uses(build, clip_id)[:1]}
        for n, clip_id in enumerate(crowd_ids[:_MEMBERS])
    ]
    return {"count": len(crowd_ids), "members": shown}


def of_every_kind(clusters: Sequence[Cluster], most: int, first: set[str]) -> list[Cluster]:
    """At most `most` of them: kinds of relation take turns, clusters that hold `first` lead."""
    turn: Counter[tuple[str, ...]] = Counter()
    ranked = []
    # so that a page shows each kind of duplicate, not forty of the most frequent kind
    for cluster in sorted(
        clusters, key=lambda candidate: (first.isdisjoint(candidate.clips), candidate.clips)
    ):
        ranked.append((turn[cluster.relations], cluster.relations, cluster))
        turn[cluster.relations] += 1
    ranked.sort(key=lambda entry: entry[:2])
    return [cluster for *_, cluster in ranked[:most]]


def examples(build: Build) -> Section:
    """A few samples of every source, with their frames and turns."""
    per_source = max(1, min(_EXAMPLES, _EXAMPLES_IN_ALL // len(build.manifest.names)))
    by_source = [
        (source, [_example(build, name) for name in _first_keys(build, source, per_source)])
        for source in build.manifest.names[:_EXAMPLES_IN_ALL]
    ]
    note = (
        "Frames as the pool keeps them, with the presentation time that the decoder gave each. "
        f"At most {_FRAMES_OF_EXAMPLE} of a sample are shown, evenly spread."
    )
    return section(
        "Example samples",
        note,
        "examples",
        group=build.name,
        by_source=by_source,
    )


def _first_keys(build: Build, source: str, most: int) -> list[Name]:
    """The drawn samples with the least keys: a choice by content, the same on every machine."""
    # least keys, not a random draw: the page of an equal build is equal
    return sorted(name for name in build.drawn if name[0] == source)[:most]


def _example(build: Build, name: Name) -> dict[str, Any]:
    row = build.samples[name]
    shown = build.manifest.shown(row["clip_ids"])
    most = max(1, _FRAMES_OF_EXAMPLE // max(1, len(shown)))
    clips = [
        _clip(build, clip_id, most, f"clip {n}")
        for n, clip_id in enumerate(shown[:_FRAMES_OF_EXAMPLE], start=1)
    ]
    turns = turns_from_json(json.loads(build.turns[row["at"]].as_py()))
    return {
        "key": row["key"],
        "record": row["record"],
        "clips": clips,
        "left_out": len(shown) - len(clips),
        "turns": [(turn.role, _pieces(turn)) for turn in turns[:_TURNS]],
        "turns_left_out": max(0, len(turns) - _TURNS),
        "drawn": build.drawn[name],
    }


def _pieces(turn: Turn) -> list[tuple[str, str]]:
    """A turn's text cut where media stand: ("text" | "clip", ...); long text ends in its length."""
    pieces = []
    for text, clip in pieces_of(turn):
        pieces += [("text", text)] + ([] if clip is None else [("clip", f"clip {clip + 1}")])
    left = _CHARACTERS
    shown = []
    for kind, text in pieces:
        if kind == "text":
            text, cut = text[:left], len(text) - left
            left -= len(text)
            text += f" … ({number(cut)} more characters)" if cut > 0 and text else ""
        shown.append((kind, text))
    return [piece for piece in shown if piece[1]]


def _clip(build: Build, clip_id: str, most: int, title: str) -> dict[str, Any]:
    """A clip's facts and at most `most` of its frames as pictures."""
    row = build.clips[clip_id]
    clip, frames = frames_of(build, row)
    seconds = clip.seconds()
    # evenly spread over the clip, ends included
    shown = [_frame(frames[i], seconds[i], title, clip.kind) for i in spread(len(frames), most)]
    return {"title": title, "clip_id": clip_id, "pictures": shown,
            "facts": _facts(row, build.manifest), "kept": len(frames)}  # fmt: skip


def _frame(jpeg: bytes, seconds: float, title: str, kind: str) -> Picture:
    if kind == "image":
        return picture(jpeg, f"{title}, a picture")
    return picture(jpeg, f"{title}, frame at {seconds:.2f} seconds", f"{seconds:.2f} s")


def _facts(row: Mapping[str, Any], manifest: Manifest) -> list[str]:
    original = row["source_size"]
    stored = [row["width"], row["height"]]
    codec = row["codec"]
    container = row["container"]
    facts = [row["kind"], codec if codec == container else f"{codec} in {container}"]
    facts.append(f"{original[0]} × {original[1]} px")
    if stored != original:
        facts.append(f"kept at {stored[0]} × {stored[1]} px")
    shown = view_placement(row["kind"], (stored[0], stored[1]), manifest.view, manifest.layout)
    facts.append("shown: " + shown.told(*stored).replace("x", " × "))
    if row["kind"] == "video":
        rate = number(float(Fraction(*row["source_fps"])))
        facts.append(f"{rate} fps, {'variable' if row['is_vfr'] else 'constant'}")
        facts.append(f"{float(Fraction(*row['duration'])):.2f} s")
    if row["rotation"]:
        facts.append(f"rotated by {row['rotation']}°")
    # facts do not break within themselves where a line of them wraps
    return [fact.replace(" ", "\N{NO-BREAK SPACE}") for fact in facts]


def duplicates(build: Build) -> Section:
    """Clusters of duplicate clips, of every kind of relation."""
    clusters = clusters_of(build.pairs)
    relations = Counter(said(pair) for pair in build.pairs)
    refused = {name for name, code in build.verdicts.items() if code.startswith("DUPLICATE_")}
    # clusters whose samples were refused are what people want to check first
    lead = {clip for name in refused if name in build.samples
            for clip in build.samples[name]["clip_ids"]}  # fmt: skip
    shown = [_cluster(build, cluster) for cluster in of_every_kind(clusters, _CLUSTERS, lead)]
    note = (
        "Clips whose frames match, whatever was done to them. Media alone never remove a sample: "
        "one is refused only where its media and its turns both equal another's (nearly equal "
        "turns count where the recipe says so)."
    )
    return section(
        "Duplicate clusters",
        note,
        "clusters",
        group=build.name,
        clusters=shown,
        crowds=[_crowd(build, clips) for clips in _crowds(build)[:_CROWDS]],
        total=len(clusters),
        relations=[(f"{relation} pairs", count) for relation, count in sorted(relations.items())],
        refused=len(refused),
    )


def _cluster(build: Build, cluster: Cluster) -> dict[str, Any]:
    letters = {clip_id: _letter(n) for n, clip_id in enumerate(cluster.clips)}
    members = [
        _clip(build, clip_id, _FRAMES_OF_MEMBER, letters[clip_id]) | {"uses": _uses(build, clip_id)}
        for clip_id in cluster.clips[:_MEMBERS]
    ]
    pairs = [
        (letters[pair["clip_a"]], letters[pair["clip_b"]], said(pair), pair["distance"])
        for pair in cluster.pairs
    ]
    return {
        "members": members,
        "members_left_out": len(cluster.clips) - len(members),
        "pairs": pairs[:_PAIRS],
        "pairs_left_out": max(0, len(pairs) - _PAIRS),
        "relations": cluster.relations,
    }


def _letter(n: int) -> str:
    return chr(ord("A") + n) if n < 26 else f"#{n + 1}"


def _uses(build: Build, clip_id: str) -> list[dict[str, Any]]:
    """What became of the samples that name a clip; the refused ones first."""
    uses = [
        {
            "source": name[0],
            "record": build.samples[name]["record"],
            "code": build.verdicts.get(name, ""),
            "drawn": build.drawn[name],
        }
        for name in build.users[clip_id]
    ]
    uses.sort(key=lambda use: (not use["code"], use["source"], use["record"]))
    return uses


def leaks(build: Build) -> Section:
    """Matches with evaluation data, clip by clip, and counted by benchmark."""
    rows = [
        row | _clip(build, row["clip_id"], _FRAMES_OF_MEMBER, "training clip")
        | {"uses": _uses(build, row["clip_id"])}
        for row in build.leaks[:_LEAKS]
    ]  # fmt: skip
    recipe = build.manifest.contents.recipe
    note = (
        "Training clips that match held-out clips, and conversations that ask a held-out question. "
        "Every sample of such a clip's cluster is refused; a question alone is "
        f"{'refused' if recipe.leaks and recipe.leaks.text == 'refuse' else 'flagged'}. "
        "Held-out media leave no frames in the pool, so only the training side can be shown."
    )
    return section(
        "Leaks from evaluation data",
        note,
        "leaks",
        group=build.name,
        leaks=rows,
        total=len(build.leaks),
        refused=sum(code == "LEAK_MEDIA" for code in build.verdicts.values()),
        benchmarks=by_benchmark(build.matches),
        avoided=bool(recipe.held_out or recipe.leaks),
    )
