"""What the slots of a layout are, and which patches stand behind each of their tokens.

Both follow from the layout alone, which clips of one size share, and are kept.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixtures.layout import (
    IMAGE,
    LEARNED,
    MEMORY,
    POOLED,
    Layout,
    LayoutConfig,
    frames_used,
    pool_cells,
)

WIRED = frozenset((*POOLED, *LEARNED))
VISUAL = WIRED | {MEMORY}


class Counts(NamedTuple):
    """What the slots of a layout are: their tokens and those that stand for features, int64 [S],
    and which are of which kind."""

    tokens: NDArray[np.int64]
    features: NDArray[np.int64]
    wired: NDArray[np.bool_]
    memory: NDArray[np.bool_]
    beyond: int
    is_image: bool


@lru_cache(maxsize=256)
def counts_of(layout: Layout) -> Counts:
    """The counts of a layout."""
    kinds = [slot.kind for slot in layout]
    return Counts(
        np.array([slot.n for slot in layout], np.int64),
        np.array([slot.n * (slot.kind in VISUAL) for slot in layout], np.int64),
        np.array([kind in WIRED for kind in kinds], bool),
        np.array([kind == MEMORY for kind in kinds], bool),
        sum(slot.frames for slot in layout if slot.kind == MEMORY),
        IMAGE in kinds,
    )


class Wiring(NamedTuple):
    """VisualSlots of one clip, counted from its own first row, patch and pooled token."""

    feature: NDArray[np.int64]
    patch: NDArray[np.int64]
    segment: NDArray[np.int64]
    sizes: NDArray[np.int64]
    frame: NDArray[np.int64]
    kind: NDArray[np.int64]


@lru_cache(maxsize=256)
def wire(
    layout: Layout, numbers: bytes, grid: tuple[int, int], config: LayoutConfig, images: int
) -> Wiring:
    """The wiring of the slots with these numbers (int64) over frames of one grid.

    Frames are numbered as encoded.
    """
    slots = [layout[number] for number in np.frombuffer(numbers, np.int64)]
    place = {frame: i for i, frame in enumerate(frames_used(layout))}
    feature: list[int] = []
    frame: list[int] = []
    kind: list[int] = []
    cells: list[NDArray[np.int64]] = []
    for slot in slots:
        frame += [place.get(slot.frame, -1)] * slot.n
        if slot.kind in LEARNED:
            feature += [LEARNED.index(slot.kind)] * slot.n
            continue
        row = pool_cells(grid, slot.kind, slot.row, config, images)
        if len(row) != slot.n:
            raise ValueError(f"a {slot.kind} row of {slot.n} tokens over {len(row)} pooled cells")
        feature += range(len(LEARNED) + len(cells), len(LEARNED) + len(cells) + slot.n)
        cells += [cell + place[slot.frame] * grid[0] * grid[1] for cell in row]
        kind += [POOLED.index(slot.kind)] * slot.n
    sizes = np.array([len(cell) for cell in cells], np.int64)
    return Wiring(
        np.array(feature, np.int64),
        np.concatenate([np.zeros(0, np.int64), *cells]),
        np.repeat(np.arange(len(sizes)), sizes),
        sizes,
        np.array(frame, np.int64),
        np.array(kind, np.int64),
    )
