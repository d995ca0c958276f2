"""A small training run: its config, its environment, and what it left behind."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from train.config import Config, Part, Parts, Schedule, Stop, TextSize, VisionSize
from train.data.collate import Pack


def fingerprint(steps: list[list[Pack]]) -> list[list[tuple[Any, ...]]]:
    return [
        [
            (p.keys, p.tokens.tobytes(), p.labels.tobytes(), p.patches.tobytes(), p.times.tobytes())
            for p in packs
        ]
        for packs in steps
    ]


EXACT = ("step", "loss", "grad_norm", "lr_decoder", "supervised", "tokens", "samples")
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
PART = Part(lr=5e-3)
TINY = Config(
    vision=VisionSize(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        position_grid=4,
    ),
    text=TextSize(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=64,
        max_position_embeddings=512,
    ),
    parts=Parts(tower=PART, projector=PART, decoder=PART),
    schedule=Schedule(warmup=4),
    stop=Stop(steps=12),
    global_batch=4,
    micro_batch=2,
    save_every=5,
)
CONFIG = """
vision: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 64,
  position_grid: 4}
text: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 1,
  intermediate_size: 64, max_position_embeddings: 512}
parts: {tower: {lr: 5e-3}, projector: {lr: 5e-3}, decoder: {lr: 5e-3}}
schedule: {warmup: 4}
global_batch: 4
micro_batch: 2
save_every: 5
"""


def pool_of(manifest: Path) -> str:
    return str(manifest.parent.parent / "pool")


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def exact(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in EXACT) for row in rows]
