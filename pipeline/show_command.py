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
from pipeline.shown_sample import Asked, Gallery, Shown, ShownClip
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
    asked = Asked(
        key=arguments.key,
        source=arguments.source,
        refused=arguments.refused,
        count=arguments.count,
    )
    found = list(Gallery(arguments.out, arguments.pool or f"{arguments.out}/pool").find(asked))
    place = ""
    if any(one.clips for one in found):
        place = arguments.sheet or f"{arguments.out.rstrip('/')}/{SHEET}"
        folder, _, name = place.rpartition("/")
        Store(folder or ".").put(name, sheet(found))
    if arguments.json:
        write_json({"sheet": place or None, "samples": [as_json(one) for one in found]})
        return
    console = Console(highlight=False)
    for one in found:
        tell(console, one)
    console.print(f"frames: {place}" if place else "no frames to show", soft_wrap=True)


def tell(console: Console, one: Shown) -> None:
    """One sample: where it is from, why it was refused, what is said in it, how it is shown."""
    console.print(f"{one.source} {one.key or _record(one)}", style="bold", soft_wrap=True)
    if one.refusal:
        code = one.refusal["code"]
        console.print(f"refused: {code} ({CODES[code]})", soft_wrap=True)
        console.print(f"  seen: {one.refusal['detail']}", soft_wrap=True)
        console.print(f"  what to do: {REMEDIES[code].do}", soft_wrap=True)
    if one.sample is not None:
        origin = one.sample.origin
        console.print(
            f"record {origin.record} of {origin.dataset}, licence {origin.licence}", soft_wrap=True
        )
        console.print(table(lines(one.sample.turns, _names(one.clips))))
    for clip in one.clips:
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


def _told(one: ShownClip) -> str:
    shown = one.placement.told(one.clip.width, one.clip.height)
    said = f"{one.clip.kind} {one.clip.clip_id[:16]}: {shown}, {one.tokens} tokens"
    if one.clip.kind == "image":
        return said
    slow = sum(frame.slow for frame in one.frames)
    times = " ".join(frame.time for frame in one.frames)
    return f"{said}\n  {len(one.frames)} frames, {slow} of them slow: {times}"


def as_json(one: Shown) -> dict[str, Any]:
    """The same as one JSON value."""
    sample = one.sample
    return {
        "source": one.source,
        "key": one.key,
        "refusal": None if one.refusal is None else dict(one.refusal),
        "record": sample.origin.record if sample else _record(one),
        "licence": sample.origin.licence if sample else None,
        "turns": turns_to_json(sample.turns) if sample else [],
        "clips": [_clip(clip) for clip in one.clips],
    }


def _clip(one: ShownClip) -> dict[str, Any]:
    return {
        "clip_id": one.clip.clip_id,
        "kind": one.clip.kind,
        "stored": [one.clip.width, one.clip.height],
        "grid": [one.placement.width, one.placement.height],
        "picture": list(one.placement.picture),
        "tokens": one.tokens,
        "frames": [{"time": frame.time, "slow": frame.slow} for frame in one.frames],
    }
