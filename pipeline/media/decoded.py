"""What the media door hands on: frames we encoded ourselves with their times, or a refusal."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from mixtures.tokens.frame_view import fit_size
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
            code=code if code in CODES else f"MEDIA_{code}", detail=detail[:300]
        )


def placed(
    width: int, height: int, *, area: int, multiple: int, max_aspect: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """(stored size, size of the picture centred in it), for a displayed size; zeros around it.

    A picture is scaled as `mixtures.tokens.frame_view.fit_size` says. One that is smaller than the
    multiple, or longer than `max_aspect` : 1, first gets a canvas that is not, so it is never
    squashed.
    """
    least = max(multiple, -(-max(width, height) // max_aspect))
    canvas = max(width, least), max(height, least)
    stored = fit_size(*canvas, area=area, multiple=multiple)
    pairs = zip((width, height), canvas, stored, strict=True)
    w, h = (max(1, round(Fraction(side * kept, room))) for side, room, kept in pairs)
    return stored, (w, h)
