"""Which published run fits which GPUs: each config of a size and stage, with the tower frozen,
tuned, or tuned on a quarter of the frames, on 1 and 8 ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from rich.table import Table

from mixtures.tokens.layout_types import View
from train.config import Config, Stochastic, load_config
from train.data.tower_plan import TowerRule
from train.sizing.made_pack import PUBLISHED, Media, image_of, made_pack, video_of
from train.sizing.memory import part_parameters, rank_memory
from train.sizing.published_sizes import TEXT, published_config
from train.sizing.tracing import trace_step

CONFIGS = Path(__file__).parents[1] / "configs"
RANKS, GPUS = (1, 8), (80e9, 141e9)
TOWERS = ("frozen", "tuned", "stochastic 1/4")
IMAGE_AREA = 1536 * 1536
"""Pixels of the largest image that the recipes keep."""
SHOWN: dict[int, Media] = {1: image_of(IMAGE_AREA), 2: video_of(View())}
"""What fills the packs of a stage: the largest images, or videos of 128 frames of 384x384."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A published run, and the bytes that each of 1 and of 8 ranks needs."""

    size: str
    stage: int
    tower: str
    bytes: tuple[float, ...]


def with_tower(config: Config, tower_mode: str) -> Config:
    """The config with the tower frozen, tuned with checkpointing, or so on a quarter of frames."""
    # unless it is checkpointed, a tuned tower keeps 66 GiB of one video for the backward pass
    frozen = tower_mode == "frozen"
    part = replace(config.parts.tower, train=not frozen, checkpoint=not frozen)
    keep = Fraction(1, 4) if tower_mode.startswith("stochastic") else Fraction(1)
    parts = replace(config.parts, tower=part)
    return replace(config, parts=parts, stochastic=Stochastic(keep=keep))


def fits() -> Iterator[Fit]:
    """Every published run; each takes about a minute of one core."""
    for size in TEXT:
        wanted = published_config(size)
        counts = part_parameters(wanted)
        for stage, shown in SHOWN.items():
            # the published file itself, so that the table follows it
            written = load_config(CONFIGS / f"stage{stage}_{size}.yaml")
            for tower in TOWERS:
                config = with_tower(written, tower)
                rule = TowerRule(chunk=config.tower_chunk, keep=config.stochastic.keep.denominator)
                pack = made_pack(PUBLISHED, wanted.layout_config(), shown, rule)
                # activations hang on the pack alone, states on the number of ranks alone
                step = trace_step(config, wanted, pack)
                totals = (rank_memory(config, counts, ranks, step).total for ranks in RANKS)
                yield Fit(size=size, stage=stage, tower=tower, bytes=tuple(totals))


def fitting_table() -> Table:
    """GB that each rank needs, with a `*` where it does not fit 80 GB, `**` where not 141 GB."""
    heads = [f"GB, {ranks} GPU{'s' * (ranks > 1)}" for ranks in RANKS]
    table = Table("size", "stage", "tower", *heads, caption="* not in 80 GB, ** not in 141 GB")
    for fit in fits():
        marks = ["*" * sum(size > gpu for gpu in GPUS) for size in fit.bytes]
        cells = [f"{size / 1e9:.1f}{mark}" for size, mark in zip(fit.bytes, marks, strict=True)]
        table.add_row(fit.size, str(fit.stage), fit.tower, *cells)
    return table
