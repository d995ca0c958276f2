"""Videos that are published as pictures: folders of JPEGs, or pieces of a file.

Their times are their numbers over the published rate; which of them are kept is the same rule as
for other videos (pipeline.media.frame_sampling), and each picture passes the same door.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from pathlib import Path

from pipeline.media import decode, frame_sampling
from pipeline.media.decoded import Decoded, MediaRefusal
from pipeline.media.images import Shape
from pipeline.media.sandboxed_images import decode_images
from pipeline.media.video import Span
from pipeline.names import printable
from shards.profile import Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class Stills:
    """Picture files in order, `fps` of them a second."""

    files: tuple[Path, ...]
    fps: int


def decode_all(
    items: Sequence[tuple[Path | Stills, str, Span]], profile: Profile
) -> list[Decoded | MediaRefusal]:
    """As pipeline.media.decode.decode_all, with pictures that make up a video among the files."""
    # files of their own go through one call, in their order among the items
    files = [(place, kind, span) for place, kind, span in items if isinstance(place, Path)]
    decoded = iter(decode.decode_all(files, profile))
    return [
        next(decoded) if isinstance(place, Path) else decode_stills(place, profile, span)
        for place, _, span in items
    ]


def decode_stills(stills: Stills, profile: Profile, span: Span = None) -> Decoded | MediaRefusal:
    """The kept pictures as frames of one video; `span` is [start, end) in microseconds."""
    numbers = _within(len(stills.files), stills.fps, span)
    start, end = (Fraction(at, 1_000_000) for at in span or (0, 0))
    if not numbers:
        return MediaRefusal(code="SPAN_OUTSIDE", detail=f"{len(stills.files)} pictures, {span} us")
    # a picture is on screen until the next one comes, the last for one step
    whole = Fraction(numbers[-1] + 1, stills.fps)
    seconds = (min(end, whole) if span else whole) - start
    # the same sampling rule as for containers, with exact rational times
    between = frame_sampling.interval(seconds, profile.fps, profile.frame_cap)
    capped = between > Fraction(1, profile.fps)
    unit = Fraction(1, lcm(stills.fps, start.denominator))  # a tick that start and pictures share
    times = [max(Fraction(number, stills.fps) - start, Fraction(0)) for number in numbers]
    ticks = {int(time / unit): number for time, number in zip(times, numbers, strict=True)}
    chosen = frame_sampling.kept(list(ticks), frame_sampling.cells(between, unit, capped=capped))
    kept = [ticks[tick] for tick in chosen]
    # stored as frames of a video are: chroma subsampled
    shape = Shape(area=profile.video_area, chroma="420")
    pictures = []
    paths = [stills.files[number] for number in kept]
    for number, outcome in zip(kept, _pictures(paths, profile.jpeg_quality, shape), strict=True):
        if isinstance(outcome, MediaRefusal):
            return MediaRefusal(code=outcome.code, detail=f"picture {number}: {outcome.detail}")
        pictures.append(outcome)
    return _joined(pictures, chosen, unit, seconds, stills.fps)


def _pictures(paths: Sequence[Path], quality: int, shape: Shape) -> list[Decoded | MediaRefusal]:
    # an empty file is told before a child process is started for all of them
    if empty := next((path for path in paths if path.stat().st_size == 0), None):
        return [MediaRefusal(code="MEDIA_EMPTY", detail=printable(empty.name))] * len(paths)
    return decode_images(paths, quality, shape)


def _within(count: int, fps: int, span: Span) -> list[int]:
    """The pictures that are on screen in the span; each stays until the next one comes."""
    # integer division: span bounds in microseconds, pictures at whole steps of the rate
    start, end = span or (0, count * 1_000_000)
    return [i for i in range(start * fps // 1_000_000, count) if i * 1_000_000 < end * fps]


def _joined(
    decoded: Sequence[Decoded], ticks: Sequence[int], unit: Fraction, seconds: Fraction, fps: int
) -> Decoded | MediaRefusal:
    first = decoded[0]
    # a video has one size; an album of pictures does not
    if any(picture.source_size != first.source_size for picture in decoded):
        return MediaRefusal(code="MEDIA_SIZE_CHANGES", detail="the pictures differ in size")
    return Decoded(
        kind="video",
        frames=tuple(picture.frames[0] for picture in decoded),
        pts=tuple(ticks),
        time_base=unit.as_integer_ratio(),
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
