"""Scores of a clip's frames, one per frame; each takes RGB arrays, uint8 [height, width, 3]."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]
MOST = 65_535
"""Scores are from 0 to here."""
EDGE = 64
"""A step of luma from one pixel to the next that counts as an edge of a letter."""


def luma(frame: Frame) -> NDArray[np.float64]:
    """Rec. 601 luma of a frame, 0..255."""
    weights = np.array([0.299, 0.587, 0.114])
    found: NDArray[np.float64] = frame @ weights
    return found


def brightness(frames: Sequence[Frame]) -> list[int]:
    """Mean luma of each frame, 0..255."""
    return [int(luma(frame).mean()) for frame in frames]


def sharpness(frames: Sequence[Frame]) -> list[int]:
    """Variance of the Laplacian of each frame's luma (Pech-Pacheco et al. 2000)."""
    return [_variance_of_laplacian(luma(frame)) for frame in frames]


def _variance_of_laplacian(grey: NDArray[np.float64]) -> int:
    # the four neighbours less four times the middle; frames of one or two rows have no middle
    middle = grey[1:-1, 1:-1]
    if not middle.size:
        return 0
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return min(int((around - 4 * middle).var()), MOST)


def motion(frames: Sequence[Frame]) -> list[int]:
    """Mean change of luma from the frame before, in hundredths; 0 of the first."""
    greys = [luma(frame) for frame in frames]
    changes = [np.abs(one - other).mean() for one, other in zip(greys[1:], greys, strict=False)]
    return [0, *(int(100 * change) for change in changes)][: len(frames)]


def text_density(frames: Sequence[Frame]) -> list[int]:
    """Per mille of neighbours along rows that differ as letters do from their ground."""
    steps = (np.abs(np.diff(luma(frame), axis=1)) >= EDGE for frame in frames)
    return [int(1000 * edges.mean()) if edges.size else 0 for edges in steps]
