"""The figures of the last `make demo`, read from runs/demo/metrics.json, against their bars."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from benchmarks.frame import Bar, at_least, at_most, equal
from shards.errors import UserError

METRICS = Path("runs/demo/metrics.json")


def run(console: Console) -> list[Bar]:
    if not METRICS.exists():
        raise UserError(f"{METRICS}: not there; run make demo first")
    found = json.loads(METRICS.read_text())
    console.print(f"manifest {found['manifest_id']}", highlight=False)
    floor = max(found["video_accuracy_majority"], found["video_accuracy_no_vision"])
    masked = [name for name, how in found["floors"].items() if how == "masked"]
    console.print(f"masked, not trained: {', '.join(masked)} (trained ones: examples/floors.yaml)")
    return [
        at_most("wall seconds after setup", found["wall_s"], 360),
        at_most("CPU seconds", found["cpu_s"], 720),
        at_most("peak memory, MB", found["peak_rss_mb"], 4000),
        at_least("held-out digit accuracy", found["image_accuracy"], 0.90),
        at_least("held-out video accuracy", found["video_accuracy"], 0.55),
        at_least("video accuracy / better of the floors", found["video_accuracy"] / floor, 2.0),
        at_least(
            "time questions above masked slow-only",
            found["time_accuracy"] - found["time_accuracy_slow_only"],
            0.10,
        ),
        at_least(
            "detail questions above masked fast-only",
            found["detail_accuracy"] - found["detail_accuracy_fast_only"],
            0.10,
        ),
        at_least(
            "planted trouble: recall", found["planted_found"] / found["planted_expected"], 1.0
        ),
        equal("planted trouble: false refusals", found["planted_false"], 0),
        equal("books balance", int(found["books_balance"]), 1),
    ]
