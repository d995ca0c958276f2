"""`from_pretrained`: types of parts, quantisation, devices, and folders that are checked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

from shards.errors import DamagedData, UserError
from shards.ids import sha256_file
from shards.profile import Profile
from tests.support.chat.tiny_chat import (
    CODEC,
    LAYOUT,
    TOKENIZER,
    VIEW,
    asked,
    chat_model,
    chat_processor,
    frames,
    inputs_of,
    picture,
)
from train.data.render import Rules
from train.model import register
from train.model_folder import Description, describe, load_saved

IMAGE = {"type": "image", "image": picture()}
VIDEO = {"type": "video", "video": frames(), "seconds": [*range(6)]}
register()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("model")
    processor = chat_processor(where)
    chat_model().save_pretrained(where)
    processor.save_pretrained(where)
    return where


@pytest.fixture(scope="module")
def inputs(folder: Path) -> dict[str, Any]:
    return dict(inputs_of(chat_processor(folder), asked(VIDEO, IMAGE), asked()))


def loaded(folder: Path, **keywords: Any) -> Any:
    return AutoModelForImageTextToText.from_pretrained(folder, **keywords)


def types_of(model: torch.nn.Module) -> dict[str, set[torch.dtype]]:
    found: dict[str, set[torch.dtype]] = {}
    for name, parameter in model.named_parameters():
        found.setdefault(name.partition(".")[0], set()).add(parameter.dtype)
    return found


HALF, WHOLE, DOUBLE = torch.bfloat16, torch.float32, torch.float64


@pytest.mark.parametrize(
    ("dtype", "tower", "projector", "decoder"),
    [
        (HALF, HALF, HALF, HALF),
        ({"": HALF}, HALF, HALF, HALF),
        ({"": HALF, "vision_config": WHOLE}, WHOLE, HALF, HALF),
        ({"text_config": "bfloat16"}, WHOLE, WHOLE, HALF),
        ({"": DOUBLE, "vision_config": "float32", "text_config": HALF}, WHOLE, DOUBLE, HALF),
    ],
    ids=str,
)
@pytest.mark.parametrize("keyword", ["dtype", "torch_dtype"])
@torch.no_grad()
def test_every_part_has_the_type_that_was_asked_for(
    folder: Path, inputs: dict[str, Any], keyword: str, dtype: Any, tower: Any, projector: Any,
    decoder: Any,
) -> None:  # fmt: skip
    model = loaded(folder, **{keyword: dtype})
    assert types_of(model) == {
        "vision_tower": {tower}, "projector": {projector}, "language_model": {decoder}
    }  # fmt: skip
    found, expected = (m(**inputs).logits for m in (model, loaded(folder)))
    assert found.dtype == decoder
    real = inputs["attention_mask"].bool()
    assert torch.cosine_similarity(found[real].float(), expected[real], dim=1).min() > 0.99
    # nothing of one loading is left for the next
    assert types_of(loaded(folder))["vision_tower"] == {WHOLE}


@pytest.mark.parametrize(
    ("dtype", "named"),
    [
        ({"": HALF, "vision_tower": WHOLE}, r"unknown \['vision_tower'\]; use '', 'vision_config'"),
        ({"text_config": "auto"}, "'text_config': 'auto' is no type of weights"),
        ({"": torch.int8}, "torch.int8 is no type of weights"),
    ],
    ids=str,
)
def test_a_type_of_no_part_is_refused_by_name(folder: Path, dtype: Any, named: str) -> None:
    with pytest.raises(UserError, match=named):
        loaded(folder, dtype=dtype)


@pytest.mark.parametrize("bits", ["load_in_4bit", "load_in_8bit"])
@torch.no_grad()
def test_few_bits_leave_tower_projector_and_head_as_they_are(
    tmp_path: Path, inputs: dict[str, Any], bits: str, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("bitsandbytes")
    chat_model(hidden_size=64, intermediate_size=128).save_pretrained(tmp_path / "whole")
    few = loaded(tmp_path / "whole", quantization_config=BitsAndBytesConfig(**{bits: True}))
    assert "vision_tower, projector, memory, language_model.lm_head keep" in caplog.text
    kinds: dict[str, set[str]] = {}
    for name, module in few.named_modules():
        if isinstance(module, torch.nn.Linear):
            part = "head" if name.endswith("lm_head") else name.partition(".")[0]
            kinds.setdefault(part, set()).add(type(module).__name__)
    own = {"load_in_4bit": "Linear4bit", "load_in_8bit": "Linear8bitLt"}[bits]
    assert kinds.pop("language_model") == {own}
    assert kinds == {"vision_tower": {"Linear"}, "projector": {"Linear"}, "head": {"Linear"}}
    few.save_pretrained(tmp_path / "few")  # first: on CPUs a forward pass packs four bits anew
    found = few(**inputs).logits
    expected = loaded(tmp_path / "whole")(**inputs).logits
    assert torch.cosine_similarity(found.float().flatten(), expected.flatten(), dim=0) > 0.8
    assert torch.equal(loaded(tmp_path / "few")(**inputs).logits, found)
    other = BitsAndBytesConfig(
        **{bits: True}, llm_int8_skip_modules=["language_model", "projector"]
    )
    caplog.clear()
    tower = loaded(tmp_path / "whole", quantization_config=other)
    assert "keep their precision" not in caplog.text
    assert type(tower.vision_tower.layers[0].mlp.fc1).__name__ == own
    if bits == "load_in_8bit":  # bitsandbytes packs four bits for wider layers only
        assert torch.isfinite(tower(**inputs).logits).all()


@pytest.mark.parametrize(
    "places",
    [
        {"vision_tower": "cpu", "projector": "cpu", "language_model": "disk"},
        {"vision_tower": "disk", "projector": "disk", "language_model": "cpu"},
        "auto",
    ],
    ids=str,
)
@torch.no_grad()
def test_a_model_lies_on_two_devices_of_which_one_is_a_disk(
    folder: Path, tmp_path: Path, inputs: dict[str, Any], places: Any
) -> None:
    more = {"max_memory": {"cpu": 160_000}} if places == "auto" else {}
    model = loaded(folder, device_map=places, offload_folder=str(tmp_path), **more)
    assert {"cpu", "disk"} == {str(device) for device in model.hf_device_map.values()}
    whole = loaded(folder)
    assert torch.equal(model(**inputs).logits, whole(**inputs).logits)
    options: Any = {"max_new_tokens": 2, "do_sample": False}
    assert torch.equal(model.generate(**inputs, **options), whole.generate(**inputs, **options))


def described(folder: Path, to: Path) -> Path:
    """The folder as our runs leave it, with digests."""
    model, at = loaded(folder), to / "model"
    model.save_pretrained(at)
    rules = Rules(view=VIEW, layout=LAYOUT, codec=CODEC)
    describe(at, TOKENIZER, Description(rules=rules, profile=Profile(), manifest_id="m"))
    return at


def without(folder: Path, name: str, more: str = "") -> None:
    """Its weights without one tensor, under one more name; data.json says so."""
    path, about = folder / "model.safetensors", folder / "data.json"
    tensors = load_file(path)
    value = tensors.pop(name)
    save_file(tensors | ({more: value} if more else {}), path, metadata={"format": "pt"})
    if about.exists():
        said = json.loads(about.read_text())
        said["files"][path.name] = sha256_file(path)
        about.write_text(json.dumps(said))


BIAS = "projector.mlp.0.bias"


def test_a_folder_is_verified_on_request_and_by_us_always(folder: Path, tmp_path: Path) -> None:
    at = described(folder, tmp_path)
    assert types_of(loaded(at, verify=True)) == types_of(load_saved(at).model)
    with pytest.raises(UserError, match=r"no data.json that vouches"):
        loaded(folder, verify=True)
    (at / "config.json").write_text((at / "config.json").read_text() + " ")
    loaded(at)
    for check in (lambda: loaded(at, verify=True), lambda: load_saved(at)):
        with pytest.raises(DamagedData, match=r"config.json: "):
            check()


@pytest.mark.parametrize(
    ("more", "said"),
    [("", f"tensor {BIAS} is missing"), ("projector.extra", f"tensor {BIAS} is missing")],
)
def test_a_folder_without_a_tensor_is_refused(
    folder: Path, tmp_path: Path, more: str, said: str
) -> None:
    at = described(folder, tmp_path)
    without(at, BIAS, more)
    for check in (lambda: loaded(at, verify=True), lambda: load_saved(at)):
        with pytest.raises(DamagedData, match=said):
            check()


def test_what_transformers_saved_is_loaded_by_us_and_must_be_whole(
    folder: Path, tmp_path: Path, inputs: dict[str, Any]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    saved = load_saved(copy)
    assert (saved.manifest_id, saved.rules.layout, saved.rules.view) == ("", LAYOUT, VIEW)
    tensors = load_file(copy / "model.safetensors")
    save_file(tensors | {"extra": torch.ones(1)}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(DamagedData, match="tensor extra is of no part"):
        load_saved(copy)
