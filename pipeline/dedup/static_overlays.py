"""What stands still on a moving picture, and the picture without it.

A logo changes low frequencies, so that the hash of a copy under it may lie anywhere. Where it is
shows in the copy alone: its cells change least in time. They are filled from what is around them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.dedup.fingerprints import SIDE, Floats

STANDS_STILL = 0.35  # of the median change; what shines through a logo of 70 % opacity is less
MOST_STILL = 0.25  # share of the cells; where more stands still it is the scene
LEAST_PICTURES = 3
LEAST_CHANGE = 2.0  # luma; a video whose cells change less stands still as a whole

Bools = npt.NDArray[np.bool_]

# the 5-point Laplacian of a 32 x 32 grid with free borders: a Kronecker sum of path graphs
_STEPS = np.diff(np.eye(SIDE), axis=0)
_LAPLACE = np.kron(_STEPS.T @ _STEPS, np.eye(SIDE)) + np.kron(np.eye(SIDE), _STEPS.T @ _STEPS)


def still(pictures: Floats) -> Bools:
    """bool[32, 32]: the cells of a clip's pictures [n, 32, 32] that stand still on a moving scene,
    and their neighbours; none where nothing does or too much."""
    if len(pictures) < LEAST_PICTURES:
        # too few pictures: standing still would be chance
        return np.zeros((SIDE, SIDE), np.bool_)
    # standard deviation of each cell over time, [32, 32]
    change = pictures.std(axis=0)
    usual = float(np.median(change))
    cells = change < STANDS_STILL * usual
    logo = grown(cells)
    # a film that hardly moves, or moves in a small part only, has no overlay that could be told
    is_scene = usual < LEAST_CHANGE or cells.mean() > MOST_STILL or logo.mean() > 2 * MOST_STILL
    return np.zeros_like(logo) if is_scene else logo


def grown(cells: Bools) -> Bools:
    """The cells and their neighbours."""
    # dilation by a 3 x 3 square, one axis after the other
    wide = np.pad(cells, 1)
    rows = wide[:-2] | wide[1:-1] | wide[2:]
    return np.asarray(rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:])


def filled(pictures: Floats, overlay: Bools) -> Floats:
    """The pictures [n, 32, 32] with each of the cells at the mean of its neighbours: harmonic
    inpainting, Laplace's equation solved for the cells with those around them as its border."""
    inner = overlay.ravel()
    flat = pictures.reshape(len(pictures), -1).copy()
    # Dirichlet problem: L_ii x = -L_ib b, of the inner cells given those around them
    pull = -_LAPLACE[np.ix_(inner, ~inner)] @ flat[:, ~inner].T
    flat[:, inner] = np.linalg.solve(_LAPLACE[np.ix_(inner, inner)], pull).T
    return flat.reshape(pictures.shape)
