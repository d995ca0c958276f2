"""Where one small picture lies in another, and whether both then show the same.

Pictures are 32 x 32 cells of luma. A crop, a border, or a frame taken a little later shifts and
scales a picture by parts of a cell, which are large differences of its cells; after registration
(Lucas and Kanade's, with a scale and a shift per axis) what differs is what is shown. A place is
float32[k, 4]: row i of the other picture shows row middle + scale * (i - middle) + shift of the
picture; (scale, shift) of the rows, then of the columns. All functions take k pairs at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.dedup.fingerprints import SIDE, Floats
from pipeline.dedup.transforms import sampling

HERE: Floats = np.array([[1, 0, 1, 0]], np.float32)
MAX_SCALED, MAX_SHIFTED = 0.12, 3.0  # a place further off is another picture, bent until it fits
FITS = (36.0, 8.0, 0.9)  # Likeness.same of copied images; different digit scans: 40 and more
FLAT = 2.0  # luma; what varies less has no shape of its own
_DAMPING = 1e-3
_OUTLIER = 20.0  # luma; cells that differ more, such as a logo's, hardly pull
_OFFSETS = np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Likeness:
    """Of k pairs: the largest and the mean difference of cells, and the correlation of cells."""

    largest: Floats
    mean: Floats
    correlation: Floats

    def same(self, largest: float, mean: float, correlation: float) -> Bools:
        close = (self.largest <= largest) & (self.mean <= mean)
        return close & (self.correlation >= correlation)


def smoothed(pictures: Floats) -> Floats:
    """Each cell with its neighbours at weights 1, 2, 1 along both axes."""
    wide = np.pad(pictures, ((0, 0), (1, 1), (1, 1)), mode="edge")
    tall = (wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:]) / 4
    return np.asarray((tall[..., :-2] + 2 * tall[..., 1:-1] + tall[..., 2:]) / 4, np.float32)


def registered(pictures: Floats, others: Floats, start: Floats, steps: int = 8) -> Floats:
    """Where each of `others` [k, 32, 32] lies in each of `pictures`, sought from `start`."""
    slopes = np.gradient(pictures, axis=(1, 2))
    found: Floats = start
    for step in range(steps):
        down, across = _axes(found)
        missing = others - down @ pictures @ across
        outliers = (missing / _OUTLIER) ** 2 if step > 1 else np.zeros_like(missing)
        weight = inside(found) / (1 + outliers)
        ways = np.empty((len(found), 4, SIDE, SIDE), np.float32)
        ways[:, 1], ways[:, 3] = (down @ slope @ across for slope in slopes)
        ways[:, 0], ways[:, 2] = ways[:, 1] * _OFFSETS[:, None], ways[:, 3] * _OFFSETS
        pulled = (ways * weight[:, None]).reshape(len(found), 4, SIDE * SIDE)
        normal = pulled @ ways.reshape(len(found), 4, SIDE * SIDE).transpose(0, 2, 1)
        normal = normal * (1 + _DAMPING * np.eye(4, dtype=np.float32)) + 1e-3 * np.eye(4)
        moved = np.linalg.solve(normal, pulled @ missing.reshape(len(found), SIDE * SIDE, 1))[
            ..., 0
        ]
        found = (found + moved).astype(np.float32)
    return found


def plausible(place: Floats, start: Floats) -> Bools:
    """Whether registration stayed near where it was sought from."""
    off = abs(place - start)
    scaled = (off[:, ::2] / start[:, ::2] <= MAX_SCALED).all(axis=1)
    return np.asarray(scaled & (off[:, 1::2] <= MAX_SHIFTED).all(axis=1))


def warped(pictures: Floats, place: Floats) -> Floats:
    """The pictures as the others would show them."""
    down, across = _axes(place)
    return np.asarray(down @ pictures @ across)


def inverse(place: Floats) -> Floats:
    """Where the picture lies in the other picture."""
    back = np.empty_like(place)
    back[:, ::2] = 1 / place[:, ::2]
    back[:, 1::2] = -place[:, 1::2] / place[:, ::2]
    return back


def _axes(place: Floats) -> tuple[Floats, Floats]:
    across = sampling(place[:, 2], place[:, 3])
    return sampling(place[:, 0], place[:, 1]), across.transpose(0, 2, 1)


def inside(place: Floats, margin: float = -0.75) -> Floats:
    """float32[k, 32, 32]: 1 where a cell of the other picture lies in the picture, `margin` cells
    from its edge; else 0."""
    rows = _within(place[:, 0], place[:, 1], margin)
    return np.asarray(rows[:, :, None] * _within(place[:, 2], place[:, 3], margin)[:, None, :])


def _within(scale: Floats, shift: Floats, margin: float) -> Floats:
    places = (SIDE - 1) / 2 + scale[:, None] * _OFFSETS + shift[:, None]
    return ((places >= margin) & (places <= SIDE - 1 - margin)).astype(np.float32)


def likeness(pictures: Floats, others: Floats, counted: Floats) -> Likeness:
    """Of pairs [k, 32, 32], over the cells that are `counted` [k or 1, 32, 32] with 1."""
    difference = abs(pictures - others) * counted
    cells = counted.sum(axis=(1, 2))
    one, two = (_centred(each, counted, cells) for each in (pictures, others))
    spread = (one**2).sum(axis=(1, 2)) * (two**2).sum(axis=(1, 2))
    flat = FLAT**2 * cells
    return Likeness(
        largest=difference.max(axis=(1, 2)),
        mean=difference.sum(axis=(1, 2)) / cells,
        correlation=((one * two).sum(axis=(1, 2)) + flat) / (np.sqrt(spread) + flat),
    )


def _centred(pictures: Floats, counted: Floats, cells: Floats) -> Floats:
    middle = (pictures * counted).sum(axis=(1, 2)) / cells
    return np.asarray((pictures - middle[:, None, None]) * counted)
