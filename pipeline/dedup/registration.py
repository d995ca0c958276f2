"""Image registration: where one small picture lies in another, and whether both show the same.

Pictures are 32 x 32 cells of luma. A crop, a border, or a frame taken a little later shifts and
scales a picture by parts of a cell, which are large differences of its cells; after registration
what differs is what is shown. The algorithm is that of Lucas and Kanade (1981) in its forward
additive form (Baker and Matthews, "Lucas-Kanade 20 years on", 2004): Gauss-Newton steps over a
scale and a shift per axis, damped as Levenberg and Marquardt do and reweighted by a Cauchy weight.

A warp is float32[k, 4]: row i of the other picture shows row middle + scale * (i - middle) + shift
of the picture; (scale, shift) of the rows, then of the columns. All functions take k pairs at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.dedup.fingerprints import SIDE, Floats
from pipeline.dedup.transforms import sampling

HERE: Floats = np.array([[1, 0, 1, 0]], np.float32)
MAX_SCALED = 0.12  # a warp further off is another picture, bent until it fits
MAX_SHIFTED = 3.0  # the same, in cells
FITS = (36.0, 8.0, 0.9)  # Likeness.same of copied images; different digit scans: 40 and more
FLAT = 2.0  # luma; what varies less has no shape of its own
_DAMPING = 1e-3
_OUTLIER = 20.0  # luma; cells that differ more, such as a logo's, hardly pull
_OFFSETS = np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Likeness:
    """Of k pairs [k]: the largest and the mean absolute difference of cells, in luma, and their
    zero-mean normalised cross-correlation, -1 to 1."""

    largest: Floats
    mean: Floats
    correlation: Floats

    def same(self, largest: float, mean: float, correlation: float) -> Bools:
        """bool[k]: whether a pair is as near as these limits, ends included."""
        close = (self.largest <= largest) & (self.mean <= mean)
        return close & (self.correlation >= correlation)


def smoothed(pictures: Floats) -> Floats:
    """Pictures [k, 32, 32], each cell with its neighbours at weights 1, 2, 1 along both axes (a
    binomial filter); an edge goes on as it is."""
    # separable: rows, then columns
    wide = np.pad(pictures, ((0, 0), (1, 1), (1, 1)), mode="edge")
    tall = (wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:]) / 4
    return np.asarray((tall[..., :-2] + 2 * tall[..., 1:-1] + tall[..., 2:]) / 4, np.float32)


def registered(pictures: Floats, others: Floats, start: Floats, steps: int = 8) -> Floats:
    """The warp [k, 4] of each of `others` [k, 32, 32] in each of `pictures`, sought from `start`.

    It always answers: whether it is one at all is for `plausible` and `likeness` to say.
    """
    # image gradient of the picture, warped with it in each step
    slopes = np.gradient(pictures, axis=(1, 2))
    warp: Floats = start
    for step in range(steps):
        # what is left to explain, at the warp known so far
        down, across = _axes(warp)
        missing = others - down @ pictures @ across
        # Cauchy weights: a logo hardly pulls, once the first two steps have come near
        outliers = (missing / _OUTLIER) ** 2 if step > 1 else np.zeros_like(missing)
        weight = inside(warp) / (1 + outliers)
        # Jacobian [k, 4, 32, 32]: how each cell changes with the scale and the shift of each axis
        jacobian = np.empty((len(warp), 4, SIDE, SIDE), np.float32)
        jacobian[:, 1], jacobian[:, 3] = (down @ slope @ across for slope in slopes)
        jacobian[:, 0] = jacobian[:, 1] * _OFFSETS[:, None]
        jacobian[:, 2] = jacobian[:, 3] * _OFFSETS
        # normal equations, damped: a picture without structure along an axis does not run away
        weighted = (jacobian * weight[:, None]).reshape(len(warp), 4, SIDE * SIDE)
        normal = weighted @ jacobian.reshape(len(warp), 4, SIDE * SIDE).transpose(0, 2, 1)
        normal = normal * (1 + _DAMPING * np.eye(4, dtype=np.float32)) + 1e-3 * np.eye(4)
        pull = weighted @ missing.reshape(len(warp), SIDE * SIDE, 1)
        warp = (warp + np.linalg.solve(normal, pull)[..., 0]).astype(np.float32)
    return warp


def plausible(warp: Floats, start: Floats) -> Bools:
    """bool[k]: whether registration stayed near where it was sought from; what fits only far away
    is another picture, bent."""
    off = abs(warp - start)
    # scale relative to the start, shift in cells
    scaled = (off[:, ::2] / start[:, ::2] <= MAX_SCALED).all(axis=1)
    return np.asarray(scaled & (off[:, 1::2] <= MAX_SHIFTED).all(axis=1))


def warped(pictures: Floats, warp: Floats) -> Floats:
    """The pictures [k, 32, 32] as the others would show them, by bilinear sampling."""
    down, across = _axes(warp)
    return np.asarray(down @ pictures @ across)


def inverse(warp: Floats) -> Floats:
    """The warp [k, 4] of the picture in the other picture."""
    back = np.empty_like(warp)
    back[:, ::2] = 1 / warp[:, ::2]
    back[:, 1::2] = -warp[:, 1::2] / warp[:, ::2]
    return back


def _axes(warp: Floats) -> tuple[Floats, Floats]:
    """Sampling matrices [k, 32, 32] that stand left (rows) and right (columns) of a picture."""
    # bilinear warp of one axis as a matrix, so that a warp is two products
    across = sampling(warp[:, 2], warp[:, 3])
    return sampling(warp[:, 0], warp[:, 1]), across.transpose(0, 2, 1)


def inside(warp: Floats, margin: float = -0.75) -> Floats:
    """float32[k, 32, 32]: 1 where a cell of the other picture lies in the picture, `margin` cells
    from its edge; else 0."""
    rows = _within(warp[:, 0], warp[:, 1], margin)
    return np.asarray(rows[:, :, None] * _within(warp[:, 2], warp[:, 3], margin)[:, None, :])


def _within(scale: Floats, shift: Floats, margin: float) -> Floats:
    # sampled positions that fall into the picture, with a margin
    places = (SIDE - 1) / 2 + scale[:, None] * _OFFSETS + shift[:, None]
    return ((places >= margin) & (places <= SIDE - 1 - margin)).astype(np.float32)


def likeness(pictures: Floats, others: Floats, counted: Floats) -> Likeness:
    """Of pairs [k, 32, 32], over the cells that are `counted` [k or 1, 32, 32] with 1."""
    difference = abs(pictures - others) * counted
    # zero-mean normalised cross-correlation over the counted cells
    num_cells = counted.sum(axis=(1, 2))
    centred, others_centred = (_centred(cells, counted, num_cells) for cells in (pictures, others))
    covariance = (centred * others_centred).sum(axis=(1, 2))
    spread = (centred**2).sum(axis=(1, 2)) * (others_centred**2).sum(axis=(1, 2))
    # two pictures without structure correlate: noise of FLAT luma on both is added
    flat = FLAT**2 * num_cells
    return Likeness(
        largest=difference.max(axis=(1, 2)),
        mean=difference.sum(axis=(1, 2)) / num_cells,
        correlation=(covariance + flat) / (np.sqrt(spread) + flat),
    )


def _centred(pictures: Floats, counted: Floats, num_cells: Floats) -> Floats:
    """Pictures less their mean over the counted cells; 0 elsewhere."""
    middle = (pictures * counted).sum(axis=(1, 2)) / num_cells
    return np.asarray((pictures - middle[:, None, None]) * counted)
