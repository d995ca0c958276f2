"""A user's media as the pool would hold them: decoded by pipeline.media, or given as frames."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from pipeline.media.decoded import Decoded, MediaRefusal, stored_size
from pipeline.media.frame_difference import differences
from pipeline.media.image_sequences import Stills, decode_all
from pipeline.media.video import Span
from shards.errors import UserError
from shards.ids import short_hash
from shards.profile import Profile
from shards.sample import Clip

MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One medium, decoded: its clip and the JPEGs of its frames."""

    clip: Clip
    jpegs: tuple[bytes, ...]


def see_files(files: Sequence[tuple[Path, str, str]], profile: Profile) -> list[Seen]:
    """(path, "image" or "video", name) of each file, decoded together; UserError names the first
    that pipeline.media refuses."""
    every = see_each([(path, kind, None, name) for path, kind, name in files], profile)
    for (_, _, name), seen in zip(files, every, strict=True):
        if isinstance(seen, MediaRefusal):
            raise UserError(f"{name}: {seen.code}: {seen.detail}; give another file")
    return [seen for seen in every if isinstance(seen, Seen)]


def see_each(
    media: Sequence[tuple[Path | Stills, str, Span, str]], profile: Profile
) -> list[Seen | MediaRefusal]:
    """(place, "image" or "video", span, name) of each medium, decoded or refused.

    A span is [start, end) of a video in microseconds; `Stills` are pictures that make up a video.
    """
    every = decode_all([(place, kind, span) for place, kind, span, _ in media], profile)
    return [
        found
        if isinstance(found, MediaRefusal)
        else _seen(found, short_hash([kind, name, str(place), list(span or ())]))
        for found, (place, kind, span, name) in zip(every, media, strict=True)
    ]


def see_image(image: Image.Image, profile: Profile, name: str) -> Seen:
    """A picture in memory, by way of a lossless file: it is opened as every other."""
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        image.save(file, "PNG")
        file.flush()
        return see_files([(Path(file.name), "image", name)], profile)[0]


def see_frames(
    frames: NDArray[np.uint8], seconds: Sequence[float], profile: Profile, name: str
) -> Seen:
    """Frames uint8 [N, H, W, 3] with their presentation times, ascending, as a video.

    UserError where there is none, or where frames and times differ in number.
    """
    if not len(frames) or len(frames) != len(seconds):
        raise UserError(
            f"{name}: {len(frames)} frames and {len(seconds)} times; give at least one frame and "
            "one time for each"
        )
    pts = tuple(round((time - seconds[0]) * MICROSECONDS) for time in seconds)
    if any(b <= a for a, b in itertools.pairwise(pts)):
        raise UserError(f"{name}: times do not ascend; sort the frames by time")
    height, width = frames.shape[1:3]
    stored = stored_size(width, height, profile.video_area)
    jpegs = tuple(_jpeg(frame, stored, profile.jpeg_quality) for frame in frames)
    decoded = Decoded(
        kind="video",
        frames=jpegs,
        pts=pts,
        time_base=(1, MICROSECONDS),
        duration=(pts[-1], MICROSECONDS),
        width=stored[0],
        height=stored[1],
        rotation=0,
        is_vfr=False,
        source_fps=(0, 1),
        colour="RGB",
        codec="",
        container="",
        source_size=(width, height),
    )
    return _seen(decoded, short_hash([name, *(short_hash(jpeg.hex()) for jpeg in jpegs)]))


def _jpeg(frame: NDArray[np.uint8], stored: tuple[int, int], quality: int) -> bytes:
    shown = Image.fromarray(frame).resize(stored, Image.Resampling.BICUBIC)
    data: bytes = simplejpeg.encode_jpeg(np.asarray(shown), quality, "RGB", "444")
    return data


def _seen(decoded: Decoded, clip_id: str) -> Seen:
    shared = set(Clip.__slots__) & set(Decoded.__slots__)
    values: dict[str, Any] = {name: getattr(decoded, name) for name in shared}
    clip = Clip(
        clip_id=clip_id,
        nbytes=tuple(len(jpeg) for jpeg in decoded.frames),
        differences=tuple(differences(decoded)),
        **values,
    )
    return Seen(clip=clip, jpegs=decoded.frames)
