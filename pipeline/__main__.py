"""python -m pipeline: published datasets -> pool, manifest, shards, and a page about them.

Examples:
  python -m pipeline init FOLDER --for scratch
  python -m pipeline build mixtures/demo_stage1.yaml --out runs/demo/stage1 --pool runs/demo/pool
  python -m pipeline build RECIPE --out OUT --pool POOL --dry-run
  python -m pipeline build RECIPE --out OUT --pool POOL --retry MEDIA_TOO_SLOW FETCH_UNREACHABLE
  python -m pipeline show OUT --source S --refused CODE -n 5
  ray job submit --working-dir . -- python -m pipeline build RECIPE --out OUT --pool POOL
  python -m pipeline rebuild OUT/recipe.lock.json --pool POOL --root OLD=NEW
  python -m pipeline pack OUT/manifest.json --data POOL --out SHARDS
  python -m pipeline report OUT
  python -m pipeline compact POOL
  python -m pipeline pool ls POOL --manifests OUT
  python -m pipeline score POOL --scorer pipeline.scorers:sharpness --per frame
  python -m pipeline sources
  python -m pipeline sandbox
  python -m pipeline leaks build BENCHMARKS.yaml --out INDEX
"""

from __future__ import annotations

import argparse
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from mixtures.console import Console, add_json, books_table, write_json
from mixtures.recipe.allowed_paths import add_option
from pipeline.pool_commands import add_pool, add_score
from shards import program
from shards.errors import Parser, UserError, run_command
from shards.outcome import top_codes, worth_another_try

if TYPE_CHECKING:  # a mistake is told before any of these is imported
    from pipeline.build import Built
    from pipeline.checks import Inputs
    from pipeline.jobs.write_shards import Sizes

    Commands = argparse._SubParsersAction[Parser]

PURPOSES = ("scratch", "qwen2.5")
"""What a first recipe can be for (pipeline.first_recipe.PRESETS)."""


def main() -> None:
    arguments = parser().parse_args()
    arguments.run(arguments)


def parser() -> Parser:
    """The command line."""
    top = Parser(
        prog=program("pipeline"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True)
    _add_init(commands)
    _add_build(commands)
    _add_rebuild(commands)
    _add_pack(commands)
    _add_of_builds(commands)
    command = commands.add_parser("compact", help="put a pool's receipts into one file")
    command.add_argument("pool", help="the pool, a folder or s3://...; builds may be running on it")
    command.set_defaults(run=run_compact)
    add_pool(commands)
    add_score(commands)
    command = commands.add_parser("sources", help="list the catalogue of public datasets")
    add_json(command)
    command.set_defaults(run=run_sources)
    command = commands.add_parser("sandbox", help="try every escape from the media sandbox here")
    add_json(command)
    command.set_defaults(run=run_sandbox)
    leaks = commands.add_parser("leaks", help="an index of evaluation data, for recipes to avoid")
    command = leaks.add_subparsers(required=True).add_parser(
        "build", help="local copies of benchmarks -> a leak index"
    )
    command.add_argument("benchmarks", help="a YAML file that names the copies: docs/leaks.md")
    command.add_argument("--out", required=True, help="folder for the index")
    _add_decoding(command)
    add_json(command)
    command.set_defaults(run=run_leaks_build)
    return top


def _add_init(commands: Commands) -> None:
    command = commands.add_parser("init", help="a folder of your own -> a first recipe")
    command.add_argument("folder", type=on_disk, help="annotations and media: docs/own_data.md")
    command.add_argument(
        "--for",
        dest="purpose",
        choices=PURPOSES,
        required=True,
        help="a small model from nothing, or a published decoder and tower",
    )
    command.add_argument(
        "--out", type=on_disk, metavar="RECIPE.yaml", help="(default: FOLDER/recipe.yaml)"
    )
    add_json(command)
    command.set_defaults(run=run_init)


def on_disk(text: str) -> Path:
    """A path on this machine, where a first recipe is written beside what it names."""
    if "://" in text:
        raise argparse.ArgumentTypeError(
            f"{text}: annotations and recipes of `init` lie on a disk; give a path, and copy it"
        )
    return Path(text)


def _add_build(commands: Commands) -> None:
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
    command.add_argument(
        "--retry",
        nargs="+",
        default=[],
        metavar="CODE",
        help="try media and addresses again that were refused so, e.g. MEDIA_TOO_SLOW",
    )
    command.add_argument(
        "--dry-run",
        dest="dry_run",
        action="store_true",
        help="say what would be fetched, decoded and written, and for how long; do none of it",
    )
    add_json(command)
    command.set_defaults(run=run_build)


def _add_pack(commands: Commands) -> None:
    command = commands.add_parser("pack", help="manifest -> shards by mixture ratio")
    command.add_argument("manifest", help="a manifest.json, or a folder with one")
    command.add_argument("--data", required=True, help="the pool")
    command.add_argument("--out", required=True, help="folder for the shards")
    command.add_argument("--address", help="a running Ray cluster (default: RAY_ADDRESS, or here)")
    command.set_defaults(run=run_pack)


def _add_of_builds(commands: Commands) -> None:
    """What people look at of a build."""
    command = commands.add_parser("report", help="write OUT/report.html, one page for people")
    command.add_argument("out", help="a folder written by build")
    command.add_argument("--pool", help="the pool it was built from (default: OUT/pool)")
    command.set_defaults(run=run_report)
    command = commands.add_parser("show", help="samples of a build, as the model sees them")
    command.add_argument("out", help="a folder written by build")
    command.add_argument("--pool", help="the pool it was built from (default: OUT/pool)")
    command.add_argument("--key", default="", help="a sample, by the first digits of its key")
    command.add_argument("--source", default="", help="samples of this source")
    command.add_argument("--refused", default="", metavar="CODE", help="what was refused so")
    command.add_argument("-n", dest="count", type=int, default=3, help="so many (default: 3)")
    command.add_argument(
        "--sheet", metavar="FILE.png", help="where their frames go (default: OUT/show.png)"
    )
    add_json(command)
    command.set_defaults(run=run_show)


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


def _add_rebuild(commands: Commands) -> None:
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


def run_init(arguments: argparse.Namespace) -> None:
    from pipeline.first_recipe import write_recipe
    from pipeline.survey import survey
    from pipeline.survey_told import as_json, tell

    recipe = arguments.out or arguments.folder / "recipe.yaml"
    if recipe.exists():
        raise UserError(f"{recipe}: is there already; remove it, or give another --out")
    surveyed = survey(arguments.folder)
    tokenizer = write_recipe(surveyed, arguments.purpose, recipe)
    if arguments.json:
        write_json(as_json(surveyed, recipe, tokenizer))
        return
    console = Console(highlight=False)
    tell(console, surveyed)
    out = shlex.quote(f"runs/{arguments.folder.resolve().name}")
    console.print(f"\nwrote {recipe}; its tokenizer is {tokenizer}", soft_wrap=True)
    console.print(
        f"next: python -m pipeline build {shlex.quote(str(recipe))} --out {out} --pool runs/pool "
        "--no-shards",
        soft_wrap=True,
    )


def run_build(arguments: argparse.Namespace) -> None:
    from pipeline.checks import checked, codes_of_media

    pool = arguments.pool or f"{arguments.out}/pool"
    with_shards = not arguments.no_shards
    inputs = checked(
        arguments.recipe,
        arguments.out,
        pool,
        arguments.allowed,
        with_shards=with_shards,
        writes=not arguments.dry_run,
        retry=arguments.retry,
    )
    retry = codes_of_media(arguments.retry)
    if arguments.dry_run:
        run_dry(inputs, pool, retry, arguments.json)
        return
    # not before the checks: what builds takes a second to import
    from pipeline.build import build
    from pipeline.report.page import write_report

    built = build(
        arguments.recipe,
        arguments.out,
        pool,
        arguments.address,
        no_sandbox=arguments.no_sandbox,
        allowed=arguments.allowed,
        with_shards=with_shards,
        retry=retry,
        inputs=inputs,
    )
    page = write_report(arguments.out, pool)
    if arguments.json:
        write_json(built_json(built, page))
        return
    show(built, page)


def run_dry(inputs: Inputs, pool: str, retry: frozenset[str], as_json: bool) -> None:
    """What a build of these inputs would do."""
    from pipeline.jobs.dry_run import foresee, tell

    found = foresee(inputs.sources, inputs.held_out, inputs.recipe.profile, pool, retry)
    if as_json:
        write_json(asdict(found))
    else:
        tell(Console(), found)


def built_json(built: Built, page: str) -> dict[str, Any]:
    """What a build published, as one JSON value."""
    return {
        "manifest_id": built.manifest_id,
        "report": page,
        "books": [asdict(books) for books in built.books],
        "leaks": [asdict(matched) for matched in built.matches],
        "sizes": None if built.sizes is None else asdict(built.sizes),
        "refused": {
            books.source: {one.code: one.count for one in top_codes(built.refusals, books.source)}
            for books in built.books
        },
    }


def run_rebuild(arguments: argparse.Namespace) -> None:
    roots = dict(word.partition("=")[::2] for word in arguments.root)
    if not all(old and new for old, new in roots.items()):
        raise UserError(f"--root {' '.join(arguments.root)}: write OLD=NEW, two folders")
    from pipeline.rebuild import rebuild

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
    from mixtures.manifest.files import load_manifest, manifest_file
    from shards.pool import Pool
    from shards.store import Store

    pool = Pool(arguments.data)
    path = manifest_file(arguments.manifest)
    load_manifest(path)
    Store(arguments.out).check_writable()

    from pipeline.jobs.job import Job
    from pipeline.jobs.progress import steps
    from pipeline.jobs.ray_executor import connect
    from pipeline.jobs.write_shards import pack

    with connect(arguments.address) as workers, steps() as bars:
        sizes = pack(path, arguments.out, Job(pool=pool, workers=workers, bars=bars))
    show_sizes(Console(), sizes)


def run_report(arguments: argparse.Namespace) -> None:
    from pipeline.report.page import write_report

    page = write_report(arguments.out, arguments.pool or f"{arguments.out}/pool")
    Console().print(f"wrote {page}", highlight=False, soft_wrap=True)


def run_show(arguments: argparse.Namespace) -> None:
    from pipeline.show_command import show_samples

    show_samples(arguments)


def run_compact(arguments: argparse.Namespace) -> None:
    from shards.pool import Pool, writing

    pool = Pool(arguments.pool)
    with writing(pool.store):
        copied = pool.ledger.compact()
    text = f"{arguments.pool}: {copied} loose receipts are now in a snapshot"
    Console().print(text, highlight=False, soft_wrap=True)


def run_sources(arguments: argparse.Namespace) -> None:
    """Everything that can be known before fetching; rows and sizes as their publishers say."""
    from pipeline.sources.catalogue import CATALOGUE, catalogue

    if arguments.json:
        write_json({name: asdict(entry) for name, entry in catalogue().items()})
        return
    table = Table("dataset", "format", "licence; terms", "access", "rows; size", box=None)
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


def run_sandbox(arguments: argparse.Namespace) -> None:
    """What code inside the media sandbox can do to this machine; status 2 if it can do anything."""
    from pipeline.media import canary

    confinement = canary.found()
    if arguments.json:
        write_json(
            {
                "kind": confinement.kind,
                "open": list(confinement.open),
                "tried": dict(canary.ESCAPES),
            }
        )
    else:
        table = Table("escape", "a program inside", "is", box=None)
        for name, what in canary.ESCAPES.items():
            table.add_row(name, what, "open" if name in confinement.open else "confined")
        console = Console()
        console.print(str(confinement), highlight=False)
        console.print(table)
    if confinement.open:
        raise UserError(f"{' '.join(confinement.open)}: open; install bubblewrap and libseccomp")


def run_leaks_build(arguments: argparse.Namespace) -> None:
    from pipeline.jobs.leak_index import build_index

    index = build_index(
        arguments.benchmarks,
        arguments.out,
        arguments.address,
        no_sandbox=arguments.no_sandbox,
        allowed=arguments.allowed,
    )
    counts = "records records_refused without_media questions media media_refused".split()
    if arguments.json:
        write_json({"index_id": index.index_id, "benchmarks": index.benchmarks})
        return
    table = Table("benchmark", *(name.replace("_", " ") for name in counts), box=None)
    for books in index.benchmarks:
        table.add_row(books["name"], *(str(books[name]) for name in counts))
    console = Console()
    console.print(table)
    console.print(f"{arguments.out}/index.json: {index.index_id}", highlight=False, soft_wrap=True)


def show(built: Built, page: str) -> None:
    """What a build comes to, for people."""
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
    if again := worth_another_try(built.refusals):
        console.print(again, highlight=False, markup=False, soft_wrap=True)


def show_sizes(console: Console, pool_sizes: Sizes) -> None:
    reuse = pool_sizes.clips_packed / max(1, pool_sizes.clips_stored)
    console.print(
        f"pool {pool_sizes.pool_bytes:,} bytes of clips, shards {pool_sizes.shard_bytes:,} bytes, "
        f"each clip packed {reuse:.2f} times",
        highlight=False,
    )


if __name__ == "__main__":
    run_command(main)
