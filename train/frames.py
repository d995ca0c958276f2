"""JPEGs -> frames at the size the recipe shows, and the decoded clips worth keeping."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from mixtures.layout import Look
from shards.errors import DamagedData

Frames = NDArray[np.uint8]


def open_jpegs(
    jpegs: Sequence[bytes | memoryview], look: Look, used: Sequence[int], clip_id: str
) -> Frames:
    """The used frames of one clip, decoded and scaled to the view's size: [F, H, W, 3].

    Decoding gives the interpreter free, so threads decode side by side.
    """
    frames = np.empty((len(used), look.height, look.width, 3), np.uint8)
    for row, frame in enumerate(used):
        try:
            _decode(jpegs[look.frames[frame]], frames[row])
        except ValueError as error:
            raise DamagedData(f"clip {clip_id}: frame {look.frames[frame]} is no JPEG") from error
    return frames


def _decode(jpeg: bytes | memoryview, out: Frames) -> None:
    """Decode straight into `out` where the sizes agree; else scale into it."""
    height, width = simplejpeg.decode_jpeg_header(jpeg)[:2]
    if (height, width) == out.shape[:2]:
        simplejpeg.decode_jpeg(jpeg, buffer=out)
        return
    size = (out.shape[1], out.shape[0])
    stored = Image.fromarray(simplejpeg.decode_jpeg(jpeg))
    out[:] = np.asarray(stored.resize(size, Image.Resampling.BICUBIC))


@dataclass(slots=True)
class ClipCache:
    """Decoded frames, least recently used first out, bounded in bytes; safe between threads."""

    limit: int
    held: int = 0
    _items: OrderedDict[tuple[Any, ...], Frames] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    def get(self, key: tuple[Any, ...]) -> Frames | None:
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
            return self._items.get(key)

    def put(self, key: tuple[Any, ...], frames: Frames) -> None:
        with self._lock:
            if key in self._items or frames.nbytes > self.limit:
                return
            self._items[key] = frames
            self.held += frames.nbytes
            while self.held > self.limit:
                self.held -= self._items.popitem(last=False)[1].nbytes
