"""python -m train assemble | run | export | watch | reproduce | diff | evaluate | ablate | report |
suggest | chat | model"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mixtures.console import Console, add_json, tables_json, write_json
from mixtures.recipe.allowed_paths import add_option
from shards import program
from shards.errors import Parser, UserError, run_command
from train.ablation.command import ablate, add_commands, report, suggest
from train.named_files import (
    asked_for,
    by_part,
    check_assembly,
    check_chat,
    check_export,
    check_inputs,
    check_recorded,
    check_records,
    chosen,
    default_data,
)
from train.watched.trackers import TRACKERS

if TYPE_CHECKING:
    from rich.table import Table

    Commands = argparse._SubParsersAction[Parser]

EPILOG = {
    "assemble": "example: python -m train assemble --decoder models/Qwen2.5-1.5B-Instruct "
    "--tower models/Oryx-ViT --recipe mixtures/sf_llava_1_5_stage1.yaml --out runs/start",
    "run": "example: python -m train run train/configs/demo_stage1.yaml "
    "--manifest runs/demo/stage1/manifest.json --out runs/demo/train1",
    "export": "example: python -m train export runs/demo/train2/checkpoints/step-00000800 "
    "--out exported",
    "watch": "example: python -m train watch runs/demo/train1",
    "reproduce": "example: python -m train reproduce runs/demo/train1/run.json "
    "--pool runs/demo/pool",
    "diff": "example: python -m train diff runs/demo/train1 runs/demo/train2",
    "evaluate": "example: python -m train evaluate --model runs/demo/train2/model "
    "--tasks runs/demo/data/digits/test.parquet --pathways both none --out scores.json",
    "chat": "example: python -m train chat --model runs/demo/train2/model "
    '--video clip.mp4 --question "How many flashes?"',
    "model": "example: python -m train model --size 1b",
}

INIT = "where a part lies now: of a new run, or one that a checkpoint was not trained to hold"
INIT_AGAIN = "where a part that the run started from, or that it did not train, lies now"
BRANCH = "a checkpoint of another run, from which a new one goes on"
TRACK = "tell these of every step as well: OUT/tensorboard, OUT/wandb (offline)"
PROFILE = "trace so many steps of each rank into OUT/profile"
SOURCE = "OUT/checkpoints/step-N, or with --like a folder that transformers saved"
ADAPTER = "adapters alone, as peft has them, in place of a whole model"
LIKE = "the model folder that MERGED was made from: its tokenizer, layout and frames"
ON_RAY = "SLOWFAST_MIX_RANK_ON_RAY"
"""What a process is told that Ray started as a rank: it starts no others."""

AGAINST = "the --out of another model on the same questions: paired differences, as a table"
PRECISION = "of the weights (default: as they were saved)"
RELEVANCE = "folder of a SigLIP model: of long videos, show the frames that fit the question"


def parser() -> Parser:
    """The command line of `python -m train`."""
    top = Parser(prog=program("train"), description="Manifest -> weights -> answers.")
    commands = top.add_subparsers(dest="command", required=True)
    start = commands.add_parser(
        "assemble", help="a start model of published weights", epilog=EPILOG["assemble"]
    )
    start.add_argument("--decoder", required=True, help="folder or hf://ORG/NAME@COMMIT")
    start.add_argument("--tower", required=True, help="file, folder or hf://ORG/NAME@COMMIT")
    start.add_argument("--recipe", type=Path, required=True, help="its layout, frames, tokenizer")
    start.add_argument("--out", type=on_disk, required=True, help="the model folder to write")
    add_option(start)
    _add_run(commands)
    _add_of_runs(commands)
    _add_evaluate(commands)
    add_commands(commands, on_disk)
    _add_chat(commands)
    paper = commands.add_parser("model", help="a published size on paper", epilog=EPILOG["model"])
    what = paper.add_mutually_exclusive_group(required=True)
    what.add_argument("--size", choices=("1b", "3b", "7b"), help="which one")
    what.add_argument("--fits", action="store_true", help="which run fits which GPUs; minutes")
    add_json(paper)
    return top


def _add_chat(commands: Commands) -> None:
    """A conversation."""
    ask = commands.add_parser("chat", help="a conversation about media", epilog=EPILOG["chat"])
    ask.add_argument("--model", type=Path, required=True, help="OUT/model of a run")
    ask.add_argument("--video", type=Path, action="append", default=[], help="show it; repeatable")
    ask.add_argument("--image", type=Path, action="append", default=[], help="show it; repeatable")
    ask.add_argument("--question", default="", help="ask this alone (default: a conversation)")
    ask.add_argument("--tokens", type=a_count, default=256, help="of a reply, at most")
    ask.add_argument("--json", action="store_true", help="a JSON object for each reply")
    ask.add_argument("--web", action="store_true", help="in a browser, on this machine alone")
    ask.add_argument("--relevance", type=Path, help=RELEVANCE)


def _add_run(commands: Commands) -> None:
    """Training."""
    run = commands.add_parser("run", help="train a config on a manifest", epilog=EPILOG["run"])
    run.add_argument("config", type=Path, help="YAML over the defaults of train/config.py")
    run.add_argument("--manifest", type=a_manifest, help="manifest of a build, or its folder")
    run.add_argument("--data", default="", help="pool or shards (default: beside the manifest)")
    run.add_argument("--out", type=on_disk, help="checkpoints, metrics.jsonl, model")
    run.add_argument("--dry-run", action="store_true", help="print steps, hours, memory; no step")
    run.add_argument("--init-from", default="", help="model folder that all parts start from")
    run.add_argument("--init", nargs="+", default=[], metavar="PART=FOLDER", help=INIT)
    run.add_argument("--branch", type=Path, metavar="CHECKPOINT", help=BRANCH)
    run.add_argument("--track", nargs="+", default=[], choices=TRACKERS, help=TRACK)
    run.add_argument("--profile", type=a_count, default=0, metavar="STEPS", help=PROFILE)
    run.add_argument("--ray", type=int, default=0, metavar="N", help="on N ranks of a Ray cluster")
    run.add_argument("--json", action="store_true", help="of --dry-run: one JSON value")


def _add_of_runs(commands: Commands) -> None:
    """What is done with runs that have ended."""
    made = commands.add_parser("export", help="a model folder", epilog=EPILOG["export"])
    made.add_argument("source", type=Path, metavar="CHECKPOINT|MERGED", help=SOURCE)
    made.add_argument("--like", type=Path, metavar="MODEL", help=LIKE)
    made.add_argument("--init", nargs="+", default=[], metavar="PART=FOLDER", help=INIT)
    made.add_argument("--adapter", action="store_true", help=ADAPTER)
    made.add_argument("--out", type=on_disk, required=True, help="the folder to write")
    seen = commands.add_parser("watch", help="curves of a run", epilog=EPILOG["watch"])
    seen.add_argument("out", type=Path, metavar="OUT", help="the --out of a run, which may go on")
    again = commands.add_parser("reproduce", help="a run again", epilog=EPILOG["reproduce"])
    again.add_argument("run", type=Path, metavar="run.json", help="of a complete run, or its OUT")
    again.add_argument("--pool", required=True, help="the pool of its manifest, or shards")
    again.add_argument(
        "--manifest", type=a_manifest, help="where it lies now (default: as recorded)"
    )
    again.add_argument(
        "--from", dest="begin", type=int, default=0, metavar="STEP", help="from its checkpoint"
    )
    again.add_argument("--init", nargs="+", default=[], metavar="PART=FOLDER", help=INIT_AGAIN)
    two = commands.add_parser("diff", help="what differs between two runs", epilog=EPILOG["diff"])
    two.add_argument("left", type=Path, metavar="RUN_A", help="OUT of a complete run, or run.json")
    two.add_argument("right", type=Path, metavar="RUN_B", help="another one")


def _add_evaluate(commands: Commands) -> None:
    """Held-out scores."""
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
        choices=("both", "none", "slow", "fast", "shuffled_frames"),
        help="what to show: visual blocks (those of training, or masks), nothing, frames in "
        "another order (default: as trained; of evaluation sets with the floors)",
    )
    score.add_argument("--against", type=Path, metavar="SCORES", help=AGAINST)
    score.add_argument("--precision", choices=("fp32", "bf16"), default="", help=PRECISION)
    score.add_argument("--batch", type=a_count, default=64, help="questions at once, at most")
    score.add_argument(
        "--media-memory",
        type=a_count,
        default=2048,
        metavar="MB",
        help="of decoded media that a process holds (default: %(default)s)",
    )
    score.add_argument(
        "--ray", type=int, default=0, metavar="N", help="on N ranks of a Ray cluster"
    )
    score.add_argument("--relevance", type=Path, help=RELEVANCE)
    score.add_argument("--out", type=on_disk, help="scores as JSON; predictions lie beside it")
    add_json(score)


def on_disk(text: str) -> Path:
    """A place that processes can write to together; object stores are no such thing."""
    if "://" in text:
        raise argparse.ArgumentTypeError(
            f"{text}: what a run leaves is written by all processes together and renamed, which "
            "object stores cannot; give a place on a disk that all nodes share, and copy it there"
        )
    return Path(text)


def a_count(text: str) -> int:
    """A number of at least 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: write a number of at least 1")
    return int(text)


def a_manifest(text: str) -> Path:
    """The file of a manifest: a folder stands for the one in it."""
    # imported here, as everywhere in this file: `--help` and a mistyped option wait for nothing
    # heavy
    from mixtures.manifest.files import manifest_file

    return Path(manifest_file(text))


def assemble(arguments: argparse.Namespace) -> None:
    out, recipe, allowed = arguments.out, arguments.recipe, arguments.allowed
    check_assembly(arguments)
    from train.assemble import assemble

    count = assemble(arguments.decoder, arguments.tower, recipe, out, allowed)
    sys.stdout.write(f"{out}: {count:,} parameters; start a run with --init-from {out}\n")


def run(arguments: argparse.Namespace) -> None:
    if arguments.dry_run:
        of_a_run = ("track", "profile", "ray", "branch")
        if given := [name for name in of_a_run if getattr(arguments, name)]:
            raise UserError(f"run --dry-run: --{given[0]} is of a run that trains; leave it out")
        dry_run(arguments)
        return
    if not (arguments.manifest and arguments.out):
        raise UserError("run: give --manifest and --out, or --dry-run")
    if arguments.json:
        raise UserError("run: --json is of --dry-run; a run writes OUT/metrics.jsonl")
    # this process is no rank: it starts ranks, which run the same words with ON_RAY set
    if arguments.ray and ON_RAY not in os.environ:
        from train.on_ray import launch

        check_inputs(arguments)  # once, before there are ranks
        sys.exit(launch(sys.argv[1:], arguments.ray, {ON_RAY: "1"}))
    config = check_inputs(arguments)

    # torch is imported from here on: every mistake above costs less than a second
    from train.loop import run
    from train.run_keys import Shown

    data = arguments.data or default_data(arguments.manifest)
    shown = Shown(trackers=tuple(arguments.track), profile=arguments.profile)
    if status := run(config, arguments.manifest, data, arguments.out, arguments.branch, shown):
        sys.exit(status)


def dry_run(arguments: argparse.Namespace) -> None:
    """What the run would take; its start weights need not be there without a manifest."""
    from mixtures.manifest.files import load_manifest
    from train.weights.start import check_start

    config, path = chosen(arguments), arguments.manifest
    manifest = load_manifest(path) if path else None
    # without a manifest only sizes are asked for, which the config has
    if manifest is not None:
        check_start(config, manifest, str(path))

    from train.dry_run import dry_run

    parts = list(dry_run(config, manifest, str(path)))
    if arguments.json:
        tables = tables_json(*(part for part in parts if not isinstance(part, str)))
        write_json({"lines": [part for part in parts if isinstance(part, str)], "tables": tables})
        return
    for part in parts:
        Console().print(part)


def export(arguments: argparse.Namespace) -> None:
    out = arguments.out
    check_export(arguments)
    from train.export import export_any

    places = by_part(arguments.init)
    count = export_any(arguments.source, out, arguments.like, places, alone=arguments.adapter)
    sys.stdout.write(f"{out}: {count:,} parameters\n")


def evaluate(arguments: argparse.Namespace) -> None:
    if arguments.list:
        from train.evaluation.listing import listing

        _print_tables(arguments.json, listing())
        return
    asked = arguments.tasks or arguments.benchmark
    if not (arguments.model and arguments.out and asked):
        raise UserError("evaluate: give --model, --out, and --tasks or --benchmark (or --list)")
    # before there are ranks, each of which would tell the same mistake
    benchmarks = asked_for(arguments)
    if arguments.ray and ON_RAY not in os.environ:
        from train.on_ray import launch

        sys.exit(launch(sys.argv[1:], arguments.ray, {ON_RAY: "1"}))
    from train.evaluation.evaluate import evaluate

    result = evaluate(
        arguments.model,
        arguments.tasks,
        arguments.pathways,
        arguments.out,
        Console(quiet=arguments.json),
        arguments.relevance,
        benchmarks=benchmarks,
        subtitles=arguments.subtitles,
        precision=arguments.precision,
        batch=arguments.batch,
        media_memory=arguments.media_memory << 20,
        other=arguments.against,
    )
    # the first rank of a launch has it whole, and speaks for all
    if arguments.json and os.environ.get("RANK", "0") == "0":
        write_json(result)


def chat(arguments: argparse.Namespace) -> None:
    if arguments.web:
        from train.chat.web import gradio, serve

        gradio()  # a missing library is told before a model is loaded
        if arguments.video or arguments.image or arguments.question or arguments.json:
            raise UserError("chat --web: media and questions are given on the page; leave them out")
    check_chat(arguments)
    from train.chat.conversation import Conversation
    from train.chat.terminal import lines_of_a_person, reply, talk
    from train.evaluation.answerer import Answerer

    answerer = Answerer(arguments.model, arguments.relevance)
    if arguments.web:
        serve(answerer, arguments.tokens)
        return
    conversation = Conversation(answerer, arguments.tokens)
    # the order on the command line is lost to argparse: videos are shown first
    for kind in ("video", "image"):
        for path in getattr(arguments, kind):
            conversation.show(kind, path)
    if arguments.question:
        reply(conversation, arguments.question, as_json=arguments.json)
    else:
        failed = talk(conversation, lines_of_a_person(), as_json=arguments.json)
        # a person saw each mistake as it came; a script that piped lines in looks at the exit
        # status
        if failed and not sys.stdin.isatty():
            raise UserError(f"chat: {failed} of the lines could not be answered; see above")


def model(arguments: argparse.Namespace) -> None:
    if arguments.fits:
        from train.sizing.fitting import fitting_table

        _print_tables(arguments.json, fitting_table())
        return
    from train.sizing.tables import tables

    _print_tables(arguments.json, *tables(arguments.size))


def _print_tables(as_json: bool, *tables: Table) -> None:
    if as_json:
        write_json(tables_json(*tables))
        return
    for table in tables:
        Console().print(table)


def watch(arguments: argparse.Namespace) -> None:
    from train.watched.curves import watch

    console = Console()
    told = watch(arguments.out, console.width)
    console.print(told, highlight=False, markup=False, soft_wrap=True)


def reproduce(arguments: argparse.Namespace) -> None:
    places = by_part(arguments.init)
    check_recorded(arguments.run, arguments.pool, arguments.manifest, arguments.begin)
    from train.reproduce import reproduce

    lines = reproduce(
        arguments.run, arguments.pool, arguments.manifest, arguments.begin, places=places
    )
    # every rank has compared the same losses: the first one speaks for all
    console = Console(quiet=os.environ.get("RANK", "0") != "0")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def diff(arguments: argparse.Namespace) -> None:
    check_records([arguments.left, arguments.right])
    from train.reproduce import diff

    for line in diff(arguments.left, arguments.right):
        Console().print(line, highlight=False, markup=False, soft_wrap=True)


COMMANDS = {
    "assemble": assemble,
    "run": run,
    "export": export,
    "watch": watch,
    "reproduce": reproduce,
    "diff": diff,
    "evaluate": evaluate,
    "ablate": ablate,
    "report": report,
    "suggest": suggest,
    "chat": chat,
    "model": model,
}


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
