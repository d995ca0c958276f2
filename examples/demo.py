"""python -m examples.demo: real media -> pool -> manifests -> shards -> a trained model -> a page.

Runs the commands that a user would type, one after another, under runs/demo, and ends with a table,
runs/demo/metrics.json and runs/demo/report.html. On two cores it took 510 CPU seconds and six
minutes, on two of half that speed 950 and eleven: a slow machine finds the same ids and books.
A demo that was stopped goes on where it was; one that had finished starts afresh. Its recipes name
runs/demo, so it cannot be put elsewhere.

Example: python -m examples.demo
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from examples.meter import Meter
from examples.outcome import Planted, books_balance, check_planted, floors, metrics
from examples.page import write_demo_page
from shards.errors import Parser, UserError, run_command

OUT = Path("runs/demo")
POOL = OUT / "pool"
PATHWAYS = ("both", "slow", "fast")


Step = tuple[str, list[str]]
"""A step's name and its command after `python -m`."""


def steps() -> list[tuple[Step, ...]]:
    """What is done, in order; steps of one tuple run side by side, on two cores."""
    pool, digits = str(POOL), str(OUT / "data/digits/test.parquet")
    videos = str(OUT / "data/scenes/test.json")
    start = ["--init-from", str(OUT / "train1/model")]
    floor = [*train("demo_no_vision", "no_vision", "train_no_vision"), *start, "--data", pool]
    pathways = ["--pathways", *PATHWAYS]
    return [
        (("make the data", ["examples.make_data", "--out", str(OUT / "data")]),),
        (("build stage 1", build("demo_stage1", "stage1")),),
        (
            ("train stage 1", train("demo_stage1", "stage1", "train1")),
            ("build stage 2", build("demo_stage2", "stage2")),
        ),
        (("plan a floor: no vision", plan("demo_stage2_no_vision", "no_vision")),),
        (
            ("train stage 2", [*train("demo_stage2", "stage2", "train2"), *start]),
            ("train the floor", floor),
        ),
        (
            ("score on videos", [*evaluate("train2", "scores"), videos, *pathways]),
            ("score on images", [*evaluate("train2", "scores_images"), digits]),
            ("score the floor", [*evaluate("train_no_vision", "scores_no_vision"), videos]),
        ),
    ]


def build(recipe: str, out: str) -> list[str]:
    command = ["pipeline", "build", f"mixtures/{recipe}.yaml"]
    return [*command, "--out", str(OUT / out), "--pool", str(POOL)]


def plan(recipe: str, out: str) -> list[str]:
    command = ["mixtures", "plan", f"mixtures/{recipe}.yaml", "--pool", str(POOL)]
    return [*command, "--out", str(OUT / out / "manifest.json")]


def train(config: str, manifest: str, out: str) -> list[str]:
    command = ["train", "run", f"train/configs/{config}.yaml"]
    return [*command, "--manifest", str(OUT / manifest / "manifest.json"), "--out", str(OUT / out)]


def evaluate(model: str, scores: str) -> list[str]:
    command = ["train", "evaluate", "--model", str(OUT / model / "model")]
    return [*command, "--out", str(OUT / f"{scores}.json"), "--tasks"]


def main() -> None:
    Parser(
        prog="python -m examples.demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    console = Console()
    if not Path("mixtures/demo_stage1.yaml").exists():
        raise UserError("mixtures/demo_stage1.yaml: not here; run from the repository's root")
    resumed = begin()
    with Meter() as meter:
        for group in steps():
            run(console, group)
        shutil.copytree(OUT / "train2/model", OUT / "model", dirs_exist_ok=True)
    planted = check_planted(OUT)
    measured = metrics(OUT, planted, floors(OUT), books_balance(OUT), meter, resumed=resumed)
    (OUT / "metrics.json").write_text(json.dumps(measured, indent=1) + "\n")
    write_demo_page(OUT, POOL, measured, planted)
    show(console, measured, planted)
    console.print(
        f"{measured['cpu_s']:.0f} CPU seconds in {measured['wall_s']:.0f} s (bars: 720, 360); two "
        "cores took six minutes, two of half that speed eleven",
        highlight=False,
    )
    compare(console)


def compare(console: Console) -> None:
    """Say in what this demo is not as README records it: nothing, on a machine with its ffmpeg."""
    from examples.record import README, differing  # it takes its folders from here

    found = differing(README.read_text())
    as_recorded = f"as recorded in {README}: ids, books, diff, explain; scores within 0.1"
    console.print("\n".join(found) if found else as_recorded, highlight=False, markup=False)


def begin() -> bool:
    """Whether an unfinished demo goes on; a finished one is removed."""
    if (OUT / "metrics.json").exists():
        shutil.rmtree(OUT)
    unfinished = OUT.exists()
    OUT.mkdir(parents=True, exist_ok=True)
    return unfinished


def run(console: Console, group: Sequence[Step]) -> None:
    """Run steps side by side, each its own process: the first one's output is shown, the others'
    lies under `logs/`. A failing step ends the demo."""
    started = time.monotonic()
    (OUT / "logs").mkdir(exist_ok=True)
    beside = [begin_beside(console, name, command) for name, command in group[1:]]
    name, command = group[0]
    console.print(f"\n[bold]{name}[/bold]\n$ python -m {' '.join(command)}", highlight=False)
    shown = subprocess.run([sys.executable, "-m", *command], check=False)
    ended = [(name, shown.returncode), *((name, process.wait()) for name, process in beside)]
    for name, status in ended:
        if status:
            where = "above" if name == group[0][0] else log_of(name)
            raise UserError(f"the step {name!r} ended with status {status}; see {where}")
    console.print(f"{time.monotonic() - started:.0f} s", style="dim")


def begin_beside(
    console: Console, name: str, command: Sequence[str]
) -> tuple[str, subprocess.Popen[bytes]]:
    """Start a step whose output goes to its log, with what the step that is shown leaves of the
    cores: that one takes longest."""
    console.print(
        f"\n[bold]{name}[/bold] (beside the next, see {log_of(name)})\n"
        f"$ python -m {' '.join(command)}",
        highlight=False,
    )
    with log_of(name).open("wb") as log:
        process = subprocess.Popen(
            ["nice", "-n", "19", sys.executable, "-m", *command],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    return name, process


def log_of(name: str) -> Path:
    return OUT / "logs" / f"{name.replace(' ', '_')}.log"


def show(console: Console, measured: dict[str, Any], planted: Planted) -> None:
    table = Table("what", "value", title="the demo", title_justify="left")
    for name, value in measured.items():
        if not isinstance(value, dict):
            table.add_row(name, f"{value:.3f}" if isinstance(value, float) else str(value))
    console.print(table)
    for line in planted.misses:
        console.print(f"planted trouble: {line}", style="red")
    console.print(f"the page: {OUT / 'report.html'}\nask the model, for example:", highlight=False)
    video = json.loads((OUT / "data/scenes/test.json").read_text())[0]["video"]
    console.print(
        f"  .venv/bin/python -m train chat --model {OUT / 'model'} "
        f'--video {OUT / "data/scenes/videos" / video} --question "..."',
        highlight=False,
    )


if __name__ == "__main__":
    run_command(main)
