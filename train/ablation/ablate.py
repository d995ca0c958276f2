"""`python -m train ablate GRID.yaml --out DIR`: plan, train what is not there yet, compare.

DIR/plans/       manifest and config of every run
DIR/runs/        what the runs write
DIR/results/     a small JSON file for each finished run: to commit, and to take up elsewhere
DIR/ablation.json  what was varied, and which results belong to it: `train report DIR` reads it
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mixtures.manifest.files import load_manifest
from shards.envelope import Envelope
from shards.errors import UserError
from shards.pool import Pool
from shards.store import Store
from train.ablation.comparisons import comparisons
from train.ablation.drawn_samples import clip_of_samples
from train.ablation.grid import ABLATION, Grid
from train.ablation.plans import CONFIG, PlannedRun, plan_runs
from train.ablation.queue import Places, folder_of, train_all
from train.ablation.results import Result, find_result, result_of, write_result
from train.ablation.variants import Resolved, shares_of
from train.config import load_config
from train.run_folder.record import code_digest, made_with

ENVELOPE = Envelope(
    schema="slowfast-mix/ablation/2",
    if_damaged="run `train ablate` again, which writes it",
    if_outdated="run `train ablate` again, which writes it",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A variant: what was changed, and what that did to the data of its first seed.

    Of one that differs from the base in weights alone, `shares` has those of the base's sources,
    each a fraction of 1; of others it is empty.
    """

    name: str
    changes: tuple[str, ...]
    differs: tuple[str, ...]
    shares: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """What was varied; `runs` has (variant, seed, key) of each run, `supervised` the budget."""

    grid: str
    supervised: int
    tasks: tuple[str, ...]
    variants: tuple[Told, ...]
    runs: tuple[tuple[str, int, str], ...]

    @property
    def names(self) -> list[str]:
        """Of the variants, the base first."""
        return [one.name for one in self.variants]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Planned runs, and the results that are there already, by key."""

    runs: tuple[PlannedRun, ...]
    there: Mapping[str, Result]

    @property
    def open(self) -> list[PlannedRun]:
        """Those that are still to be made."""
        return [run for run in self.runs if run.key_id not in self.there]


def plan(
    path: Path, grid: Grid, variants: Sequence[Resolved], out: Path
) -> tuple[Ablation, Standing]:
    """Plan every run of the grid in `path`, and look for the results that are there."""
    runs = plan_runs(grid, variants, out, str(path))
    there = {run.key_id: found for run in runs if (found := find_result(out, run.key_id))}
    return ablation_of(path, grid, variants, runs), Standing(runs=tuple(runs), there=there)


def ablation_of(
    path: Path, grid: Grid, variants: Sequence[Resolved], runs: Sequence[PlannedRun]
) -> Ablation:
    """What is varied, as it is kept."""
    differs = {run.variant: run.differs for run in reversed(runs)}
    same = same_samples(runs)
    return Ablation(
        grid=str(path),
        supervised=min(run.supervised for run in runs),
        tasks=tuple(grid.tasks),
        variants=tuple(
            Told(
                name=one.name,
                changes=one.changes,
                differs=(*same.get(one.name, ()), *differs[one.name]),
                shares={name: str(n) for name, n in shares_of(one, variants[0]).items()},
            )
            for one in variants
        ),
        runs=tuple((run.variant, run.seed, run.key_id) for run in runs),
    )


def same_samples(runs: Sequence[PlannedRun]) -> dict[str, list[str]]:
    """A line for each variant, and each other whose very samples it trains on, with the seeds."""
    seeds: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        if run.same_as:
            seeds.setdefault((run.variant, run.same_as), []).append(str(run.seed))
    lines: dict[str, list[str]] = {}
    for (variant, other), numbers in seeds.items():
        named = f"seed{'s' * (len(numbers) > 1)} {', '.join(numbers)}"
        line = f"{named}: trained on the very samples of {other}; what differs is not drawn"
        lines.setdefault(variant, []).append(line)
    return lines


def by_other_code(standing: Standing) -> list[PlannedRun]:
    """Runs whose results other code has made."""
    code = code_digest()
    there = standing.there
    return [run for run in standing.runs if run.key_id in there and there[run.key_id].code != code]


def without(standing: Standing, runs: Sequence[PlannedRun]) -> Standing:
    """As if the results of these were not there."""
    gone = {run.key_id for run in runs}
    there = {key: one for key, one in standing.there.items() if key not in gone}
    return replace(standing, there=there)


def clear(out: Path, runs: Sequence[PlannedRun]) -> None:
    """Remove what is in the folders of these runs: they begin anew."""
    for run in runs:
        shutil.rmtree(folder_of(out, run), ignore_errors=True)


def train(grid: Grid, standing: Standing, places: Places, say: Callable[[str], None]) -> list[str]:
    """Make every run that is not there yet; a line for each that failed."""
    clips = _clips(grid, standing.open)
    return train_all(grid, standing.open, places, partial(_keep, grid, places.out, clips, say))


def _clips(grid: Grid, runs: Sequence[PlannedRun]) -> dict[str, str]:
    """The clip of every held-out sample: of all manifests, which differ in how they show them."""
    manifests = {load_config(run.folder / CONFIG).held_out for run in runs}
    found: dict[str, str] = {}
    for rule in manifests:
        if rule is not None:
            found |= clip_of_samples(Pool(grid.pool), load_manifest(rule.manifest))
    return found


def _keep(
    grid: Grid,
    out: Path,
    clip_of: Mapping[str, str],
    say: Callable[[str], None],
    run: PlannedRun,
    folder: Path,
) -> None:
    """Keep what a run came to, and say so."""
    made = made_with(load_config(run.folder / CONFIG))
    result = result_of(run, folder, grid, clip_of, made)
    write_result(out, run.name, result)
    ended = f"diverged at {result.diverged}" if result.diverged else "done"
    say(f"{run.variant}, seed {run.seed}: {ended} ({float(result.seconds):,.0f} s)")


def places(out: Path, at_once: int, ranks: int) -> Places:
    """Where runs go: one at a time, or one for each GPU of this machine, unless it is said."""
    gpus = 0 if ranks else torch.cuda.device_count()
    return Places(out=out, at_once=at_once or max(gpus, 1), ranks=ranks, gpus=gpus)


def write_ablation(out: Path, ablation: Ablation) -> None:
    """Say what belongs together."""
    Store(out).put(ABLATION, ENVELOPE.seal(json.loads(json.dumps(asdict(ablation)))))


def read_ablation(out: Path) -> tuple[Ablation, list[Result]]:
    """What was varied, and the results of it that are there; UserError where nothing was."""
    path = out / ABLATION
    if not path.is_file():
        raise UserError(f"{path}: not there; give the --out of `train ablate`")
    value = ENVELOPE.unseal(path.read_bytes(), str(path))
    ablation = Ablation(
        grid=value["grid"],
        supervised=value["supervised"],
        tasks=tuple(value["tasks"]),
        variants=tuple(
            Told(**one | {name: tuple(one[name]) for name in ("changes", "differs")})
            for one in value["variants"]
        ),
        runs=tuple((name, seed, key) for name, seed, key in value["runs"]),
    )
    return ablation, list(_results(out, ablation))


def _results(out: Path, ablation: Ablation) -> Iterator[Result]:
    """Results by the names that this grid gives them: another may have called them otherwise."""
    for variant, seed, key in ablation.runs:
        found = find_result(out, key)
        if found is not None:
            yield replace(found, variant=variant, seed=seed)


def comparisons_json(ablation: Ablation, results: Sequence[Result]) -> list[dict[str, Any]]:
    """Every comparison, as JSON."""
    return [
        asdict(one) | {"verdict": one.verdict, "interval": one.difference.interval}
        for one in comparisons(results, ablation.names)
    ]
