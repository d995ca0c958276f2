"""A column of scores: one table of clips or of samples, and what a scorer says of each row.

    --per frame    score(frames) -> an integer for each frame of a clip
    --per clip     score(frames) -> an integer
    --per sample   score(turns)  -> an integer

Frames are RGB arrays, turns shards.sample.Turn. A scorer is named `module:function` and by a digest
of its module's source, so that another one is another column.
"""

from __future__ import annotations

import importlib
import inspect
import json
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import simplejpeg

from pipeline.scorers.pixels import MOST
from shards.errors import UserError
from shards.extents import ByteRange, Extents, pair
from shards.ids import short_hash
from shards.index import SCORES, table_of
from shards.pool import Pool, Receipt
from shards.reader import clip_of
from shards.receipts import Work
from shards.sample import split_frames, turns_from_json

SCORE_VERSION = "1"
PER = {"frame": "index/clips", "clip": "index/clips", "sample": "index/samples"}
"""What there is a score for, and the tables that it is taken of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """A function by its name, what it scores, and the digest of its module's source."""

    name: str
    per: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreUnit:
    """One table of a pool to be scored."""

    pool: str
    scorer: Scorer
    table: str


def scorer_of(name: str, per: str) -> Scorer:
    """The scorer that is named `module:function`; UserError if there is none."""
    function = _function(name)
    module = inspect.getmodule(function)
    source = inspect.getsource(module) if module else ""
    return Scorer(name=name, per=per, digest=short_hash([name, per, source]))


def score(unit: ScoreUnit) -> Receipt:
    """The scores of a table's rows; UserError for a scorer that returns anything but integers."""
    pool = Pool(unit.pool)
    parameters = {"scorer": unit.scorer.name, "per": unit.scorer.per, "digest": unit.scorer.digest}
    work = Work("score", SCORE_VERSION, parameters, [unit.table])
    if done := pool.done(work):
        return done
    function = _function(unit.scorer.name)
    if scorer_of(unit.scorer.name, unit.scorer.per) != unit.scorer:
        raise UserError(
            f"{unit.scorer.name}: another one on this machine than where it was asked for"
        )
    rows = (
        _of_samples(pool, unit, function)
        if unit.scorer.per == "sample"
        else _of_clips(pool, unit, function)
    )
    return pool.commit(work, {"scores": table_of(SCORES, rows)})


def _of_samples(
    pool: Pool, unit: ScoreUnit, function: Callable[..., Any]
) -> Iterator[dict[str, Any]]:
    for row in pool.read(f"index/samples/{unit.table}").select(["key", "turns"]).to_pylist():
        turns = turns_from_json(json.loads(row["turns"]))
        said = _checked([function(turns)], 1, f"{unit.scorer.name}: sample {row['key']}")
        yield {"of": row["key"], "values": said}


def _of_clips(
    pool: Pool, unit: ScoreUnit, function: Callable[..., Any]
) -> Iterator[dict[str, Any]]:
    extents = Extents(pool.store)
    names = ["clip_id", "part", "offset", "extent", "crc32"]
    for row in pool.read(f"index/clips/{unit.table}").select(names).to_pylist():
        byte_range = ByteRange(f"clips/{row['part']}", row["offset"], row["extent"], row["crc32"])
        where = extents.where(byte_range)
        described, payload = pair(extents.read(byte_range), where)
        frames = split_frames([clip_of(json.loads(bytes(described)))], payload, where)[0]
        said = function([simplejpeg.decode_jpeg(bytes(frame)) for frame in frames])
        each = unit.scorer.per == "frame"
        wanted = len(frames) if each else 1
        about = f"{unit.scorer.name}: clip {row['clip_id']}"
        yield {"of": row["clip_id"], "values": _checked(said if each else [said], wanted, about)}


def _checked(said: Any, expected: int, about: str) -> list[int]:
    """The integers that a scorer said; UserError if they are none, or too many, or too large."""
    values = list(said) if isinstance(said, Sequence) or hasattr(said, "__array__") else [said]
    if len(values) != expected:
        raise UserError(f"{about}: {len(values)} scores, {expected} wanted")
    try:
        # integers of Python and numpy; a float, also a whole one, is none
        numbers = [operator.index(value) for value in values]
    except TypeError as error:
        raise UserError(f"{about}: scores must be integers, not {values[0]!r}") from error
    if not all(0 <= number <= MOST for number in numbers):
        raise UserError(
            f"{about}: scores must be from 0 to {MOST}, not {min(numbers)} to {max(numbers)}"
        )
    return numbers


def _function(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    try:
        scorer = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"--scorer {name}: {error}; give MODULE:FUNCTION, e.g. pipeline.scorers:sharpness"
        ) from error
    if not callable(scorer):
        raise UserError(f"--scorer {name}: not a function")
    return scorer  # type: ignore[no-any-return]
