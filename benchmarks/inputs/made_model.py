"""A saved model of random weights, which answers something; and a copy of a set to ask it about."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from examples.encode import MP4, encode
from mixtures.tokens.layout_types import LayoutConfig, View
from mixtures.tokens.text import IM_END, TextCodec, train_tokenizer
from shards.profile import Profile
from train.data.render import Rules
from train.model.config import SlowFastConfig
from train.model.modeling import SlowFastForConditionalGeneration
from train.model_folder import NEVER_SAID, Description, describe, generation_values

WORDS = ("What is shown?", "When does it end?", "A. red\nB. blue\nC. green\nD. grey", "user\n")
OPTIONS = ("A. red", "B. blue", "C. green", "D. grey")


def made_model(
    folder: Path,
    *,
    width: int = 64,
    layers: int = 2,
    side: int = 64,
    frames: int = 8,
    seed: int = 0,
) -> Path:
    """A model folder: tower and decoder of this width and depth, which sees `frames` at 2 a second
    of `side` x `side` pixels. Weights are drawn wide, so that replies differ."""
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(WORDS * 4, 300)
    codec = TextCodec(tokenizer)
    layout = LayoutConfig(slow_frames=max(frames // 4, 1))
    view = View(fps=2, cap=frames, area=side * side, min_area=side * side)
    config = SlowFastConfig(
        vision_config={
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "intermediate_size": 4 * width,
            "position_grid": 8,
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": codec.vocab_size,
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "initializer_range": 0.1,
        },
        layout=asdict(layout),
        visual_token_ids=[codec.token_id(name) for name in NEVER_SAID],
        token_count=codec.vocab_size,
    )
    model = SlowFastForConditionalGeneration(config).eval()
    model.generation_config.update(**generation_values(config, codec))
    model.save_pretrained(folder)
    rules = Rules(view=view, layout=layout, codec=codec)
    profile = Profile(fps=2, frame_cap=512, video_area=side * side)
    describe(folder, tokenizer, Description(rules=rules, profile=profile, manifest_id=""))
    assert codec.token_id(IM_END) == model.generation_config.eos_token_id
    return folder


def made_copy(
    folder: Path,
    videos: int,
    questions: int,
    *,
    seconds: int = 4,
    side: int = 64,
    missing: Sequence[int] = (),
) -> Path:
    """A copy of EgoSchema: so many videos, so many questions about each, videos of random blocks.

    Few files are encoded, and stand under many names.
    """
    (folder / "videos").mkdir(parents=True)
    made = _files(folder, min(videos, 8), seconds, side)
    for number in range(videos):
        if number not in missing:
            os.link(made[number % len(made)], folder / f"videos/v{number:05d}.mp4")
    rows = [
        {
            "question_idx": f"{video}-{i}",
            "question": WORDS[i % 2] + " Say it again." * (i % 3) + f" {i}",
            "video_idx": f"v{video:05d}",
            "option": list(OPTIONS),
            "answer": str((video + i) % len(OPTIONS)),
        }
        for video in range(videos)
        for i in range(questions)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "test.parquet")
    shutil.rmtree(folder / "made")
    return folder


def _files(folder: Path, count: int, seconds: int, side: int) -> list[Path]:
    (folder / "made").mkdir()
    clips = []
    for number in range(count):
        rng = np.random.default_rng(number)
        blocks = rng.integers(0, 256, (2 * seconds, 4, 4, 3), np.uint8)
        frames = blocks.repeat(side // 4, axis=1).repeat(side // 4, axis=2)
        clips.append((folder / f"made/{number}.mp4", frames))
    encode(clips, MP4)
    return [path for path, _ in clips]
