"""What a clip looks like, small enough to compare with every other clip.

A kept frame's fingerprint is a PDQ hash (256 bits, finds candidates) and a 16 x 16 luma picture
(256 bytes, decides). Both are made from the stored frame's luma at one fixed size, since PDQ at
another size is another hash: measured on 64 x 64 digit scans, the same picture scaled by 0.75 and
1.5 lies at most 40 bits away when hashed at 128 x 128, and up to 56 when hashed at 64 x 64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pdqhash
import simplejpeg
from PIL import Image

from pipeline.decoded import Decoded

HASH_SIDE = 128
THUMBNAIL_SIDE = 16
MOST = 16  # fingerprints per clip: a pool of 10^6 videos then has at most 1.6 * 10^7 hashes

Luma = npt.NDArray[np.uint8]


def fingerprint(clip_id: str, decoded: Decoded) -> list[dict[str, Any]]:
    """Rows of shards.index.FINGERPRINTS: at most 16 frames, evenly by time; 1 for an image."""
    return [_row(clip_id, decoded, frame) for frame in evenly(decoded.pts, MOST)]


def _row(clip_id: str, decoded: Decoded, frame: int) -> dict[str, Any]:
    shown = Image.fromarray(luma(decoded.frames[frame]))
    side = (HASH_SIDE, HASH_SIDE)
    square = np.asarray(shown.resize(side, Image.Resampling.BICUBIC))
    bits, quality = pdqhash.compute(square[..., None].repeat(3, axis=2))
    small = shown.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    numerator, denominator = decoded.time_base
    return {
        "clip_id": clip_id,
        "kind": decoded.kind,
        "frame": frame,
        "micros": decoded.pts[frame] * 1_000_000 * numerator // denominator,
        "quality": int(quality),
        "hash": np.packbits(bits).tobytes(),
        "thumbnail": small.tobytes(),
    }


def evenly(pts: tuple[int, ...], most: int) -> list[int]:
    """Indexes of at most `most` frames: those nearest to evenly spaced times, ends included."""
    if len(pts) <= most:
        return list(range(len(pts)))
    times = np.array(pts, np.int64) * (most - 1)
    targets = np.arange(most, dtype=np.int64) * (pts[-1] - pts[0]) + pts[0] * (most - 1)
    return sorted({int(abs(times - target).argmin()) for target in targets})


def differences(decoded: Decoded) -> list[int]:
    """Mean absolute luma difference of each frame to the one before, 0..255; the first is 0."""
    found, before = [0], None
    for jpeg in decoded.frames:
        now = luma(jpeg).astype(np.int32)
        if before is not None:
            found.append(int(abs(now - before).sum()) // now.size)
        before = now
    return found


def luma(jpeg: bytes) -> Luma:
    """The Y plane of one of our own JPEGs: uint8[height, width]."""
    plane: Luma = simplejpeg.decode_jpeg(jpeg, "GRAY")[..., 0]
    return plane
