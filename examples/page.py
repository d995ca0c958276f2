"""runs/demo/report.html: both builds, the training runs, the scores and the planted trouble."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from examples.outcome import IMAGES, VIDEOS, Planted, floors, images_scored
from pipeline.report.page import (
    PlantedRow,
    ScoreRow,
    Section,
    build_sections,
    curves_section,
    planted_section,
    scores_section,
    write_page,
)

RUNS = {
    "stage 1, images": "train1",
    "stage 2, images and videos": "train2",
    "stage 2 without vision (a floor)": "train_no_vision",
}
FLOORS = {"none": "no vision (trained)", "slow": "slow only (masked)", "fast": "fast only (masked)"}


def write_demo_page(out: Path, pool: Path, measured: dict[str, Any], planted: Planted) -> None:
    """One page for the whole demo."""
    sections = [scores(out), losses(out), trouble(planted)]
    for stage, title in (("stage1", "Stage 1"), ("stage2", "Stage 2")):
        built = build_sections(str(out / stage), str(pool))
        sections += [replace(section, group=title) for section in built]
    summary = [
        ("held-out digits", f"{measured['image_accuracy']:.1%}"),
        ("held-out video questions", f"{measured['video_accuracy']:.1%}"),
        ("majority answer", f"{measured['video_accuracy_majority']:.1%}"),
        ("without vision", f"{measured['video_accuracy_no_vision']:.1%}"),
        ("planted trouble found", f"{measured['planted_found']} of {measured['planted_expected']}"),
        ("wrongly refused", str(measured["planted_false"])),
        ("books", "balance" if measured["books_balance"] else "DO NOT BALANCE"),
        ("wall time", f"{measured['wall_s']:.0f} s"),
    ]
    write_page(str(out / "report.html"), "slowfast-mix: the demo", sections, summary)


def losses(out: Path) -> Section:
    """Training loss per step of each run."""
    series = {}
    for title, folder in RUNS.items():
        lines = (out / folder / "metrics.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        series[title] = [(row["step"], row["loss"]) for row in rows if row["loss"] is not None]
    return curves_section("Training", series, "Mean loss per supervised token at each step.")


def scores(out: Path) -> Section:
    """Held-out accuracy by question type, beside its floors."""
    found = floors(out)
    types = {
        ("digit (image)", IMAGES, name): each for name, each in images_scored(out)["types"].items()
    }
    types |= {
        (f"{name} (video)", VIDEOS, name): each
        for name, each in found["both"]["tasks"][VIDEOS]["types"].items()
    }
    rows = [
        ScoreRow(
            name=label,
            count=each["count"],
            accuracy=each["accuracy"],
            low=each["low"],
            high=each["high"],
            floors={"majority answer": each["majority_accuracy"]} | beside(found, task, kind),
        )
        for (label, task, kind), each in types.items()
    ]
    return scores_section(
        "Held-out scores",
        rows,
        "Exact match on questions whose media are in no training source, with Wilson 95 % "
        "intervals. Masked floors are the same model shown less; the floor without vision is "
        "trained. The grid examples/floors.yaml trains the others too.",
    )


def beside(found: dict[str, Any], task: str, kind: str) -> dict[str, float]:
    """The floors' accuracies on one type of question, where they were asked it."""
    return {
        label: found[name]["tasks"][task]["types"][kind]["accuracy"]
        for name, label in FLOORS.items()
        if task in found[name]["tasks"]
    }


def trouble(planted: Planted) -> Section:
    rows = [
        PlantedRow(
            what=item["why"],
            source=item["source"],
            record=item["record"],
            expected="" if item["expected"] == "kept" else item["expected"],
            code="" if code == "kept" else code,
        )
        for item, code in planted.rows
    ]
    return planted_section(
        "Planted trouble", rows, "What the demo hid in its sources, and what the builds made of it."
    )
