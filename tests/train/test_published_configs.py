"""The configs of the published sizes: they load, fit their recipe and their GPUs, and say so."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import nn

from mixtures.recipe.load import load_recipe
from tests.support.tiny_model import LAYOUT, mixed_samples, tiny_model
from train.config import Config, Part, Parts, RandomInit, check_layout, load_config, said
from train.data.collate import build_pack
from train.engine.torch_engine import TorchEngine
from train.sizing.flops import parameters
from train.sizing.published_sizes import on_paper, published_config
from train.sizing.states import state_bytes

ROOT = Path(__file__).parents[2]
SIZES = ("1b", "3b", "7b")
GPU_BYTES, RANKS = 80e9, 8


def by_part(model: nn.Module) -> dict[str, int]:
    counts = parameters(model)
    return {
        "tower": counts["vision_tower"],
        "projector": counts["projector"],
        "decoder": counts["language_model"],
    }


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stage", [1, 2])
def test_a_config_is_of_its_size_and_recipe_and_fits_its_gpus(stage: int, size: str) -> None:
    path = ROOT / f"train/configs/stage{stage}_{size}.yaml"
    config, model = load_config(path), published_config(size)
    for own, theirs in ((config.vision, model.vision_config), (config.text, model.text_config)):
        assert said(own)
        assert {name: getattr(theirs, name) for name in said(own)} == said(own)
    recipe = load_recipe(ROOT / f"mixtures/sf_llava_1_5_stage{stage}.yaml")
    check_layout(config, recipe.layout, str(path))
    assert recipe.pack_tokens <= model.text_config.max_position_embeddings
    states = state_bytes(config, by_part(on_paper(model)), RANKS)
    assert sum(states.values()) < GPU_BYTES / 2  # the other half is for activations and buckets
    assert config.global_batch % RANKS == 0 and config.precision == "bf16"
    assert config.parts.decoder.checkpoint and not config.parts.tower.train
    assert config.stop.epochs == Fraction(1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stage", [1, 2])
def test_a_head_says_command_hardware_and_hours_and_names_no_commit(stage: int, size: str) -> None:
    path = ROOT / f"train/configs/stage{stage}_{size}.yaml"
    text = path.read_text()
    for part in (
        f"-m train run train/configs/{path.name}",
        "Hardware:",
        "hours on",
        "From ",
        "Ours:",
    ):
        assert part in text
    assert "@" not in text
    config = load_config(path)
    start = {getattr(config.parts, part).init for part in ("tower", "projector", "decoder")}
    if stage == 2:
        assert start == {f"runs/train1_{size}/model"}
        assert f"--out runs/train1_{size}\n" in (path.parent / f"stage1_{size}.yaml").read_text()
    else:
        folders = [where for where in start if not isinstance(where, RandomInit)]
        assert len(folders) == 2 and all(f"--local-dir {where}\n" in text for where in folders)


@pytest.mark.parametrize(
    ("precision", "optimizer_state"), [("fp32", "fp32"), ("bf16", "fp32"), ("bf16", "bf16")]
)
@pytest.mark.parametrize("is_trained", [True, False])
def test_the_bytes_on_paper_are_those_of_one_process(
    precision: str, optimizer_state: str, is_trained: bool
) -> None:
    config = Config(
        precision=precision,
        optimizer_state=optimizer_state,
        parts=Parts(tower=Part(train=is_trained)),
    )
    engine = TorchEngine(config, tiny_model())
    engine.backward([build_pack(mixed_samples(), LAYOUT)], 1)
    model = engine.model
    masters = [m for name, m in engine.masters.items() if m is not engine.parameters[name]]
    moments = [
        state[kind]
        for state in engine.optimizer.state.values()
        for kind in ("exp_avg", "exp_avg_sq")
    ]
    gradients = [t.grad for t in (*engine.masters.values(),) if t.grad is not None]
    held = {
        "weights": list(model.parameters()),
        "gradients": gradients,
        "master weights": masters,
        "Adam moments": moments,
    }
    wanted = state_bytes(config, by_part(model))
    assert {kind: nbytes(tensors) for kind, tensors in held.items()} == wanted


def nbytes(tensors: list[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
