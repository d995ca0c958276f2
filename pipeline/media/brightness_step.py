"""The trace of damage that a JPEG decoder cannot see: all that follows is brighter or darker.

A JPEG stores each block's mean as the difference to the one before. Where bytes are lost or wrong,
a decoder often finds its way back to the right codes, at the right place; the sum of differences
stays off. So right of some column one border between two rows of blocks shows a step; left of it
the next border shows the same one; and but for it the pixels on both sides go on as one picture.
Bars, bands and frames that are drawn or laid over a picture have no such border.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Levels = NDArray[np.int16]

BLOCK = 8  # pixels; a unit of blocks is one or two high
COLUMNS = 256  # of wider pictures, every second, third, ... column is looked at
STEP = 20  # levels; less shows little
USUAL = 4  # times the mean difference at borders: less is coarse coding, or rough ground
CLIPPED = 4  # levels from black and white: a step that leads there may be cut off
SOME = 0.25  # of the columns must differ for a closer look
LEAST = 16  # columns must tell, on each side
WITHIN = 48  # levels of what either should be
AGREE = 0.7  # of them must say the same
STRUCTURE = 3.0  # levels (standard deviation) along a border: of flat grounds nothing is said
LIKE = 0.5  # square of the least correlation of the pixels on the two sides of a border


@dataclass(frozen=True, slots=True, kw_only=True)
class Borders:
    """Two borders between rows of blocks, one below the other; arrays are [2, columns].

    `expected` is what `lower` is where the slopes above and below go on; `inside` is where neither
    row is nearly black or white.
    """

    upper: Levels
    lower: Levels
    expected: Levels
    inside: NDArray[np.bool_]


def brightness_step(pixels: Pixels) -> tuple[int, int] | None:
    """(row, levels) from where on all is off in the order of reading, or None.

    `pixels` are [height, width] or [height, width, channels], as decoded, not yet scaled or turned.
    """
    # subsampled columns, all rows: a step shows along a whole row of blocks
    planes = pixels.reshape(*pixels.shape[:2], -1)[:, :: max(1, pixels.shape[1] // COLUMNS)]
    steps = (_in_plane(planes[..., channel]) for channel in range(planes.shape[2]))
    return next((step for step in steps if step), None)


def _in_plane(plane: Pixels) -> tuple[int, int] | None:
    # the last row of every block, and its neighbours: two rows above the border, two below
    above = np.arange(BLOCK, len(plane) - 2, BLOCK) - 1
    outer, upper, lower, inner = (plane[above + n].astype(np.int16) for n in (-1, 0, 1, 2))
    # linear extrapolation from both sides meets at the border: what the lower row should be
    expected = upper + (upper - outer + inner - lower) // 2
    inside = (np.minimum(upper, lower) > CLIPPED) & (np.maximum(upper, lower) < 255 - CLIPPED)
    excess = np.where(inside, lower - expected, 0)
    # relative to what this picture's borders usually do, so that coarse quantisation is no step
    least = max(STEP, USUAL * np.abs(excess).mean()) if excess.size else STEP
    # a row of MCUs is one or two blocks high (chroma subsampling)
    for high in (1, 2):
        large = np.abs(excess[:-high] + excess[high:]) >= least
        for at in np.flatnonzero(large.mean(1) >= SOME).tolist():
            pair = [at, at + high]
            borders = Borders(
                upper=upper[pair], lower=lower[pair], expected=expected[pair], inside=inside[pair]
            )
            step = _step(borders)
            if abs(step) >= least:
                return int(above[at]) + 1, step
    return None


def _step(borders: Borders) -> int:
    """The levels by which all is off between and below these borders, or 0."""
    tell = borders.inside.all(0)
    if tell.sum() < 2 * LEAST:
        return 0
    # a robust estimate of the offset: the sum over both borders, each column telling on one of them
    step = int(np.median((borders.lower - borders.expected).sum(0)[tell]))
    if abs(step) < STEP:
        return 0
    stepped = _stepped(borders, step)
    return step if stepped.any() and _one_picture(borders, stepped) else 0


def _stepped(borders: Borders, step: int) -> NDArray[np.bool_]:
    """Where the step lies: right of some column on the first border, left of it on the second.

    [2, columns], all false if it lies otherwise.
    """
    # clipping hides a part of the step near black and white
    moved = np.clip(borders.expected + step, 0, 255)
    tells = np.abs(moved - borders.expected) >= STEP // 2
    off = np.abs(borders.lower - moved)
    still = np.abs(borders.lower - borders.expected)
    # two hypotheses per column: it shows the step, or it goes on undisturbed
    shows = tells & (off < still) & (off < WITHIN)
    lacks = tells & (still <= off) & (still < WITHIN)
    left = np.cumsum(lacks[0]) + np.cumsum(shows[1])
    right = np.cumsum(shows[0]) + np.cumsum(lacks[1])
    # the change point: the cut with the most columns on their own side, by cumulative sums
    column = int(np.argmax(left - right)) + 1
    after = np.arange(shows.shape[1]) >= column
    agreeing = np.where([after, ~after], shows, lacks)
    # both borders, on both sides of the cut, must agree
    for border in (0, 1):
        for side in (after, ~after):
            count = agreeing[border, side].sum()
            if count < max(LEAST, AGREE * tells[border, side].sum()):
                return np.zeros_like(shows)
    where: NDArray[np.bool_] = shows & [after, ~after]
    return where


def _one_picture(borders: Borders, where: NDArray[np.bool_]) -> bool:
    """Whether above and below the borders lies one picture that has structure."""
    where = where & borders.inside
    if where.sum() < LEAST:
        return False
    upper, lower = borders.upper[where], borders.lower[where]
    # normalised cross-correlation of the two rows, squared
    a, b = upper - upper.mean(), lower - lower.mean()
    return bool(a.std() >= STRUCTURE and (a @ b) ** 2 >= LIKE * (a @ a) * (b @ b))
