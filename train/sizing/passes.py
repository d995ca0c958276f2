"""Which passes a step takes through each part: forward, and backward for what is trained there or
below."""

from __future__ import annotations

from train.config import PARTS, Config
from train.sizing.flops import Flops


def billed(config: Config, forward: Flops) -> tuple[float, float]:
    """Operations of a step that is asked for, and those that are computed a second time."""
    sizes = (forward.vision, forward.projector, forward.text + forward.head)
    model_flops = 0.0
    recomputed = float(forward.again.head)
    blocks = {"tower": forward.again.vision, "decoder": forward.again.text}
    # from the tower up: gradients pass through a part if it or anything below it is trained
    below = False
    for name, size in zip(PARTS, sizes, strict=True):
        part = getattr(config.parts, name)
        share = 1 / config.stochastic.keep.denominator if name == "tower" else 1.0
        # a pass for the weights' gradients, and one for those of what lies below
        model_flops += size * (1 + share * (part.trains_own + (part.train or below)))
        recomputed += share * part.checkpoint * blocks.get(name, 0)
        below = below or part.train
    return model_flops, recomputed
