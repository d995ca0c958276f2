"""Projectors: pooling is average pooling, learned vectors stand where the layout puts them."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

from mixtures.layout import LEARNED
from tests.tiny_model import LAYOUT, mixed_samples, tiny_sample
from train.model.modeling import pack_inputs
from train.model.projectors import PROJECTORS, pool
from train.packs import build_pack, empty_pack


def test_pooling_equals_avg_pool2d_on_both_paths() -> None:
    pack = build_pack([tiny_sample("a", "video", sides=(128, 64), frames=3)], LAYOUT)
    features = torch.randn(len(pack.patches), 7)
    pooled = pool(features, pack_inputs(pack)["slots"])
    maps = features.view(3, 4, 8, 7).permute(0, 3, 1, 2)
    slow = avg_pool2d(maps[[0, 1]], 2).permute(0, 2, 3, 1).reshape(-1, 7)
    fast = avg_pool2d(maps, 4).permute(0, 2, 3, 1).reshape(-1, 7)
    torch.testing.assert_close(pooled, torch.cat([slow, fast]))


def test_image_patches_are_projected_one_by_one() -> None:
    pack = build_pack([tiny_sample("a", "image")], LAYOUT)
    features = torch.randn(16, 7)
    assert torch.equal(pool(features, pack_inputs(pack)["slots"]), features)


def test_rows_follow_the_layout_and_pooling_comes_before_projection() -> None:
    torch.manual_seed(0)
    sample = tiny_sample("a", "video", frames=2)
    slots = pack_inputs(build_pack([sample], LAYOUT))["slots"]
    projector = PROJECTORS["gsf"](7, 5)
    features = torch.randn(32, 7)
    rows = projector(features, slots)
    kinds = [slot.kind for slot in sample.layouts[0] if slot.kind not in ("start", "end")]
    numbers = [slot.n for slot in sample.layouts[0] if slot.kind not in ("start", "end")]
    expanded = np.repeat(kinds, numbers)
    assert len(rows) == len(expanded)
    for row, kind in zip(rows, expanded, strict=True):
        if kind in LEARNED:
            assert torch.equal(row, projector.learned[LEARNED.index(kind)])
    last_fast = projector.mlp(features[16:].mean(0))
    torch.testing.assert_close(rows[-2], last_fast)


def test_every_projector_accepts_no_pixels_at_all() -> None:
    slots = pack_inputs(empty_pack())["slots"]
    for projector in PROJECTORS.values():
        rows = projector(24, 32)(torch.zeros(0, 24), slots)
        assert rows.shape == (0, 32)


def test_every_projector_gives_one_row_per_visual_slot() -> None:
    pack = build_pack(mixed_samples(), LAYOUT)
    for projector in PROJECTORS.values():
        rows = projector(24, 32)(torch.randn(len(pack.patches), 24), pack_inputs(pack)["slots"])
        assert rows.shape == (len(pack.slots.position), 32)
