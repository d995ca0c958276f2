"""Small JSON files, written whole or not at all, and logs that grow line by line."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write or replace a JSON file in one durable step."""
    temporary = path.with_name(f".{path.name}.tmp")
    # bytes reach the disk before the name does, and the name before the caller goes on
    temporary.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
    fsync(temporary)
    temporary.replace(path)
    fsync(path.parent)


def fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


METRICS = "metrics.jsonl"
"""The log of a run: a line for each step."""
HELD_OUT = "held_out.jsonl"
"""The held-out losses: a line for each look."""
HELD_OUT_SAMPLES = "held_out_samples.json"
"""The held-out loss of each sample, behind the last step."""


class StepLog:
    """One JSON line for each thing that happened at a step; JSON has null for what is not finite.

    What a crash wrote beyond its checkpoint is cut off on resume.
    """

    def __init__(self, path: Path, last_step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        # written anew and renamed: cutting in place could leave half a line
        kept = [line for line in lines if _is_up_to(line, last_step)]
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text("".join(f"{line}\n" for line in kept))
        fsync(temporary)
        temporary.replace(path)
        fsync(path.parent)
        self.path = path

    def write(self, row: Mapping[str, object]) -> None:
        """Append what happened at row["step"]."""
        with self.path.open("a") as file:
            file.write(json.dumps(_finite(row), allow_nan=False) + "\n")

    def sync(self) -> None:
        """What was written survives the machine: called before a checkpoint covers it."""
        fsync(self.path)


def _finite(value: object) -> object:
    """The value with null for what is not finite, at any depth."""
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _is_up_to(line: str, last_step: int) -> bool:
    try:
        return int(json.loads(line)["step"]) <= last_step
    except (ValueError, KeyError, TypeError):  # torn by a crash
        return False
