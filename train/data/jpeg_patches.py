"""JPEGs -> frames at the size the recipe shows, cut into patches; the clips worth keeping.

A patch is sixteen runs of sixteen pixels as the decoder leaves them: the channels are sorted on the
device, where it costs nothing. A frame is decoded into memory that stays in a core's cache, and
from there each run goes straight into the rows of the pack that will hold it.
"""

from __future__ import annotations

import math
import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from threading import Lock, local
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from mixtures.tokens.frame_view import ClipView
from shards.errors import DamagedData
from shards.sample import Clip

PATCH = 16
PATCH_VALUES = 3 * PATCH * PATCH
_RUN = np.dtype(f"V{3 * PATCH}")
Frames = NDArray[np.uint8]
"""[F, gh, gw, 768]: frames of gh x gw patches, each in (ph, pw, c) order."""
Pixels = NDArray[np.uint8]
"""[H, W, 3]: red, green, blue; zeros where a grid is larger than its picture."""


class Rooms:
    """Arrays for the patches of packs, used again as soon as nobody else holds them.

    Pages fresh from the system come zeroed, which costs a fifth of decoding what goes into them.
    """

    def __init__(self) -> None:
        self._arrays: list[NDArray[np.uint8]] = []

    def empty(self, patches: int) -> NDArray[np.uint8]:
        """[P, 768], filled with anything."""
        # two references: the list's and getrefcount's own argument; any more and somebody holds it
        free = [i for i in range(len(self._arrays)) if sys.getrefcount(self._arrays[i]) == _UNUSED]
        fit = [i for i in free if len(self._arrays[i]) >= patches]
        if not fit:
            # none is large enough: free ones go before a larger one comes
            for i in reversed(free):
                del self._arrays[i]
            self._arrays.append(np.empty((patches, PATCH_VALUES), np.uint8))
            fit = [-1]
        return self._arrays[fit[0]][:patches]


_UNUSED = 2
"""References to an array that only its list holds, and the one who counts."""


@dataclass(slots=True)
class Room:
    """Rows of a pack, [P, 768], set aside for one sample; its clips take theirs in turn."""

    rows: NDArray[np.uint8]
    taken: int = 0

    def take(self, num_frames: int, clip_view: ClipView) -> Frames | None:
        """Where so many frames of this size go; None if the rows do not suffice."""
        shape = (num_frames, clip_view.height // PATCH, clip_view.width // PATCH, PATCH_VALUES)
        start = self.taken
        self.taken = self.taken + math.prod(shape[:3])
        return (
            self.rows[start : self.taken].reshape(shape) if self.taken <= len(self.rows) else None
        )


def open_jpegs(
    jpegs: Sequence[bytes | memoryview],
    clip_view: ClipView,
    used: Sequence[int],
    clip: Clip,
    out: Frames | None = None,
) -> Frames:
    """The used frames of one clip at the view's size, in `out` if it is given.

    Decoding gives the interpreter free, so threads decode side by side.
    """
    shape = (len(used), clip_view.height // PATCH, clip_view.width // PATCH, PATCH_VALUES)
    frames = np.empty(shape, np.uint8) if out is None else out
    pixels = decoded(jpegs, clip_view, used, clip)
    for patches, shown in zip(frames.view(_RUN), pixels, strict=True):
        # patchify without a copy of pixels: only whole runs of sixteen move
        # [gh, 16, gw] runs of sixteen pixels -> [gh, gw, 16]
        patches[:] = shown.reshape(len(patches), PATCH, -1).view(_RUN).swapaxes(1, 2)
    return frames


def decoded(
    jpegs: Sequence[bytes | memoryview], clip_view: ClipView, used: Sequence[int], clip: Clip
) -> Iterator[Pixels]:
    """The used frames of one clip on their grid, each in the memory of the one before.

    DamagedData names what is no JPEG of the clip's size.
    """
    # one buffer per thread for all frames of all clips
    pixels = _scratch.take(3 * clip_view.height * clip_view.width).reshape(
        clip_view.height, clip_view.width, 3
    )
    (left, top), (width, height) = clip_view.offset, clip_view.picture
    if clip_view.picture != (clip_view.width, clip_view.height):
        pixels[:] = 0  # around the picture: what the tower takes for black, -1 when normalised
    picture = pixels[top : top + height, left : left + width]
    for frame in used:
        try:
            decode(jpegs[clip_view.frames[frame]], picture, (clip.width, clip.height))
        except ValueError as error:
            where = f"clip {clip.clip_id}: frame {clip_view.frames[frame]}"
            raise DamagedData(f"{where} is no JPEG of its size ({error})") from error
        yield pixels


def decode(jpeg: bytes | memoryview, pixels: Pixels, size: tuple[int, int]) -> None:
    """Decode straight into `pixels` where the sizes agree, else scale into them.

    ValueError if it is no JPEG of this size, (width, height): what a header promises beyond it
    costs memory, so it is looked at before.
    """
    # the header is cheap, what it promises is not
    height, width = simplejpeg.decode_jpeg_header(jpeg)[:2]
    if (width, height) != size:
        raise ValueError(f"{width} x {height} pixels, {size[0]} x {size[1]} were stored")
    # scaled already: no copy between the decoder and the buffer
    if (height, width) == pixels.shape[:2] and pixels.flags.c_contiguous:
        simplejpeg.decode_jpeg(jpeg, buffer=pixels)
        return
    # bicubic as the pool itself scales
    stored = Image.fromarray(simplejpeg.decode_jpeg(jpeg))  # resized only where the sizes differ
    pixels[:] = np.asarray(stored.resize(pixels.shape[1::-1], Image.Resampling.BICUBIC))


class _Scratch(local):
    """Memory that a thread uses for every frame again: fresh pages cost a third of decoding.

    It starts at an odd multiple of 8: past the cache, into memory, goes what libjpeg-turbo writes
    to addresses that 16 divides (`movntdq` in its jdcolext-sse2.asm), and cutting waits for it.
    """

    def __init__(self) -> None:
        self._array = np.empty(0, np.uint8)

    def take(self, nbytes: int) -> NDArray[np.uint8]:
        """So many bytes, filled with anything."""
        if len(self._array) < nbytes:
            self._array = np.empty(nbytes + 8, np.uint8)[8:]
        return self._array[:nbytes]


_scratch = _Scratch()
MOST_SEEN = 1 << 16


@dataclass(slots=True)
class ClipCache:
    """Frames of clips, least recently used first out, bounded in bytes; safe between threads.

    A clip is kept from its second time on: keeping one costs a copy, and of millions in a shuffled
    order most do not come again in time. `MOST_SEEN` clips are remembered as seen.
    """

    limit: int
    held: int = 0
    _items: OrderedDict[tuple[Any, ...], Frames] = field(default_factory=OrderedDict)
    _seen: set[int] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock)

    def get(self, key: tuple[Any, ...]) -> Frames | None:
        """The frames of a clip, or None; what was asked for last is dropped last."""
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
            return self._items.get(key)

    def put(self, key: tuple[Any, ...], frames: Frames) -> None:
        """Keep a clip that comes a second time, and drop the least recently used beyond the
        limit."""
        # a clip larger than the cache would push out all others
        if frames.nbytes > self.limit or not self._again(hash(key)):
            return
        copied = frames if frames.base is None else frames.copy()  # not its pack too
        with self._lock:
            if key in self._items:
                return
            self._items[key] = copied
            self.held += copied.nbytes
            while self.held > self.limit:
                self.held -= self._items.popitem(last=False)[1].nbytes

    def _again(self, number: int) -> bool:
        # a hash, not the key: a false match keeps a clip one time too early
        with self._lock:
            again = number in self._seen
            if len(self._seen) >= MOST_SEEN:
                self._seen.clear()
            self._seen.add(number)
        return again
