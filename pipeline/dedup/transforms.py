"""The ways in which one copy's picture may lie in another's: mirrored, turned, cropped, in bars.

A view is a crop followed by one of the eight mirrors and turns. All are taken on the side that
asks, from stored pictures; the other side keeps one hash of each picture as it is.
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
class View:
    """`rows` and `columns` are the shares of height and width that stay; then `turned` swaps the
    axes, `down` and `across` mirror them."""

    rows: Span = WHOLE
    columns: Span = WHOLE
    turned: bool = False
    down: bool = False
    across: bool = False

    @property
    def upright(self) -> bool:
        return not (self.turned or self.down or self.across)


SIDES_AND_CROPS = [
    View((crop / 2, 1 - crop / 2), (crop / 2, 1 - crop / 2), *side)
    for side in itertools.product((False, True), repeat=3)
    for crop in CROPS
]
"""The 24 views of every clip; the first three are upright."""
AS_IT_IS = 0


def in_bars(pictures: Luma) -> list[View]:
    """At most two more views of a clip [n, 32, 32] in black bars: what lies between them."""
    spans = dict.fromkeys(_inside_bars(pictures, level) for level in BLACK)
    return [View(*each) for each in spans if each != (WHOLE, WHOLE)]


def _inside_bars(pictures: Luma, level: int) -> tuple[Span, Span]:
    """The rows and columns that lie between bars of equal size, nowhere brighter than `level`."""
    if not len(pictures):
        return WHOLE, WHOLE
    brightest = pictures.max(axis=0)
    rows = _inside(brightest.max(axis=1) > level, pictures.mean(axis=(0, 2)))
    return rows, _inside(brightest.max(axis=0) > level, pictures.mean(axis=(0, 1)))


def _inside(lit: Bools, mean: Floats) -> Span:
    """A cell on the edge of a bar is as bright as the share of it that the bar leaves free."""
    cells = np.flatnonzero(lit)
    if not len(cells) or cells[-1] - cells[0] + 1 < LEAST_INSIDE:
        return WHOLE
    first, last = int(cells[0]), int(cells[-1])
    start = first + 1 - min(1.0, mean[first] / mean[first + 1]) if first else 0.0
    end = last + min(1.0, mean[last] / mean[last - 1]) if last < SIDE - 1 else float(SIDE)
    if min(start, SIDE - end) < 0.5 or abs(start - (SIDE - end)) > CENTRED:
        return WHOLE
    return float(start) / SIDE, float(end) / SIDE


def view_hashes(pictures: Floats, view: View) -> Hashes:
    """uint64[n, 4]: the hashes of pictures [n, 32, 32] seen so."""
    down, across = sampling(*centres(view.rows)), sampling(*centres(view.columns))
    waves = frequencies(pictures, down[0], across[0])
    return hashes_of(seen(waves, view, odd=True))


def seen(cells: Floats, view: View, *, odd: bool = False) -> Floats:
    """Turn and mirror [n, side, side]; of frequencies 1, 2, ... a mirror negates the `odd` ones."""
    shown = cells.transpose(0, 2, 1) if view.turned else cells
    # a cosine wave of an odd number of half periods changes its sign when it is mirrored
    if odd:
        sign = 1 - 2 * (np.arange(shown.shape[1], dtype=np.float32) % 2 == 0)
        shown = shown * sign[:, None] if view.down else shown
        return shown * sign if view.across else shown
    return shown[:, :: -1 if view.down else 1, :: -1 if view.across else 1]


def start(view: View) -> Floats:
    """Where the view lies in the picture as it is seen: mirrored and turned, not yet cropped."""
    rows, columns = (view.columns, view.rows) if view.turned else (view.rows, view.columns)
    if view.down:
        rows = (1 - rows[1], 1 - rows[0])
    if view.across:
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
    middle = (SIDE - 1) / 2
    offsets = np.arange(SIDE, dtype=np.float32) - middle
    places = middle + scale[:, None] * offsets + shift[:, None]
    places = places.clip(0, SIDE - 1)[:, :, None]
    return np.maximum(0, 1 - abs(places - np.arange(SIDE, dtype=np.float32)))
