"""What a clip looks like, small enough to compare with every other clip.

A picture's fingerprint is its luma at 32 x 32 (1 KB, decides) and 256 bits (finds candidates): the
signs of its 16 x 16 lowest DCT frequencies against their median, as PDQ takes them of 64 x 64. They
are taken of the stored picture, so that every view of it (mirrored, turned, cropped) can be hashed
whenever somebody asks (pipeline.dedup.transforms). What 32 x 32 cells cannot see, digits and other
strokes, is told by the hashes of tiles of a few pictures (pipeline.dedup.details).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from pipeline.dedup.details import MOST_DETAILED, described, sides_of
from pipeline.media.decoded import Decoded
from pipeline.media.frame_difference import Luma

SIDE = 32
MOST_HASHES = 16  # a pool of 10^6 videos then has at most 1.6 * 10^7
MOST_PICTURES = 64
_REDUCED = 4 * SIDE  # libjpeg leaves out frequencies that a picture of 32 x 32 does not hold
_GRADIENT = 45  # PDQ's 90 of 64 x 64: half as many steps across an edge, and a quarter of the cells
Floats = npt.NDArray[np.float32]
Hashes = npt.NDArray[np.uint64]

# DCT-II basis, waves [16, 32] of 1 to 16 half periods; the constant (mean luma) is left out
_WAVES: Floats = np.cos(
    np.pi / (2 * SIDE) * np.arange(1, 17)[:, None] * (2 * np.arange(SIDE) + 1)
).astype(np.float32)


class Fingerprint(TypedDict):
    """A row of shards.index.FINGERPRINTS; `hashed` and `detailed` are places among the pictures."""

    clip_id: str
    kind: str
    micros: list[int]
    quality: list[int]
    pictures: bytes
    hashed: list[int]
    hashes: bytes
    sides: list[int]
    detailed: list[int]
    details: bytes


def fingerprint(clip_id: str, decoded: Decoded) -> Fingerprint:
    """What a clip looks like: pictures evenly by time, some of them hashed, some in detail."""
    # pictures, hashed ones and detailed ones are each evenly spaced: nested subsets of the frames
    frames = evenly(decoded.pts, MOST_PICTURES)
    pictures = np.stack([picture(decoded.frames[frame]) for frame in frames])
    hashed = evenly([decoded.pts[frame] for frame in frames], MOST_HASHES)
    sides = sides_of(decoded.width, decoded.height)
    detailed = evenly([decoded.pts[frame] for frame in frames], MOST_DETAILED) if sides else []
    numerator, denominator = decoded.time_base
    return {
        "clip_id": clip_id,
        "kind": decoded.kind,
        "micros": [decoded.pts[f] * 1_000_000 * numerator // denominator for f in frames],
        "quality": quality(pictures).tolist(),
        "pictures": pictures.tobytes(),
        "hashed": hashed,
        "hashes": hashes_of(frequencies(pictures[hashed].astype(np.float32))).tobytes(),
        "sides": sides,
        "detailed": detailed,
        "details": b"".join(described(decoded.frames[frames[place]], sides) for place in detailed),
    }


def picture(jpeg: bytes) -> Luma:
    """uint8[32, 32]: the mean luma of each cell of one of our own JPEGs."""
    # scaled while it is decoded (a libjpeg DCT of fewer coefficients), then averaged per cell
    plane = simplejpeg.decode_jpeg(
        jpeg, "GRAY", min_height=_REDUCED, min_width=_REDUCED, min_factor=1
    )[..., 0]
    small = Image.fromarray(plane).resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small)


def frequencies(
    pictures: Floats, down: Floats | None = None, across: Floats | None = None
) -> Floats:
    """float32[n, 16, 16]: the DCT frequencies 1 to 16 of pictures [n, 32, 32].

    `down` and `across` [32, 32] resample rows and columns first (a crop).
    """
    # a separable 2-D DCT: rows from the left, columns from the right; resampling folds into the
    # basis
    left = _WAVES if down is None else _WAVES @ down
    right = _WAVES if across is None else _WAVES @ across
    return np.asarray(left @ pictures @ right.T, np.float32)


def hashes_of(waves: Floats) -> Hashes:
    """uint64[n, 4]: which of the frequencies [n, 16, 16] lie above their median."""
    # the median halves the bits: every hash has 128 ones, so that distances of strangers lie near
    # 128
    flat = waves.reshape(-1, 256)
    bits = flat > np.median(flat, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64)


def quality(pictures: Luma) -> npt.NDArray[np.int64]:
    """0 (nothing to see) to 100 of each picture [n, 32, 32]: PDQ's sum of steps between cells."""
    # gradient sum over rows and columns, in percent of white as PDQ counts it
    cells = pictures.astype(np.int64)
    steps = [abs(np.diff(cells, axis=axis)) * 100 // 255 for axis in (1, 2)]
    total = sum(step.sum(axis=(1, 2)) for step in steps)
    return np.asarray(np.minimum(total // _GRADIENT, 100))


def evenly(pts: Sequence[int], most: int) -> list[int]:
    """Indexes of at most `most` frames: those nearest to evenly spaced times, ends included."""
    if len(pts) <= most:
        return list(range(len(pts)))
    # integers scaled by most - 1: no rounding decides which frame is nearest
    times = np.array(pts, np.int64) * (most - 1)
    targets = np.arange(most, dtype=np.int64) * (pts[-1] - pts[0]) + pts[0] * (most - 1)
    return sorted({int(abs(times - target).argmin()) for target in targets})
