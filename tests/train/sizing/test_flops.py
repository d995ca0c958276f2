"""Sizes on paper: the published parameter counts, and operations as torch itself counts them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from shards.errors import UserError
from tests.support.tiny_model import LAYOUT, mixed_samples, tiny_model
from train.data.collate import build_pack
from train.engine.recompute import checkpoint_parts
from train.model.inputs import pack_inputs
from train.model.loss import rows_again, supervised_losses
from train.sizing.flops import Work, forward_flops, mfu, text_flops
from train.sizing.published_sizes import TEXT, on_paper, published_config
from train.sizing.tables import video_flops, video_tokens

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("size", "count"), [("1b", 1_543_714_304), ("3b", 3_085_938_688), ("7b", 7_615_616_512)]
)
def test_language_models_have_the_published_parameters(size: str, count: int) -> None:
    model = on_paper(published_config(size))
    assert sum(p.numel() for p in model.language_model.parameters()) == count
    assert {p.device.type for p in model.parameters()} == {"meta"}


def test_any_causal_model_of_transformers_will_do() -> None:
    model = tiny_model(model_type="llama")
    assert type(model.language_model).__name__ == "LlamaForCausalLM"
    model(**pack_inputs(build_pack(mixed_samples(), LAYOUT))).loss.backward()


def test_operations_are_those_that_torch_counts() -> None:
    pack = build_pack(mixed_samples(), LAYOUT)
    model, inputs = tiny_model(), pack_inputs(pack)
    plain = sdpa_kernel(SDPBackend.MATH)  # torch counts its products, not the fused kernel of CPUs
    with FlopCounterMode(display=False) as counter, torch.no_grad(), plain:
        model(**inputs)
    lengths = (pack.cu_seqlens[1:] - pack.cu_seqlens[:-1]).tolist()
    work = Work(
        frames=pack.grids.prod(1).tolist(),
        samples=lengths,
        pooled=len(pack.patch_index.sizes),
        supervised=pack.supervised,
    )
    found = forward_flops(model.config, work)
    counted = counter.get_flop_counts()
    where = type(model).__name__
    assert found.vision == sum(counted[f"{where}.vision_tower"].values())
    assert found.projector == sum(counted[f"{where}.projector"].values())
    text = sum(counted[f"{where}.language_model.model"].values())
    # torch bills both halves of causal attention, and the padding of batched segments
    assert found.text < text < 1.2 * found.text


def counted(parts: list[str]) -> int:
    """Operations of forward and backward with these parts checkpointed, as torch counts them."""
    model = tiny_model()
    checkpoint_parts(model, parts)
    inputs = pack_inputs(build_pack(mixed_samples(), LAYOUT))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(**inputs).loss.backward()
    return counter.get_total_flops()


def test_what_checkpoints_compute_again_is_what_torch_counts() -> None:
    pack = build_pack(mixed_samples(), LAYOUT)
    work = Work(
        frames=pack.grids.prod(1).tolist(),
        samples=(pack.cu_seqlens[1:] - pack.cu_seqlens[:-1]).tolist(),
        pooled=0,
        supervised=pack.supervised,
    )
    again, plain = forward_flops(tiny_model().config, work).again, counted([])
    assert again.vision == counted(["tower"]) - plain
    # both halves of causal attention, and padding, as above
    assert again.text < counted(["decoder"]) - plain < 1.3 * again.text
    assert again.head == 0  # one chunk


@pytest.mark.parametrize(("rows", "again"), [(15, 12), (16, 12), (17, 16), (4, 0), (1, 0), (0, 0)])
def test_the_logits_of_the_last_chunk_are_computed_once(rows: int, again: int) -> None:
    width, vocabulary, four_rows = 8, 64, 4 * 4 * 64

    def operations(chunk_bytes: int) -> int:
        hidden = torch.randn(rows, width, requires_grad=True)
        head = torch.randn(vocabulary, width, requires_grad=True)
        labels = torch.zeros(rows, dtype=torch.int64)
        with FlopCounterMode(display=False) as counter:
            supervised_losses(hidden, head, labels, chunk_bytes).sum().backward()
        return counter.get_total_flops()

    computed_again = operations(four_rows) - operations(1 << 20)
    assert computed_again == again * 2 * width * vocabulary
    assert rows_again(rows, vocabulary, four_rows) == again


def test_text_attention_is_billed_once_per_visible_pair() -> None:
    config = published_config("1b").text_config
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").model
    with FlopCounterMode(display=False) as counter:
        ids = torch.zeros(1, 512, dtype=torch.int64, device="meta")
        model(ids, attention_mask={"full_attention": None}, use_cache=False)
    both_halves = 28 * 4 * 512 * 512 * 1536
    one_half = 28 * 4 * (512 * 513 // 2) * 1536
    assert text_flops(config, [512]) == counter.get_total_flops() - both_halves + one_half


def test_a_video_costs_what_the_specification_says() -> None:
    flops = video_flops("1b")
    assert video_tokens((1280, 1280), "A") == (9216, 10_010)
    assert flops.vision / 1e12 == pytest.approx(66.0, rel=0.01)
    assert flops.step(1) - flops.step(0) == 2 * flops.vision
    assert mfu(flops.step(), 1.0, 989e12) == pytest.approx(flops.step() / 989e12)


def test_the_command_prints_every_part_in_seconds() -> None:
    command = [sys.executable, "-m", "train", "model", "--size", "7b"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True, timeout=60)
    for said in ("vision_tower", "7,615,616,512", "9,216", "GiB"):
        assert said in done.stdout


def test_an_unknown_size_is_named() -> None:
    assert sorted(TEXT) == ["1b", "3b", "7b"]
    with pytest.raises(UserError, match="unknown '2b'; use one of 1b, 3b, 7b"):
        published_config("2b")
