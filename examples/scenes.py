"""Digit scenes of the demo: pictures and eight-second clips with questions.

Everything is a pure function of (digit scans, seed, index): numpy only, no
global randomness, the same bytes everywhere.  A scene is drawn on a 64 x 64
canvas whose objects sit on the 16-pixel patch grid.

Pictures
    ``single_image``  one digit fills the picture;
    ``board_image``   four digits, one per corner, one question per corner.

Clips (16 steps of 0.5 s) show a board of four digits all the time, and over it
events that last one step each: two big digits, one after the other; a number of
yellow flashes; a green square that crosses the picture in four steps.  One clip
carries all five kinds of question:

======== ============================================ ============= ==========
kind     question                                     answers       needs
======== ============================================ ============= ==========
first    which big digit came first                   0 .. 9        many frames
flashes  how many flashes                             1 .. 4        many frames
motion   which way the square moved                   4 directions  many frames
seconds  seconds between the two big digits           1 .. 4        many frames
detail   which digit is in a corner                   0 .. 9        fine frames
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
DIGIT = 32
STEPS = 16
STEP_SECONDS = 0.5
MOVE_STEPS = SIDE // CELL

COLOURS = ("red", "green", "blue", "purple")
MIDDLE = (16, 16)
PLACES = ((0, 0), (0, 32), (32, 0), (32, 32), MIDDLE)
DIRECTIONS = ("right", "left", "down", "up")
COUNTS = ("1", "2", "3", "4")
KINDS = ("first", "flashes", "motion", "seconds", "detail")
TIME_KINDS = KINDS[:4]
DETAIL_KINDS = KINDS[4:]

GROUNDS = np.array([[170, 0, 0], [0, 110, 0], [0, 0, 200], [120, 0, 120]], np.float32)
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
        return self.scans[rng.choice(rows)]


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


def make_scans(images: NDArray, labels: NDArray) -> Scans:
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


def _enlarge(scan: Floats, side: int) -> Floats:
    """Repeat the pixels of a scan so that it fills ``side`` x ``side``."""
    times = side // scan.shape[0]
    return scan.repeat(times, axis=0).repeat(times, axis=1)


def _placed(scan: Floats, place: tuple[int, int]) -> Floats:
    """Ink of one scan at (y, x) in an otherwise empty picture."""
    ink = np.zeros((SIDE, SIDE), np.float32)
    y, x = place
    ink[y : y + DIGIT, x : x + DIGIT] = _enlarge(scan, DIGIT)
    return ink


def _board(scans: list[Floats]) -> Floats:
    """Ink of four scans, one per corner in the order of ``CORNERS``."""
    a, b, c, d = (_enlarge(scan, DIGIT) for scan in scans)
    return np.block([[a, b], [c, d]])


def _ground(rng: np.random.Generator) -> Floats:
    """Return a dark background colour."""
    return rng.uniform(0, 60, 3).astype(np.float32)


def _tiles(order: NDArray[np.int64]) -> Floats:
    """Background of a board: colour ``order[i]`` in corner ``i``."""
    tiles = GROUNDS[order].reshape(2, 2, 3)
    return tiles.repeat(DIGIT, axis=0).repeat(DIGIT, axis=1)


def _paint(ink: Floats, ground: Floats) -> Pixels:
    """White ink over a background colour: uint8 [side, side, 3]."""
    shade = ground + ink[..., None] * (255.0 - ground)
    return shade.astype(np.uint8)


def _add_square(frame: Pixels, row: int, column: int) -> None:
    """Fill one cell of the patch grid in place."""
    y, x = row * CELL, column * CELL
    frame[y : y + CELL, x : x + CELL] = SQUARE


# Pictures ----------------------------------------------------------------------


def single_image(digits: Scans, seed: int, index: int) -> Scene:
    """Scan ``index`` modulo their number, at one of the five ``PLACES``."""
    row = index % len(digits.labels)
    rng = _rng(seed, "sing", index)
    ink = _placed(digits.scans[row], PLACES[rng.integers(len(PLACES))])
    frame = _paint(ink, GROUNDS[rng.integers(4)] if rng.random() < 0.6 else _ground(rng))
    turn = Turn("digit", "Which digit is this?", str(digits.labels[row]))
    return Scene(frame[None], [turn])


def board_image(digits: Scans, seed: int, index: int) -> Scene:
    """Four digits, one per corner, and one turn per corner in random order."""
    rng = _rng(seed, "boar", index)
    labels = _corner_labels(seed, "boar", index)
    order = rng.permutation(4)
    ink = _board([digits.pick(rng, label) for label in labels])
    frame = _paint(ink, _tiles(order))
    turns = _corner_turns("corner", labels, order)
    return Scene(frame[None], _shuffled(rng, turns))


def _corner_labels(seed: int, stream: str, index: int) -> list[int]:
    """Digits of the four corners, each balanced on its own."""
    return [_balanced(seed, f"{stream[:3]}{i}", index, 10) for i in range(4)]


def _corner_turns(kind: str, labels: list[int], order: NDArray[np.int64]) -> list[Turn]:
    """One turn per corner, which is named by its colour."""
    named = zip(order, labels, strict=True)
    return [Turn(kind, f"Which digit is on {COLOURS[c]}?", str(label)) for c, label in named]


def _shuffled(rng: np.random.Generator, turns: list[Turn]) -> list[Turn]:
    """Return the turns in random order, so that each kind also opens conversations."""
    return [turns[i] for i in rng.permutation(len(turns))]


# Clips -------------------------------------------------------------------------


def event_clip(digits: Scans, seed: int, index: int) -> Scene:
    """A board of four digits with events over it; turns of all five kinds."""
    rng = _rng(seed, "clip", index)
    corners = _corner_labels(seed, "clip", index)
    first = _balanced(seed, "firs", index, 10)
    second = (first + int(rng.integers(1, 10))) % 10
    flashes = 1 + _balanced(seed, "flas", index, 4)
    seconds = 1 + _balanced(seed, "seco", index, 4)
    way = _balanced(seed, "moti", index, 4)
    when = plan(rng, flashes, seconds)
    board = _board([digits.pick(rng, label) for label in corners])
    big = [_placed(digits.pick(rng, label), MIDDLE) for label in (first, second)]
    order = rng.permutation(4)
    frames = _draw(board, big, when, _tiles(order), _ground(rng))
    _move(frames, when.move, way, lane=int(rng.integers(MOVE_STEPS)))
    turns = [
        Turn("first", "Which middle digit came first?", str(first)),
        Turn("flashes", "How many flashes?", str(flashes)),
        Turn("motion", "Which way did the square move?", DIRECTIONS[way]),
        Turn("seconds", "How many seconds between the middle digits?", str(seconds)),
        *_corner_turns("detail", corners, order),
    ]
    return Scene(frames, _shuffled(rng, turns))


def plan(rng: np.random.Generator, flashes: int, seconds: int) -> Timeline:
    """Place the events at random so that they never share a step.

    Two flashes are never neighbours, since they would look like one long flash.
    """
    gap = round(seconds / STEP_SECONDS)
    while True:
        first = int(rng.integers(STEPS - gap))
        move = int(rng.integers(STEPS - MOVE_STEPS + 1))
        taken = {first, first + gap}
        if taken & set(range(move, move + MOVE_STEPS)):
            continue
        taken |= set(range(move, move + MOVE_STEPS))
        free = [step for step in range(STEPS) if step not in taken]
        steps = np.sort(rng.choice(free, flashes, replace=False))
        if np.all(np.diff(steps) > 1):
            return Timeline(first, first + gap, move, tuple(map(int, steps)))


def _draw(
    board: Floats, big: list[Floats], when: Timeline, tiles: Floats, ground: Floats
) -> Pixels:
    """Draw the board at all steps, then the flashes and the big digits over it."""
    frames = np.repeat(_paint(board, tiles)[None], STEPS, axis=0)
    for step in when.flashes:
        frames[step] = _paint(board, FLASH)
    frames[when.first] = _paint(big[0], ground)
    frames[when.second] = _paint(big[1], ground)
    return frames


def _move(frames: Pixels, start: int, way: int, lane: int) -> None:
    """Draw the square that crosses the picture along ``lane``, one cell per step."""
    for i in range(MOVE_STEPS):
        along = i if DIRECTIONS[way] in ("right", "down") else MOVE_STEPS - 1 - i
        across = DIRECTIONS[way] in ("right", "left")
        row, column = (lane, along) if across else (along, lane)
        _add_square(frames[start + i], row, column)
