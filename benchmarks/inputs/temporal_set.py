"""A synthetic set of what SlowFast claims: eight axes, made by seed from held-out digit scans.

========== ============================================ ============================= ========
axis       question                                     options                       seconds
========== ============================================ ============================= ========
detail     which digits are on the board                the reading, three near ones  8
motion     whether the digit moved                      yes, no                       8
counting   how many flashes                             1, 3, 5, 7                    8
order      which of two digits came first               both                          8
direction  which way the digit moved                    that way, and back            8
interval   seconds between two digits                   1, 2, 3, 4                    8
long_range which of two digits came first, far apart    both                          32
needle     the one digit in a long video without any    it, three others              32
========== ============================================ ============================= ========

Everything is a pure function of (scans, seed, index). The scans are those that the demo holds out,
the seed is none of its own. Its real clips are all in its training data, so none is used here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from examples import scenes
from examples.digits import split_digits
from examples.encode import MP4, encode
from examples.make_data import FULL
from examples.scenes import Scans, Scene, flash_clip, motion_clip, single_image

SEED = 20_027
EACH = 300
"""Questions of an axis."""
LONG = 64  # steps of half a second
SHOWN = 4  # steps that a digit of a long video is shown
BACK = {"right": "left", "left": "right", "up": "down", "down": "up"}
CHUNK = 100  # videos that one ffmpeg process writes
Frames = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question about a video; the right option is the first until it is written."""

    axis: str
    question: str
    options: tuple[str, ...]


def rng_of(stream: str, index: int) -> np.random.Generator:
    """The generator of one (stream, index), independent of all others."""
    tag = int.from_bytes(stream.encode()[:4].ljust(4, b"\0"), "little")
    return np.random.Generator(np.random.Philox(key=[SEED << 32 | tag, index]))


@cache
def held_out_scans() -> Scans:
    """The scans that no training data of the demo shows."""
    return split_digits(FULL.digits, FULL.digits_test).test_scans


def answer_of(scene: Scene, kind: str) -> str:
    return next(turn.answer for turn in scene.turns if turn.kind == kind)


# Videos ----------------------------------------------------------------------------


def flashes(scans: Scans, index: int) -> tuple[Frames, list[Question]]:
    """A board under flashes: what is on it, and how often it flashed."""
    scene = flash_clip(scans, SEED, index)
    board, count = answer_of(scene, "detail"), answer_of(scene, "flashes")
    others = [other for other in "1357" if other != count]
    return scene.frames, [
        Question(
            axis="detail",
            question="Read the four digits.",
            options=(board, *near_readings(board, rng_of("near", index))),
        ),
        Question(axis="counting", question="How many flashes?", options=(count, *others)),
    ]


def near_readings(board: str, rng: np.random.Generator) -> list[str]:
    """Three readings that are wrong at one place each."""
    made = []
    for place in rng.permutation(4)[:3]:
        digits = board.split()
        digits[place] = str((int(digits[place]) + int(rng.integers(1, 10))) % 10)
        made.append(" ".join(digits))
    return made


def pairs(scans: Scans, index: int) -> tuple[Frames, list[Question]]:
    """Two digits one after the other: which came first, and how long after."""
    rng = rng_of("pair", index)
    first, second = two_digits(rng)
    gap = scenes.GAPS[index % len(scenes.GAPS)]
    end = int(rng.integers(scenes.SHOWN, scenes.STEPS - gap - scenes.SHOWN + 1))
    frames = np.broadcast_to(dark(rng, 1), (scenes.STEPS, 64, 64, 3)).copy()
    frames[:end] = picture(scans, first, rng)
    frames[end + gap :] = picture(scans, second, rng)
    seconds = str(round(gap * scenes.STEP_SECONDS))
    others = [other for other in "1234" if other != seconds]
    options = (str(first), str(second))
    return frames, [
        Question(axis="order", question="Which digit came first?", options=options),
        Question(
            axis="interval",
            question="How many seconds lie between the digits?",
            options=(seconds, *others),
        ),
    ]


def directions(scans: Scans, index: int) -> tuple[Frames, list[Question]]:
    """A digit that moves: that way, or back."""
    scene = motion_clip(scans, SEED, index)
    way = answer_of(scene, "motion")
    asked = Question(
        axis="direction", question="Which way did the digit move?", options=(way, BACK[way])
    )
    return scene.frames, [asked]


def motions(scans: Scans, index: int) -> tuple[Frames, list[Question]]:
    """A digit that moves, or one that stays: every other one."""
    frames = motion_clip(scans, SEED + 1, index).frames
    moved = index % 2 == 0
    if not moved:
        frames = np.repeat(frames[:1], len(frames), axis=0)
    options = ("yes", "no") if moved else ("no", "yes")
    return frames, [Question(axis="motion", question="Did the digit move?", options=options)]


def far_apart(scans: Scans, index: int) -> tuple[Frames, list[Question]]:
    """A digit where a long video begins, another where it ends."""
    rng = rng_of("long", index)
    first, second = two_digits(rng)
    frames = empty(rng)
    frames[:SHOWN] = picture(scans, first, rng)
    frames[-SHOWN:] = picture(scans, second, rng)
    options = (str(first), str(second))
    return frames, [
        Question(axis="long_range", question="Which digit came first?", options=options)
    ]


def needles(scans: Scans, index: int) -> tuple[Frames, list[Question]]:
    """One digit somewhere in a long video."""
    rng = rng_of("need", index)
    label = index % 10
    frames = empty(rng)
    start = int(rng.integers(LONG - SHOWN + 1))
    frames[start : start + SHOWN] = picture(scans, label, rng)
    others = [str(other) for other in rng.permutation(10).tolist() if other != label]
    return frames, [
        Question(axis="needle", question="Which digit is this?", options=(str(label), *others[:3]))
    ]


def empty(rng: np.random.Generator) -> Frames:
    """A long video of dark colours that change every two seconds."""
    colours = dark(rng, LONG // SHOWN)
    return np.broadcast_to(colours, (LONG // SHOWN, 64, 64, 3)).repeat(SHOWN, axis=0)


def dark(rng: np.random.Generator, count: int) -> Frames:
    """So many colours without a picture, [count, 1, 1, 3]."""
    return rng.integers(0, 60, (count, 1, 1, 3), np.uint8)


def two_digits(rng: np.random.Generator) -> tuple[int, int]:
    """Two that are not the same."""
    first = int(rng.integers(10))
    return first, (first + int(rng.integers(1, 10))) % 10


def picture(scans: Scans, label: int, rng: np.random.Generator) -> Frames:
    """A picture that a scan of this digit fills."""
    row = int(rng.choice(np.flatnonzero(scans.labels == label)))
    return single_image(scans, SEED, row).frames[0]


VIDEOS: dict[str, Callable[[Scans, int], tuple[Frames, list[Question]]]] = {
    "flashes": flashes,
    "pairs": pairs,
    "directions": directions,
    "motions": motions,
    "far_apart": far_apart,
    "needles": needles,
}
"""The kinds of videos: frames uint8 [steps, 64, 64, 3], and the questions about them."""
AXES = (
    *("detail", "motion", "counting", "order", "direction", "interval"),
    *("long_range", "needle"),
)


# Files -----------------------------------------------------------------------------


def make(folder: Path, each: int = EACH) -> Path:
    """The set as a copy that `--benchmark temporal=FOLDER` reads: temporal.jsonl and videos/."""
    (folder / "videos").mkdir(parents=True)
    scans = held_out_scans()
    rows: list[dict[str, object]] = []
    for kind, made in VIDEOS.items():
        for start in range(0, each, CHUNK):
            clips = []
            for index in range(start, min(start + CHUNK, each)):
                frames, questions = made(scans, index)
                clips.append((folder / f"videos/{kind}-{index:04d}.mp4", frames))
                rows += [row_of(question, clips[-1][0].name, index) for question in questions]
            encode(clips, MP4)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "temporal.jsonl").write_text(text, encoding="utf-8")
    return folder


def row_of(question: Question, video: str, index: int) -> dict[str, object]:
    """A line of the file, its options in a drawn order."""
    order = rng_of(question.axis, index).permutation(len(question.options)).tolist()
    return {
        "id": f"{question.axis}-{index:04d}",
        "video": video,
        "axis": question.axis,
        "question": question.question,
        "options": [question.options[i] for i in order],
        "answer": order.index(0),
    }
