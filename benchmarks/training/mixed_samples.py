"""200 made samples as a mixture has them, in our packs and in transformers' padded batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mixtures.tokens.layout_types import LayoutConfig
from mixtures.tokens.text import Rendered
from train.data.collate import IGNORED, Pack, RenderedSample, build_pack
from train.model.inputs import pack_inputs
from train.sizing.made_pack import Media, made_sample

COUNTS = {"image": 110, "video": 70, "text": 20}
PACK_TOKENS = 2048
LAYOUT = LayoutConfig(slow_frames=8)


def mixed_samples(seed: int = 0) -> list[RenderedSample]:
    """110 images, 70 videos and 20 texts of many lengths, in an order of their own."""
    rng = np.random.default_rng(seed)
    made = []
    for kind, count in COUNTS.items():
        for number in range(count):
            answer = int(rng.integers(16, 200))
            media = Media(
                kind=kind,
                frames=1 if kind == "image" else int(rng.integers(8, 33)),
                side=int(rng.choice([8, 12, 16, 20])) if kind == "image" else 8,
            )
            key = f"{kind} {number}"
            sample = _text(key, 4 * answer) if kind == "text" else made_sample(key, media, LAYOUT)
            made.append(_answered(sample, answer, rng))
    return [made[place] for place in rng.permutation(len(made))]


def packed(samples: Sequence[RenderedSample]) -> list[Pack]:
    """First fit, decreasing, into rows of PACK_TOKENS."""
    rows: list[list[RenderedSample]] = []
    for sample in sorted(samples, key=_length, reverse=True):
        fitting = (row for row in rows if sum(map(_length, row)) + _length(sample) <= PACK_TOKENS)
        row = next(fitting, None)
        if row is None:
            row = []
            rows.append(row)
        row.append(sample)
    return [build_pack(row, LAYOUT) for row in rows]


def grouped(samples: Sequence[RenderedSample], size: int) -> Iterator[list[RenderedSample]]:
    """Batches of samples of like lengths, as `group_by_length` of transformers' Trainer makes."""
    order = sorted(samples, key=_length, reverse=True)
    yield from (order[at : at + size] for at in range(0, len(order), size))


def padded_inputs(batch: Sequence[RenderedSample]) -> dict[str, Any]:
    """The arguments of `forward` for a padded batch, as processor and collator give them."""
    lengths = np.array([_length(sample) for sample in batch])
    width, pack = int(lengths.max()), build_pack(batch, LAYOUT)
    ids = torch.zeros(len(batch), width, dtype=torch.int64)
    labels, mask = torch.full_like(ids, IGNORED), torch.zeros_like(ids)
    for row, sample in enumerate(batch):
        text = torch.from_numpy(sample.text.ids.astype(np.int64))
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
        learned = torch.from_numpy(sample.text.supervised)
        labels[row, : len(text)][learned] = text[learned]
    inputs: dict[str, Any] = {"input_ids": ids, "labels": labels, "attention_mask": mask}
    if not len(pack.patches):
        return inputs
    shown = pack_inputs(pack)
    slots = shown["slots"]._asdict()
    sample_of = torch.from_numpy(np.searchsorted(pack.cu_seqlens, slots["position"], "right") - 1)
    starts = torch.from_numpy(pack.cu_seqlens)[sample_of]
    slots["position"] = slots["position"] - starts + width * sample_of
    visual = {name: shown[name] for name in ("patches", "grids", "seconds")}  # type: ignore[literal-required]
    return inputs | visual | {"slots": slots | {"sample": sample_of}}


def supervised(samples: Sequence[RenderedSample]) -> int:
    """Tokens that are learned; a first one would have nothing before it."""
    return sum(int(sample.text.supervised[1:].sum()) for sample in samples)


def _length(sample: RenderedSample) -> int:
    return len(sample.text.ids)


def _answered(sample: RenderedSample, answer: int, rng: np.random.Generator) -> RenderedSample:
    """The last tokens of a sample are its answer, as long as is said; drawn anew."""
    ids = sample.text.ids.copy()
    cut = len(ids) - max(int(sample.text.supervised.sum()) - answer, 0)
    ids = ids[:cut]
    ids[-answer:] = rng.integers(10, 8192, answer)
    learned = np.arange(cut) >= cut - answer
    return replace(sample, text=replace(sample.text, ids=ids, supervised=learned))


def _text(key: str, length: int) -> RenderedSample:
    text = Rendered(
        ids=np.full(length, 9, np.int32),
        supervised=np.zeros(length, bool),
        visual=np.zeros((0, 3), np.int64),
    )
    return RenderedSample(key=key, text=text, layouts=[], frames=[], seconds=[])
