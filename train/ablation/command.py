"""The command lines of ablations: `python -m train ablate`, `report` and `suggest`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mixtures.console import Console, add_json, tables_json, write_json
from mixtures.recipe.allowed_paths import add_option
from shards.errors import Parser, UserError
from shards.store import Store

if TYPE_CHECKING:
    from rich.table import Table

    from train.ablation.ablate import Ablation, Standing
    from train.ablation.grid import Grid
    from train.ablation.plans import PlannedRun
    from train.ablation.variants import Resolved

    Commands = argparse._SubParsersAction[Parser]

BUDGETS = 4
ATTEND = "ask the models again, and draw how replies attend to slow and fast frames over time"
SCALE = "supervised tokens: the grid at each, and how well the largest is predicted by the others"
EPILOG = {
    "ablate": "example: python -m train ablate examples/ablation.yaml "
    "--out runs/ablation --dry-run",
    "report": "example: python -m train report runs/ablation",
    "suggest": "example: python -m train suggest runs/mixtures",
}


def add_commands(commands: Commands, on_disk: Callable[[str], Path]) -> None:
    """Give a parser these commands; `on_disk` reads a folder that is no address."""
    grid = commands.add_parser(
        "ablate", help="runs that differ in one thing each", epilog=EPILOG["ablate"]
    )
    grid.add_argument("grid", type=Path, metavar="GRID", help="YAML: docs/grid_reference.md")
    grid.add_argument("--out", type=on_disk, required=True, help="plans, runs, results")
    grid.add_argument("--dry-run", action="store_true", help="print runs, tokens, hours, disk")
    grid.add_argument("--again", action="store_true", help="repeat what other code has made")
    grid.add_argument(
        "--at-once", type=int, default=0, metavar="N", help="runs (default: one for each GPU)"
    )
    grid.add_argument(
        "--ray", type=int, default=0, metavar="N", help="each run on N ranks of a Ray cluster"
    )
    grid.add_argument("--scale", type=int, nargs="+", default=[], metavar="TOKENS", help=SCALE)
    add_option(grid)
    add_json(grid)
    page = commands.add_parser("report", help="one page about an ablation", epilog=EPILOG["report"])
    page.add_argument("out", type=Path, metavar="DIR", help="the --out of `train ablate`")
    page.add_argument("--attend", action="store_true", help=ATTEND)
    best = commands.add_parser(
        "suggest", help="weights that drawn mixtures speak for", epilog=EPILOG["suggest"]
    )
    best.add_argument("out", type=Path, metavar="DIR", help="the --out of `train ablate`")
    add_json(best)


def ablate(arguments: argparse.Namespace) -> None:
    """Plan the runs of a grid, train those that are not there yet, and compare them."""
    if arguments.at_once < 0 or arguments.ray < 0:
        raise UserError("ablate: --at-once and --ray are numbers of at least 1")
    from train.ablation.inputs import read

    # mistakes of the files cost a second, before torch is imported
    grid, variants = read(arguments.grid, arguments.allowed)
    if arguments.scale:
        check_budgets(grid, arguments.scale)
    Store(arguments.out).check_writable()
    from train.ablation import ablate as work
    from train.ablation.tables import says
    from train.run_folder.record import code_digest

    if arguments.scale:
        scale(arguments, grid, variants)
        return
    planned = plan(arguments, grid, variants, arguments.out)
    if arguments.dry_run:
        show(arguments.json, planned.takes)
        return
    failed = train(arguments, planned)
    told, results = work.read_ablation(arguments.out)
    if arguments.json:
        write_json({"comparisons": work.comparisons_json(told, results), "failed": failed})
    else:
        show(False, says(told, results, code_digest()))
    if failed:
        raise UserError(*failed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A grid whose runs are planned in `out`; `again` are those to repeat, `takes` what to say."""

    grid: Grid
    out: Path
    ablation: Ablation
    standing: Standing
    again: Sequence[PlannedRun]

    @property
    def takes(self) -> Iterable[Table | str]:
        """What the runs take."""
        from train.ablation.tables import takes

        return takes(self.standing)


def plan(
    arguments: argparse.Namespace, grid: Grid, variants: Sequence[Resolved], out: Path
) -> Planned:
    """Plan every run of a grid."""
    from train.ablation import ablate as work

    ablation, standing = work.plan(arguments.grid, grid, variants, out)
    again = work.by_other_code(standing) if arguments.again else []
    standing = work.without(standing, again)
    return Planned(grid=grid, out=out, ablation=ablation, standing=standing, again=again)


def train(arguments: argparse.Namespace, planned: Planned) -> list[str]:
    """Make every run that is not there yet; a line for each that failed."""
    from train.ablation import ablate as work

    quiet, out = Console(quiet=arguments.json), planned.out
    work.clear(out, planned.again)
    for part in planned.takes:
        quiet.print(part)
    work.write_ablation(out, planned.ablation)
    places = work.places(out, arguments.at_once, arguments.ray)
    return work.train(planned.grid, planned.standing, places, quiet.print)


def check_budgets(grid: Grid, budgets: Sequence[int]) -> None:
    """UserError where a law cannot be fitted to so many, or to what the grid measures."""
    if len(set(budgets)) < BUDGETS or min(budgets) < 1:
        raise UserError(
            f"ablate --scale: give at least {BUDGETS} different numbers of supervised tokens: one "
            "is held out, and a floor, an exponent and the variants are fitted to the rest"
        )
    if grid.held_out is None:
        raise UserError("ablate --scale: the grid has no `held_out`, whose loss is predicted")


def scale(arguments: argparse.Namespace, grid: Grid, variants: Sequence[Resolved]) -> None:
    """The grid at every budget, each an ablation in a folder of its own, and the law of them."""
    from train.ablation import ablate as work
    from train.ablation.prediction import scale as law

    # a budget that no order reaches is told before the first run of the others
    planned = {
        budget: plan(
            arguments, replace(grid, budget=budget), variants, arguments.out / f"budget_{budget}"
        )
        for budget in sorted(set(arguments.scale))
    }
    if arguments.dry_run:
        show(arguments.json, [part for one in planned.values() for part in one.takes])
        return
    # all budgets are tried before the first failure is told
    if failed := [line for one in planned.values() for line in train(arguments, one)]:
        raise UserError(*failed)
    prediction = law.predict({b: work.read_ablation(one.out)[1] for b, one in planned.items()})
    if arguments.json:
        write_json(law.prediction_json(prediction))
    else:
        show(False, law.says(prediction))


def show(as_json: bool, shown: Iterable[Table | str]) -> None:
    """Tables and lines, for people or as one JSON value."""
    parts = list(shown)
    if as_json:
        tables = tables_json(*(part for part in parts if not isinstance(part, str)))
        write_json({"lines": [p for p in parts if isinstance(p, str)], "tables": tables})
        return
    for part in parts:
        Console(highlight=False).print(part)


def report(arguments: argparse.Namespace) -> None:
    """Write DIR/report.html about an ablation."""
    check_ablation(arguments.out)
    from train.ablation.page import write_page

    Console(highlight=False).print(
        f"page {write_page(arguments.out, attend=arguments.attend)}", soft_wrap=True
    )


def suggest(arguments: argparse.Namespace) -> None:
    """Say which weights an ablation's mixtures speak for, and write DIR/suggested.yaml."""
    check_ablation(arguments.out)
    from train.ablation.ablate import read_ablation
    from train.ablation.prediction import suggest as work

    ablation, results = read_ablation(arguments.out)
    suggestion = work.suggestion_of(work.tried_of(str(arguments.out), ablation, results))
    refusal = suggestion.gain.refusal
    lines = list(work.says(suggestion))
    # figures are told either way, a recipe is written only if it is worth a run
    if not refusal:
        lines.append(f"recipe {work.write_recipe(arguments.out, ablation, suggestion)}")
    show(arguments.json, lines)
    if refusal:
        raise UserError(
            f"{arguments.out}: a gain of {suggestion.gain.mean:.4f} is promised, but {refusal}; "
            "nothing is suggested: train more mixtures, more seeds of each, or longer"
        )


def check_ablation(out: Path) -> None:
    """UserError where nothing was varied, before torch is imported."""
    from train.ablation.grid import ABLATION

    if not (out / ABLATION).is_file():
        raise UserError(f"{out / ABLATION}: not there; give the --out of `train ablate`")
