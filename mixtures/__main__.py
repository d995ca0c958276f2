"""python -m mixtures plan | diff | explain: manifests without any media work."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mixtures.diff import diff, explain
from mixtures.manifest import Manifest, build_manifest
from mixtures.recipe import load_recipe
from shards.errors import run_command
from shards.ids import canonical_json
from shards.outcome import Books
from shards.pool import Pool
from shards.store import Store

EXAMPLES = """examples:
  python -m mixtures plan mixtures/demo_stage2.yaml --pool runs/demo/pool --out new/manifest.json
  python -m mixtures diff runs/demo/stage2/manifest.json new/manifest.json
  python -m mixtures explain new/manifest.json --step 7 --rank 0 --world-size 2 --global-batch 8
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m mixtures",
        description="Recipes to manifests, and what is in them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "plan", help="resolve a recipe over a pool, without any media work"
    )
    command.add_argument("recipe", help="a recipe, e.g. mixtures/demo_stage2.yaml")
    command.add_argument("--pool", required=True, help="the pool that a build made")
    command.add_argument("--out", required=True, help="where to write: FOLDER/manifest.json")
    command.set_defaults(run=run_plan)
    command = commands.add_parser("diff", help="what two manifests share and where they part")
    command.add_argument("a", help="a manifest.json")
    command.add_argument("b", help="another manifest.json")
    command.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    command.set_defaults(run=run_diff)
    command = commands.add_parser("explain", help="which samples a rank sees at a step")
    command.add_argument("manifest", help="a manifest.json")
    for name in ("step", "rank", "world-size", "global-batch"):
        command.add_argument(f"--{name}", type=int, required=True)
    command.add_argument("--json", action="store_true", help="one JSON array instead of a table")
    command.set_defaults(run=run_explain)
    return top


def run_plan(arguments: argparse.Namespace) -> None:
    out = Path(arguments.out)
    folder = out.parent if out.name == "manifest.json" else out
    Store(folder).check_writable()
    plan = build_manifest(load_recipe(Path(arguments.recipe)), Pool(arguments.pool))
    plan.write(str(folder))
    console = Console(highlight=False)
    console.print(books_table(plan.books))
    totals = plan.manifest["totals"]
    console.print(
        f"{totals['samples']} samples in {plan.manifest['packs']} whole-window packs, "
        f"{totals['tokens']} tokens, {totals['patches']} patches"
    )
    console.print(f"{folder}/manifest.json: {plan.manifest['manifest_id']}", soft_wrap=True)


def books_table(books: Sequence[Books]) -> Table:
    """The accounts of each source as a table for people."""
    columns = "records records_refused samples samples_refused not_chosen chosen drawn repeats"
    table = Table("source", *(name.replace("_", " ") for name in columns.split()), box=None)
    for one in books:
        table.add_row(one.source, *(str(getattr(one, name)) for name in columns.split()))
    return table


def run_diff(arguments: argparse.Namespace) -> None:
    found = diff(Manifest.load(arguments.a), Manifest.load(arguments.b))
    if arguments.json:
        _write_json(found)
        return
    console = Console(highlight=False)
    table = Table("source", "share", "", "kept", "", "in both", "same order", box=None)
    for name, one in found["sources"].items():
        order = "yes" if one["same_order"] else "no"
        table.add_row(name, *one["share"], *map(str, one["kept"]), str(one["in_both"]), order)
    console.print(table)
    for rule, (ours, theirs) in found["rules"].items():
        console.print(f"{rule}: {ours} | {theirs}", soft_wrap=True)
    if found["identical"]:
        console.print(f"the same manifest: {found['a']}", soft_wrap=True)
    else:
        console.print(f"the first {found['same_positions']} positions are the same")


def run_explain(arguments: argparse.Namespace) -> None:
    found = explain(
        Manifest.load(arguments.manifest),
        arguments.step,
        arguments.rank,
        arguments.world_size,
        arguments.global_batch,
    )
    if arguments.json:
        _write_json(found)
        return
    table = Table("pack", "position", "source", "key", "epoch", "tokens", "patches", box=None)
    for number, pack in enumerate(found):
        for one in pack:
            table.add_row(str(number), *map(str, one.values()))
    Console(highlight=False).print(table, soft_wrap=True)


def _write_json(value: Any) -> None:
    sys.stdout.write(canonical_json(value).decode() + "\n")


def main() -> None:
    arguments = parser().parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    run_command(main)
