"""A small model and small samples for the tests of train/data/collate.py and train/model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mixtures.tokens.layout_types import START, LayoutConfig, TokenPlan, TokenRun
from mixtures.tokens.placement import grid_of
from mixtures.tokens.text import Rendered
from mixtures.tokens.token_plan import frames_used, plan_frames
from train.data.collate import RenderedSample
from train.model.config import SlowFastConfig
from train.model.modeling import SlowFastForConditionalGeneration

LAYOUT = LayoutConfig(
    slow_frames=2, slow_stride=2, fast_mode="stride", fast_stride=4, timestamps="none"
)
QUERIES = LayoutConfig(arrangement="queries", queries=5, timestamps="none")
VISION_START, VISION_END, PAD = 1, 2, 3
VOCABULARY = 64


def layout_of(arrangement: str, **more: Any) -> LayoutConfig:
    """A small layout of this arrangement."""
    base = QUERIES if arrangement == "queries" else replace(LAYOUT, arrangement=arrangement)
    return replace(base, **more)


def tiny_model(
    seed: int = 0,
    *,
    layout: LayoutConfig = LAYOUT,
    projector: str = "gsf",
    packed_attention: str = "sdpa_blocks",
    pool_before_projection: bool | None = None,
    vision: Mapping[str, object] = MappingProxyType({}),
    **text: object,
) -> SlowFastForConditionalGeneration:
    torch.manual_seed(seed)
    config = SlowFastConfig(
        vision_config={
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "intermediate_size": 40,
            "position_grid": 6,
            **vision,
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
            "initializer_range": 0.2,
            **text,
        },
        layout=asdict(layout),
        projector=projector,
        packed_attention=packed_attention,
        pool_before_projection=pool_before_projection,
        visual_token_ids=[VISION_START, VISION_END, PAD],
    )
    return SlowFastForConditionalGeneration(config).eval()


def tiny_sample(
    key: str,
    kind: str = "",
    *,
    sides: tuple[int, int] = (64, 64),
    frames: int = 1,
    question: int = 5,
    answer: int = 3,
    seed: int = 0,
    layout: LayoutConfig = LAYOUT,
) -> RenderedSample:
    """Text of random ids around one clip (`kind` "image" or "video"; none without a kind)."""
    random = np.random.default_rng(seed)
    seconds = [i / 2 for i in range(frames)]
    grids = [grid_of(*sides)] * frames
    slots = plan_frames(grids, seconds, kind, layout, len) if kind else TokenPlan()
    prompt = random.integers(4, VOCABULARY, question).tolist()
    ids, visual = _expand(prompt[:2], slots, _id_of)
    reply = random.integers(4, VOCABULARY, answer).tolist()
    ids += prompt[2:] + reply
    shown = frames_used(slots)
    pixels = random.integers(0, 256, (len(shown), sides[1], sides[0], 3), np.uint8)
    return RenderedSample(
        key=key,
        text=Rendered(
            ids=np.array(ids, np.int32),
            supervised=np.arange(len(ids)) >= len(ids) - answer,
            visual=np.array(visual, np.int64).reshape(-1, 3),
        ),
        layouts=[slots] if kind else [],
        frames=[patches_of(pixels)] if kind else [],
        seconds=[[seconds[i] for i in shown]] if kind else [],
    )


def patches_of(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Frames [F, H, W, 3] -> [F, gh, gw, 768]: patches in (ph, pw, c) order."""
    count, height, width = frames.shape[:3]
    cells = frames.reshape(count, height // 16, 16, width // 16, 16, 3)
    return cells.transpose(0, 1, 3, 2, 4, 5).reshape(count, height // 16, width // 16, 768)


def _expand(
    ids: list[int], slots: Sequence[TokenRun], id_of: Callable[[TokenRun], int]
) -> tuple[list[int], list[tuple[int, int, int]]]:
    visual = []
    for index, slot in enumerate(slots):
        visual.append((len(ids), 0, index))
        ids = [*ids, *[id_of(slot)] * slot.n]
    return ids, visual


def _id_of(slot: TokenRun) -> int:
    if slot.kind in ("start", "end"):
        return VISION_START if slot.kind == START else VISION_END
    return PAD


def mixed_samples() -> list[RenderedSample]:
    """Images and videos of several sizes and lengths, and a text without media."""
    return [
        tiny_sample("a", "image", sides=(32, 32), seed=1),
        tiny_sample("b", "video", frames=5, question=20, seed=2),
        tiny_sample("c", seed=3),
        tiny_sample("d", "image", sides=(96, 32), question=9, seed=4),
        tiny_sample("e", "video", sides=(128, 64), frames=2, seed=5),
    ]
