"""What the demo is judged by: planted trouble found, books balanced, held-out accuracy, floors."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.meter import Meter
from shards.ids import sha256_file
from shards.index import read_table

STAGES = ("stage1", "stage2")
IMAGES, VIDEOS = "digits/test", "scenes/test"
TIME_TYPES = ("first", "flashes", "motion", "seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """Planted trouble against what the builds refused; a row is (item, code found or 'kept')."""

    rows: tuple[tuple[dict[str, str], str], ...]
    expected: int
    found: int
    false: tuple[str, ...]

    @property
    def misses(self) -> list[str]:
        wrong = [
            f"{item['source']}/{item['record']}: expected {item['expected']}, found {code}"
            for item, code in self.rows
            if item["expected"] != code
        ]
        return [*wrong, *(f"{line}: refused, and nobody planted it" for line in self.false)]


def refusals(out: Path) -> set[tuple[str, str, str]]:
    """(source, record, code) of every refusal of both builds."""
    found = set()
    for stage in STAGES:
        path = out / stage / "refused.parquet"
        rows = read_table(path.read_bytes(), str(path)).to_pylist()
        found |= {(row["source"], row["record"], row["code"]) for row in rows}
    return found


def check_planted(out: Path) -> Planted:
    """Precision and recall of the builds' refusals against data/planted.json.

    Of a planted copy and its `twin` exactly one must be refused: which one survives hangs on keys.
    """
    refused = refusals(out)
    rows, used = [], set()
    for item in json.loads((out / "data/planted.json").read_text()):
        names = {item["record"], item.get("twin") or item["record"]}
        wanted = {(item["source"], name, item["expected"]) for name in names} & refused
        others = sorted(
            code for s, r, code in refused if (s, r) == (item["source"], item["record"])
        )
        if item["expected"] == "kept":
            rows.append((item, others[0] if others else "kept"))
        elif len(wanted) == 1:
            used |= wanted
            rows.append((item, item["expected"]))
        elif wanted:
            rows.append((item, "refused with its twin"))
        else:
            rows.append((item, others[0] if others else "kept"))
    trouble = [(item, code) for item, code in rows if item["expected"] != "kept"]
    return Planted(
        rows=tuple(rows),
        expected=len(trouble),
        found=sum(item["expected"] == code for item, code in trouble),
        false=tuple("/".join(name) for name in sorted(refused - used)),
    )


def books_balance(out: Path) -> bool:
    """The accounts of every source against the refusals that were written down."""
    for stage in STAGES:
        path = out / stage / "refused.parquet"
        written = Counter(read_table(path.read_bytes(), str(path))["source"].to_pylist())
        for books in json.loads((out / stage / "books.json").read_text())["sources"]:
            refused = books["records_refused"] + books["samples_refused"] + books["not_chosen"]
            parsed = books["records"] - books["records_refused"]
            admitted = books["samples"] - books["samples_refused"]
            sums = (
                refused == written[books["source"]],
                parsed == books["samples"],  # in the demo's formats a record is one sample
                admitted == books["not_chosen"] + books["chosen"],
                0 <= books["drawn"] <= books["chosen"],
            )
            if not all(sums):
                return False
    return True


def floors(out: Path) -> dict[str, Any]:
    """The held-out scores of the model and beside them its floors, by pathways."""
    scores = json.loads((out / "scores.json").read_text())["pathways"]
    blind = json.loads((out / "scores_no_vision.json").read_text())["pathways"]
    return {**scores, "none": blind["none"]}


def images_scored(out: Path) -> dict[str, Any]:
    """The scores on held-out pictures."""
    scores = json.loads((out / "scores_images.json").read_text())["pathways"]
    found: dict[str, Any] = scores["both"]["tasks"][IMAGES]
    return found


def group(scores: dict[str, Any], types: tuple[str, ...] | None) -> float:
    """Accuracy over the video questions of these types (None: all)."""
    chosen = {
        name: each
        for name, each in scores["tasks"][VIDEOS]["types"].items()
        if types is None or name in types
    }
    return sum(s["right"] for s in chosen.values()) / sum(s["count"] for s in chosen.values())


def video_types(scores: dict[str, Any]) -> tuple[str, ...]:
    """The kinds of video questions that were scored."""
    return tuple(scores["tasks"][VIDEOS]["types"])


def made_by(run: Path) -> dict[str, str]:
    """The commit of the code, with a + where files were changed since, and the run that was scored
    by the digest of its record: "none" outside of a repository."""
    git = ("git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+")
    try:
        said = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        said = "none"
    return {"commit": said, "run": sha256_file(run / "run.json")[:16]}


def metrics(
    out: Path,
    planted: Planted,
    scores: dict[str, Any],
    balance: bool,
    meter: Meter,
    *,
    resumed: bool,
) -> dict[str, Any]:
    """The figures of metrics.json."""
    both = scores["both"]
    images = images_scored(out)
    manifest = json.loads((out / "stage2/manifest.json").read_text())
    detail = tuple(name for name in video_types(both) if name not in TIME_TYPES)
    return {
        "manifest_id": manifest["manifest_id"],
        **made_by(out / "train2"),
        "wall_s": round(meter.wall_s, 1),
        "cpu_s": round(meter.cpu_s, 1),
        "resumed": resumed,
        "peak_rss_mb": round(meter.peak_rss_mb),
        "image_accuracy": images["all"]["accuracy"],
        "video_accuracy": group(both, None),
        "video_accuracy_majority": both["tasks"][VIDEOS]["majority_per_type"],
        "video_accuracy_no_vision": group(scores["none"], None),
        "video_accuracy_slow_only": group(scores["slow"], None),
        "video_accuracy_fast_only": group(scores["fast"], None),
        "time_accuracy": group(both, TIME_TYPES),
        "time_accuracy_slow_only": group(scores["slow"], TIME_TYPES),
        "detail_accuracy": group(both, detail),
        "detail_accuracy_fast_only": group(scores["fast"], detail),
        "floors": {"no_vision": "trained", "slow_only": "masked", "fast_only": "masked"},
        "by_type": {
            name: {kind: each["accuracy"] for kind, each in s["tasks"][VIDEOS]["types"].items()}
            for name, s in scores.items()
        },
        "planted_expected": planted.expected,
        "planted_found": planted.found,
        "planted_false": len(planted.false),
        "books_balance": balance,
    }
