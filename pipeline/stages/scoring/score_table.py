"""A column of scores: a table of clips or of samples, and what a scorer says of each row.

    --per frame         score(frames)         -> an integer for each frame of a clip
    --per clip          score(frames)         -> an integer
    --per sample        score(turns)          -> an integer
    --per sample_frame  score(frames, turns)  -> an integer for each frame of a clip, for each
                                                 sample that shows it

Frames are RGB arrays, turns shards.sample.Turn. A scorer is named `module:function` and by a digest
of its module's source, so that another one is another column. Modules that a scorer's module lists
in `SCORES_WITH` count as its own. With `--model` it takes a folder besides, `model=`, whose files
are in the digest.
"""

from __future__ import annotations

import importlib
import inspect
import json
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import simplejpeg
from numpy.typing import NDArray

from pipeline import scorers
from pipeline.scorers.pixels import MOST
from shards.errors import UserError
from shards.extents import ByteRange, Extents, pair
from shards.ids import sha256_file, short_hash
from shards.index import FRAME_SCORES, SCORES, table_of
from shards.key_index import SAMPLE_FRAME, SCORES_FOLDER
from shards.pool import Pool, Receipt
from shards.reader import clip_of
from shards.receipts import Work
from shards.sample import Turn, split_frames, turns_from_json

SCORE_VERSION = "1"
PER = {
    "frame": "index/clips",
    "clip": "index/clips",
    "sample": "index/samples",
    SAMPLE_FRAME: "index/samples",
}
"""What there is a score for, and the tables that it is taken of."""
Frames = list[NDArray[np.uint8]]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """A function by its name, what it scores, and the digest of its module's source; the folder of
    its model, if it has one, whose files are in the digest too."""

    name: str
    per: str
    digest: str
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreUnit:
    """One table of a pool to be scored; per sample and frame also the table of the clips."""

    pool: str
    scorer: Scorer
    table: str
    clips_table: str = ""


def check_ours(name: str, per: str) -> None:
    """Raise UserError for a name in `pipeline.scorers` that is not there or scores something else;
    scorers of others are looked at where they run."""
    module, _, function = name.partition(":")
    if module != scorers.__name__:
        return
    made_for = scorers.PER.get(function)
    if made_for is None:
        known = ", ".join(sorted(scorers.PER))
        raise UserError(f"--scorer {name}: no such scorer in {module}; there are {known}")
    if per != made_for:
        raise UserError(f"--scorer {name}: gives a score per {made_for}; add --per {made_for}")


def scorer_of(name: str, per: str, model: str = "") -> Scorer:
    """The scorer that is named `module:function`; UserError if there is none, or if it takes other
    things."""
    function = _function(name)
    _check_takes(function, name, per, model)
    module = inspect.getmodule(function)
    modules = [module, *getattr(module, "SCORES_WITH", ())] if module else []
    said = [name, per, *map(inspect.getsource, modules)] if modules else [name, per, ""]
    digest = short_hash([*said, _model_digest(model)] if model else said)
    return Scorer(name=name, per=per, digest=digest, model=model)


def score(unit: ScoreUnit) -> Receipt:
    """The scores of a table's rows; UserError for a scorer that returns anything but integers."""
    pool = Pool(unit.pool)
    scorer = unit.scorer
    parameters = {"scorer": scorer.name, "per": scorer.per, "digest": scorer.digest}
    inputs = [unit.table, unit.clips_table] if unit.clips_table else [unit.table]
    work = Work("score", SCORE_VERSION, parameters, inputs)
    if done := pool.done(work):
        return done
    if scorer_of(scorer.name, scorer.per, scorer.model) != scorer:
        raise UserError(f"{scorer.name}: another one on this machine than where it was asked for")
    function = _function(scorer.name)
    if scorer.model:
        function = partial(function, model=Path(scorer.model))
    if scorer.per == SAMPLE_FRAME:
        rows = _of_sample_frames(pool, unit, function)
        return pool.commit(work, {SCORES_FOLDER: table_of(FRAME_SCORES, rows)})
    score_rows = _of_samples if scorer.per == "sample" else _of_clips
    return pool.commit(work, {"scores": table_of(SCORES, score_rows(pool, unit, function))})


def _of_samples(pool: Pool, unit: ScoreUnit, function: Callable[..., Any]) -> Iterator[Row]:
    for row in pool.read(f"index/samples/{unit.table}").select(["key", "turns"]).to_pylist():
        turns = turns_from_json(json.loads(row["turns"]))
        said = _checked([function(turns)], 1, f"{unit.scorer.name}: sample {row['key']}")
        yield {"of": row["key"], "values": said}


def _of_clips(pool: Pool, unit: ScoreUnit, function: Callable[..., Any]) -> Iterator[Row]:
    for clip_id, frames in _decoded(pool, pool.read(f"index/clips/{unit.table}")):
        said = function(frames)
        each = unit.scorer.per == "frame"
        wanted = len(frames) if each else 1
        about = f"{unit.scorer.name}: clip {clip_id}"
        yield {"of": clip_id, "values": _checked(said if each else [said], wanted, about)}


def _of_sample_frames(pool: Pool, unit: ScoreUnit, function: Callable[..., Any]) -> Iterator[Row]:
    """Clip by clip, so that each is decoded once, however many samples show it."""
    clips = pool.read(f"index/clips/{unit.clips_table}")
    showing = _showing(unit.pool, unit.table, clips["clip_id"])
    shown = pc.is_in(clips["clip_id"], value_set=pa.array(list(showing), pa.string()))
    for clip_id, frames in _decoded(pool, clips.filter(shown)):
        for key, number, turns in showing[clip_id]:
            about = f"{unit.scorer.name}: clip {clip_id} for sample {key}"
            said = _checked(function(frames, turns), len(frames), about)
            yield {"key": key, "clip": number, "values": said}


def _showing(
    pool: str, table: str, shown_clips: pa.ChunkedArray
) -> dict[str, list[tuple[str, int, tuple[Turn, ...]]]]:
    """(key, number of the clip, turns) of the samples that show each of these clips."""
    samples = _samples(pool, table)
    named = samples["clip_ids"].combine_chunks()
    flat = pc.list_flatten(named)
    owners, starts = pc.list_parent_indices(named), np.asarray(named.offsets)
    showing: dict[str, list[tuple[str, int, tuple[Turn, ...]]]] = {}
    for number in np.flatnonzero(
        np.asarray(pc.is_in(flat, value_set=shown_clips.combine_chunks()))
    ):
        owner = owners[int(number)].as_py()
        # a clip's number is its place among those of its sample
        in_sample = int(number) - int(starts[owner] - starts[0])
        turns = turns_from_json(json.loads(samples["turns"][owner].as_py()))
        shown = showing.setdefault(flat[int(number)].as_py(), [])
        shown.append((samples["key"][owner].as_py(), in_sample, turns))
    return showing


@lru_cache(maxsize=1)
def _samples(pool: str, table: str) -> pa.Table:
    """A table of samples, which many units of a worker ask for."""
    columns = ["key", "turns", "clip_ids"]
    return Pool(pool).read(f"index/samples/{table}").select(columns).combine_chunks()


def _decoded(pool: Pool, clip_rows: pa.Table) -> Iterator[tuple[str, Frames]]:
    """Each of these clips with its frames."""
    extents = Extents(pool.store)
    names = ["clip_id", "part", "offset", "extent", "crc32"]
    for row in clip_rows.select(names).to_pylist():
        byte_range = ByteRange(f"clips/{row['part']}", row["offset"], row["extent"], row["crc32"])
        where = extents.where(byte_range)
        described, payload = pair(extents.read(byte_range), where)
        frames = split_frames([clip_of(json.loads(bytes(described)))], payload, where)[0]
        yield row["clip_id"], [simplejpeg.decode_jpeg(bytes(frame)) for frame in frames]


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


def _check_takes(function: Callable[..., Any], name: str, per: str, model: str) -> None:
    """Raise UserError unless the function can be called as `per` calls it."""
    given = (
        ["frames", "turns"] if per == SAMPLE_FRAME else ["turns" if per == "sample" else "frames"]
    )
    named = {"model": Path(model)} if model else {}
    try:
        inspect.signature(function).bind(*given, **named)
    except TypeError as error:
        raise UserError(
            f"--scorer {name}: {error}; --per {per} calls it with ({', '.join([*given, *named])})"
        ) from error


@lru_cache(maxsize=4)
def _model_digest(folder: str) -> str:
    """H over the names and bytes of the files of a model's folder, read once by each process."""
    files = sorted(path for path in Path(folder).iterdir() if path.is_file())
    return short_hash([[path.name, sha256_file(path)] for path in files])
