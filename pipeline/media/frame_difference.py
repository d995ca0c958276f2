"""How much frames differ from the one before: on 32 x 32 luma."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import simplejpeg

Luma = npt.NDArray[np.uint8]


def differences(jpegs: Sequence[bytes]) -> list[int]:
    """Mean absolute luma difference of each frame to the one before, 0..255; the first is 0."""
    steps = [0]
    before = None
    for jpeg in jpegs:
        # signed, since uint8 differences wrap
        now = luma(jpeg).astype(np.int32)
        if before is not None:
            steps.append(int(abs(now - before).sum()) // now.size)
        before = now
    return steps


def luma(jpeg: bytes) -> Luma:
    """The Y plane of one of our own JPEGs: uint8[height, width]."""
    plane: Luma = simplejpeg.decode_jpeg(jpeg, "GRAY")[..., 0]
    return plane
