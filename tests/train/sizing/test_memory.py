"""Memory on paper: a step is traced as it runs, and blocks that are not traced are reckoned."""

from __future__ import annotations

from dataclasses import asdict
from fractions import Fraction

import pytest
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from mixtures.tokens.layout_types import LayoutConfig, View
from tests.support.tiny_model import LAYOUT, mixed_samples, tiny_model
from train.config import PARTS, Config, Part, Parts, Stochastic
from train.data.collate import build_pack
from train.data.tower_plan import TowerRule
from train.engine.trained import prepare
from train.model.config import SlowFastConfig
from train.model.inputs import pack_inputs
from train.model.vision import OryxVisionConfig
from train.sizing.fitting import TOWERS, with_tower
from train.sizing.made_pack import Budget, Media, image_of, made_pack, video_of
from train.sizing.memory import part_parameters, rank_memory
from train.sizing.states import BUCKET, LIVE, passing_bytes
from train.sizing.tracing import kept_by_tower, trace_step, trace_whole

VIEW = View(cap=32, area=64 * 64)
PACK = Budget(tokens=1024, patches=4096)
AGAIN = Part(checkpoint=True)
VISION = {
    "hidden_size": 48,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "intermediate_size": 180,
    "position_grid": 8,
}
TEXT = {
    "model_type": "qwen2",
    "vocab_size": 512,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 160,
    "num_hidden_layers": 4,
    "tie_word_embeddings": True,
}


def wanted() -> SlowFastConfig:
    return SlowFastConfig(vision_config=VISION, text_config=TEXT, layout=asdict(LayoutConfig()))


def test_blocks_that_are_not_traced_cost_what_tracing_them_says() -> None:
    parts = Parts(tower=AGAIN, decoder=AGAIN)
    rule = TowerRule(chunk=256, keep=4)
    config = Config(precision="bf16", parts=parts, stochastic=Stochastic(keep=Fraction(1, 4)))
    pack = made_pack(PACK, LayoutConfig(), video_of(VIEW), rule)
    whole, reckoned = (trace(config, wanted(), pack) for trace in (trace_whole, trace_step))
    assert reckoned.peak == pytest.approx(whole.peak, rel=1e-3)
    assert reckoned.phases == pytest.approx(whole.phases, rel=0.05)


@pytest.mark.parametrize("tuned", [True, False])
def test_what_is_traced_is_what_autograd_saves(tuned: bool) -> None:
    config = Config(parts=Parts(tower=Part(train=tuned)))
    model, pack = tiny_model(), build_pack(mixed_samples(), LAYOUT)
    step = trace_whole(config, tiny_model().config, pack)
    prepare(config, model)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved: dict[int, int] = {}

    def pack_one(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    model.train()
    with saved_tensors_hooks(pack_one, lambda tensor: tensor):
        model(**pack_inputs(pack)).loss.backward()
    assert sum(saved.values()) <= step.peak <= 2 * sum(saved.values()) + step.inputs


def test_packs_are_as_full_as_the_budget_allows() -> None:
    for media in (video_of(VIEW), image_of(256 * 256)):
        pack = made_pack(PACK, LayoutConfig(), media, TowerRule())
        assert len(pack.tokens) == PACK.tokens
        frame = media.side**2 * media.frames
        assert len(pack.patches) % frame == 0 and len(pack.patches) <= PACK.patches
    # larger than a pack takes: the largest that it takes is shown in its place
    alone = made_pack(PACK, LayoutConfig(), Media(kind="image", frames=1, side=96), TowerRule())
    assert len(alone.tokens) == PACK.tokens and len(alone.patches) == 28**2


def test_a_tower_keeps_less_where_it_learns_from_a_quarter_and_nothing_where_frozen() -> None:
    vision = OryxVisionConfig(**VISION)
    packs = [
        made_pack(PACK, LayoutConfig(), video_of(VIEW), TowerRule(keep=keep)) for keep in (1, 4)
    ]
    full, quarter = (kept_by_tower(p, train=True, again=False, vision=vision) for p in packs)
    assert 0.2 * full < quarter <= 0.30 * full
    full, quarter = (kept_by_tower(p, train=True, again=True, vision=vision) for p in packs)
    assert quarter <= 0.60 * full
    assert kept_by_tower(packs[0], train=False, again=False, vision=vision) == 0


def test_memory_adds_up_part_by_part_and_shrinks_with_ranks() -> None:
    config = Config(precision="bf16", engine="deepspeed", zero_stage=3)
    counts = part_parameters(wanted())
    step = trace_step(
        config, wanted(), made_pack(PACK, LayoutConfig(), video_of(VIEW), TowerRule())
    )
    one, eight = (rank_memory(config, counts, ranks, step) for ranks in (1, 8))
    assert sum(one.states["Adam moments"].values()) == 8 * sum(counts.values())
    for kind, parts in one.states.items():
        assert list(parts) == list(PARTS)
        assert sum(eight.states[kind].values()) == pytest.approx(sum(parts.values()) / 8)
    assert one.total > eight.total > step.peak


def test_what_passes_has_a_bound() -> None:
    config = Config(precision="bf16", engine="deepspeed", zero_stage=3)
    counts = {"tower": 10**9, "projector": 0, "decoder": 7 * 10**9}
    assert passing_bytes(config, counts) == {"bucket": 2 * BUCKET, "gathered": 2 * LIVE}
    assert set(passing_bytes(Config(), counts).values()) == {0}


def test_the_table_has_the_tower_in_three_ways() -> None:
    made = [with_tower(Config(), tower) for tower in TOWERS]
    assert [c.parts.tower.train for c in made] == [False, True, True]
    assert [c.stochastic.keep for c in made] == [1, 1, Fraction(1, 4)]
