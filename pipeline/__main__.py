"""python -m pipeline: published datasets -> pool, manifest, shards, and a page about them.

Examples:
  python -m pipeline build mixtures/demo_stage1.yaml --out runs/demo/stage1 --pool runs/demo/pool
  ray job submit --working-dir . -- python -m pipeline build RECIPE --out OUT --pool POOL
  python -m pipeline rebuild OUT/recipe.lock.json --pool POOL --root OLD=NEW
  python -m pipeline pack OUT/manifest.json --data POOL --out SHARDS
  python -m pipeline report OUT
  python -m pipeline compact POOL
  python -m pipeline sources
  python -m pipeline sandbox
  python -m pipeline leaks build BENCHMARKS.yaml --out INDEX
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.table import Column, Table

from mixtures.console import Console, books_table
from mixtures.recipe.allowed_paths import add_option
from pipeline.build import Built, build
from pipeline.jobs.job import Job
from pipeline.jobs.leak_index import build_index
from pipeline.jobs.progress import steps
from pipeline.jobs.ray_executor import connect
from pipeline.jobs.write_shards import Sizes, pack
from pipeline.media import canary
from pipeline.media.decode import check_tools
from pipeline.rebuild import rebuild
from pipeline.report.page import write_report
from pipeline.sources.catalogue import CATALOGUE, catalogue
from shards import tool_version
from shards.errors import UserError, run_command
from shards.outcome import top_codes
from shards.pool import Pool


def main() -> None:
    arguments = parser().parse_args()
    arguments.run(arguments)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m pipeline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"slowfast-mix {tool_version()}")
    commands = top.add_subparsers(dest="command", required=True)
    command = commands.add_parser("build", help="recipe -> pool, manifest, shards, report")
    command.add_argument("recipe", help="a recipe, e.g. mixtures/demo_stage1.yaml")
    command.add_argument("--out", required=True, help="folder for manifest, shards and report")
    command.add_argument("--pool", help="the pool, shared by recipes (default: OUT/pool)")
    _add_decoding(command)
    command.add_argument(
        "--no-shards",
        action="store_true",
        help="manifest and report alone: `train run` reads the pool, `pack` writes shards later",
    )
    command.set_defaults(run=run_build)
    _add_rebuild(commands)
    command = commands.add_parser("pack", help="manifest -> shards by mixture ratio")
    command.add_argument("manifest", help="a manifest.json")
    command.add_argument("--data", required=True, help="the pool")
    command.add_argument("--out", required=True, help="folder for the shards")
    command.add_argument("--address", help="a running Ray cluster (default: RAY_ADDRESS, or here)")
    command.set_defaults(run=run_pack)
    command = commands.add_parser("report", help="write OUT/report.html, one page for people")
    command.add_argument("out", help="a folder written by build")
    command.add_argument("--pool", help="the pool it was built from (default: OUT/pool)")
    command.set_defaults(run=run_report)
    command = commands.add_parser("compact", help="put a pool's receipts into one file")
    command.add_argument("pool", help="the pool, a folder or s3://...; builds may be running on it")
    command.set_defaults(run=run_compact)
    command = commands.add_parser("sources", help="list the catalogue of public datasets")
    command.set_defaults(run=run_sources)
    command = commands.add_parser("sandbox", help="try every escape from the media sandbox here")
    command.set_defaults(run=run_sandbox)
    leaks = commands.add_parser("leaks", help="an index of evaluation data, for recipes to avoid")
    command = leaks.add_subparsers(required=True).add_parser(
        "build", help="local copies of benchmarks -> a leak index"
    )
    command.add_argument("benchmarks", help="a YAML file that names the copies: docs/leaks.md")
    command.add_argument("--out", required=True, help="folder for the index")
    _add_decoding(command)
    command.set_defaults(run=run_leaks_build)
    return top


def _add_decoding(command: argparse.ArgumentParser) -> None:
    """Where media are decoded, and what they may be."""
    command.add_argument("--address", help="a running Ray cluster (default: RAY_ADDRESS, or here)")
    command.add_argument(
        "--no-sandbox",
        dest="no_sandbox",
        action="store_true",
        help="decode, for data that you trust, where the media sandbox does not hold",
    )
    add_option(command)


def _add_rebuild(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("rebuild", help="recipe.lock.json -> the same manifest")
    command.add_argument("lock", help="the recipe.lock.json that a build wrote")
    command.add_argument("--pool", required=True, help="the pool: what it lacks is made")
    command.add_argument("--out", help="folder of the manifest (default: rebuilt, beside the lock)")
    command.add_argument(
        "--root",
        nargs="+",
        default=[],
        metavar="OLD=NEW",
        help="folders of the lock, and where they are here",
    )
    _add_decoding(command)
    command.set_defaults(run=run_rebuild)


def run_build(arguments: argparse.Namespace) -> None:
    pool = arguments.pool or f"{arguments.out}/pool"
    Console().print(
        f"decoding with {check_tools(no_sandbox=arguments.no_sandbox)}", highlight=False
    )
    built = build(
        arguments.recipe,
        arguments.out,
        pool,
        arguments.address,
        no_sandbox=arguments.no_sandbox,
        allowed=arguments.allowed,
        with_shards=not arguments.no_shards,
    )
    page = write_report(arguments.out, pool)
    show(built, page)


def run_rebuild(arguments: argparse.Namespace) -> None:
    roots = dict(word.partition("=")[::2] for word in arguments.root)
    if not all(old and new for old, new in roots.items()):
        raise UserError(f"--root {' '.join(arguments.root)}: write OLD=NEW, two folders")
    out = arguments.out or str(Path(arguments.lock).parent / "rebuilt")
    rebuilt = rebuild(
        arguments.lock,
        arguments.pool,
        out,
        roots,
        arguments.address,
        no_sandbox=arguments.no_sandbox,
        allowed=arguments.allowed,
    )
    Console().print(
        f"{out}/manifest.json: {rebuilt.manifest_id}, as locked", highlight=False, soft_wrap=True
    )


def run_pack(arguments: argparse.Namespace) -> None:
    with connect(arguments.address) as workers, steps() as bars:
        job = Job(pool=Pool(arguments.data), workers=workers, bars=bars)
        sizes = pack(arguments.manifest, arguments.out, job)
    show_sizes(Console(), sizes)


def run_report(arguments: argparse.Namespace) -> None:
    page = write_report(arguments.out, arguments.pool or f"{arguments.out}/pool")
    Console().print(f"wrote {page}")


def run_compact(arguments: argparse.Namespace) -> None:
    copied = Pool(arguments.pool).ledger.compact()
    text = f"{arguments.pool}: {copied} loose receipts are now in a snapshot"
    Console().print(text, highlight=False, soft_wrap=True)


def run_sources(_: argparse.Namespace) -> None:
    """Everything that can be known before fetching; rows and sizes as their publishers say."""
    name_column = Column("dataset", no_wrap=True)
    table = Table(name_column, "format", "licence; terms", "access", "rows; size", box=None)
    for name, entry in catalogue().items():
        access = "gated" if entry.gated else "open" if entry.annotations else "name copies"
        table.add_row(
            f"{name}{'' if entry.sure != 'recalled' else ' (?)'}",
            entry.format or "none reads it",
            "; ".join(filter(None, (entry.licence, entry.terms))),
            access,
            "; ".join(filter(None, (entry.rows, entry.size))),
        )
    console = Console()
    console.print(table)
    console.print(
        f"(?) recalled, to be checked. Ids, notes and addresses: {CATALOGUE}", highlight=False
    )


def run_sandbox(_: argparse.Namespace) -> None:
    """What code inside the media sandbox can do to this machine; status 2 if it can do anything."""
    found = canary.found()
    table = Table("escape", "a program inside", "is", box=None)
    for name, what in canary.ESCAPES.items():
        table.add_row(name, what, "open" if name in found.open else "confined")
    console = Console()
    console.print(str(found), highlight=False)
    console.print(table)
    if found.open:
        raise UserError(f"{' '.join(found.open)}: open; install bubblewrap and libseccomp")


def run_leaks_build(arguments: argparse.Namespace) -> None:
    index = build_index(
        arguments.benchmarks,
        arguments.out,
        arguments.address,
        no_sandbox=arguments.no_sandbox,
        allowed=arguments.allowed,
    )
    counts = "records records_refused without_media questions media media_refused".split()
    table = Table("benchmark", *(name.replace("_", " ") for name in counts), box=None)
    for books in index.benchmarks:
        table.add_row(books["name"], *(str(books[name]) for name in counts))
    console = Console()
    console.print(table)
    console.print(f"{arguments.out}/index.json: {index.index_id}", highlight=False, soft_wrap=True)


def show(built: Built, page: str) -> None:
    console = Console()
    console.print("books", style="bold")
    console.print(books_table(console, built.books))
    for each in built.matches:
        console.print(
            f"{each.benchmark}: {each.media} samples match its media ({each.media_refused} "
            f"refused), {each.text} ask its questions ({each.text_refused} refused)",
            highlight=False,
        )
    if built.sizes is not None:
        show_sizes(console, built.sizes)
    console.print(f"manifest_id {built.manifest_id}\nreport      {page}", highlight=False)
    for source in (books.source for books in built.books):
        for code in top_codes(built.refusals, source):
            console.print(f"{source}: {code}", highlight=False, markup=False, soft_wrap=True)


def show_sizes(console: Console, sizes: Sizes) -> None:
    reuse = sizes.clips_packed / max(1, sizes.clips_stored)
    console.print(
        f"pool {sizes.pool_bytes:,} bytes of clips, shards {sizes.shard_bytes:,} bytes, "
        f"each clip packed {reuse:.2f} times",
        highlight=False,
    )


if __name__ == "__main__":
    run_command(main)
