"""The demo's two stages on two ranks under DeepSpeed, beside the one process of the demo.

Needs a finished `make demo`. Both stages run again over its manifests with ZeRO-2 in fp32, stage
two from the demo's own model of stage one. Losses of the first steps differ by the order of
additions alone; what a model scores in the end must lie in the interval of the other one. Takes
about as long as both trainings of the demo.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.frame import Bar, at_most, equal
from examples.demo import OUT, POOL
from examples.outcome import IMAGES, VIDEOS
from shards.errors import UserError

RANKS, STEPS = 2, 20
DIGITS, SCENES = OUT / "data/digits/test.parquet", OUT / "data/scenes/test.json"
ASKED = {1: {IMAGES: DIGITS}, 2: {IMAGES: DIGITS, VIDEOS: SCENES}}
"""Held-out questions by stage."""


def run(console: Console) -> list[Bar]:
    if not (OUT / "metrics.json").exists():
        raise UserError(f"{OUT}: no finished demo here; run make demo first")
    bars = []
    for stage, tasks in ASKED.items():
        one, many = OUT / f"train{stage}", OUT / f"ranks/train{stage}"
        on_ranks(stage, many)
        bars.append(
            at_most(f"stage {stage}: losses of {STEPS} steps apart", apart(one, many), 1e-6)
        )
        for name, task in tasks.items():
            ours, theirs = (scored(out, name, task) for out in (one, many))
            console.print(f"stage {stage}, {name}: one process {told(ours)}, ranks {told(theirs)}")
            inside = within(ours, theirs) and within(theirs, ours)
            what = f"stage {stage}, {name}: scores inside each other's interval"
            bars.append(equal(what, int(inside), 1))
    return bars


def on_ranks(stage: int, out: Path) -> None:
    """The stage of the demo on RANKS processes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    written = Path(f"train/configs/demo_stage{stage}.yaml").read_text()
    config = out.parent / f"stage{stage}.yaml"
    config.write_text(f"{written}engine: deepspeed\nzero_stage: 2\n")
    start = ["--init-from", OUT / "train1/model"] if stage == 2 else []
    command(
        *("torch.distributed.run", "--nproc_per_node", str(RANKS), "--standalone", "-m"),
        *("train", "run", config, "--manifest", OUT / f"stage{stage}/manifest.json"),
        *("--data", POOL, "--out", out, *start),
    )


def apart(one: Path, many: Path) -> float:
    """The largest difference of a step's losses, as a share of them."""
    losses = [
        [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
        for out in (one, many)
    ]
    return max(abs(a - b) / a for a, b in list(zip(*losses, strict=True))[:STEPS])


def scored(out: Path, name: str, task: Path) -> dict[str, Any]:
    """What the model of a run scores on held-out questions."""
    scores = OUT / "ranks" / f"{out.parent.name}-{out.name}-{task.stem}.json"
    command("train", "evaluate", "--model", out / "model", "--tasks", task, "--out", scores)
    found = json.loads(scores.read_text())["pathways"]["both"]["tasks"][name]["all"]
    return dict(found)


def within(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(other["low"] <= one["accuracy"] <= other["high"])


def told(score: dict[str, Any]) -> str:
    return f"{score['accuracy']:.3f} ({score['low']:.3f} to {score['high']:.3f})"


def command(*words: str | Path) -> None:
    done = subprocess.run([sys.executable, "-m", *map(str, words)], check=False)
    if done.returncode:
        raise UserError(
            f"python -m {' '.join(map(str, words))}: status {done.returncode}; see above"
        )
