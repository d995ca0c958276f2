"""A pack as full as a recipe allows, of made pixels: what a step is measured on without data."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from mixtures.tokens.layout_types import END, START, TIME, LayoutConfig, TokenPlan, View
from mixtures.tokens.text import Rendered
from mixtures.tokens.token_plan import frames_used, plan_frames
from train.data.collate import Pack, RenderedSample, build_pack
from train.data.jpeg_patches import PATCH, PATCH_VALUES
from train.data.tower_plan import TowerRule

QUESTION = 256
"""Tokens of text with each video or image, all of them supervised; fewer in short packs."""
_START, _END, _TIME, _PAD = 1, 2, 5, 3
VIDEO, IMAGE = "video", "image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a pack may hold: tokens and patches."""

    tokens: int
    patches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """A clip of square frames, `side` patches each way; an image has one."""

    kind: str
    frames: int
    side: int


PUBLISHED = Budget(tokens=32_768, patches=1 << 18)
"""The packs of the paper's two stages: three videos of 128 frames."""


def video_of(view: View) -> Media:
    """As long and as large as the view shows."""
    return Media(kind=VIDEO, frames=view.cap, side=_side(view.area))


def image_of(area: int) -> Media:
    """A square image of so many pixels."""
    return Media(kind=IMAGE, frames=1, side=_side(area))


def _side(area: int) -> int:
    """Patches, a multiple of what any pooling asks for."""
    return math.isqrt(area) // PATCH // 4 * 4 or 4


def made_pack(budget: Budget, layout: LayoutConfig, medium: Media, rule: TowerRule) -> Pack:
    """Such a video or image as often as it fits, a short question to each; then text."""
    question = min(QUESTION, budget.tokens // 128)
    count = _held(budget, layout, medium, question)
    # of a profile that allows more than a pack takes, the largest that a pack takes
    while not count and medium.side > 4:
        medium = replace(medium, side=medium.side - 4)
        count = _held(budget, layout, medium, question)
    # text fills what is left of the tokens
    samples = [made_sample(str(number), medium, layout, question) for number in range(count)]
    left = budget.tokens - sum(len(sample.text.ids) for sample in samples)
    return build_pack([*samples, _text(left)] if left else samples, layout, rule)


def _held(budget: Budget, layout: LayoutConfig, medium: Media, question_tokens: int) -> int:
    """How many of the medium the tighter of both budgets holds."""
    tokens = len(made_sample("0", medium, layout, question_tokens).text.ids)
    return min(budget.tokens // tokens, budget.patches // (medium.frames * medium.side**2))


def made_sample(
    key: str, medium: Media, layout: LayoutConfig, question_tokens: int
) -> RenderedSample:
    """A clip of black frames, one a second, and so many tokens of text; a stamp takes one token per
    character, as Qwen2.5's tokenizer has it for digits."""
    side, frames = medium.side, medium.frames
    runs = plan_frames([(side, side)] * frames, range(frames), medium.kind, layout, len)
    # a text as the renderer makes it: one id for each slot, then the question
    counts = np.array([run.n for run in runs])
    special = {START: _START, END: _END, TIME: _TIME}
    block = np.repeat([special.get(run.kind, _PAD) for run in runs], counts)
    used = frames_used(runs)
    length = len(block) + question_tokens
    return RenderedSample(
        key=key,
        text=Rendered(
            ids=np.concatenate([block, np.full(question_tokens, _TIME)]).astype(np.int32),
            supervised=np.arange(length) >= len(block),
            visual=_places(runs, counts),
        ),
        layouts=[runs],
        frames=[np.zeros((len(used), side, side, PATCH_VALUES), np.uint8)],
        seconds=[[float(frame) for frame in used]],
    )


def _places(runs: TokenPlan, counts: np.ndarray) -> np.ndarray:
    # rows of `Rendered.visual`: place in the text, number of the clip, number of the run
    starts = np.cumsum(counts) - counts
    return np.stack([starts, np.zeros(len(runs), np.int64), np.arange(len(runs))], axis=1)


def _text(length: int) -> RenderedSample:
    text = Rendered(
        ids=np.full(length, _TIME, np.int32),
        supervised=np.ones(length, bool),
        visual=np.zeros((0, 3), np.int64),
    )
    return RenderedSample(key="text", text=text, layouts=[], frames=[], seconds=[])
