"""The 1,797 digit scans of scikit-learn as pictures, split into train and held-out by content.

Some scans of one digit are near copies of each other. Each group of them goes to one side, so that
no held-out picture has a twin in training; and within training each twin is asked in other words,
so that no two samples say the same.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pdqhash
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from examples.scenes import Scans, make_scans, single_image

QUESTIONS = (
    "Which digit is this?",
    "What digit do you see?",
    "Which number is written here?",
    "Please read the digit.",
    "Name the digit.",
    "What number is it?",
    "Tell me the digit.",
)
NEAR = 44  # of 256 bits; a recompressed or resized copy of a scan lies within 40
LARGEST = 3  # groups of more near copies stay in training, so that no digit fills the test
SEED = 7


@dataclass(frozen=True)
class Digit:
    """One scan as a picture [64, 64, 3], its label, and the question asked about it."""

    name: str
    row: int
    pixels: NDArray[np.uint8]
    label: int
    question: str


@dataclass(frozen=True)
class Split:
    """Train and held-out pictures, and the scans of each side for drawing scenes."""

    train: tuple[Digit, ...]
    test: tuple[Digit, ...]
    train_scans: Scans
    test_scans: Scans


def split_digits(count: int, held_out: int) -> Split:
    """The first `count` scans by content; whole groups of near copies go to one side."""
    data = load_digits()
    scans = make_scans(data.images, data.target)
    names = [hashlib.sha256(image.tobytes()).hexdigest() for image in data.images]
    rows = sorted(range(len(names)), key=lambda row: names[row])[:count]
    pictures = {row: single_image(scans, SEED, row).frames[0] for row in rows}
    near = _near(rows, pictures)
    test = _held_out(rows, near, held_out)
    train = [row for row in rows if row not in test]
    questions = dict.fromkeys(test, QUESTIONS[0])
    for row in train:
        taken = {questions.get(other) for other in near[row]}
        wanted = max(int(names[row][:2], 16) % 8 - 4, 0)  # most are asked in the first words
        order = QUESTIONS[wanted:] + QUESTIONS
        questions[row] = next(question for question in order if question not in taken)

    def digit(row: int) -> Digit:
        label = int(scans.labels[row])
        return Digit(f"digit-{names[row][:12]}", row, pictures[row], label, questions[row])

    kept = sorted(test, key=lambda row: names[row])
    return Split(
        tuple(map(digit, train)),
        tuple(map(digit, kept)),
        Scans(scans.scans[train], scans.labels[train]),
        Scans(scans.scans[kept], scans.labels[kept]),
    )


def _held_out(rows: Sequence[int], near: dict[int, set[int]], wanted: int) -> set[int]:
    """`wanted` rows in whole groups: a row and everything that is near to it, step by step."""
    chosen: set[int] = set()
    seen: set[int] = set()
    for row in rows:
        if row in seen:
            continue
        group, front = {row}, [row]
        while front:
            more = near[front.pop()] - group
            group |= more
            front += more
        seen |= group
        if len(group) <= min(LARGEST, wanted - len(chosen)):
            chosen |= group
    return chosen


def _near(rows: Sequence[int], pictures: dict[int, NDArray[np.uint8]]) -> dict[int, set[int]]:
    """For each row the others whose perceptual hash lies within NEAR bits of its own."""
    bits = np.array([_hash(pictures[row]) for row in rows], np.int32)
    ones = bits.sum(axis=1)
    distance = ones[:, None] + ones[None, :] - 2 * bits @ bits.T
    np.fill_diagonal(distance, 256)
    return {
        row: {rows[j] for j in np.flatnonzero(distance[i] <= NEAR)} for i, row in enumerate(rows)
    }


def _hash(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """PDQ of the luma at 128 x 128, as pipeline.fingerprints takes it."""
    shown = Image.fromarray(pixels).convert("L").resize((128, 128), Image.Resampling.BICUBIC)
    bits: NDArray[np.uint8] = pdqhash.compute(np.asarray(shown)[..., None].repeat(3, axis=2))[0]
    return bits


def image_bytes(pixels: NDArray[np.uint8], form: str = "PNG", **options: int) -> bytes:
    """The pixels as a PNG, or a JPEG with its options."""
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, form, **options)
    return sink.getvalue()


SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        (
            "conversations",
            pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())])),
        ),
        ("data_source", pa.string()),
    ]
)


def onevision_row(name: str, image: bytes, question: str, answer: str) -> dict[str, object]:
    """One row as LLaVA-OneVision-Data publishes it."""
    return {
        "id": name,
        "image": {"bytes": image, "path": f"{name}.png"},
        "conversations": [
            {"from": "human", "value": f"<image>\n{question}"},
            {"from": "gpt", "value": answer},
        ],
        "data_source": "digits",
    }


def digit_row(digit: Digit) -> dict[str, object]:
    """The published row of one digit."""
    return onevision_row(digit.name, image_bytes(digit.pixels), digit.question, str(digit.label))
