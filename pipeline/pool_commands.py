"""python -m pipeline pool ls | du | gc | export: what is in a pool, who needs it, what may go."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mixtures.console import Console, add_json, fitting, write_json
from shards.errors import Parser, UserError

if TYPE_CHECKING:  # a mistake is told before any of these is imported
    from pipeline.upkeep.garbage import Cleared, Garbage
    from pipeline.upkeep.inventory import Holding, Use

    Commands = argparse._SubParsersAction[Parser]

EXAMPLES = """examples:
  python -m pipeline pool ls runs/pool --manifests runs/a runs/b
  python -m pipeline pool du runs/pool
  python -m pipeline pool gc runs/pool --keep runs/a            (says what would go)
  python -m pipeline pool gc runs/pool --keep runs/a --remove   (removes it)
  python -m pipeline pool export runs/pool --manifest runs/a --out published
"""
SCORE_EXAMPLES = """examples:
  python -m pipeline score runs/pool --scorer pipeline.scorers:sharpness --per frame
  python -m pipeline score runs/pool --scorer pipeline.scorers:caption_length --per sample
  python -m pipeline score runs/pool --scorer train.evaluation.relevance:score_frames \\
      --per sample_frame --model SIGLIP
built in: brightness, sharpness, motion, text_density (per frame), caption_length (per sample)
"""
PER = ("frame", "clip", "sample", "sample_frame")
ROWS = {"sample": "samples", "sample_frame": "clips of samples"}
POOL = "the pool, a folder or s3://..."
MANIFESTS = "a manifest.json, or a folder with one; several"
_HEX = 12


def add_pool(commands: Commands) -> None:
    """The commands of `pool`."""
    pool = commands.add_parser(
        "pool",
        help="what is in a pool, what may go, and a dataset out of it",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    inner = pool.add_subparsers(required=True, metavar="COMMAND")
    command = inner.add_parser("ls", help="the sources in it, and which manifests use what")
    command.add_argument("pool", help=POOL)
    command.add_argument("--manifests", nargs="+", default=[], metavar="MANIFEST", help=MANIFESTS)
    add_json(command)
    command.set_defaults(run=run_ls)
    command = inner.add_parser("du", help="files and bytes by folder, and those of no receipt")
    command.add_argument("pool", help=POOL)
    add_json(command)
    command.set_defaults(run=run_du)
    command = inner.add_parser("gc", help="remove what no kept manifest needs")
    command.add_argument("pool", help=POOL)
    command.add_argument(
        "--keep",
        nargs="+",
        required=True,
        metavar="MANIFEST",
        help=f"{MANIFESTS}; what they need stays",
    )
    command.add_argument(
        "--remove", action="store_true", help="remove it; without this, only say what would go"
    )
    add_json(command)
    command.set_defaults(run=run_gc)
    command = inner.add_parser("export", help="a manifest's samples as a Hugging Face dataset")
    command.add_argument("pool", help=POOL)
    command.add_argument(
        "--manifest", required=True, help="a manifest.json, or a folder with one: what it keeps"
    )
    command.add_argument("--out", required=True, help="an empty folder, or s3://...")
    add_json(command)
    command.set_defaults(run=run_export)


def add_score(commands: Commands) -> None:
    """The command `score`."""
    command = commands.add_parser(
        "score",
        help="a column of integers over a pool's frames, clips or samples, for filters",
        epilog=SCORE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("pool", help=POOL)
    command.add_argument(
        "--scorer", required=True, metavar="MODULE:FUNCTION", help="what scores: docs/pool.md"
    )
    command.add_argument("--per", choices=PER, required=True, help="what it gives an integer for")
    command.add_argument(
        "--model",
        default="",
        metavar="FOLDER",
        help="a model's folder, for a scorer that takes one",
    )
    command.add_argument("--address", help="a running Ray cluster (default: RAY_ADDRESS, or here)")
    add_json(command)
    command.set_defaults(run=run_score)


def run_score(arguments: argparse.Namespace) -> None:
    """`score`: run a scorer over a pool; what is scored already is not scored again."""
    from pipeline.jobs.score_pool import check_scorer, score_pool
    from shards.pool import Pool, writing

    check_scorer(arguments.scorer, arguments.per, arguments.model)
    pool = Pool(arguments.pool)
    pool.store.check_writable()

    from pipeline.jobs.job import Job
    from pipeline.jobs.progress import steps
    from pipeline.jobs.ray_executor import connect

    with writing(pool.store), connect(arguments.address) as workers, steps() as bars:
        job = Job(pool=pool, workers=workers, bars=bars)
        # absolute: workers run in folders of their own
        model = str(Path(arguments.model).absolute()) if arguments.model else ""
        scored = score_pool(arguments.scorer, arguments.per, job, model)
    if arguments.json:
        write_json(asdict(scored))
        return
    name = arguments.scorer.rpartition(":")[2]
    Console(highlight=False).print(
        f"scores.{name}@{scored.digest[:8]}, per {scored.per}: "
        f"{scored.rows} {ROWS.get(scored.per, 'clips')}, "
        f"from {scored.least} to {scored.most}, {scored.mean:.1f} in the mean",
        soft_wrap=True,
    )


def run_ls(arguments: argparse.Namespace) -> None:
    """`ls`: the sources of a pool, and what the given manifests need of it."""
    from pipeline.upkeep.garbage import manifests_in
    from pipeline.upkeep.inventory import columns, holdings, uses
    from shards.pool import Pool

    pool = Pool(arguments.pool)
    manifests = manifests_in(arguments.manifests)
    held = holdings(pool, manifests)
    used = uses(pool, manifests) if manifests else []
    scores = columns(pool)
    if arguments.json:
        write_json(
            {
                "sources": list(map(asdict, held)),
                "manifests": list(map(asdict, used)),
                "scores": list(map(asdict, scores)),
            }
        )
        return
    console = Console(highlight=False)
    _print_holdings(console, held, [one.manifest for one in used])
    if used:
        _print_uses(console, used)
    for one in scores:
        name = one.scorer.rpartition(":")[2]
        told = (
            f"scores.{name}@{one.digest[:8]}: {one.scorer}, per {one.per}, of {one.tables} tables"
        )
        console.print(told, soft_wrap=True)


def _print_holdings(console: Console, held: Sequence[Holding], manifests: Sequence[str]) -> None:
    headers = ["source", "revision", "licence", "samples", "refused", "clips", "bytes"]
    rows = [
        [
            *(one.source, one.revision[:_HEX], one.licence),
            *(str(one.samples), str(one.refused), str(one.clips), str(one.nbytes)),
            ", ".join(str(1 + manifests.index(name)) for name in one.used_by) or "-",
        ]
        for one in held
    ]
    if manifests:
        console.print(fitting(console, [*headers, "used by"], rows, spare=("refused", "clips")))
    else:
        console.print(fitting(console, headers, [row[:-1] for row in rows], spare=("refused",)))


def _print_uses(console: Console, used: Sequence[Use]) -> None:
    rows = [
        [str(number), one.manifest_id[:_HEX], str(one.receipts), str(one.nbytes), str(one.alone)]
        for number, one in enumerate(used, 1)
    ]
    headers = ["used by", "manifest", "receipts", "bytes", "bytes of it alone"]
    console.print(fitting(console, headers, rows, spare=("receipts",)))
    for number, one in enumerate(used, 1):
        console.print(f"{number}: {one.manifest}", soft_wrap=True)


def run_du(arguments: argparse.Namespace) -> None:
    """`du`: the folders of a pool."""
    from pipeline.upkeep.inventory import folders
    from shards.pool import Pool

    sizes = folders(Pool(arguments.pool))
    if arguments.json:
        write_json(list(map(asdict, sizes)))
        return
    console = Console(highlight=False)
    headers = ["folder", "files", "bytes", "files of\nno receipt", "bytes of\nno receipt"]
    rows = [list(map(str, asdict(folder).values())) for folder in sizes]
    console.print(fitting(console, headers, rows, spare=headers[3:]))
    total = sum(folder.nbytes for folder in sizes)
    console.print(f"{total:,} bytes in {sum(folder.files for folder in sizes)} files")


def run_gc(arguments: argparse.Namespace) -> None:
    """`gc`: what goes; UserError (status 2) if some of it could not be removed."""
    from pipeline.upkeep.garbage import Cleared, clear, garbage, manifests_in
    from shards.pool import Pool

    pool = Pool(arguments.pool)
    manifests = manifests_in(arguments.keep)
    if arguments.remove:
        cleared = clear(pool, manifests)
    else:
        cleared = Cleared(garbage=garbage(pool, manifests))
    if arguments.json:
        write_json(_cleared_json(cleared, removed=arguments.remove))
    else:
        _tell(Console(highlight=False), cleared.garbage, removed=arguments.remove)
    if cleared.failed:
        raise UserError(
            *(
                f"{pool.store.path(name)}: not removed: {why}"
                for name, why in cleared.failed.items()
            )
        )


def run_export(arguments: argparse.Namespace) -> None:
    """`export`: write the dataset; say what it came to."""
    from mixtures.manifest.files import load_manifest, manifest_file
    from pipeline.upkeep.export import export
    from pipeline.upkeep.needs import check_sources
    from shards.pool import Pool

    pool = Pool(arguments.pool)
    where = manifest_file(arguments.manifest)
    manifest = load_manifest(where)
    check_sources(pool, manifest, where)
    exported = export(pool, manifest, arguments.out)
    if arguments.json:
        write_json(asdict(exported))
        return
    console = Console(highlight=False)
    rows = [
        [source, name or "not stated", str(count)]
        for source, counts in exported.licences.items()
        for name, count in sorted(counts.items())
    ]
    console.print(fitting(console, ["source", "licence", "samples"], rows))
    console.print(
        f"{arguments.out}: {exported.samples:,} samples in {exported.parts} files, "
        f"{exported.nbytes:,} bytes of clips and text; its card is README.md",
        soft_wrap=True,
    )


def _cleared_json(cleared: Cleared, *, removed: bool) -> dict[str, object]:
    garbage = cleared.garbage
    return {
        "removed": removed,
        "files": dict(garbage.files),
        "nbytes": garbage.nbytes,
        "stays": garbage.stays,
        "shared": garbage.shared,
        "unknown_receipts": garbage.unknown,
        "failed": dict(cleared.failed),
    }


def _tell(console: Console, garbage: Garbage, *, removed: bool) -> None:
    """What goes by folder, what stays, and why some of that does."""
    by_folder: dict[str, list[int]] = {}
    for name, nbytes in garbage.files.items():
        by_folder.setdefault(name.rpartition("/")[0] or ".", []).append(nbytes)
    rows = [[name, str(len(sizes)), str(sum(sizes))] for name, sizes in sorted(by_folder.items())]
    if rows:
        console.print(fitting(console, ["folder", "files", "bytes"], rows))
    goes = "removed" if removed else "would go (--remove removes them)"
    console.print(
        f"{garbage.nbytes:,} bytes in {len(garbage.files)} files {goes}; {garbage.stays:,} bytes "
        "stay",
        soft_wrap=True,
    )
    if garbage.shared:
        console.print(
            f"{garbage.shared:,} of them are clips that no kept manifest shows, in parts with "
            "clips that one does: a part is never rewritten",
            soft_wrap=True,
        )
    if garbage.unknown:
        console.print(f"{garbage.unknown} receipts of stages that this version does not know stay")
