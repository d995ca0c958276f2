"""python -m mixtures plan | diff | explain: manifests without any media work."""

from __future__ import annotations

import argparse
import gc
from collections import Counter
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.progress import Progress
from rich.table import Table

from mixtures.console import Console, add_json, books_table, fitting, write_json
from mixtures.diff import check_place, diff, explain
from mixtures.manifest.files import MANIFEST, load_manifest, write_manifest
from mixtures.manifest.manifest import Manifest
from mixtures.manifest.packs import MOST_WINDOWS
from mixtures.manifest.sampler import BatchSampler
from mixtures.plan.build_manifest import Plan, build_manifest
from mixtures.recipe.allowed_paths import add_option
from mixtures.recipe.load import load_recipe
from shards import program
from shards.errors import Parser, run_command
from shards.pool import Pool
from shards.store import Store

EXAMPLES = """examples:
  python -m mixtures plan mixtures/demo_stage2.yaml --pool runs/demo/pool --out new/manifest.json
  python -m mixtures diff runs/demo/stage2/manifest.json new/manifest.json
  python -m mixtures explain new/manifest.json --step 7 --rank 0 --world-size 2 --global-batch 8
"""
DIFFERENCES = ("source", "share\na", "share\nb", "tokens\na", "tokens\nb", "kept\na", "kept\nb")
SAMPLE = "pack position source key epoch tokens patches licence origin record clips"
KEY_SHOWN = 16
"""Hex digits of keys and clip ids that are printed: enough to find one by; --json has all 32."""
PLACED = "FOLDER, for its manifest.json, books and refusals; or FILE.json, for a manifest alone"
PLACE = {
    "step": "any step, from 0, also beyond the length",
    "rank": "the process, from 0",
    "world-size": "how many processes train, or would",
}


def parser() -> Parser:
    """The command line."""
    top = Parser(
        prog=program("mixtures"),
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
    command.add_argument("--out", required=True, help=PLACED)
    add_option(command)
    add_json(command)
    command.set_defaults(run=run_plan)
    command = commands.add_parser("diff", help="what two manifests share and where they part")
    command.add_argument("a", help="a manifest, or a folder with one")
    command.add_argument("b", help="another one")
    add_json(command)
    command.set_defaults(run=run_diff)
    command = commands.add_parser("explain", help="which samples a rank sees at a step")
    command.add_argument("manifest", help="a manifest, or a folder with one")
    for name, told in PLACE.items():
        command.add_argument(f"--{name}", type=int, required=True, help=told)
    command.add_argument("--global-batch", type=int, help="packs of a step (default: world size)")
    command.add_argument("--pool", help="the pool, for records, clips and each sample's licence")
    add_json(command)
    command.set_defaults(run=run_explain)
    return top


def run_plan(arguments: argparse.Namespace) -> None:
    """`plan`: write a manifest, its refusals and books; print what it comes to."""
    out = Path(arguments.out)
    # a folder is as good as the file in it
    folder, name = (out.parent, out.name) if out.suffix == ".json" else (out, MANIFEST)
    recipe = load_recipe(Path(arguments.recipe), arguments.allowed)
    pool = Pool(arguments.pool)
    # said before minutes of planning, not after
    Store(folder).check_writable()
    plan = build_manifest(recipe, pool)
    if name == MANIFEST:
        plan.write(str(folder))
    else:  # several manifests may lie in one folder; its books and refusals are of one alone
        write_manifest(plan.manifest, str(folder), name)
    where = str(folder / name)
    if arguments.json:
        write_json(plan_json(plan, where))
        return
    console = Console(highlight=False)
    # first what became of the records, then of the ratio, then what it comes to
    console.print(books_table(console, plan.books))
    console.print(ratio_table(plan.manifest))
    console.print(totals_told(plan.manifest))
    if recipe.canonical_clips:
        console.print(f"{len(plan.manifest.copies)} clips are shown as copies of them")
    if plan.unmatched:
        console.print(plan.unmatched, soft_wrap=True, markup=False)
    console.print(f"{where}: {plan.manifest.manifest_id}", soft_wrap=True)


def plan_json(plan: Plan, where: str) -> dict[str, Any]:
    """What a plan comes to, as one JSON value."""
    contents = plan.manifest.contents
    return {
        "manifest": where,
        "manifest_id": plan.manifest.manifest_id,
        "books": [asdict(books) for books in plan.books],
        "sources": {
            one.name: {"asked": one.asked, "drawn": asdict(one.drawn)} for one in contents.sources
        },
        "packs": contents.packs,
        "totals": asdict(contents.totals),
    }


def totals_told(manifest: Manifest) -> str:
    """What is drawn inside the length, in words."""
    totals = manifest.contents.totals
    packs = manifest.contents.packs
    window = manifest.pack.window
    packed = f"in {packs} whole-window packs"
    if not packs:
        packed = f"fill no window of {window} positions (a smaller `pack_window` would be filled)"
    return (
        f"{totals.samples} samples {packed}: {totals.tokens} tokens, {totals.frames} frames, "
        f"{totals.patches} patches, {totals.seconds} seconds of video, {totals.nbytes} bytes"
    )


def ratio_table(manifest: Manifest) -> Table:
    """What was asked of each source and what is drawn of it."""
    table = Table("source", "asked", "drawn", "of samples", "of tokens", box=None)
    totals = manifest.contents.totals
    for source in manifest.contents.sources:
        ((ratio, unit),) = source.asked.items()
        drawn = source.drawn
        shares = (drawn.samples / max(totals.samples, 1), drawn.tokens / max(totals.tokens, 1))
        table.add_row(
            source.name,
            f"{ratio} {unit.removesuffix('/1')}",
            str(drawn.samples),
            *(f"{share:.3%}" for share in shares),
        )
    return table


def run_diff(arguments: argparse.Namespace) -> None:
    """`diff`: print what two manifests share and where they part."""
    difference = diff(load_manifest(arguments.a), load_manifest(arguments.b))
    if arguments.json:
        write_json(difference)
        return
    console = Console(highlight=False)
    console.print(_difference_table(console, difference["sources"]))
    for name, source in difference["sources"].items():
        if source["conversations"] != source["kept"]:
            ours, theirs = source["conversations"]
            console.print(f"{name}: joined from {ours} | {theirs} conversations")
        if source["gone"]:
            console.print(f"{name}: gone: {' '.join(source['gone'])}", soft_wrap=True)
    for rule, (ours, theirs) in difference["rules"].items():
        console.print(f"{rule}: {ours} | {theirs}", soft_wrap=True)
    if difference["identical"]:
        console.print(f"the same manifest: {difference['a']}", soft_wrap=True)
        return
    console.print(f"the first {difference['same_positions']} positions are the same")
    console.print(
        f"{difference['reused'] / difference['length'][1]:.1%} of positions reuse the same samples"
    )


def _difference_table(console: Console, sources: dict[str, Any]) -> Table:
    """What becomes of each source: of a, of b, and of both."""
    headers = [*DIFFERENCES, "in\nboth", "in\norder", "reused"]
    rows = []
    for name, one in sources.items():
        # fractions in the JSON, per cent for people
        shares = (f"{float(Fraction(s)):.2%}" for s in (*one["share"], *one["token_share"]))
        counts = (str(n) for n in (*one["kept"], one["in_both"], one["in_order"], one["reused"]))
        rows.append([name, *shares, *counts])
    return fitting(console, headers, rows, spare=headers[3:5])


def run_explain(arguments: argparse.Namespace) -> None:
    """`explain`: print the samples that a rank is given at a step."""
    step = arguments.step
    rank = arguments.rank
    world_size = arguments.world_size
    global_batch = world_size if arguments.global_batch is None else arguments.global_batch
    check_place(step, rank, world_size, global_batch)
    pool = Pool(arguments.pool) if arguments.pool else None
    manifest = load_manifest(arguments.manifest)
    # steps beyond the length are counted first, under a bar
    order = BatchSampler(manifest, global_batch)
    _count(order, step)
    packs = explain(manifest, step, rank, world_size, global_batch, pool, order)
    if arguments.json:
        write_json(packs)
        return
    console = Console(highlight=False)
    rows = [_sample_row(sample) for pack in packs for sample in pack]
    spare = ("record", "origin", "licence", "clips", "epoch")
    console.print(fitting(console, SAMPLE.split(), rows, spare))
    # many clips are shown alike: each way once, the most frequent first
    views = Counter(view["told"] for pack in packs for sample in pack for view in sample["views"])
    for told, clips in views.most_common():
        console.print(f"{clips} clip{'s' * (clips > 1)}: {told}", soft_wrap=True)


def _sample_row(sample: dict[str, Any]) -> list[str]:
    """The cells of a sample, as SAMPLE names them."""
    clips = " ".join(map(_spelled, sample["clips"], sample["named"]))
    cells = {**sample, "key": sample["key"][:KEY_SHOWN], "clips": clips}
    return [str(cells[name]) for name in SAMPLE.split()]


def _count(order: BatchSampler, step: int) -> None:
    """Count the packs beyond the length up to a step, if any, saying first how long that takes."""
    windows = order.windows_to(step)
    if not 0 < windows <= MOST_WINDOWS:
        return
    started = perf_counter()
    # a first block is counted to tell how long the others take
    counted = order.count_on()
    # the first windows counted tell how long all of them take
    seconds = (perf_counter() - started) / counted * windows
    console = Console(stderr=True, highlight=False)
    console.print(
        f"step {step} is beyond the length: the packs of about {windows} windows are counted "
        f"first, about {seconds:.0f} s"
    )
    with Progress(console=console, disable=seconds < 1) as progress:
        task = progress.add_task("counting", total=windows, completed=counted)
        while order.windows_to(step):
            counted += order.count_on()
            progress.update(task, completed=counted, total=counted + order.windows_to(step))


def _spelled(shown: str, named: str) -> str:
    """The clip that is shown, and the one it stands in for."""
    if shown == named:
        return shown[:KEY_SHOWN]
    return f"{shown[:KEY_SHOWN]} (for {named[:KEY_SHOWN]})"


def main() -> None:
    """Run the command that the arguments name."""
    arguments = parser().parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    gc.disable()  # a plan makes millions of tuples and no cycles: looking for some takes a tenth
    run_command(main)
