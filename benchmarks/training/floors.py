"""Trained floors of the demo: slow pathway only, fast only, no vision; the model's steps each.

Needs a finished `make demo`. Each floor is an ablation recipe over the demo's pool: a new manifest,
no decoding, then the same training config from the same stage-1 weights, and the same held-out
questions. Takes about as long as three stage-2 trainings.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.frame import Bar, at_least
from examples.demo import OUT, POOL
from examples.outcome import TIME_TYPES, VIDEOS, group, video_types
from shards.errors import UserError

PATHWAYS = {"slow_only": "slow", "fast_only": "fast", "no_vision": "none"}
QUESTIONS = OUT / "data/scenes/test.json"


def run(console: Console) -> list[Bar]:
    if not (OUT / "metrics.json").exists():
        raise UserError(f"{OUT}: no finished demo here; run make demo first")
    full = json.loads((OUT / "scores.json").read_text())["pathways"]["both"]
    floors = {name: trained(console, name) for name in PATHWAYS}
    kinds = video_types(full)
    table = Table("type", "both", *PATHWAYS)
    for kind in (*kinds, None):
        types = None if kind is None else (kind,)
        cells = [f"{group(scores, types):.3f}" for scores in (full, *floors.values())]
        table.add_row(kind or "all", *cells)
    console.print(table)
    detail = tuple(kind for kind in kinds if kind not in TIME_TYPES)
    majority = full["tasks"][VIDEOS]["majority_per_type"]
    floor = max(majority, group(floors["no_vision"], None))
    # shares of hundreds of questions: what is equal in counts must not differ in the last float bit
    time_gain = round(group(full, TIME_TYPES) - group(floors["slow_only"], TIME_TYPES), 9)
    detail_gain = round(group(full, detail) - group(floors["fast_only"], detail), 9)
    return [
        at_least(
            "video accuracy / better of majority and no vision", group(full, None) / floor, 2.0
        ),
        at_least("time questions above trained slow-only", time_gain, 0.10),
        at_least("detail questions above trained fast-only", detail_gain, 0.10),
    ]


def trained(console: Console, name: str) -> dict[str, object]:
    """Plan, train and score one floor; the scores of its own pathways."""
    home = OUT / "floors" / name
    manifest = home / "manifest.json"
    recipe = f"mixtures/demo_stage2_{name}.yaml"
    command("mixtures", "plan", recipe, "--pool", POOL, "--out", manifest)
    command(
        *("train", "run", "train/configs/demo_stage2.yaml", "--manifest", manifest),
        *("--data", POOL, "--out", home, "--init-from", OUT / "train1/model"),
    )
    scores = home / "scores.json"
    command("train", "evaluate", "--model", home / "model", "--tasks", QUESTIONS, "--out", scores)
    console.print(f"{name} is trained and scored")
    found: dict[str, object] = json.loads(scores.read_text())["pathways"][PATHWAYS[name]]
    return found


def command(*words: str | Path) -> None:
    done = subprocess.run([sys.executable, "-m", *map(str, words)], check=False)
    if done.returncode:
        raise UserError(
            f"python -m {' '.join(map(str, words))}: status {done.returncode}; see above"
        )
