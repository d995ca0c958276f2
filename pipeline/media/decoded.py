"""What the media door hands on: frames we encoded ourselves with their times, or a refusal."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import isqrt

from shards.errors import escaped
from shards.outcome import CODES


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """The kept frames of one image or video.

    `frames` are JPEGs of `width` x `height` pixels; `pts` are presentation times in units of
    `time_base` seconds, relative to the clip's start (the start of the span, else the first
    frame); `duration` is in seconds, from presentation times. Fractions are (numerator,
    denominator). `source_size` is the displayed (width, height) of the original.
    """

    kind: str
    frames: tuple[bytes, ...]
    pts: tuple[int, ...]
    time_base: tuple[int, int]
    duration: tuple[int, int]
    width: int
    height: int
    rotation: int
    is_vfr: bool
    source_fps: tuple[int, int]
    colour: str
    codec: str
    container: str
    source_size: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaRefusal:
    """Why a file does not pass the door: a code of shards.outcome.CODES, and what was seen."""

    code: str
    detail: str

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise AssertionError(f"unknown code {self.code}")


class Broken(Exception):
    """Carries a refusal up to pipeline.media.decode, which returns it; never leaves the room.

    `code` is one of shards.outcome.CODES, where the prefix MEDIA_ may be left off.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.refusal = MediaRefusal(
            code=code if code in CODES else f"MEDIA_{code}", detail=escaped(detail)[:300]
        )


def stored_size(width: int, height: int, area: int) -> tuple[int, int]:
    """The size in which a picture is stored: its own shape, even sides, at most `area` pixels.

    Never larger than it was, but for a side of one pixel. Of a picture that must be scaled or has
    an odd side, the longer side is within one pixel of the shorter one's true shape.
    """
    short, long = sorted((width, height))
    # a rational number: no rounding but the one to even sides
    shape = Fraction(long, short)
    # the largest even short side whose area fits, by an integer square root
    wanted = max(min(short, isqrt(area * short // long)) // 2 * 2, 2)
    for side in (wanted, max(wanted - 2, 2)):  # rounded up, the longer side may be too long
        other = max(min(2 * round(side * shape / 2), long // 2 * 2), 2)
        if side * other <= area:
            break
    sides = side, other
    return sides if width <= height else sides[::-1]
