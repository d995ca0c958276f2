"""The 1,797 digit scans of scikit-learn as pictures, split into train and held-out by content.

Some scans of one digit are near copies of each other. They all go to the training side, with
questions put in other words, so that no held-out picture has a twin in training and no two
training samples say the same.
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
)
NEAR = 44  # of 256 bits; recompressed and resized copies stay within 26
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
    """The first `count` scans by content; `held_out` of them without near copies are kept apart."""
    data = load_digits()
    scans = make_scans(data.images, data.target)
    names = [hashlib.sha256(image.tobytes()).hexdigest() for image in data.images]
    rows = sorted(range(len(names)), key=lambda row: names[row])[:count]
    pictures = {row: single_image(scans, SEED, row).frames[0] for row in rows}
    near = _near_pairs(rows, pictures)
    twins = {row for pair in near for row in pair}
    test = [row for row in rows if row not in twins][:held_out]
    train = [row for row in rows if row not in set(test)]
    questions = dict.fromkeys(test, QUESTIONS[0])
    for row in train:
        taken = {questions.get(a) for pair in near if row in pair for a in pair}
        wanted = int(names[row][:2], 16) % 8  # half of all are asked in the first words
        order = QUESTIONS[max(wanted - 4, 0) :] + QUESTIONS
        questions[row] = next(question for question in order if question not in taken)

    def digit(row: int) -> Digit:
        label = int(scans.labels[row])
        return Digit(f"digit-{names[row][:12]}", row, pictures[row], label, questions[row])

    return Split(
        tuple(map(digit, train)),
        tuple(map(digit, test)),
        Scans(scans.scans[train], scans.labels[train]),
        Scans(scans.scans[test], scans.labels[test]),
    )


def _near_pairs(
    rows: Sequence[int], pictures: dict[int, NDArray[np.uint8]]
) -> list[tuple[int, int]]:
    """Pairs of rows whose pictures have perceptual hashes within NEAR bits."""
    bits = np.array([pdqhash.compute(pictures[row])[0] for row in rows], np.int32)
    ones = bits.sum(axis=1)
    distance = ones[:, None] + ones[None, :] - 2 * bits @ bits.T
    first, second = np.nonzero(np.triu(distance <= NEAR, k=1))
    return [(rows[a], rows[b]) for a, b in zip(first, second, strict=True)]


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
