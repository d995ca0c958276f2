"""The sections of one build's datasheet."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import chain
from statistics import median
from typing import Any

import numpy as np

from mixtures.layout import spread
from pipeline import charts
from pipeline.charts import number
from pipeline.report_data import (
    WINDOW,
    Build,
    Cluster,
    Name,
    clusters_of,
    frames_of,
    load_build,
    of_every_kind,
    reasons,
    shares,
    windowed,
)
from pipeline.report_page import Picture, Section, percent, picture, section, size
from shards.outcome import CODES
from shards.sample import Turn, turns_from_json

_DETAILS = 20
_EXAMPLES, _EXAMPLES_IN_ALL = 3, 60
_FRAMES_OF_EXAMPLE, _FRAMES_OF_MEMBER = 12, 3
_CLUSTERS, _MEMBERS, _PAIRS, _LEAKS = 24, 6, 8, 24
_CHARACTERS = 600


def build_sections(out: str, pool_url: str) -> list[Section]:
    """The sections of one build, each under the name of its recipe."""
    build = load_build(out, pool_url)
    makers = (identity, books, ratio, examples, duplicates, leaks, histograms, licences)
    return [make(build) for make in makers]


def build_summary(build: Build) -> list[tuple[str, str]]:
    """What a page about this build says first."""
    read = sum(account.samples + account.records_refused for account in build.books)
    found = _shares(build)
    return [
        ("samples and records read", number(read)),
        ("refused", number(len(build.refused))),
        ("chosen", number(len(build.chosen))),
        ("drawn positions", number(len(build.source_at))),
        ("furthest from the ratio", f"{float(max(s.prefix for s in found)):.2f} samples"),
    ]


def _shares(build: Build) -> list[Any]:
    return list(shares(build.manifest.names, build.manifest.schedule.quotas, build.source_at))


def identity(build: Build) -> Section:
    clips = build.chosen_clips
    stored = sum(row["extent"] for row in clips)
    facts = [
        ("recipe", build.name),
        ("manifest_id", build.manifest.manifest_id),
        ("folder", build.out),
        ("pool", build.pool.store.url),
        ("length", f"{number(len(build.source_at))} samples in {number(build.shards)} shards"),
        ("chosen", f"{number(len(build.chosen))} samples over {number(len(clips))} clips"),
        ("clips in the pool", f"{size(stored)}, {number(_frame_count(clips))} frames"),
        ("media profile", ", ".join(f"{k} {v}" for k, v in build.pool.profile.to_json().items())),
        *(("decoded by", tools) for tools in build.tools),
    ]
    note = "The same manifest gives the same samples in the same order, on any number of machines."
    return section("What this is", note, "facts", group=build.name, facts=facts)


def _frame_count(clips: Sequence[Mapping[str, Any]]) -> int:
    return sum(len(row["pts"]) for row in clips)


def books(build: Build) -> Section:
    written = Counter(row["source"] for row in build.refused)
    accounts = [
        {
            "books": account,
            "balances": account.chosen == account.admitted - account.not_chosen
            and written[account.source]
            == account.records_refused + account.samples_refused + account.not_chosen,
            "reasons": reasons(build.refused, account.source, _DETAILS),
        }
        for account in build.books
    ]
    licence = {source["name"]: source["licence"] for source in build.manifest.value["sources"]}
    note = (
        "What was read equals what was kept plus what was refused, source by source. "
        "Every refusal is a row of refused.parquet."
    )
    return section(
        "Sources and their books",
        note,
        "books",
        group=build.name,
        accounts=accounts,
        licence=licence,
        meanings=CODES,
    )


def ratio(build: Build) -> Section:
    found, length = _shares(build), len(build.source_at)
    requested = [float(share.requested) for share in found]
    told = "; ".join(f"{s.source} {percent(s.realised)}" for s in found)
    chart = charts.bands(
        windowed(build.source_at, len(found)), requested, length, f"Realised shares: {told}"
    )
    note = (
        "Quotas of the manifest against the index of the shards. Deviations count samples: the "
        f"furthest that any prefix, and any window of {WINDOW} positions, strays from its exact "
        "share. The promise is 1 for prefixes and 2 for windows."
    )
    return section(
        "Requested and realised ratio",
        note,
        "ratio",
        group=build.name,
        shares=found,
        chart=chart,
        window=min(WINDOW, length),
    )


def examples(build: Build) -> Section:
    each = max(1, min(_EXAMPLES, _EXAMPLES_IN_ALL // len(build.manifest.names)))
    by_source = [
        (source, [_example(build, name) for name in _first_keys(build, source, each)])
        for source in build.manifest.names
    ]
    note = (
        "Frames as the pool keeps them, with the presentation time that the decoder gave each. "
        f"At most {_FRAMES_OF_EXAMPLE} of a sample are shown, evenly spread."
    )
    return section(
        "Example samples", note, "examples", group=build.name, by_source=by_source[:_EXAMPLES_IN_ALL]
    )


def _first_keys(build: Build, source: str, most: int) -> list[Name]:
    """The drawn samples with the least keys: a choice by content, the same on every machine."""
    return sorted(name for name in build.drawn if name[0] == source)[:most]


def _example(build: Build, name: Name) -> dict[str, Any]:
    row = build.samples[name]
    most = max(1, _FRAMES_OF_EXAMPLE // max(1, len(row["clip_ids"])))
    clips = [
        _clip(build, clip_id, most, f"clip {n}")
        for n, clip_id in enumerate(row["clip_ids"][:_FRAMES_OF_EXAMPLE], start=1)
    ]
    turns = turns_from_json(json.loads(row["turns"]))
    return {
        "key": row["key"],
        "record": row["record"],
        "clips": clips,
        "left_out": len(row["clip_ids"]) - len(clips),
        "turns": [(turn.role, _pieces(turn)) for turn in turns[:_DETAILS]],
        "turns_left_out": max(0, len(turns) - _DETAILS),
        "drawn": build.drawn[name],
    }


def _pieces(turn: Turn) -> list[tuple[str, str]]:
    """A turn's text cut where media stand: ("text" | "clip", ...); long text ends in its length."""
    pieces, at = [], 0
    for clip, offset in turn.media:
        pieces += [("text", turn.text[at:offset]), ("clip", f"clip {clip + 1}")]
        at = offset
    pieces.append(("text", turn.text[at:]))
    left, shown = _CHARACTERS, []
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
    shown = [
        _frame(frames[i], seconds[i], title, clip.kind) for i in spread(len(frames), most)
    ]
    return {"title": title, "clip_id": clip_id, "pictures": shown, "facts": _facts(row),
            "kept": len(frames)}  # fmt: skip


def _frame(jpeg: bytes, seconds: float, title: str, kind: str) -> Picture:
    if kind == "image":
        return picture(jpeg, f"{title}, a picture")
    return picture(jpeg, f"{title}, frame at {seconds:.2f} seconds", f"{seconds:.2f} s")


def _facts(row: Mapping[str, Any]) -> list[str]:
    original, stored = row["source_size"], [row["width"], row["height"]]
    facts = [f"{row['kind']}", f"{row['codec']} in {row['container']}"]
    facts.append(f"{original[0]} × {original[1]} px")
    if stored != original:
        facts.append(f"kept at {stored[0]} × {stored[1]} px")
    if row["kind"] == "video":
        rate = number(float(Fraction(*row["source_fps"])))
        facts.append(f"{rate} fps, {'variable' if row['is_vfr'] else 'constant'}")
        facts.append(f"{float(Fraction(*row['duration'])):.2f} s")
    if row["rotation"]:
        facts.append(f"rotated by {row['rotation']}°")
    return facts


def duplicates(build: Build) -> Section:
    clusters = clusters_of(build.pairs)
    refused = {name for name, code in build.verdicts.items() if code == "DUPLICATE_SAMPLE"}
    lead = {clip for name in refused if name in build.samples
            for clip in build.samples[name]["clip_ids"]}  # fmt: skip
    shown = [_cluster(build, cluster) for cluster in of_every_kind(clusters, _CLUSTERS, lead)]
    note = (
        "Clips whose frames match, whatever was done to them. Media alone never remove a sample: "
        "one is refused only where its media and its turns both equal another's."
    )
    return section(
        "Duplicate clusters",
        note,
        "clusters",
        group=build.name,
        clusters=shown,
        total=len(clusters),
        relations=sorted(Counter(pair["relation"] for pair in build.pairs).items()),
        refused=len(refused),
    )


def _cluster(build: Build, cluster: Cluster) -> dict[str, Any]:
    letters = {clip_id: _letter(n) for n, clip_id in enumerate(cluster.clips)}
    members = [
        _clip(build, clip_id, _FRAMES_OF_MEMBER, letters[clip_id])
        | {"uses": _uses(build, clip_id)}
        for clip_id in cluster.clips[:_MEMBERS]
    ]
    pairs = [
        (letters[pair["clip_a"]], letters[pair["clip_b"]], pair["relation"], pair["distance"])
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
    rows = [
        row | _clip(build, row["clip_id"], _FRAMES_OF_MEMBER, "training clip")
        | {"uses": _uses(build, row["clip_id"])}
        for row in build.leaks[:_LEAKS]
    ]  # fmt: skip
    note = (
        "Training clips that match held-out clips. Every sample of such a cluster is refused. "
        "Held-out media leave no frames in the pool, so only the training side can be shown."
    )
    return section(
        "Leaks from evaluation data",
        note,
        "leaks",
        group=build.name,
        leaks=rows,
        total=len(build.leaks),
        held_out=build.manifest.value["recipe"]["held_out"],
    )


def histograms(build: Build) -> Section:
    clips = build.chosen_clips
    videos = [row for row in clips if row["kind"] == "video"]
    samples = [build.samples[name] for name in build.chosen]
    tokens = np.concatenate([table["tokens"] for table in build.manifest.tables]).tolist()
    told: list[tuple[str, str, Sequence[float]]] = [
        ("Duration of videos", "s", [float(Fraction(*row["duration"])) for row in videos]),
        ("Frame rate of videos", "fps", [float(Fraction(*row["source_fps"])) for row in videos]),
        ("Longer side of originals", "px", [max(row["source_size"]) for row in clips]),
        ("Frames kept per video", "", [len(row["pts"]) for row in videos]),
        ("Turns per sample", "", [row["num_turns"] for row in samples]),
        ("Tokens per sample", "", tokens),
    ]
    charted = [_histogram(*one) for one in told if one[2]]
    note = "Over the samples that were chosen, each once, and the clips they name, each once."
    return section("Distributions", note, "histograms", group=build.name, charts=charted)


def _histogram(title: str, unit: str, values: Sequence[float]) -> dict[str, Any]:
    low, middle, high = (number(f(values)) for f in (min, median, max))
    line = f"{number(len(values))} in all, median {middle}, from {low} to {high} {unit}".rstrip()
    rounded = [round(value, 3) for value in values]
    return {"title": title, "line": line, "chart": charts.histogram(rounded, f"{title}: {line}")}


def licences(build: Build) -> Section:
    sources: dict[str, set[str]] = defaultdict(set)
    chosen, drawn = Counter[str](), Counter[str]()
    for name in chain(build.chosen):
        licence = build.samples[name]["licence"]
        sources[licence].add(name[0])
        chosen[licence] += 1
        drawn[licence] += build.drawn[name]
    rows = [
        (licence, sorted(sources[licence]), chosen[licence], drawn[licence])
        for licence in sorted(sources)
    ]
    note = "As each source's recipe entry states them; read them before you publish what you train."
    return section(
        "Licences", note, "licences", group=build.name, rows=rows, total=max(1, sum(drawn.values()))
    )
