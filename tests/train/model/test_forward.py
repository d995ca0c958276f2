"""`forward` as callers of transformers know it: keywords, labels, attention, devices."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import Qwen2ForCausalLM
from transformers.utils import TransformersKwargs

from shards.errors import UserError
from tests.support.chat.tiny_chat import (
    asked,
    chat_model,
    chat_processor,
    frames,
    inputs_of,
    picture,
)
from tests.support.tiny_model import LAYOUT, mixed_samples, tiny_model
from train.data.collate import MemoryFrames, PatchIndex, build_pack
from train.model.inputs import pack_inputs
from train.model.modeling import SlowFastForConditionalGeneration
from train.model.processing import SlowFastProcessor

IMAGE = {"type": "image", "image": picture()}
VIDEO = {"type": "video", "video": frames(), "seconds": [*range(6)]}


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> SlowFastProcessor:
    return chat_processor(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def inputs(processor: SlowFastProcessor) -> dict[str, Any]:
    """A left-padded batch of three, the last without media, and its labels."""
    batch = dict(inputs_of(processor, asked(VIDEO, IMAGE), asked(IMAGE), asked()))
    labels = batch["input_ids"].clone()
    labels[:, :-5] = -100
    return batch | {"labels": labels}


# what `forward` does with the keywords of transformers: how it is seen that each acts; others
# must be refused by name
EAGER = {"attn": "eager"}
ACTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "input_ids": (None, {}),
    "attention_mask": (None, {}),
    "position_ids": (torch.arange(200)[None] ** 2, {}),
    "past_key_values": (None, {}),
    "inputs_embeds": (None, {}),
    "labels": (None, {}),
    "use_cache": (False, {}),
    "logits_to_keep": (1, {}),
    "num_items_in_batch": (torch.tensor(7), {}),
    "output_hidden_states": (True, {}),
    "output_attentions": (True, EAGER),
    "return_dict": (False, {}),
}


def keywords_of_transformers() -> list[str]:
    """All keywords of the decoder's own forward and of transformers' forwards at large."""
    own = inspect.signature(Qwen2ForCausalLM.forward).parameters.values()
    named = {p.name for p in own if p.kind is not p.VAR_KEYWORD} - {"self"}
    return sorted(named | set(TransformersKwargs.__optional_keys__) | {"return_dict"})


@pytest.mark.parametrize("name", keywords_of_transformers())
@torch.no_grad()
def test_every_keyword_of_forward_acts_or_is_refused_by_name(
    inputs: dict[str, Any], name: str
) -> None:
    model = chat_model()
    if name not in ACTS:
        with pytest.raises(TypeError, match=f"nothing here acts on '{name}'"):
            model(**inputs, **{name: 1})
        return
    value, setting = ACTS[name]
    if setting:
        model.set_attn_implementation(setting["attn"])
    if name == "logits_to_keep":
        inputs = {other: item for other, item in inputs.items() if other != "labels"}
    if name in ("attention_mask", "labels"):
        given = {other: item for other, item in inputs.items() if other != name}
    elif name in ("input_ids", "inputs_embeds", "past_key_values"):
        given = changed(model, inputs, name)
    else:
        value = value[:, : inputs["input_ids"].shape[1]] if name == "position_ids" else value
        given = inputs | {name: value}
    assert flat(model(**given)) != flat(model(**inputs))


def changed(
    model: SlowFastForConditionalGeneration, inputs: dict[str, Any], name: str
) -> dict[str, Any]:
    if name == "input_ids":
        return inputs | {"input_ids": inputs["input_ids"].roll(1, 1)}
    text = {"labels": inputs["labels"][2:, -5:], "input_ids": inputs["input_ids"][2:, -5:]}
    if name == "past_key_values":
        cache = model(torch.tensor([[40, 41]]), use_cache=True).past_key_values
        mask = {"attention_mask": torch.ones(1, 7)}
        return text | mask | {"past_key_values": cache}
    rows = model.get_input_embeddings()(text.pop("input_ids"))
    return text | {"inputs_embeds": rows}


def flat(found: Any) -> list[Any]:
    """Everything that a forward gave, to compare."""
    parts = found.items() if hasattr(found, "items") else enumerate(found)
    return [type(found).__name__, *((k, v.sum().item()) if isinstance(v, torch.Tensor) else
            (k, len(v) if isinstance(v, tuple) else v is None) for k, v in parts)]  # fmt: skip


@pytest.mark.parametrize("name", ["labels", "attention_mask", "num_items_in_batch", "typo"])
def test_a_packed_row_takes_its_own_keywords_alone(name: str) -> None:
    inputs = pack_inputs(build_pack(mixed_samples(), LAYOUT))
    with pytest.raises(TypeError, match=f"`blocks`: nothing here acts on '{name}'"):
        tiny_model()(**inputs, **{name: torch.ones(1)})


def test_a_misspelt_keyword_is_told_what_is_near(inputs: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="did you mean 'output_attentions'"):
        chat_model()(**inputs, output_attention=True)


@pytest.mark.parametrize("part", ["slots", "memory"])
def test_entries_that_the_processor_does_not_make_are_refused(
    inputs: dict[str, Any], part: str
) -> None:
    with pytest.raises(TypeError, match=rf"{part}: unknown \['more'\]"):
        chat_model()(**inputs | {part: inputs[part] | {"more": torch.ones(1)}})
    few = {name: value for name, value in inputs[part].items() if name != "sample"}
    with pytest.raises(TypeError, match=rf"{part}: .* missing \['sample'\]"):
        chat_model()(**inputs | {part: few})


def test_labels_are_shifted_inside_and_counted_over_the_batch(inputs: dict[str, Any]) -> None:
    model = chat_model()
    found = model(**inputs)
    labels = inputs["labels"]
    taught = labels[:, 1:] != -100
    logits, targets = found.logits[:, :-1][taught], labels[:, 1:][taught]
    torch.testing.assert_close(found.loss, cross_entropy(logits, targets))
    summed = cross_entropy(logits, targets, reduction="sum")
    by_items = model(**inputs, num_items_in_batch=torch.tensor(50)).loss
    torch.testing.assert_close(by_items, summed / 50)
    found.loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_batch_and_a_pack_of_the_same_samples_have_one_loss() -> None:
    """The labels of transformers, shifted, are the targets of a pack."""
    model = tiny_model()
    pack = build_pack(mixed_samples()[:1], LAYOUT)
    packed = pack_inputs(pack)
    given: dict[str, Any] = {name: packed[name] for name in ("patches", "grids", "seconds")}
    for name, kind in (("slots", PatchIndex), ("memory", MemoryFrames)):
        parts = {field.name: getattr(packed[name], field.name) for field in fields(kind)}
        given[name] = parts | {"sample": torch.zeros_like(parts["position"])}
    labels = torch.full_like(packed["input_ids"], -100)
    labels[:, 1:] = packed["targets"][:, :-1]
    loss = model(packed["input_ids"], labels=labels, **given).loss
    torch.testing.assert_close(loss * pack.supervised, model(**packed).loss)


def test_features_follow_the_placeholders_wherever_padding_moves_them(
    inputs: dict[str, Any],
) -> None:
    """As TRL's collator does with prompts and completions: padding goes from left to right."""
    model = chat_model()
    given = {name: value for name, value in inputs.items() if name != "labels"}
    mask = given["attention_mask"].bool()
    longer = torch.zeros(len(mask), mask.shape[1] + 7, dtype=torch.int64)
    right = torch.arange(longer.shape[1]) < mask.sum(1)[:, None]
    ids = longer.masked_scatter(right, given["input_ids"][mask])
    moved = model(**given | {"input_ids": ids, "attention_mask": right.long()}).logits[right]
    torch.testing.assert_close(moved, model(**given).logits[mask], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_attention_is_the_one_asked_for(tmp_path: Path, inputs: dict[str, Any]) -> None:
    chat_model().save_pretrained(tmp_path)
    load = SlowFastForConditionalGeneration.from_pretrained
    given = {name: value for name, value in inputs.items() if name != "labels"}
    plain, eager = load(tmp_path), load(tmp_path, attn_implementation="eager")
    with pytest.raises(UserError, match='attn_implementation="eager"'):
        plain(**given, output_attentions=True)
    found = eager(**given, output_attentions=True)
    length = given["input_ids"].shape[1]
    assert [tuple(a.shape) for a in found.attentions] == [(3, 4, length, length)] * 2
    real = given["attention_mask"].bool()
    torch.testing.assert_close(
        found.logits[real], plain(**given).logits[real], rtol=1e-4, atol=1e-4
    )
    made = eager.generate(
        **given, max_new_tokens=2, output_attentions=True, return_dict_in_generate=True
    )
    assert len(made.attentions) == 2
    plain.set_attn_implementation("eager")
    assert plain(**given, output_attentions=True).attentions is not None
    with pytest.raises(ValueError, match="Flash"):
        load(tmp_path, attn_implementation="flash_attention_2")


def test_packed_rows_under_an_attention_that_mixes_samples_are_refused(tmp_path: Path) -> None:
    model = tiny_model()
    inputs = pack_inputs(build_pack(mixed_samples(), LAYOUT))
    expected = model(**inputs).loss
    for name in ("eager", "sdpa_blocks", "sdpa"):
        model.set_attn_implementation(name)
        if name == "eager":
            with pytest.raises(UserError, match=r'set_attn_implementation\("sdpa_blocks"\)'):
                model(**inputs)
        else:  # `sdpa` means what packs need, where rows are packed
            assert torch.equal(model(**inputs).loss, expected)
