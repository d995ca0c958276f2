"""200 made samples as a mixture has them, in our packs and in transformers' padded batches.

Media have a thirty-second of the published ones' tokens, and so has a pack; turns have half of the
tokens of those in benchmarks/inputs/made_index.py. So more of a pack is learned than at full size,
which favours a loop that makes the logits of every row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mixtures.order.packing import pack_windows
from mixtures.tokens.layout_types import LayoutConfig
from mixtures.tokens.text import Rendered
from train.data.collate import IGNORED, Pack, RenderedSample, build_pack
from train.model.inputs import pack_inputs
from train.sizing.made_pack import IMAGE, PUBLISHED, VIDEO, Media, made_sample

TEXT = "text"
COUNTS = {IMAGE: 110, VIDEO: 70, TEXT: 20}
SCALE = 32
PACK_TOKENS, PACK_PATCHES = PUBLISHED.tokens // SCALE, PUBLISHED.patches // SCALE
LAYOUT = LayoutConfig(slow_frames=8)
VOCABULARY = 8192
_FIRST_WORD = 10
"""Ids below it mean something in `made_sample`."""


def mixed_samples(seed: int = 0) -> list[RenderedSample]:
    """110 images of 16 to 256 tokens, 70 videos of 8 to 32 frames and 20 texts, in an order of
    their own."""
    rng = np.random.default_rng(seed)
    made = [_sample(kind, n, rng) for kind, count in COUNTS.items() for n in range(count)]
    return [made[place] for place in rng.permutation(len(made))]


def packed(samples: Sequence[RenderedSample]) -> list[Pack]:
    """Packed as a plan packs a window of so many."""
    tokens = np.array([[length(sample) for sample in samples]])
    patches = np.array([[_patches(sample) for sample in samples]])
    (packs,) = pack_windows(tokens, patches, PACK_TOKENS, PACK_PATCHES)
    members = [np.flatnonzero(packs == number) for number in range(packs.max() + 1)]
    return [build_pack([samples[place] for place in each], LAYOUT) for each in members]


def one_by_one(samples: Sequence[RenderedSample]) -> list[Pack]:
    """A pack for each sample."""
    return [build_pack([sample], LAYOUT) for sample in samples]


def grouped(samples: Sequence[RenderedSample], size: int) -> Iterator[list[RenderedSample]]:
    """Batches of samples next to each other in length: less padding than `group_by_length` of
    transformers' Trainer leaves, which sorts a part of them at a time."""
    order = sorted(samples, key=length, reverse=True)
    yield from (order[at : at + size] for at in range(0, len(order), size))


def padded_inputs(batch: Sequence[RenderedSample]) -> dict[str, Any]:
    """The arguments of `forward` for a padded batch, as processor and collator give them."""
    width, pack = max(map(length, batch)), build_pack(batch, LAYOUT)
    ids = torch.zeros(len(batch), width, dtype=torch.int64)
    labels, mask = torch.full_like(ids, IGNORED), torch.zeros_like(ids)
    for row, sample in enumerate(batch):
        text = torch.from_numpy(sample.text.ids.astype(np.int64))
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
        learned = torch.from_numpy(sample.text.supervised)
        labels[row, : len(text)][learned] = text[learned]
    inputs: dict[str, Any] = {"input_ids": ids, "labels": labels, "attention_mask": mask}
    return inputs | (_shown(pack, width) if len(pack.patches) else {})


def _shown(pack: Pack, width: int) -> dict[str, Any]:
    """Visual inputs of a pack whose samples begin `width` rows apart."""
    inputs = pack_inputs(pack)
    slots = inputs["slots"]._asdict()
    ends = torch.from_numpy(pack.cu_seqlens)
    sample = torch.searchsorted(ends[1:].contiguous(), slots["position"], right=True)
    slots["position"] = slots["position"] - ends[sample] + width * sample
    shown = {"patches": inputs["patches"], "grids": inputs["grids"], "seconds": inputs["seconds"]}
    return shown | {"slots": slots | {"sample": sample}}


def learned(samples: Sequence[RenderedSample]) -> int:
    """Tokens with a loss."""
    return sum(int(sample.text.supervised[1:].sum()) for sample in samples)


def length(sample: RenderedSample) -> int:
    """Tokens of a sample."""
    return len(sample.text.ids)


def _patches(sample: RenderedSample) -> int:
    return sum(int(np.prod(frames.shape[:3])) for frames in sample.frames)


def _sample(kind: str, number: int, rng: np.random.Generator) -> RenderedSample:
    """One sample of a kind: what it shows, a question, an answer that is learned."""
    question, answer = (int(n) for n in np.clip(rng.lognormal(3.5, 1.0, 2), 2, 256))
    if kind == TEXT:
        sample = _text(str(number), question + answer)
    else:
        frames = 1 if kind == IMAGE else int(rng.integers(8, 33))
        side = int(rng.choice([4, 8, 12, 16])) if kind == IMAGE else 8
        media = Media(kind=kind, frames=frames, side=side)
        sample = made_sample(f"{kind} {number}", media, LAYOUT, question + answer)
    ids = sample.text.ids.copy()
    ids[-question - answer :] = rng.integers(_FIRST_WORD, VOCABULARY, question + answer)
    supervised = np.arange(len(ids)) >= len(ids) - answer
    return replace(sample, text=replace(sample.text, ids=ids, supervised=supervised))


def _text(key: str, tokens: int) -> RenderedSample:
    text = Rendered(
        ids=np.zeros(tokens, np.int32),
        supervised=np.zeros(tokens, bool),
        visual=np.zeros((0, 3), np.int64),
    )
    return RenderedSample(key=f"{TEXT} {key}", text=text, layouts=[], frames=[], seconds=[])
