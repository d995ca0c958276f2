"""Packs and padded batches learn the same from the same samples."""

from __future__ import annotations

import pytest

from benchmarks.training.mixed_samples import (
    COUNTS,
    PACK_PATCHES,
    PACK_TOKENS,
    grouped,
    learned,
    length,
    mixed_samples,
    packed,
)
from benchmarks.training.train import in_packs, on_every_row, padded, passes, small_model


def test_packs_hold_every_sample_once() -> None:
    samples = mixed_samples()
    packs = packed(samples)
    assert len(samples) == sum(COUNTS.values()) == 200
    keys = [key for pack in packs for key in pack.keys]
    assert sorted(keys) == sorted(sample.key for sample in samples) and len(set(keys)) == 200
    assert all(len(pack.tokens) <= PACK_TOKENS for pack in packs)
    assert all(len(pack.patches) <= PACK_PATCHES for pack in packs)
    assert sum(pack.supervised for pack in packs) == learned(samples)
    lengths = [length(sample) for batch in grouped(samples, 8) for sample in batch]
    assert lengths == sorted(map(length, samples), reverse=True)


def test_every_way_has_the_same_loss() -> None:
    samples = sorted(mixed_samples(), key=length)[:12]
    model = small_model()
    ways = [
        in_packs(samples)(model),
        passes("every row", on_every_row, packed(samples), model),
        padded(1, samples, model),
        padded(4, samples, model),
    ]
    sums = [sum(loss().item() for loss in way.losses) for way in ways]
    assert sums == pytest.approx([sums[0]] * len(ways), rel=1e-5)
