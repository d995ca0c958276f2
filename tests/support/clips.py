"""Clips of any shape and length, without frames."""

from __future__ import annotations

from shards.sample import Clip


def clip_of(
    pts: list[int],
    time_base: tuple[int, int],
    kind: str = "video",
    size: tuple[int, int] = (64, 64),
) -> Clip:
    return Clip(
        clip_id="c",
        kind=kind,
        pts=tuple(pts),
        time_base=time_base,
        duration=(pts[-1] * time_base[0], time_base[1]),
        width=size[0],
        height=size[1],
        nbytes=(1,) * len(pts),
        rotation=0,
        is_vfr=False,
        source_fps=(25, 1),
        colour="bt709",
    )
