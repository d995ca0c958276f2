"""Every key of a layout and of a config acts with every projector, or is refused with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mixtures.tokens.frame_view import ClipView
from mixtures.tokens.layout_types import LayoutConfig, View
from mixtures.tokens.token_plan import plan_frames
from shards.errors import UserError
from shards.sample import Turn
from tests.support.chat.tiny_chat import CODEC
from tests.support.clips import clip_of
from tests.support.tiny_model import tiny_model
from tests.train.model.test_projectors import layout_for
from train.data.collate import build_pack
from train.data.jpeg_patches import Frames
from train.data.render import Rules, render
from train.model.inputs import packed_row
from train.model.projectors import PROJECTORS, build_projector
from train.model.vision import SIGLIP2, OryxVisionConfig

# what to set each key of a layout to; `patch` has one value, `arrangement` is the projector's own
OTHER = {
    "slow_frames": 1, "slow_stride": 1, "fast_mode": "tokens", "fast_stride": 2,
    "timestamps": "learned", "pathways": "slow", "image_token_budget": 64, "fast_frames":
    "complement", "newlines": "none", "queries": 7, "memory_tokens": 4,
}  # fmt: skip
FORGOTTEN = {
    "gsf": {"queries"},
    "isf": {"queries"},
    "v1": {"queries", "newlines", "timestamps"},
    "queries": {
        *("slow_frames", "slow_stride", "fast_mode", "fast_stride", "fast_frames", "newlines"),
        "pathways",
    },
}
"""What each arrangement is refused with; every other key has to move what comes out."""
VIEW = View(fps=1, cap=3, area=64 * 64, min_area=4096)


CLIPS = [
    clip_of([*range(5)], (1, 1), size=(64, 64)),
    clip_of([0], (1, 1), kind="image", size=(320, 320)),
]


def noise(number: int, clip_view: ClipView, used: Sequence[int]) -> Frames:
    random = np.random.default_rng(number)
    return random.integers(0, 256, (len(used), *clip_view.grid, 768), np.uint8)


@torch.no_grad()
def rows_of(name: str, more: Mapping[str, object] = MappingProxyType({}), **config: Any) -> Tensor:
    """What the decoder is given of a film of five frames, of which a view shows three, and of a
    picture of more pixels than a small budget has."""
    layout = layout_for(name, **more)
    turn = Turn(role="user", text="which digit", media=((0, 0), (1, 0)))
    sample = render("s", [turn], CLIPS, noise, Rules(view=VIEW, layout=layout, codec=CODEC))
    row = packed_row(build_pack([sample], layout))
    model = tiny_model(projector=name, layout=layout, vocab_size=CODEC.vocab_size, **config)
    return model.embed(row.ids, row.visual)


@pytest.mark.parametrize("name", PROJECTORS)
def test_every_key_of_a_layout_acts_or_is_refused_with_each_projector(name: str) -> None:
    plain = rows_of(name)
    assert torch.equal(plain, rows_of(name))
    refused = set()
    for key in (f.name for f in fields(LayoutConfig) if f.name not in ("patch", "arrangement")):
        try:
            other = rows_of(name, {key: OTHER[key]})
        except UserError as error:
            assert f"layout: {key}: " in str(error) and "leave it out" in str(error)
            refused.add(key)
            continue
        assert other.shape != plain.shape or not torch.allclose(other, plain), key
    assert refused == FORGOTTEN[layout_for(name).arrangement]


@pytest.mark.parametrize("value", [{"slow_frames": 2}, {"pathways": "none"}])
def test_a_key_is_taken_where_another_makes_it_act(value: dict[str, object]) -> None:
    sentence = {} if "pathways" in value else {"timestamps": "sentence"}
    told = [layout_for("qformer", **sentence, **more) for more in ({}, value)]
    plans = [plan_frames([(4, 4)] * 4, [*range(4)], "video", each, len) for each in told]
    assert plans[0] != plans[1]
    build_projector("qformer", 24, 32, told[1], heads=3)


POOLED_EARLY = ("gsf", "isf", "avgpool", "v1")
"""Projectors that pool by no learned map: before the MLP or after it."""


@pytest.mark.parametrize("name", PROJECTORS)
def test_the_order_of_pooling_acts_or_is_refused_with_each_projector(name: str) -> None:
    own, early = (rows_of(name, pool_before_projection=p) for p in (None, True))
    if name not in POOLED_EARLY:
        assert torch.equal(own, early)
        with pytest.raises(UserError, match=f"false with projector {name}, whose pooling is"):
            rows_of(name, pool_before_projection=False)
        return
    late = rows_of(name, pool_before_projection=False)
    assert not torch.allclose(early, late)
    assert torch.equal(own, late if name == "v1" else early)


VISION = SIGLIP2 | {
    "hidden_size": 30, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 20,
    "position_grid": 5,
}  # fmt: skip


@pytest.mark.parametrize("name", PROJECTORS)
def test_every_key_of_the_tower_acts_with_each_projector(name: str) -> None:
    own = set(OryxVisionConfig.__annotations__) - {"patch_size"}  # which the media door fixes
    assert own == set(VISION)
    plain = rows_of(name)
    for key, value in VISION.items():
        assert not torch.allclose(rows_of(name, vision={key: value}), plain), key
