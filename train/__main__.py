"""python -m train assemble | run | evaluate | chat | model"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from mixtures.console import Console
from shards import tool_version
from shards.errors import UserError, run_command

EPILOG = {
    "assemble": "example: python -m train assemble --decoder models/Qwen2.5-1.5B-Instruct "
    "--tower models/Oryx-ViT --recipe mixtures/sf_llava_1_5_stage1.yaml --out runs/start",
    "run": "example: python -m train run train/configs/demo_stage1.yaml "
    "--manifest runs/demo/stage1/manifest.json --out runs/demo/train1",
    "evaluate": "example: python -m train evaluate --model runs/demo/train2/model "
    "--tasks runs/demo/data/digits/test.parquet --pathways both none --out scores.json",
    "chat": "example: python -m train chat --model runs/demo/train2/model "
    '--video clip.mp4 --question "How many flashes?"',
    "model": "example: python -m train model --size 1b",
}

RELEVANCE = "folder of a SigLIP model: of long videos, show the frames that fit the question"


def parser() -> argparse.ArgumentParser:
    """The command line of `python -m train`."""
    top = argparse.ArgumentParser(
        prog="python -m train", description="Manifest -> weights -> answers."
    )
    top.add_argument("--version", action="version", version=f"slowfast-mix {tool_version()}")
    commands = top.add_subparsers(dest="command", required=True)
    start = commands.add_parser(
        "assemble", help="a start model of published weights", epilog=EPILOG["assemble"]
    )
    start.add_argument("--decoder", required=True, help="folder or hf://ORG/NAME@COMMIT")
    start.add_argument("--tower", required=True, help="file, folder or hf://ORG/NAME@COMMIT")
    start.add_argument("--recipe", type=Path, required=True, help="its layout, frames, tokenizer")
    start.add_argument("--out", type=Path, required=True, help="the model folder to write")
    run = commands.add_parser("run", help="train a config on a manifest", epilog=EPILOG["run"])
    run.add_argument("config", type=Path, help="YAML over the defaults of train/config.py")
    run.add_argument("--manifest", type=Path, help="manifest.json of a build")
    run.add_argument("--data", default="", help="pool or shards (default: beside the manifest)")
    run.add_argument("--out", type=Path, help="checkpoints, metrics.jsonl, model")
    run.add_argument("--dry-run", action="store_true", help="print steps, hours, memory; no step")
    run.add_argument("--init-from", default="", help="model folder that all parts start from")
    score = commands.add_parser("evaluate", help="held-out scores", epilog=EPILOG["evaluate"])
    score.add_argument("--model", type=Path, help="OUT/model of a run")
    score.add_argument("--tasks", type=Path, nargs="+", default=[], help=".json or .parquet")
    score.add_argument(
        "--benchmark",
        nargs="+",
        default=[],
        metavar="NAME=FOLDER",
        help="published evaluation sets and the folders of your copies (--list names them)",
    )
    score.add_argument("--subtitles", action="store_true", help="show those that a set has")
    score.add_argument("--list", action="store_true", help="the evaluation sets that are read")
    score.add_argument(
        "--pathways",
        nargs="+",
        default=[],
        choices=("both", "none", "slow", "fast"),
        help="visual blocks to show (default: those of training; others are masks, named so)",
    )
    score.add_argument("--relevance", type=Path, help=RELEVANCE)
    score.add_argument("--out", type=Path, help="scores as JSON; predictions lie beside it")
    ask = commands.add_parser("chat", help="ask about one file", epilog=EPILOG["chat"])
    ask.add_argument("--model", type=Path, required=True, help="OUT/model of a run")
    media = ask.add_mutually_exclusive_group(required=True)
    media.add_argument("--video", type=Path, help="the video to ask about")
    media.add_argument("--image", type=Path, help="the image to ask about")
    ask.add_argument("--question", required=True, help="what to ask")
    ask.add_argument("--relevance", type=Path, help=RELEVANCE)
    paper = commands.add_parser("model", help="a published size on paper", epilog=EPILOG["model"])
    paper.add_argument("--size", required=True, choices=("1b", "3b", "7b"), help="which one")
    return top


def default_data(manifest: Path) -> str:
    """The shards beside a manifest if there are any, else the pool beside its folder."""
    for mark in ("shards/receipt.json", "pool/profile.json", "../pool/profile.json"):
        if (manifest.parent / mark).is_file():
            return str((manifest.parent / mark).parent)
    raise UserError(f"{manifest}: neither shards/ nor pool/ nor ../pool beside it; give --data")


def assemble(arguments: argparse.Namespace) -> None:
    from train.assemble import assemble

    out = arguments.out
    count = assemble(arguments.decoder, arguments.tower, arguments.recipe, out)
    sys.stdout.write(f"{out}: {count:,} parameters; start a run with --init-from {out}\n")


def run(arguments: argparse.Namespace) -> None:
    from mixtures.manifest.files import load_manifest
    from train.config import all_from, load_config
    from train.weights.start import check_start

    config, path = load_config(arguments.config), arguments.manifest
    if arguments.init_from:
        config = replace(config, parts=all_from(config.parts, arguments.init_from))
    if not arguments.dry_run and not (path and arguments.out):
        raise UserError("run: give --manifest and --out, or --dry-run")
    manifest = load_manifest(path) if path else None
    # what does not fit is said before torch is imported
    if manifest is not None:
        check_start(config, manifest, str(path))
    if arguments.dry_run:
        from train.dry_run import dry_run

        for part in dry_run(config, manifest, str(path)):
            Console().print(part)
        return

    from train.loop import run

    run(config, path, arguments.data or default_data(path), arguments.out)


def evaluate(arguments: argparse.Namespace) -> None:
    if arguments.list:
        from train.evaluation.listing import listing

        Console().print(listing())
        return
    asked = arguments.tasks or arguments.benchmark
    if not (arguments.model and arguments.out and asked):
        raise UserError("evaluate: give --model, --out, and --tasks or --benchmark (or --list)")
    from train.evaluation.copies import copies

    benchmarks = copies(arguments.benchmark)
    from train.evaluation.evaluate import evaluate

    evaluate(
        arguments.model,
        arguments.tasks,
        arguments.pathways,
        arguments.out,
        Console(),
        arguments.relevance,
        benchmarks=benchmarks,
        subtitles=arguments.subtitles,
    )


def chat(arguments: argparse.Namespace) -> None:
    from train.evaluation.chat import chat

    kind = "video" if arguments.video else "image"
    path = arguments.video or arguments.image
    reply = chat(arguments.model, kind, path, arguments.question, arguments.relevance)
    width, height = reply.size
    sys.stdout.write(f"{reply.answer}\n")
    sys.stdout.write(f"looked at {len(reply.times)} frames of {width}x{height}: ")
    sys.stdout.write(", ".join(reply.times) + "\n")


def model(arguments: argparse.Namespace) -> None:
    from train.sizing.tables import tables

    console = Console()
    for table in tables(arguments.size):
        console.print(table)


COMMANDS = {"assemble": assemble, "run": run, "evaluate": evaluate, "chat": chat, "model": model}


def main() -> None:
    """Parse, then run: heavy imports wait until the arguments are right."""
    arguments = parser().parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # decoding threads want the cores too
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a model is a folder: nothing is fetched by name
    os.environ.setdefault("TQDM_DISABLE", "1")  # one bar is enough
    run_command(partial(COMMANDS[arguments.command], arguments))


if __name__ == "__main__":
    main()
