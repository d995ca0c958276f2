"""Crowds by seed: copies of one film, and different forms of one template, as fingerprints."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import simplejpeg

from benchmarks.curation import look_alikes
from mixtures.pool.clusters import components
from pipeline.dedup.fingerprints import fingerprint
from pipeline.dedup.verify import duplicate_facts, duplicate_pairs
from pipeline.media.decoded import Decoded
from shards.ids import short_hash
from shards.index import FINGERPRINTS, table_of

Row = dict[str, Any]
Pixels = np.ndarray[Any, np.dtype[np.uint8]]
TEMPLATE = 2  # of look_alikes: three numbers of a form are its own
STEPS, SIZE = 20, (240, 320)


def copies(count: int) -> list[Row]:
    """A camera that moves over a ground; each copy at its own JPEG quality and brightness."""
    ground = np.asarray(look_alikes.ground(np.random.default_rng(1), (640, 480), (16, 12)))
    ways = (np.linspace(0, most, STEPS).astype(int).tolist() for most in (200, 300))
    film = [ground[y : y + SIZE[0], x : x + SIZE[1]] for y, x in zip(*ways, strict=True)]
    rows = []
    for number in range(count):
        draw = np.random.default_rng([7, number])
        quality, more = int(draw.integers(50, 95)), int(draw.integers(-4, 5))
        frames = [np.clip(each.astype(int) + more, 0, 255).astype(np.uint8) for each in film]
        rows.append(_row(f"copy {number}", "video", frames, quality))
    return rows


def forms(count: int) -> list[Row]:
    """Forms of one template, each with numbers of its own."""
    rows = []
    for number in range(count):
        same, own = np.random.default_rng([2026, TEMPLATE]), np.random.default_rng([3, number])
        (image,) = look_alikes.documents(same, own, TEMPLATE)
        rows.append(_row(f"form {number}", "image", [np.asarray(image)], 90))
    return rows


def _row(name: str, kind: str, frames: list[Pixels], quality: int) -> Row:
    height, width = frames[0].shape[:2]
    clip = Decoded(
        kind=kind,
        frames=tuple(simplejpeg.encode_jpeg(np.ascontiguousarray(f), quality) for f in frames),
        pts=tuple(range(0, 500 * len(frames), 500)),
        time_base=(1, 1000),
        duration=(len(frames), 2),
        width=width,
        height=height,
        rotation=0,
        is_vfr=False,
        source_fps=(2, 1),
        colour="bt709",
        codec="h264",
        container="mov",
        source_size=(width, height),
    )
    return dict(fingerprint(short_hash(name), clip))


def timed(rows: list[Row]) -> tuple[float, int]:
    """CPU seconds of comparing these clips, and how many pairs of them are the same."""
    table = table_of(FINGERPRINTS, rows)
    began = time.process_time()
    references, pairs = duplicate_facts(table)
    cpu = time.process_time() - began
    return cpu, len(references) + pairs["judged"].to_pylist().count("same")


def clusters_apart(rows: list[Row]) -> int:
    """How many clips stand in another cluster than by comparing all with all."""
    table = table_of(FINGERPRINTS, rows)
    references, pairs = duplicate_facts(table)
    links = list(zip(*(references[n].to_pylist() for n in ("clip_id", "reference")), strict=True))
    ours, theirs = _same(pairs.to_pylist()) + links, _same(duplicate_pairs(table).to_pylist())
    found, expected = components(ours), components(theirs)
    return sum(found.get(each, each) != expected.get(each, each) for each in found | expected)


def _same(pairs: list[Row]) -> list[tuple[str, str]]:
    return [(row["clip_a"], row["clip_b"]) for row in pairs if row["judged"] == "same"]


MADE: dict[str, Callable[[int], list[Row]]] = {"copies of one film": copies, "forms": forms}
