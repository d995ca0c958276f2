"""Logos of many kinds on the pictures of base clips: which copies are still found.

Four logos a clip, by seed: 3, 6 or 10 % of the picture, wide to tall, white, black or of both, 40
to 100 % opaque, in a corner, on an edge or anywhere. They are laid over the 32 x 32 pictures of the
clip's fingerprint.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.fingerprints import SIDE, frequencies, hashes_of, quality
from pipeline.dedup.verify import duplicate_pairs
from shards.index import FINGERPRINTS, table_of

PER_CLIP = 4
NOISE = 1.2  # luma; the encoder's
Row = dict[str, Any]
Box = tuple[slice, slice]


@dataclass(frozen=True, slots=True)
class Logo:
    """How a logo looks: its share of the picture, colour, opacity and place."""

    share: float
    colour: str
    opacity: float
    place: str


def found_by_kind(bases: list[Row]) -> dict[str, tuple[int, int]]:
    """(copies found, copies) by every property of a logo, of rows of FINGERPRINTS."""
    draw = np.random.Generator(np.random.Philox(key=31))
    logos = [(row, drawn(draw)) for row in bases for _ in range(PER_CLIP)]
    rows = [under(row, logo, n, draw) for n, (row, logo) in enumerate(logos)]
    pairs = duplicate_pairs(table_of(FINGERPRINTS, [*bases, *rows])).to_pylist()
    known = {frozenset((pair["clip_a"], pair["clip_b"])) for pair in pairs}
    counts: dict[str, Counter[bool]] = {}
    for (base, logo), row in zip(logos, rows, strict=True):
        is_found = frozenset((base["clip_id"], row["clip_id"])) in known
        for kind in ("all", *kinds(logo)):
            counts.setdefault(kind, Counter())[is_found] += 1
    return {kind: (count[True], count.total()) for kind, count in sorted(counts.items())}


def kinds(logo: Logo) -> tuple[str, ...]:
    share, opacity = f"{logo.share:.0%} of the picture", f"{logo.opacity:.0%} opaque"
    return share, logo.colour, opacity, logo.place


def drawn(draw: np.random.Generator) -> Logo:
    return Logo(
        share=float(draw.choice([0.03, 0.06, 0.1])),
        colour=str(draw.choice(["white", "black", "both"])),
        opacity=float(draw.choice([0.4, 0.6, 0.8, 1.0])),
        place=str(draw.choice(["corner", "edge", "anywhere"])),
    )


def under(base: Row, logo: Logo, number: int, draw: np.random.Generator) -> Row:
    """The fingerprint of a clip under a logo."""
    pictures = np.frombuffer(base["pictures"], np.uint8).reshape(-1, SIDE, SIDE).astype(float)
    box = box_of(logo, draw)
    luma = painted(logo, pictures[0][box].shape, draw)
    pictures[:, *box] += logo.opacity * (luma - pictures[:, *box])
    shown = (pictures + draw.normal(0, NOISE, pictures.shape)).round().clip(0, 255).astype(np.uint8)
    hashed = shown[base["hashed"]].astype(np.float32)
    return base | {
        "clip_id": f"{base['clip_id']} {number}",
        "pictures": shown.tobytes(),
        "quality": quality(shown).tolist(),
        "hashes": hashes_of(frequencies(hashed)).tobytes(),
        "detailed": [],  # such a copy is found as undecided
        "details": b"",
    }


def box_of(logo: Logo, draw: np.random.Generator) -> Box:
    cells = logo.share * SIDE * SIDE
    height = round((cells / draw.choice([0.5, 1, 2, 3])) ** 0.5)
    width = round(cells / height)
    below, right = SIDE - height, SIDE - width
    top, left = {
        "corner": (draw.choice([1, below - 1]), draw.choice([1, right - 1])),
        "edge": (draw.choice([0, below]), draw.integers(right + 1)),
        "anywhere": (draw.integers(below + 1), draw.integers(right + 1)),
    }[logo.place]
    return slice(top, top + height), slice(left, left + width)


def painted(logo: Logo, shape: tuple[int, ...], draw: np.random.Generator) -> NDArray[Any]:
    white = {"white": 1, "black": 0, "both": 0.5}[logo.colour]
    return np.where(draw.random(shape) < white, 255.0, 16.0)
