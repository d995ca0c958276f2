"""Keys that configs had before: each is refused with what is written in its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MOVED = {
    ("init_from",): "parts: {PART: {init: FOLDER}} for each part, or --init-from FOLDER",
    ("steps",): "stop: {steps: N}",
    ("seed",): "parts: {PART: {init: {random: SEED}}}",
    ("optimizer", "lr"): "parts: {PART: {lr: RATE}}",
    ("optimizer", "weight_decay"): "parts: {PART: {weight_decay: RATE}}",
    ("optimizer", "warmup_steps"): "schedule: {warmup: STEPS}",
    ("optimizer", "schedule"): "schedule: {kind: NAME}",
    ("optimizer", "floor"): "schedule: {floor: SHARE}",
}
"""Keys of before, and what is written in their place."""


def moved(tree: Any) -> Iterator[str]:
    """A line for each key of before; it is taken out of the tree."""
    for (*outer, name), now in MOVED.items():
        # walks down to the mapping that would hold the key
        branch = tree
        for step in outer:
            branch = branch.get(step) if isinstance(branch, dict) else None
        if isinstance(branch, dict) and name in branch:
            # else `fields.mistakes` would tell it once more, as an unknown key
            del branch[name]
            yield ": ".join([*outer, f"the key {name!r} is no more; write {now}"])
