"""Digit scenes of the demo: pictures and eight-second clips with questions.

Everything is a pure function of (digit scans, seed, index): numpy only, no
global randomness, the same bytes everywhere.  A scene is drawn on a 64 x 64
canvas whose objects sit on the 16-pixel patch grid.

Pictures
    ``single_image``  one digit on a coloured tile;
    ``pair_image``    two digits on tiles of two colours, one question per tile.

Clips (16 steps of 0.5 s) show such a pair of tiles nearly all the time.  Over it
come events that last one step each: two digits in the middle, one after the
other, on an otherwise empty picture; some yellow flashes; a green square that
crosses the picture in four steps.  One clip carries all five kinds of question:

======== ============================================ ============= ==========
kind     question                                     answers       needs
======== ============================================ ============= ==========
first    which middle digit came first                0 .. 9        many steps
flashes  how many flashes                             1 .. 4        many steps
motion   which way the square moved                   4 directions  many steps
seconds  seconds between the two middle digits        1 .. 4        many steps
detail   which digit is on the tile of a colour       0 .. 9        fine frames
======== ============================================ ============= ==========

Answers are balanced by construction: in every run of ``k`` consecutive indices
(starting at a multiple of ``k``) each of the ``k`` answers comes up once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SIDE = 64
CELL = 16
GRID = SIDE // CELL
STEPS = 16
STEP_SECONDS = 0.5

COLOURS = ("red", "green", "blue", "purple")
DIRECTIONS = ("right", "left", "down", "up")
COUNTS = ("1", "2", "3", "4")
KINDS = ("first", "flashes", "motion", "seconds", "detail")
TIME_KINDS = KINDS[:4]
DETAIL_KINDS = KINDS[4:]

GROUNDS = np.array([[170, 0, 0], [0, 110, 0], [0, 0, 200], [120, 0, 120]], np.float32)
BLACK = np.zeros(3, np.float32)
FLASH = np.array([235, 205, 30], np.float32)
SQUARE = np.array([30, 215, 80], np.float32)

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


class Turn(NamedTuple):
    """One question about a scene, and its only correct answer."""

    kind: str
    question: str
    answer: str


@dataclass(frozen=True)
class Scans:
    """Handwritten digits: ``scans`` [n, 8, 8] with ink in [0, 1], ``labels`` [n]."""

    scans: Floats
    labels: NDArray[np.int64]

    def pick(self, rng: np.random.Generator, label: int) -> Floats:
        """Return a random scan of the digit ``label``."""
        rows = np.flatnonzero(self.labels == label)
        scan: Floats = self.scans[rng.choice(rows)]
        return scan


@dataclass(frozen=True)
class Scene:
    """Frames [t, 64, 64, 3] (t is 1 for a picture, 16 for a clip) and the turns."""

    frames: Pixels
    turns: list[Turn]


@dataclass(frozen=True)
class Timeline:
    """The steps at which the events of one clip happen; none of them overlap."""

    first: int
    second: int
    move: int
    flashes: tuple[int, ...]


def make_scans(images: NDArray[np.float64], labels: NDArray[np.int64]) -> Scans:
    """Scale scikit-learn's digit images (ink 0 .. 16) to [0, 1]."""
    scans = np.asarray(images, np.float32).reshape(-1, 8, 8) / 16.0
    return Scans(scans, np.asarray(labels, np.int64))


# Randomness --------------------------------------------------------------------


def _rng(seed: int, stream: str, index: int) -> np.random.Generator:
    """Return the generator of one (seed, stream, index), independent of all others."""
    tag = int.from_bytes(stream.encode()[:4].ljust(4, b"\0"), "little")
    return np.random.Generator(np.random.Philox(key=[seed << 32 | tag, index]))


def _balanced(seed: int, stream: str, index: int, k: int) -> int:
    """Return a value in ``range(k)``; each comes once per block of ``k`` indices."""
    block, place = divmod(index, k)
    return int(_rng(seed, stream, block).permutation(k)[place])


# Drawing -----------------------------------------------------------------------


def _ground(rng: np.random.Generator) -> Floats:
    """Return a dark background colour."""
    return rng.uniform(0, 60, 3).astype(np.float32)


def _canvas(colour: Floats) -> Pixels:
    """Return an empty picture of one colour."""
    return np.broadcast_to(colour, (SIDE, SIDE, 3)).astype(np.uint8)


def _stamp(scan: Floats, tile: Floats) -> Floats:
    """A white digit on a tile of one colour: [CELL, CELL, 3]."""
    times = CELL // scan.shape[0]
    ink = scan.repeat(times, axis=0).repeat(times, axis=1)[..., None]
    return tile + ink * (255.0 - tile)


def _put(frame: Pixels, row: int, column: int, stamp: Floats) -> None:
    """Fill one cell of the grid, in place."""
    y, x = row * CELL, column * CELL
    frame[y : y + CELL, x : x + CELL] = stamp


def _wall(stamp: Floats) -> Pixels:
    """Fill the picture with copies of one stamp."""
    return np.tile(stamp, (GRID, GRID, 1)).astype(np.uint8)


# Pictures ----------------------------------------------------------------------


def single_image(digits: Scans, seed: int, index: int) -> Scene:
    """Scan ``index`` modulo their number: on one tile, or (odd index) on all."""
    row = index % len(digits.labels)
    rng = _rng(seed, "sing", index)
    frame = _canvas(_ground(rng))
    stamp = _stamp(digits.scans[row], GROUNDS[rng.integers(len(GROUNDS))])
    if index % 2:
        frame = _wall(stamp)
    else:
        _put(frame, *rng.integers(GRID, size=2), stamp)
    turn = Turn("digit", "Which digit is this?", str(digits.labels[row]))
    return Scene(frame[None], [turn])


def board_image(digits: Scans, seed: int, index: int) -> Scene:
    """Four digits on tiles of four colours, and one turn per tile."""
    rng = _rng(seed, "boar", index)
    frame = _canvas(_ground(rng))
    turns = _add_tiles(frame, digits, rng, _tile_labels(seed, "boa", index), "tile")
    return Scene(frame[None], _shuffled(rng, turns))


def _tile_labels(seed: int, stream: str, index: int) -> list[int]:
    """Digits of the tiles, each balanced on its own."""
    return [_balanced(seed, f"{stream}{i}", index, 10) for i in range(len(COLOURS))]


def _add_tiles(
    frame: Pixels, digits: Scans, rng: np.random.Generator, labels: list[int], kind: str
) -> list[Turn]:
    """Draw one tile per quarter of the picture, in place; one turn per tile."""
    turns = []
    for quarter, colour in enumerate(rng.permutation(len(COLOURS))):
        row, column = np.array(divmod(quarter, 2)) * 2 + rng.integers(2, size=2)
        label = labels[quarter]
        _put(frame, row, column, _stamp(digits.pick(rng, label), GROUNDS[colour]))
        turns.append(Turn(kind, f"Which digit is on {COLOURS[colour]}?", str(label)))
    return turns


def _shuffled(rng: np.random.Generator, turns: list[Turn]) -> list[Turn]:
    """Return the turns in random order, so that each kind also opens conversations."""
    return [turns[i] for i in rng.permutation(len(turns))]


# Clips -------------------------------------------------------------------------


def event_clip(digits: Scans, seed: int, index: int) -> Scene:
    """Two tiles all the time, with events over them; turns of all five kinds."""
    rng = _rng(seed, "clip", index)
    first = _balanced(seed, "firs", index, 10)
    second = (first + int(rng.integers(1, 10))) % 10
    flashes = 1 + _balanced(seed, "flas", index, len(COUNTS))
    seconds = 1 + _balanced(seed, "seco", index, len(COUNTS))
    way = _balanced(seed, "moti", index, len(DIRECTIONS))
    when = plan(rng, flashes, seconds)
    board = _canvas(_ground(rng))
    turns = _add_tiles(board, digits, rng, _tile_labels(seed, "cli", index), "detail")
    frames = np.repeat(board[None], STEPS, axis=0)
    for step in when.flashes:
        frames[step] = _flashed(board)
    for step, label in ((when.first, first), (when.second, second)):
        frames[step] = _wall(_stamp(digits.pick(rng, label), BLACK))
    _move(frames, when.move, DIRECTIONS[way], lane=int(rng.integers(GRID)))
    turns += [
        Turn("first", "Which wall of digits came first?", str(first)),
        Turn("flashes", "How many flashes?", str(flashes)),
        Turn("motion", "Which way did the square move?", DIRECTIONS[way]),
        Turn("seconds", "How many seconds between the walls?", str(seconds)),
    ]
    return Scene(frames, _shuffled(rng, turns))


def plan(rng: np.random.Generator, flashes: int, seconds: int) -> Timeline:
    """Place the events at random so that they never share a step.

    Two flashes are never neighbours, since they would look like one long flash.
    """
    gap = round(seconds / STEP_SECONDS)
    while True:
        first = int(rng.integers(STEPS - gap))
        move = int(rng.integers(STEPS - GRID + 1))
        taken = set(range(move, move + GRID))
        if taken & {first, first + gap}:
            continue
        free = sorted(set(range(STEPS)) - taken - {first, first + gap})
        steps = np.sort(rng.choice(free, flashes, replace=False))
        if np.all(np.diff(steps) > 1):
            return Timeline(first, first + gap, move, tuple(map(int, steps)))


def _flashed(board: Pixels) -> Pixels:
    """Return the picture as it looks under a flash: all of it turns yellow."""
    return (0.25 * board + 0.75 * FLASH).astype(np.uint8)


def _move(frames: Pixels, start: int, way: str, lane: int) -> None:
    """Draw the square that crosses the picture along ``lane``, one cell per step."""
    for i in range(GRID):
        along = i if way in ("right", "down") else GRID - 1 - i
        row, column = (lane, along) if way in ("right", "left") else (along, lane)
        _put(frames[start + i], row, column, SQUARE)
