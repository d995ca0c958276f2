"""A finished run as a small JSON file: what it was, what it scored, item by item.

    DIR/results/VARIANT.SEED.KEY.json    KEY: 8 digits of the digest of what makes the run itself

A run that has one is not trained again, wherever the file came from: it may be committed, and taken
up on another machine. Floats are spelled as Python's repr, which gives their bits back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shards.envelope import Envelope
from shards.ids import short_hash
from shards.store import Store
from train.ablation.grid import Grid
from train.ablation.plans import PlannedRun, benchmark_words, tasks_of
from train.config import load_config
from train.evaluation.copies import copies
from train.evaluation.predictions import read_lines
from train.evaluation.rules import prompts
from train.guard import SKIPPED
from train.json_files import HELD_OUT_SAMPLES, METRICS
from train.run_folder.record import RUN, read_record
from train.run_folder.settings import CONFIG

RESULTS = "results"
SCORES = "scores.json"
"""What the scores of a run are called in its folder."""
ENVELOPE = Envelope(
    schema="slowfast-mix/ablation-result/1",
    if_damaged="remove it, and the run is made again",
    if_outdated="remove it, and the run is made again",
)
POINTS = 200
"""Losses of a curve at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredQuestions:
    """The questions of a task file or evaluation set, column by column, and what scored how.

    `groups` are types or tasks; `mean_of_groups` says that each of them weighs the same. `floors`
    has the mean of each condition that was asked besides, and of the most frequent answer.
    """

    ids: tuple[str, ...]
    clips: tuple[str, ...]
    groups: tuple[str, ...]
    credits_: tuple[str, ...]
    mean_of_groups: bool
    floors: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A finished run; `diverged` says why it is none, and then nothing was measured.

    `held_out` has (key, clip, source, summed loss, supervised tokens) of each sample; `losses` has
    (step, loss) along the way; `code` is the digest of the modules that made it.
    """

    variant: str
    seed: int
    key: Mapping[str, Any]
    code: str
    made_with: Mapping[str, str]
    diverged: str
    steps: int
    supervised: int
    tokens: int
    seconds: str
    flops: str
    losses: tuple[tuple[int, str], ...]
    held_out: tuple[tuple[str, str, str, str, int], ...]
    asked: Mapping[str, ScoredQuestions]

    @property
    def key_id(self) -> str:
        """What it is found by."""
        return short_hash(self.key)


def find_result(out: Path, key_id: str) -> Result | None:
    """The result of what has this key, under whichever name; None if there is none."""
    for path in sorted((out / RESULTS).glob(f"*.{key_id[:8]}.json")):
        result = read_result(path)
        if result.key_id == key_id:
            return result
    return None


def read_result(path: Path) -> Result:
    """A result; UserError for a file that is none, or of another version."""
    value = ENVELOPE.unseal(path.read_bytes(), str(path))
    asked = {name: _asked_again(one) for name, one in value["asked"].items()}
    pairs = {name: tuple(map(tuple, value[name])) for name in ("losses", "held_out")}
    return Result(**value | pairs | {"asked": asked})


def _asked_again(value: Mapping[str, Any]) -> ScoredQuestions:
    columns = {name: tuple(value[name]) for name in ("ids", "clips", "groups", "credits_")}
    return ScoredQuestions(
        mean_of_groups=value["mean_of_groups"], floors=value["floors"], **columns
    )


def write_result(out: Path, name: str, result: Result) -> None:
    """Write or replace a result, in one step."""
    value = asdict(result)
    Store(out / RESULTS).put(f"{name}.json", ENVELOPE.seal(json.loads(json.dumps(value))))


def result_of(
    run: PlannedRun,
    folder: Path,
    grid: Grid,
    clip_of: Mapping[str, str],
    provenance: Mapping[str, str],
) -> Result:
    """What a run left in its folder; `clip_of` has the clip of each held-out sample.

    `provenance` is told of one that diverged, which has no record of its own.
    """
    diverged = divergence(folder)
    record = None if diverged else read_record(folder)
    rows = _rows(folder / METRICS)
    return Result(
        variant=run.variant,
        seed=run.seed,
        key=run.key,
        code=record.made_with["code"] if record else provenance["code"],
        made_with=record.made_with if record else provenance,
        diverged=diverged,
        steps=len(rows),
        supervised=sum(row["supervised"] for row in rows),
        tokens=sum(row["tokens"] for row in rows),
        seconds=repr(sum(row["data_seconds"] + row["compute_seconds"] for row in rows)),
        flops=repr(run.flops),
        losses=tuple(_thinned(rows)),
        held_out=() if diverged else tuple(_held_out(folder / HELD_OUT_SAMPLES, clip_of)),
        asked={} if diverged else dict(_asked(folder / SCORES, grid)),
    )


def divergence(folder: Path) -> str:
    """Why a run ended at a step that was not taken; nothing if it did not."""
    skipped = _rows(folder / SKIPPED)
    if not skipped or (folder / RUN).is_file():
        return ""
    # some steps may be skipped by a run that goes on, and that something else has ended
    guard = load_config(folder / CONFIG).guard
    if guard.policy == "skip" and len(skipped) <= guard.at_most:
        return ""
    return f"step {skipped[-1]['step']}: {skipped[-1]['objection']}"


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _thinned(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, str]]:
    """Means of stretches of steps; a step without a finite loss has none."""
    size = -(-len(rows) // POINTS)
    for start in range(0, len(rows), size or 1):
        some = [row["loss"] for row in rows[start : start + size] if row["loss"] is not None]
        if some:
            yield rows[start]["step"], repr(sum(some) / len(some))


def _held_out(path: Path, clip_of: Mapping[str, str]) -> Iterator[tuple[str, str, str, str, int]]:
    if not path.is_file():
        return
    for one in json.loads(path.read_text())["samples"]:
        yield one["key"], clip_of[one["key"]], one["source"], repr(one["loss"]), one["tokens"]


def _asked(path: Path, grid: Grid) -> Iterator[tuple[str, ScoredQuestions]]:
    """Every task file and evaluation set of the scores at `path`."""
    if not (grid.tasks or grid.benchmarks):
        return
    scores = json.loads(path.read_text())
    trained = scores["trained_pathways"]
    for name in tasks_of(grid):
        by_pathways = {how: scored["tasks"][name] for how, scored in scores["pathways"].items()}
        answers = by_pathways[trained]["answers"]
        floors = {
            how: scored["all"]["accuracy"] for how, scored in by_pathways.items() if how != trained
        }
        yield (
            name,
            ScoredQuestions(
                ids=tuple(map(str, range(len(answers)))),
                clips=tuple(answer["record"] for answer in answers),
                groups=tuple(answer["type"] for answer in answers),
                credits_=tuple(repr(answer["credit"]) for answer in answers),
                mean_of_groups=False,
                floors=_spelled(floors | {"majority": by_pathways[trained]["majority_per_type"]}),
            ),
        )
    for copy in copies(benchmark_words(grid)):
        name = copy.benchmark.name
        by_condition = scores["benchmarks"][name]
        mean_of = prompts(name).mean_of
        lines = read_lines(path.with_name(f"{path.stem}.{name}.{trained}.jsonl"))
        scored = [line for line in lines if line.credit is not None]
        floors = {how: v["score"]["mean"] for how, v in by_condition.items() if how != trained}
        yield (
            name,
            ScoredQuestions(
                ids=tuple(line.id for line in scored),
                clips=tuple(line.video for line in scored),
                groups=tuple(line.groups.get(mean_of, [""])[0] for line in scored),
                credits_=tuple(repr(line.credit) for line in scored),
                mean_of_groups=bool(mean_of),
                floors=_spelled(floors | {"majority": by_condition[trained]["majority"]["mean"]}),
            ),
        )


def _spelled(floats: Mapping[str, float | None]) -> dict[str, str]:
    """Floats as text; a floor of questions that nobody scored is none."""
    return {name: repr(value) for name, value in floats.items() if value is not None}
