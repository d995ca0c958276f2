"""The ways in which one copy's picture may lie in another's: mirrored, turned, cropped, in bars.

A transform is a crop followed by one of the eight mirrors and turns; a view is a picture seen under
one. All are taken on the side that asks, from stored pictures; the other side keeps one hash of
each picture as it is.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.dedup.fingerprints import SIDE, Floats, Hashes, frequencies, hashes_of
from pipeline.media.frame_difference import Luma

CROPS = (0.0, 0.05, 0.1)  # total share removed per axis
BLACK = (8, 24)  # luma; encoders leave noise in black bars, and some pictures are as dark
LEAST_INSIDE = SIDE // 2
CENTRED = 1.5  # cells by which two bars of one picture may differ

Bools = npt.NDArray[np.bool_]
Span = tuple[float, float]
WHOLE: Span = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Transform:
    """`rows` and `columns` are the shares of height and width that stay; then `turned` swaps the
    axes, `down` and `across` mirror them."""

    rows: Span = WHOLE
    columns: Span = WHOLE
    turned: bool = False
    down: bool = False
    across: bool = False

    @property
    def upright(self) -> bool:
        """Whether it is a crop only: neither mirrored nor turned."""
        return not (self.turned or self.down or self.across)


# the dihedral group of the square, each at three crops
SIDES_AND_CROPS = [
    Transform((crop / 2, 1 - crop / 2), (crop / 2, 1 - crop / 2), *side)
    for side in itertools.product((False, True), repeat=3)
    for crop in CROPS
]
"""The 24 transforms of every clip; the first three are upright."""
AS_IT_IS = 0


def in_bars(pictures: Luma) -> list[Transform]:
    """At most two more transforms of a clip [n, 32, 32] in black bars: what lies between them."""
    # both levels often agree: one view is then hashed once
    spans = dict.fromkeys(_inside_bars(pictures, level) for level in BLACK)
    return [Transform(*span) for span in spans if span != (WHOLE, WHOLE)]


def _inside_bars(pictures: Luma, level: int) -> tuple[Span, Span]:
    """The rows and columns that lie between bars of equal size, nowhere brighter than `level`."""
    if not len(pictures):
        return WHOLE, WHOLE
    # bars are black in every frame; what is bright once is picture
    brightest = pictures.max(axis=0)
    rows = _inside(brightest.max(axis=1) > level, pictures.mean(axis=(0, 2)))
    return rows, _inside(brightest.max(axis=0) > level, pictures.mean(axis=(0, 1)))


def _inside(lit: Bools, mean: Floats) -> Span:
    """A cell on the edge of a bar is as bright as the share of it that the bar leaves free."""
    cells = np.flatnonzero(lit)
    # less than half a picture between bars is no letterbox
    if not len(cells) or cells[-1] - cells[0] + 1 < LEAST_INSIDE:
        return WHOLE
    first, last = int(cells[0]), int(cells[-1])
    # anti-aliasing of the bar's edge gives its position to a part of a cell
    start = first + 1 - min(1.0, mean[first] / mean[first + 1]) if first else 0.0
    end = last + min(1.0, mean[last] / mean[last - 1]) if last < SIDE - 1 else float(SIDE)
    # bars of a letterbox are equal, within what scaling moves them
    if min(start, SIDE - end) < 0.5 or abs(start - (SIDE - end)) > CENTRED:
        return WHOLE
    return float(start) / SIDE, float(end) / SIDE


def transformed_hashes(pictures: Floats, transform: Transform) -> Hashes:
    """uint64[n, 4]: the hashes of pictures [n, 32, 32] seen so."""
    # cropping is a resampling of the DCT's basis: no picture is warped
    down, across = sampling(*centres(transform.rows)), sampling(*centres(transform.columns))
    waves = frequencies(pictures, down[0], across[0])
    return hashes_of(seen(waves, transform, odd=True))


def seen(planes: Floats, transform: Transform, *, odd: bool = False) -> Floats:
    """Turn and mirror [n, side, side]; of frequencies 1, 2, ... a mirror negates the `odd` ones."""
    turned = planes.transpose(0, 2, 1) if transform.turned else planes
    # a cosine wave of an odd number of half periods changes its sign when it is mirrored
    if odd:
        sign = 1 - 2 * (np.arange(turned.shape[1], dtype=np.float32) % 2 == 0)
        turned = turned * sign[:, None] if transform.down else turned
        return turned * sign if transform.across else turned
    return turned[:, :: -1 if transform.down else 1, :: -1 if transform.across else 1]


def start(transform: Transform) -> Floats:
    """Where the view lies in the picture as it is seen: mirrored and turned, not yet cropped."""
    # a transpose swaps the axes before they are mirrored
    rows, columns = (
        (transform.columns, transform.rows)
        if transform.turned
        else (transform.rows, transform.columns)
    )
    if transform.down:
        rows = (1 - rows[1], 1 - rows[0])
    if transform.across:
        columns = (1 - columns[1], 1 - columns[0])
    return np.stack([*centres(rows), *centres(columns)], axis=1)


def centres(span: Span) -> tuple[Floats, Floats]:
    """(scale[1], shift[1]) of a span of an axis, as pipeline.dedup.registration measures them."""
    scale = span[1] - span[0]
    shift = (span[0] + span[1] - 1) / 2 * SIDE
    return np.array([scale], np.float32), np.array([shift], np.float32)


def sampling(scale: Floats, shift: Floats) -> Floats:
    """float32[k, 32, 32]: bilinear sampling of an axis at middle + scale * (cell - middle) + shift,
    for k scales and shifts; beyond the edge the last cell goes on."""
    # bilinear weights as a matrix: a triangle around each sampled position
    middle = (SIDE - 1) / 2
    offsets = np.arange(SIDE, dtype=np.float32) - middle
    places = middle + scale[:, None] * offsets + shift[:, None]
    places = places.clip(0, SIDE - 1)[:, :, None]
    return np.maximum(0, 1 - abs(places - np.arange(SIDE, dtype=np.float32)))
