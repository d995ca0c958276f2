"""Videos that are published as pictures: folders of JPEGs, or pieces of a file.

Their times are their numbers over the published rate; which of them are kept is the same rule as
for other videos (pipeline.frames), and each picture passes the same door.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from pipeline import frames, media
from pipeline.decoded import Broken, Decoded, MediaRefusal
from pipeline.images import Shape, decode_picture
from pipeline.video import MAX_ASPECT_STORED, MULTIPLE, Span
from shards.profile import Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class Stills:
    """Picture files in order, `fps` of them a second."""

    files: tuple[Path, ...]
    fps: int


def decode_all(
    items: Sequence[tuple[Path | Stills, str, Span]], profile: Profile
) -> list[Decoded | MediaRefusal]:
    """As pipeline.media.decode_all, with pictures that make up a video among the files."""
    files = [(place, kind, span) for place, kind, span in items if isinstance(place, Path)]
    decoded = iter(media.decode_all(files, profile))
    return [
        next(decoded) if isinstance(place, Path) else decode_stills(place, profile, span)
        for place, _, span in items
    ]


def decode_stills(stills: Stills, profile: Profile, span: Span = None) -> Decoded | MediaRefusal:
    """The kept pictures as frames of one video; `span` is [start, end) in microseconds."""
    numbers = _within(len(stills.files), stills.fps, span)
    if not numbers:
        return MediaRefusal(code="SPAN_OUTSIDE", detail=f"{len(stills.files)} pictures, {span} us")
    seconds = Fraction(len(numbers), stills.fps)
    between = frames.interval(seconds, profile.fps, profile.frame_cap)
    capped = between > Fraction(1, profile.fps)
    kept = frames.kept(numbers, frames.cells(between, Fraction(1, stills.fps), capped=capped))
    shape = Shape(
        area=profile.video_area, multiple=MULTIPLE, max_aspect=MAX_ASPECT_STORED, chroma="420"
    )
    pictures = []
    for number in kept:
        try:
            if stills.files[number].stat().st_size == 0:
                raise Broken("EMPTY", "no bytes")
            pictures.append(decode_picture(stills.files[number], profile.jpeg_quality, shape))
        except Broken as broken:
            detail = f"picture {number}: {broken.refusal.detail}"
            return MediaRefusal(code=broken.refusal.code, detail=detail)
    return _joined(pictures, kept, stills.fps, seconds)


def _within(count: int, fps: int, span: Span) -> list[int]:
    """The pictures whose times lie in the span."""
    start, end = span or (0, count * 1_000_000)
    return [i for i in range(count) if start <= Fraction(i * 1_000_000, fps) < end]


def _joined(
    pictures: Sequence[Decoded], kept: Sequence[int], fps: int, seconds: Fraction
) -> Decoded | MediaRefusal:
    first = pictures[0]
    if any(picture.source_size != first.source_size for picture in pictures):
        return MediaRefusal(code="MEDIA_SIZE_CHANGES", detail="the pictures differ in size")
    return Decoded(
        kind="video",
        frames=tuple(picture.frames[0] for picture in pictures),
        pts=tuple(number - kept[0] for number in kept),
        time_base=(1, fps),
        duration=seconds.as_integer_ratio(),
        width=first.width,
        height=first.height,
        rotation=first.rotation,
        is_vfr=False,
        source_fps=(fps, 1),
        colour=first.colour,
        codec=first.codec,
        container="pictures",
        source_size=first.source_size,
    )
