"""The 1,797 digit scans of scikit-learn as pictures, split into train and held-out by content.

No two scans are equal, and none is a near copy of another as pipeline.dedup.verify compares them.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from examples.scenes import WHICH, Scans, make_scans, single_image

SEED = 7


@dataclass(frozen=True)
class Digit:
    """One scan as a picture [64, 64, 3] and its label."""

    name: str
    row: int
    pixels: NDArray[np.uint8]
    label: int


@dataclass(frozen=True)
class Split:
    """Train and held-out pictures, and the scans of each side for drawing scenes."""

    train: tuple[Digit, ...]
    test: tuple[Digit, ...]
    train_scans: Scans
    test_scans: Scans


def split_digits(count: int, held_out: int) -> Split:
    """The first `count` scans by the digest of their content; `held_out` of them for tests."""
    data = load_digits()
    scans = make_scans(data.images, data.target)
    names = [hashlib.sha256(image.tobytes()).hexdigest() for image in data.images]
    rows = sorted(range(len(names)), key=lambda row: names[row])[:count]
    test, train = rows[:held_out], rows[held_out:]

    def digit(row: int) -> Digit:
        pixels = single_image(scans, SEED, row).frames[0]
        return Digit(f"digit-{names[row][:12]}", row, pixels, int(scans.labels[row]))

    return Split(
        tuple(digit(row) for row in train),
        tuple(digit(row) for row in test),
        Scans(scans.scans[train], scans.labels[train]),
        Scans(scans.scans[test], scans.labels[test]),
    )


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
    return onevision_row(digit.name, image_bytes(digit.pixels), WHICH, str(digit.label))
