"""The three parts of the model, and where they lie in it: names alone, torch is not needed."""

from __future__ import annotations

PARTS = {
    "tower": ("vision_tower",),
    "projector": ("projector", "memory"),
    "decoder": ("language_model",),
}
"""Part -> the modules of `SlowFastForConditionalGeneration` that it is made of."""


def part_of(name: str) -> str:
    """The part that a parameter or tensor of this name belongs to."""
    module = name.partition(".")[0]
    return next(part for part, modules in PARTS.items() if module in modules)
