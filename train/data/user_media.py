"""A user's media as the pool would hold them: decoded by pipeline.media, or given as frames.

Files, addresses on the web (fetched by pipeline.fetch, under its guard) and bytes all pass the
media door; pictures and frames in memory are stored as the pool would store them.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from pipeline.fetch.local_files import local
from pipeline.media.decoded import Decoded, stored_size
from pipeline.media.decoded import MediaRefusal as MediaRefusal
from pipeline.media.frame_difference import differences
from pipeline.media.image_sequences import Stills as Stills
from pipeline.media.image_sequences import decode_all
from pipeline.media.video import Span
from shards.errors import UserError
from shards.ids import short_hash
from shards.profile import Profile
from shards.sample import Clip

MICROSECONDS = 1_000_000
KINDS = ("image", "video")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One medium, decoded: its clip and the JPEGs of its frames."""

    clip: Clip
    jpegs: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserMedium:
    """What a user gives to look at.

    `value`: a path, an address (https, hf, s3, gs), a `data:` URI, a picture (PIL, array, tensor),
    or for a video a list of pictures or of such places, or one array of frames. `times`: seconds of
    each frame, ascending, or None for files, which know their own. `name` stands in messages.
    """

    kind: str
    value: Any
    name: str
    times: Sequence[float] | None = None


def see(medium: UserMedium, profile: Profile) -> Seen:
    """The medium as the pool would hold it; UserError says by its name what is wrong with it."""
    value, name = medium.value, medium.name
    # a place, or a picture's bytes
    if isinstance(value, str | Path) or (medium.kind == "image" and isinstance(value, bytes)):
        if medium.times is not None:
            raise UserError(
                f"{name}: times of frames with a file, which has its own; leave them out"
            )
        return _see_place(value, medium.kind, f"{name} ({str(value)[:80]})", profile)
    if medium.kind == "image":
        picture = value if isinstance(value, Image.Image) else Image.fromarray(_array(value, name))
        return see_image(picture, profile, name)
    frames = _frames(value, name, profile)
    if medium.times is None:
        raise UserError(
            f"{name}: {len(frames)} frames without times; give `seconds`, one for each, or "
            "`video_metadata` with the fps that they were taken at"
        )
    return see_frames(frames, list(medium.times), profile, name)


def times_of(metadata: Any, num_frames: int, name: str) -> list[float]:
    """Seconds of so many frames by transformers' VideoMetadata, or a dictionary of its fields.

    UserError without `fps`, or where its `frames_indices` are of another number of frames.
    """
    value = dict(metadata) if isinstance(metadata, Mapping) else {}
    fps, indices = value.get("fps"), value.get("frames_indices")
    # without indices the frames are consecutive
    shown = list(range(num_frames)) if indices is None else [int(index) for index in indices]
    if not fps or len(shown) != num_frames:
        raise UserError(
            f"{name}: video_metadata with fps {fps!r} and {len(shown)} frames_indices for "
            f"{num_frames} frames; give the fps, and one index for each frame"
        )
    # a user's frames have no decoder's times: index / fps is what transformers means by them
    return [index / fps for index in shown]


def _see_place(content: str | Path | bytes, kind: str, name: str, profile: Profile) -> Seen:
    """What lies at a path or an address, or came as bytes or as a `data:` URI."""
    data = content if isinstance(content, bytes) else None
    if isinstance(content, str) and content.startswith("data:"):
        try:
            data = base64.b64decode(content.partition(",")[2], validate=True)
        except binascii.Error as error:
            raise UserError(f"{name}: no base64 ({error}); give a data: URI, or a path") from error
    if data is None:
        # fetched under the address guard of the pipeline, into its cache
        address = str(content)
        path = local(address).path if "://" in address else Path(address).absolute()
        return see_files([(path, kind, name)], profile)[0]
    # a file of their own: bytes of a user pass the same door as a dataset's
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return see_files([(Path(file.name), kind, name)], profile)[0]


def _frames(value: Any, name: str, profile: Profile) -> NDArray[np.uint8]:
    """Frames uint8 [N, H, W, 3] of a list of pictures or places, or of one array of them."""
    if not isinstance(value, list | tuple):
        return _array(value, name, 4)
    frames = [_picture(item, f"{name}, frame {i}", profile) for i, item in enumerate(value)]
    if len({frame.shape for frame in frames}) > 1:
        raise UserError(f"{name}: frames of several sizes; give all in one size")
    return np.stack(frames) if frames else np.zeros((0, 1, 1, 3), np.uint8)


def _picture(value: Any, name: str, profile: Profile) -> NDArray[np.uint8]:
    if isinstance(value, str | Path | bytes):
        seen = _see_place(value, "image", f"{name} ({str(value)[:80]})", profile)
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(seen.jpegs[0])
        return pixels
    if isinstance(value, Image.Image):
        return np.asarray(value.convert("RGB"))
    return _array(value, name)


def _array(value: Any, name: str, axes: int = 3) -> NDArray[np.uint8]:
    """An array or tensor of pixels, channels first or last -> uint8, channels last."""
    array = np.asarray(value.cpu() if hasattr(value, "cpu") else value)
    # channels first, as torch has pictures
    if array.ndim == axes and array.shape[-1] != 3 and array.shape[axes - 3] == 3:
        array = np.moveaxis(array, axes - 3, -1)
    if array.dtype != np.uint8 or array.ndim != axes or array.shape[-1] != 3:
        wanted = "[N, H, W, 3] or [N, 3, H, W]" if axes == 4 else "[H, W, 3] or [3, H, W]"
        raise UserError(
            f"{name}: {type(value).__name__} of {array.dtype} {list(array.shape)} is nothing to "
            f"look at; give a path, an address, PIL images, or uint8 {wanted} of 0..255"
        )
    return np.ascontiguousarray(array)


def see_files(files: Sequence[tuple[Path, str, str]], profile: Profile) -> list[Seen]:
    """(path, "image" or "video", name) of each file, decoded together; UserError names the first
    that pipeline.media refuses."""
    outcomes = see_each([(path, kind, None, name) for path, kind, name in files], profile)
    for (_, _, name), seen in zip(files, outcomes, strict=True):
        if isinstance(seen, MediaRefusal):
            raise UserError(f"{name}: {seen.code}: {seen.detail}; give another file")
    return [seen for seen in outcomes if isinstance(seen, Seen)]


def see_each(
    items: Sequence[tuple[Path | Stills, str, Span, str]], profile: Profile
) -> list[Seen | MediaRefusal]:
    """(place, "image" or "video", span, name) of each medium, decoded or refused.

    A span is [start, end) of a video in microseconds; `Stills` are pictures that make up a video.
    """
    # one call: several files share the sandbox's child processes
    decoded = decode_all([(place, kind, span) for place, kind, span, _ in items], profile)
    return [
        outcome
        if isinstance(outcome, MediaRefusal)
        else _seen(outcome, short_hash([kind, name, str(place), list(span or ())]))
        for outcome, (place, kind, span, name) in zip(decoded, items, strict=True)
    ]


def see_image(image: Image.Image, profile: Profile, name: str) -> Seen:
    """A picture in memory, by way of a lossless file: it is opened as every other."""
    # PNG: lossless, so that its only lossy step is the pool's own JPEG
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
    # relative to the first frame, as the decoder's times are
    pts = tuple(round((time - seconds[0]) * MICROSECONDS) for time in seconds)
    # as rounded: two frames within a microsecond are one moment
    if any(b <= a for a, b in itertools.pairwise(pts)):
        raise UserError(f"{name}: times do not ascend; sort the frames by time")
    height, width = frames.shape[1:3]
    # stored as the pool stores videos: at most the profile's area
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
    # bicubic, as the pool scales; full chroma, since what a user holds is RGB
    shown = Image.fromarray(frame).resize(stored, Image.Resampling.BICUBIC)
    data: bytes = simplejpeg.encode_jpeg(np.asarray(shown), quality, "RGB", "444")
    return data


def _seen(decoded: Decoded, clip_id: str) -> Seen:
    # fields that a stored clip and a decoded medium have in common
    shared = set(Clip.__slots__) & set(Decoded.__slots__)
    values: dict[str, Any] = {name: getattr(decoded, name) for name in shared}
    clip = Clip(
        clip_id=clip_id,
        nbytes=tuple(len(jpeg) for jpeg in decoded.frames),
        differences=tuple(differences(decoded.frames)),
        **values,
    )
    return Seen(clip=clip, jpegs=decoded.frames)


def reordered(seen: Seen, order: Sequence[int], *, differences_too: bool) -> Seen:
    """The frames of a medium in another order under the times that they had.

    `differences_too`: how much each differs from the one before is measured anew; else not known.
    """
    jpegs = tuple(seen.jpegs[i] for i in order)
    clip = replace(
        seen.clip,
        clip_id=short_hash([seen.clip.clip_id, list(order)]),
        nbytes=tuple(map(len, jpegs)),
        differences=tuple(differences(jpegs)) if differences_too else (),
    )
    return Seen(clip=clip, jpegs=jpegs)
