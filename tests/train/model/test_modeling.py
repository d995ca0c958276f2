"""The whole model: packed samples are isolated, generation continues them, folders round-trip."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForImageTextToText

from shards.errors import UserError
from tests.support.tiny_model import LAYOUT, PAD, VISION_END, mixed_samples, tiny_model, tiny_sample
from train.data.attention_blocks import plan_blocks
from train.data.collate import (
    MemoryFrames,
    Pack,
    PatchIndex,
    RenderedSample,
    build_pack,
    empty_pack,
)
from train.model import register
from train.model.inputs import pack_inputs, packed_row
from train.model.modeling import SlowFastForConditionalGeneration

NO_END = 63


def logits_of(model: SlowFastForConditionalGeneration, pack: Pack) -> torch.Tensor:
    row = packed_row(pack, model.device)
    return model.language_model.lm_head(model.hidden(row))


def visual_inputs(inputs: dict[str, Any]) -> dict[str, Any]:
    """Those of one unpadded row, as the processor gives them."""
    visual = {name: inputs[name] for name in ("patches", "grids", "seconds")}
    for name, kind in (("slots", PatchIndex), ("memory", MemoryFrames)):
        parts = {field.name: getattr(inputs[name], field.name) for field in fields(kind)}
        visual[name] = parts | {"sample": torch.zeros_like(parts["position"])}
    return visual


def checkpointed(model: SlowFastForConditionalGeneration) -> None:
    """By the name that this version of transformers has for it."""
    old, new = "gradient_checkpointing_enable", "activation_checkpointing_enable"
    getattr(model, new if hasattr(model, new) else old)()


def logits_alone(model: SlowFastForConditionalGeneration, sample: RenderedSample) -> torch.Tensor:
    """One sample through transformers' ordinary causal attention, without any packing."""
    inputs = pack_inputs(build_pack([sample], LAYOUT))
    visual = visual_inputs(inputs)
    return model(input_ids=inputs["input_ids"], **visual).logits[0]


@torch.no_grad()
def test_packed_logits_equal_one_by_one() -> None:
    model, samples = tiny_model(), mixed_samples()
    packed = logits_of(model, build_pack(samples, LAYOUT))
    alone = torch.cat([logits_alone(model, sample) for sample in samples])
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-5)


def changed_in_the_middle() -> tuple[Pack, Pack]:
    """A pack, and the same with other words and pixels in its second sample."""
    samples = mixed_samples()
    before = build_pack(samples, LAYOUT)
    texts = np.where(before.tokens[: before.cu_seqlens[2]] == PAD, PAD, 9).astype(np.int32)
    start, end = before.cu_seqlens[1:3]
    changed = replace(
        samples[1],
        frames=[255 - samples[1].frames[0]],
        text=replace(samples[1].text, ids=texts[start:end]),
    )
    return before, build_pack([samples[0], changed, *samples[2:]], LAYOUT)


UNFUSED = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


@UNFUSED
@pytest.mark.parametrize("attention", ["sdpa_blocks", "flex"])
@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_changing_one_sample_changes_the_others_by_exactly_nothing(
    attention: str, training: bool
) -> None:
    model = tiny_model(packed_attention=attention).train(training)
    before, after = changed_in_the_middle()
    start, end = before.cu_seqlens[1:3]
    for cache, checkpointing in ((False, False), (True, False), (True, True), (False, True)):
        model.language_model.config.use_cache = cache
        if checkpointing:
            checkpointed(model)
        one, two = logits_of(model, before), logits_of(model, after)
        assert torch.equal(one[:start], two[:start])
        assert torch.equal(one[end:], two[end:])
        assert (one[start:end] - two[start:end]).abs().max() > 0.1


@UNFUSED
@torch.no_grad()
def test_flex_gives_what_blocks_give() -> None:
    pack = build_pack(mixed_samples(), LAYOUT)
    one, two = (
        logits_of(tiny_model(packed_attention=name), pack) for name in ("sdpa_blocks", "flex")
    )
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="flash attention runs on CUDA only")
@torch.no_grad()
def test_varlen_isolates_samples_and_agrees_with_blocks() -> None:
    sizes = {"hidden_size": 64, "num_attention_heads": 4}
    models = [
        tiny_model(packed_attention=name, **sizes).to("cuda", torch.bfloat16)
        for name in ("varlen", "sdpa_blocks")
    ]
    before, after = changed_in_the_middle()
    one, two = logits_of(models[0], before), logits_of(models[0], after)
    start, end = before.cu_seqlens[1:3]
    assert torch.equal(one[:start], two[:start]) and torch.equal(one[end:], two[end:])
    cosine = torch.cosine_similarity(one.float(), logits_of(models[1], before).float(), dim=1)
    assert cosine.min() > 0.995


def test_varlen_elsewhere_is_refused_with_the_remedy() -> None:
    model = tiny_model(packed_attention="varlen")
    with pytest.raises(UserError, match=r"float32 on cpu; use sdpa_blocks"):
        logits_of(model, build_pack(mixed_samples(), LAYOUT))


@UNFUSED
@pytest.mark.parametrize("attention", ["sdpa_blocks", "flex"])
@torch.no_grad()
def test_order_and_neighbours_of_other_lengths_change_next_to_nothing(attention: str) -> None:
    model, samples = tiny_model(packed_attention=attention), mixed_samples()
    last = logits_of(model, build_pack(samples, LAYOUT))[-len(samples[-1].text.ids) :]
    longer = tiny_sample("z", question=200, seed=9)
    for others in (samples[:2], [longer, *samples[:4]], []):
        moved = logits_of(model, build_pack([samples[-1], *others], LAYOUT))[: len(last)]
        assert (moved - last).abs().max() <= 1e-5 * last.abs().max()


def test_blocks_cover_every_row_once_and_keep_padding_small() -> None:
    lengths = np.array([3, 1000, 7, 0, 980, 1, 64, 60])
    blocks = plan_blocks(np.concatenate([[0], np.cumsum(lengths)]))
    rows = np.concatenate([index.ravel() for index in blocks.gather])
    assert np.array_equal(rows[blocks.scatter], np.arange(lengths.sum()))
    assert len(rows) <= int(lengths.sum()) / 0.75


def test_the_loss_is_the_sum_over_samples_of_their_own_cross_entropy() -> None:
    model, samples = tiny_model(), mixed_samples()
    loss = model(**pack_inputs(build_pack(samples, LAYOUT))).loss
    loss.backward()
    packed = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    total = torch.zeros(())
    for sample in samples:
        logits = logits_alone(model, sample)[:-1]
        wanted = torch.from_numpy(sample.text.supervised[1:])
        targets = torch.from_numpy(sample.text.ids[1:].astype(np.int64))
        total = total + cross_entropy(logits[wanted], targets[wanted], reduction="sum")
    torch.testing.assert_close(loss, total, rtol=1e-5, atol=1e-5)
    total.backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(packed[name], p.grad, rtol=1e-3, atol=1e-4)


def test_checkpointing_changes_neither_loss_nor_gradients() -> None:
    model, pack = tiny_model().train(), build_pack(mixed_samples(), LAYOUT)
    results = []
    for enable in (False, True):
        if enable:
            checkpointed(model)
        model.zero_grad()
        loss = model(**pack_inputs(pack)).loss
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_checkpointing_over_frozen_inputs_still_trains_the_layers() -> None:
    """Reentrant checkpointing would leave them without a gradient, silently."""
    model = tiny_model().train()
    for part in (model.vision_tower, model.projector, model.get_input_embeddings()):
        part.requires_grad_(False)
    checkpointed(model)
    model(**pack_inputs(build_pack(mixed_samples(), LAYOUT))).loss.backward()
    layers = model.language_model.model.layers.parameters()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in layers)


def test_an_empty_pack_runs_every_part_and_moves_nothing() -> None:
    model = tiny_model()
    loss = model(**pack_inputs(empty_pack())).loss
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


@torch.no_grad()
def test_answers_are_the_argmax_of_the_packed_forward() -> None:
    model = tiny_model()
    samples = [tiny_sample("a", "image", seed=1), tiny_sample("b", "video", frames=3, question=30)]
    answers = model.answer(
        build_pack(samples, LAYOUT), eos_token_id=NO_END, max_new_tokens=4, do_sample=False
    )
    for sample, answer in zip(samples, answers, strict=True):
        assert 0 < len(answer) <= 4
        for token in answer:
            logits = logits_of(model, build_pack([sample], LAYOUT))[-1]
            logits[model.config.visual_token_ids] = -torch.inf
            assert token == logits.argmax()
            text = sample.text
            longer = replace(
                text,
                ids=np.append(text.ids, token).astype(np.int32),
                supervised=np.append(text.supervised, True),
            )
            sample = replace(sample, text=longer)


@torch.no_grad()
def test_generate_of_transformers_gives_the_same_answer() -> None:
    model, pack = tiny_model(), build_pack([tiny_sample("a", "video", frames=3)], LAYOUT)
    inputs = pack_inputs(pack)
    made = model.generate(
        input_ids=inputs["input_ids"],
        attention_mask=torch.ones_like(inputs["input_ids"]),
        **visual_inputs(inputs),
        suppress_tokens=model.config.visual_token_ids,
        max_new_tokens=4,
        do_sample=False,
    )
    assert [made[0, len(pack.tokens) :].tolist()] == model.answer(
        pack, eos_token_id=NO_END, max_new_tokens=4, do_sample=False
    )


@torch.no_grad()
def test_visual_ids_are_never_generated() -> None:
    model = tiny_model()
    weight = model.language_model.lm_head.weight
    weight[: VISION_END + 2] = weight[NO_END - 20] * 50
    weight[: VISION_END + 2] *= torch.sign(weight[:4] @ weight[NO_END - 20])[:, None]
    pack = build_pack([tiny_sample("a"), tiny_sample("b", seed=5)], LAYOUT)
    for sampling in (False, True):
        answers = model.answer(pack, eos_token_id=NO_END, max_new_tokens=8, do_sample=sampling)
        assert not {i for ids in answers for i in ids} & set(model.config.visual_token_ids)


@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_model_loads_as_it_was(tmp_path: Path, tied: bool) -> None:
    register()
    model = tiny_model(tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    assert isinstance(loaded, SlowFastForConditionalGeneration)
    head, table = loaded.get_output_embeddings(), loaded.get_input_embeddings()
    assert (head.weight is table.weight) == tied
    pack = build_pack(mixed_samples(), LAYOUT)
    with torch.no_grad():
        assert torch.equal(logits_of(model, pack), logits_of(loaded, pack))
    config = AutoConfig.from_pretrained(tmp_path)
    assert config.layout == model.config.layout
    assert config.vision_config.position_grid == model.config.vision_config.position_grid
    assert config.visual_token_ids == model.config.visual_token_ids


def test_it_works_without_torchvision() -> None:
    absent = ("torchvision", "deepspeed", "peft", "accelerate", "timm")
    code = f"import sys\nfor name in {absent}: sys.modules[name] = None\n"
    code += "import train.weights.convert, train.model.vision\n"
    code += "from train.model import register\nregister()\n"
    code += "from tests.support.tiny_model import *\nfrom train.model.inputs import pack_inputs\n"
    code += "from train.data.collate import build_pack\n"
    code += "tiny_model()(**pack_inputs(build_pack(mixed_samples(), LAYOUT))).loss.backward()\n"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


@pytest.mark.parametrize("name", ["input_ids", "targets", "position_ids", "patches", "seconds"])
def test_forward_says_which_arguments_go_together(name: str) -> None:
    inputs = pack_inputs(build_pack(mixed_samples(), LAYOUT))
    with pytest.raises(TypeError, match="forward needs"):
        tiny_model()(**(inputs | {name: None}))
