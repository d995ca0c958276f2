"""`python -m pipeline show`: samples of a build, in words and as a sheet of their frames."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import Any

from mixtures.console import Console, write_json
from pipeline.contact_sheet import sheet
from pipeline.conversation import lines, table
from pipeline.report.remedies import REMEDIES
from pipeline.shown_sample import Gallery, SampleQuery, Shown, ShownClip
from shards.errors import UserError
from shards.outcome import CODES
from shards.sample import turns_to_json
from shards.store import Store

SHEET = "show.png"
"""Where the frames go in OUT, unless it is said."""


def show_samples(arguments: argparse.Namespace) -> None:
    """Write the sheet, and print what is on it."""
    if not (arguments.key or arguments.source or arguments.refused):
        raise UserError("show: give --key, --source or --refused")
    if arguments.count < 1:
        raise UserError(f"-n {arguments.count}: give 1 or more")
    query = SampleQuery(
        key=arguments.key,
        source=arguments.source,
        refused=arguments.refused,
        count=arguments.count,
    )
    samples = list(Gallery(arguments.out, arguments.pool or f"{arguments.out}/pool").find(query))
    sheet_path = ""
    if any(sample.clips for sample in samples):
        sheet_path = arguments.sheet or f"{arguments.out.rstrip('/')}/{SHEET}"
        folder, _, name = sheet_path.rpartition("/")
        Store(folder or ".").put(name, sheet(samples))
    if arguments.json:
        write_json(
            {"sheet": sheet_path or None, "samples": [as_json(sample) for sample in samples]}
        )
        return
    console = Console(highlight=False)
    for sample in samples:
        tell(console, sample)
    console.print(f"frames: {sheet_path}" if sheet_path else "no frames to show", soft_wrap=True)


def tell(console: Console, shown_sample: Shown) -> None:
    """One sample: where it is from, why it was refused, what is said in it, how it is shown."""
    console.print(
        f"{shown_sample.source} {shown_sample.key or _record(shown_sample)}",
        style="bold",
        soft_wrap=True,
    )
    if shown_sample.refusal:
        code = shown_sample.refusal["code"]
        console.print(f"refused: {code} ({CODES[code]})", soft_wrap=True)
        console.print(f"  seen: {shown_sample.refusal['detail']}", soft_wrap=True)
        console.print(f"  what to do: {REMEDIES[code].do}", soft_wrap=True)
    if shown_sample.sample is not None:
        origin = shown_sample.sample.origin
        console.print(
            f"record {origin.record} of {origin.dataset}, licence {origin.licence}", soft_wrap=True
        )
        console.print(table(lines(shown_sample.sample.turns, _names(shown_sample.clips))))
    for clip in shown_sample.clips:
        console.print(_told(clip), soft_wrap=True)
    console.print()


def _record(one: Shown) -> str:
    return one.refusal["record"] if one.refusal else ""


def _names(shown_clips: Sequence[ShownClip]) -> list[str]:
    """What clips are called in a conversation: `image`, or `video 2` where there are several."""
    kinds = Counter(one.clip.kind for one in shown_clips)
    seen: Counter[str] = Counter()
    names = []
    for kind in (one.clip.kind for one in shown_clips):
        seen[kind] += 1
        names.append(kind if kinds[kind] == 1 else f"{kind} {seen[kind]}")
    return names


def _told(shown_clip: ShownClip) -> str:
    clip = shown_clip.clip
    shown = shown_clip.placement.told(clip.width, clip.height)
    said = f"{clip.kind} {clip.clip_id[:16]}: {shown}, {shown_clip.tokens} tokens"
    if clip.kind == "image":
        return said
    slow = sum(frame.slow for frame in shown_clip.frames)
    times = " ".join(frame.time for frame in shown_clip.frames)
    return f"{said}\n  {len(shown_clip.frames)} frames, {slow} of them slow: {times}"


def as_json(shown_sample: Shown) -> dict[str, Any]:
    """The same as one JSON value."""
    sample = shown_sample.sample
    return {
        "source": shown_sample.source,
        "key": shown_sample.key,
        "refusal": None if shown_sample.refusal is None else dict(shown_sample.refusal),
        "record": sample.origin.record if sample else _record(shown_sample),
        "licence": sample.origin.licence if sample else None,
        "turns": turns_to_json(sample.turns) if sample else [],
        "clips": [_clip(clip) for clip in shown_sample.clips],
    }


def _clip(shown_clip: ShownClip) -> dict[str, Any]:
    return {
        "clip_id": shown_clip.clip.clip_id,
        "kind": shown_clip.clip.kind,
        "stored": [shown_clip.clip.width, shown_clip.clip.height],
        "grid": [shown_clip.placement.width, shown_clip.placement.height],
        "picture": list(shown_clip.placement.picture),
        "tokens": shown_clip.tokens,
        "frames": [{"time": frame.time, "slow": frame.slow} for frame in shown_clip.frames],
    }
