"""The command lines of ablations: `python -m train ablate` and `python -m train report`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mixtures.console import Console, add_json, tables_json, write_json
from mixtures.recipe.allowed_paths import add_option
from shards.errors import Parser, UserError
from shards.store import Store

if TYPE_CHECKING:
    from rich.table import Table

    Commands = argparse._SubParsersAction[Parser]

EPILOG = {
    "ablate": "example: python -m train ablate examples/ablation.yaml "
    "--out runs/ablation --dry-run",
    "report": "example: python -m train report runs/ablation",
}


def add_commands(commands: Commands, on_disk: Callable[[str], Path]) -> None:
    """Give a parser both commands; `on_disk` reads a folder that is no address."""
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
    add_option(grid)
    add_json(grid)
    page = commands.add_parser("report", help="one page about an ablation", epilog=EPILOG["report"])
    page.add_argument("out", type=Path, metavar="DIR", help="the --out of `train ablate`")


def ablate(arguments: argparse.Namespace) -> None:
    """Plan the runs of a grid, train those that are not there yet, and compare them."""
    if arguments.at_once < 0 or arguments.ray < 0:
        raise UserError("ablate: --at-once and --ray are numbers of at least 1")
    from train.ablation.inputs import read

    # mistakes of the files cost a second, before torch is imported
    grid, variants = read(arguments.grid, arguments.allowed)
    Store(arguments.out).check_writable()
    from train.ablation import ablate as work
    from train.ablation.tables import says, takes
    from train.run_folder.record import code_digest

    out, quiet = arguments.out, Console(quiet=arguments.json)
    ablation, standing = work.plan(arguments.grid, grid, variants, out)
    again = work.by_other_code(standing) if arguments.again else []
    standing = work.without(standing, again)
    if arguments.dry_run:
        show(arguments.json, takes(standing))
        return
    work.clear(out, again)
    for part in takes(standing):
        quiet.print(part)
    work.write_ablation(out, ablation)
    places = work.places(out, arguments.at_once, arguments.ray)
    failed = work.train(grid, standing, places, quiet.print)
    told, results = work.read_ablation(out)
    if arguments.json:
        write_json({"comparisons": work.comparisons_json(told, results), "failed": failed})
    else:
        show(False, says(told, results, code_digest()))
    if failed:
        raise UserError(*failed)


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
    from train.ablation.grid import ABLATION

    if not (arguments.out / ABLATION).is_file():
        raise UserError(f"{arguments.out / ABLATION}: not there; give the --out of `train ablate`")
    from train.ablation.page import write_page

    Console(highlight=False).print(f"page {write_page(arguments.out)}", soft_wrap=True)
