"""Digit scenes of the demo: pictures and eight-second clips with questions.

Everything is a pure function of (digit scans, seed, index): numpy only, no global randomness, the
same bytes everywhere. A scene is drawn on a 64 x 64 canvas; what it
shows fills it, or one quarter of it.

Pictures
    ``single_image``  one digit fills the picture;
    ``board_image``   four digits, to be read in order;
    ``spot_image``    a digit in one quarter of the picture.

Clips (16 steps of 0.5 s)
    ``pair_clip``     a digit, nothing for a while, another digit;
    ``flash_clip``    a board of four digits under some yellow flashes of one step each;
    ``motion_clip``   a digit that moves from one quarter of the picture to the next.

======== ============================= =========================== ==========
kind     question                      answers                     clip
======== ============================= =========================== ==========
first    which digit came first        0 .. 9                      pair
seconds  seconds between the digits    1 .. 4                      pair
flashes  how many flashes              1, 3, 5, 7                  flash
detail   which digits are on the board 4 digits in reading order   flash
motion   which way the digit moved     4 directions                motion
======== ============================= =========================== ==========

Answers are balanced by construction: in every run of ``k`` consecutive indices (starting at a
multiple of ``k``) each of the ``k`` answers comes up once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SIDE = 64
STEPS = 16
STEP_SECONDS = 0.5

DIRECTIONS = ("right", "left", "down", "up")
TIME_KINDS = ("first", "seconds", "flashes", "motion")
DETAIL_KINDS = ("detail",)
READ = "Read the four digits."

WHICH = "Which digit is this?"
WHERE = "Where is the digit?"
CORNERS = ("top left", "top right", "bottom left", "bottom right")

FLASH = np.array([235, 205, 30], np.float32)
GAPS = (2, 4, 6, 8)  # steps without a digit: 1 to 4 seconds
FLASHES = (1, 3, 5, 7)
SHOWN = 3  # steps that each digit of a pair is shown at least

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
        scan: Floats = self.scans[rng.choice(np.flatnonzero(self.labels == label))]
        return scan


@dataclass(frozen=True)
class Scene:
    """Frames [t, 64, 64, 3] (t is 1 for a picture, 16 for a clip) and the turns."""

    frames: Pixels
    turns: list[Turn]


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


def _draw(frame: Pixels, scan: Floats, y: int, x: int, size: int, ground: Floats) -> None:
    """Write a white digit of `size` pixels on the ground's colour, in place."""
    times = size // scan.shape[0]
    ink = scan.repeat(times, axis=0).repeat(times, axis=1)[..., None]
    frame[y : y + size, x : x + size] = ground + ink * (255.0 - ground)


def _filled(scan: Floats, ground: Floats) -> Pixels:
    """Return a picture that one digit fills."""
    frame = _canvas(ground)
    _draw(frame, scan, 0, 0, SIDE, ground)
    return frame


def _board(digits: Scans, rng: np.random.Generator, labels: list[int]) -> Pixels:
    """Return a picture of four digits, two rows of two."""
    ground = _ground(rng)
    frame = _canvas(ground)
    for place, label in enumerate(labels):
        row, column = divmod(place, 2)
        half = SIDE // 2
        _draw(frame, digits.pick(rng, label), half * row, half * column, half, ground)
    return frame


def _board_labels(seed: int, stream: str, index: int) -> list[int]:
    """Digits of a board, each place balanced on its own."""
    return [_balanced(seed, f"{stream}{place}", index, 10) for place in range(4)]


def _reading(labels: list[int]) -> Turn:
    return Turn("detail", READ, " ".join(map(str, labels)))


def _shuffled(rng: np.random.Generator, turns: list[Turn]) -> list[Turn]:
    """Return the turns in random order, so that each kind also opens conversations."""
    return [turns[i] for i in rng.permutation(len(turns))]


# Pictures ----------------------------------------------------------------------


def single_image(digits: Scans, seed: int, index: int) -> Scene:
    """Scan ``index`` modulo their number, filling the picture."""
    row = index % len(digits.labels)
    frame = _filled(digits.scans[row], _ground(_rng(seed, "sing", index)))
    return Scene(frame[None], [Turn("digit", WHICH, str(digits.labels[row]))])


def board_image(digits: Scans, seed: int, index: int) -> Scene:
    """Four digits and the request to read them."""
    labels = _board_labels(seed, "boa", index)
    frame = _board(digits, _rng(seed, "boar", index), labels)
    return Scene(frame[None], [_reading(labels)])


def spot_image(digits: Scans, seed: int, index: int) -> Scene:
    """Scan ``index`` modulo their number in one quarter of the picture: where, and which."""
    rng = _rng(seed, "spot", index)
    row, corner = index % len(digits.labels), _balanced(seed, "corn", index, len(CORNERS))
    ground = _ground(rng)
    frame, half = _canvas(ground), SIDE // 2
    down, across = divmod(corner, 2)
    _draw(frame, digits.scans[row], half * down, half * across, half, ground)
    turns = [
        Turn("spot", WHERE, CORNERS[corner]),
        Turn("digit", WHICH, str(digits.labels[row])),
    ]
    return Scene(frame[None], _shuffled(rng, turns))


# Clips -------------------------------------------------------------------------


def pair_clip(digits: Scans, seed: int, index: int) -> Scene:
    """A digit, an empty picture for 1 to 4 seconds, another digit."""
    rng = _rng(seed, "pair", index)
    first = _balanced(seed, "firs", index, 10)
    second = (first + int(rng.integers(1, 10))) % 10
    gap = GAPS[_balanced(seed, "seco", index, len(GAPS))]
    ground = _ground(rng)
    end = int(rng.integers(SHOWN, STEPS - gap - SHOWN + 1))
    frames = np.repeat(_canvas(ground)[None], STEPS, axis=0)
    frames[:end] = _filled(digits.pick(rng, first), ground)
    frames[end + gap :] = _filled(digits.pick(rng, second), ground)
    seconds = round(gap * STEP_SECONDS)
    turns = [
        Turn("first", "Which digit came first?", str(first)),
        Turn("seconds", "How many seconds lie between the digits?", str(seconds)),
    ]
    return Scene(frames, _shuffled(rng, turns))


def flash_clip(digits: Scans, seed: int, index: int) -> Scene:
    """A board of four digits all the time, and 1 to 7 flashes, no two of them neighbours."""
    rng = _rng(seed, "flas", index)
    count = FLASHES[_balanced(seed, "coun", index, len(FLASHES))]
    labels = _board_labels(seed, "cli", index)
    board = _board(digits, rng, labels)
    frames = np.repeat(board[None], STEPS, axis=0)
    frames[_apart(rng, count)] = _canvas(FLASH)
    turns = [_reading(labels), Turn("flashes", "How many flashes?", str(count))]
    return Scene(frames, _shuffled(rng, turns))


def _apart(rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Return `count` steps, no two of them neighbours: they would look like one long flash."""
    steps = np.sort(rng.choice(STEPS - count + 1, count, replace=False))
    return steps + np.arange(count)


def motion_clip(digits: Scans, seed: int, index: int) -> Scene:
    """A digit in one quarter of the picture that moves to a neighbouring quarter."""
    rng = _rng(seed, "moti", index)
    way = DIRECTIONS[_balanced(seed, "way", index, len(DIRECTIONS))]
    ground = _ground(rng)
    scan = digits.pick(rng, int(rng.integers(10)))
    lane = int(rng.integers(2))
    moment = int(rng.integers(SHOWN, STEPS - SHOWN))
    frames = np.repeat(_canvas(ground)[None], STEPS, axis=0)
    for step, frame in enumerate(frames):
        along = int((step >= moment) == (way in ("right", "down")))
        y, x = (lane, along) if way in ("right", "left") else (along, lane)
        _draw(frame, scan, y * SIDE // 2, x * SIDE // 2, SIDE // 2, ground)
    return Scene(frames, [Turn("motion", "Which way did the digit move?", way)])
