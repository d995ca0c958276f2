"""A synthetic temporal set: eight axes of 300 questions, floors beside each, shares equal in bf16.

Needs a finished `make demo`: its model has learnt some of these questions and not others. An axis
counts where the score is ten points above its floor, the better of no pictures and always the most
frequent answer; else it is "not learnt". `shuffled_frames` tells what needs the order of frames,
`slow` and `fast` what needs the other pathway (masks over the same weights). Questions and videos
are made by seed from digit scans that the demo holds out.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.frame import Bar, at_least, equal
from benchmarks.inputs.temporal_set import AXES, EACH, make
from examples.demo import OUT
from shards.errors import UserError
from train.evaluation.copies import copies
from train.evaluation.evaluate import evaluate

CONDITIONS = ("both", "none", "shuffled_frames", "slow", "fast")
ABOVE = 0.10
"""Points above its floor from which on an axis counts as learnt."""


def run(console: Console) -> list[Bar]:
    model = OUT / "train2/model"
    if not model.is_dir():
        raise UserError(f"{model}: not there; run make demo first")
    with tempfile.TemporaryDirectory() as name:
        return measured(console, model, make(Path(name) / "copy"), Path(name))


def measured(console: Console, model: Path, copy: Path, folder: Path) -> list[Bar]:
    """Ask all conditions in fp32, the first one in bf16 too."""
    quiet, named = Console(file=io.StringIO()), copies([f"temporal={copy}"])
    out = folder / "fp32.json"
    found = evaluate(model, [], CONDITIONS, out, quiet, benchmarks=named, precision="fp32")
    half = evaluate(
        *(model, [], ["both"], folder / "bf16.json", quiet),
        benchmarks=named,
        precision="bf16",
        other=out,
    )
    by_condition = found["benchmarks"]["temporal"]
    console.print(table(by_condition))
    asked = by_condition["both"]["tables"]["task"]
    learnt = [axis for axis in AXES if is_learnt(by_condition, axis)]
    equal_share = half["against"][0]["equal_replies"]
    console.print(f"equal replies in bf16 and fp32: {equal_share:.2%}")
    return [
        equal("axes", len(asked), len(AXES)),
        at_least("questions of an axis, fewest", min(row["count"] for row in asked.values()), EACH),
        equal(
            "questions that could not be asked", sum(by_condition["both"]["missing"].values()), 0
        ),
        at_least("axes learnt by the demo's model", len(learnt), 1),
        at_least("share of equal replies in bf16", equal_share, 0.99),
    ]


def mean_of(by_condition: dict[str, Any], condition: str, axis: str) -> float:
    mean: float = by_condition[condition]["tables"]["task"][axis]["mean"]
    return mean


def floor_of(by_condition: dict[str, Any], axis: str) -> float:
    """The better of no pictures and the most frequent answer of the axis."""
    majority: float = by_condition["both"]["tables"]["task"][axis]["majority"]
    return max(mean_of(by_condition, "none", axis), majority)


def is_learnt(by_condition: dict[str, Any], axis: str) -> bool:
    gain = mean_of(by_condition, "both", axis) - floor_of(by_condition, axis)
    # shares of hundreds of questions: what is equal in counts must not differ in the last float bit
    return round(gain, 9) >= ABOVE


def table(by_condition: dict[str, Any]) -> Table:
    made = Table("axis", *CONDITIONS, "floor", "verdict")
    for axis in AXES:
        means = [mean_of(by_condition, condition, axis) for condition in CONDITIONS]
        lost = round(means[0] - means[CONDITIONS.index("shuffled_frames")], 9) >= ABOVE
        verdict = "not learnt"
        if is_learnt(by_condition, axis):
            verdict = "learnt, needs the order of frames" if lost else "learnt"
        cells = [f"{mean:.3f}" for mean in (*means, floor_of(by_condition, axis))]
        made.add_row(axis, *cells, verdict)
    return made
