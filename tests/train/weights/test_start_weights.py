"""Weights in the published layouts become a model: every value as stored, every key of a config."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, Siglip2VisionModel

from mixtures.manifest.files import load_manifest
from mixtures.manifest.manifest import Manifest
from shards.errors import DamagedData, UserError
from tests.support.published.made_weights import (
    TOWER,
    oryx_file,
    oryx_weights,
    qwen_folder,
    siglip2_folder,
)
from tests.support.tiny_run import TINY
from train.assemble import assemble
from train.config import Config, Part, Parts, RandomInit, RopeScaling, TextSize, VisionSize
from train.data.render import Rules
from train.model.modeling import SlowFastForConditionalGeneration
from train.model_folder import build_model, pooled_before
from train.weights.convert import from_oryx, from_siglip2
from train.weights.source import SLOWFAST, Source
from train.weights.start import _scaled, check_start

HEADS = 16  # of the published tower


def parts(**inits: str | RandomInit) -> Parts:
    return Parts(**{name: Part(init=init) for name, init in inits.items()})


def started(**inits: str | RandomInit) -> Config:
    """A config that states no size."""
    return replace(TINY, vision=VisionSize(), text=TextSize(), parts=parts(**inits))


def rules_of(manifest: Manifest) -> Rules:
    return Rules(view=manifest.view, layout=manifest.layout, codec=manifest.codec)


def build(config: Config, built: Path) -> SlowFastForConditionalGeneration:
    manifest = load_manifest(built)
    check_start(config, manifest, "m.json")
    return build_model(config, rules_of(manifest))


def decoder_folder(folder: Path, built: Path, **changes: Any) -> Path:
    return qwen_folder(folder, load_manifest(built).tokenizer, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"shards": 1},
        {"shards": 3, "tie_word_embeddings": False, "vocab_size": 152_064},
        {"vocab_size": 151_936},
    ],
    ids=["sharded", "one file", "untied", "151,936 rows"],
)
def test_a_decoder_says_what_it_said_and_its_values_win(
    built: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    folder = decoder_folder(tmp_path / "qwen", built, **changes)
    model = build(started(decoder=str(folder)), built)
    own = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.arange(100, 120)[None]  # no placeholders
    with torch.no_grad():
        assert torch.equal(model.eval()(input_ids=ids).logits, own(input_ids=ids).logits)
    ours, theirs = model.config.text_config.to_dict(), AutoConfig.from_pretrained(folder).to_dict()
    told = {"dtype", "architectures", "_name_or_path", "transformers_version", "torch_dtype"}
    assert {k: v for k, v in ours.items() if k not in told} == {
        k: v for k, v in theirs.items() if k not in told
    }
    assert ours["rope_parameters"]["rope_theta"] == 1e6 and ours["rms_norm_eps"] == 1e-6
    rows = changes.get("vocab_size", 320)
    assert len(model.get_input_embeddings().weight) == rows
    never = model.generation_config.suppress_tokens
    tokens = load_manifest(built).codec.vocab_size
    assert never == model.config.visual_token_ids + list(range(tokens, rows))


def test_rows_beyond_the_tokenizers_are_never_generated(built: Path, tmp_path: Path) -> None:
    folder = decoder_folder(tmp_path / "qwen", built, tie_word_embeddings=False)
    model = build(started(decoder=str(folder)), built).eval()
    tokens = load_manifest(built).codec.vocab_size
    with torch.no_grad():  # the head now prefers what stands for nothing
        model.get_output_embeddings().weight[tokens:] *= 50
    prompt = torch.arange(100, 104)[None].repeat(8, 1) + torch.arange(8)[:, None]
    plain = model.language_model.generate(prompt, max_new_tokens=6, do_sample=False)
    said = model.generate(prompt, max_new_tokens=6, do_sample=False)
    assert (plain[:, 4:] >= tokens).any() and not (said >= tokens).any()


@pytest.mark.parametrize("layout", ["pickle", "folder", "safetensors", "converted", "prefixed"])
def test_an_oryx_tower_is_taken_in_every_shape_it_comes_in(
    built: Path, tmp_path: Path, layout: str
) -> None:
    published = oryx_weights()
    path = oryx_file(tmp_path / "oryx" / "oryx_vit.pth", **{"norm.weight": torch.ones(32)})
    if layout == "folder":
        path = path.parent
    elif layout == "safetensors":
        save_file(published, path := tmp_path / "oryx.safetensors")
    elif layout == "converted":
        save_file(from_oryx(published), path := tmp_path / "vision.safetensors")
    elif layout == "prefixed":
        front = "model.vision_tower.vision_tower."
        save_file(
            {f"{front}{n}": t for n, t in published.items()}, path := tmp_path / "p.safetensors"
        )
    # switches that a true assertion names
    asserted = VisionSize(activation="gelu", final_norm=False, antialias=False)
    model = build(replace(started(tower=str(path)), vision=asserted), built)
    with pytest.raises(UserError, match="vision: antialias: the config says True"):
        build(replace(started(tower=str(path)), vision=VisionSize(antialias=True)), built)
    expected, found = from_oryx(published), model.vision_tower.state_dict()
    assert len(published) == 327 and found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    config = model.config.vision_config
    assert (config.num_attention_heads, config.position_grid) == (HEADS, TOWER.side)
    assert (config.activation, config.final_norm, config.antialias) == ("gelu", False, False)


def test_a_siglip2_is_the_tower_with_its_switches(built: Path, tmp_path: Path) -> None:
    folder = siglip2_folder(tmp_path / "siglip2")
    model = build(started(tower=str(folder)), built)
    stored = load_file(folder / "model.safetensors")
    encoder = {
        name.removeprefix("vision_model."): tensor
        for name, tensor in stored.items()
        if name.startswith("vision_model.")
    }
    expected, found = from_siglip2(encoder), model.vision_tower.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    config = model.config.vision_config
    assert (config.activation, config.final_norm, config.position_grid) == ("gelu_tanh", True, 6)
    alone = tmp_path / "encoder"
    Siglip2VisionModel.from_pretrained(folder).save_pretrained(alone)
    again = build(started(tower=str(alone)), built).vision_tower.state_dict()
    assert all(torch.equal(again[name], expected[name]) for name in expected)


def test_what_is_drawn_anew_hangs_on_its_seed_and_name_alone(built: Path, tmp_path: Path) -> None:
    folder = str(decoder_folder(tmp_path / "qwen", built))
    whole = build(replace(TINY, parts=parts(projector=RandomInit(3))), built).state_dict()
    beside = build(started(projector=RandomInit(3), decoder=folder), built)
    other = build(replace(TINY, parts=parts(projector=RandomInit(4))), built).state_dict()
    same = [name for name in whole if name.startswith(("vision_tower.layers.0.attn",))]
    assert all(torch.equal(whole[name], other[name]) for name in same)
    assert not torch.equal(whole["projector.learned"], other["projector.learned"])
    assert beside.state_dict()["vision_tower.layers.0.norm1.bias"].eq(0).all()
    stds = {name: tensor.std().item() for name, tensor in whole.items() if tensor.ndim > 1}
    assert stds["language_model.model.embed_tokens.weight"] == pytest.approx(0.02, rel=0.1)
    assert stds["projector.learned"] == pytest.approx(0.02, rel=0.3)
    assert whole["language_model.model.norm.weight"].eq(1).all()


def test_a_stated_value_is_an_assertion_but_for_what_may_change(
    built: Path, tmp_path: Path
) -> None:
    folder = decoder_folder(tmp_path / "qwen", built)
    plain = started(decoder=str(folder))
    build(replace(plain, text=TextSize(hidden_size=32, tie_word_embeddings=True)), built)
    for key, value in (("hidden_size", 128), ("tie_word_embeddings", False)):
        said = replace(plain, text=TextSize(**{key: value}))
        with pytest.raises(UserError, match=f"text: {key}: the config says {value}, .*qwen/config"):
            build(said, built)
    longer = TextSize(
        max_position_embeddings=131_072, rope_scaling=RopeScaling(kind="yarn", factor=4.0)
    )
    values = build(replace(plain, text=longer), built).config.text_config
    assert values.max_position_embeddings == 131_072
    assert values.rope_parameters == {
        "rope_type": "yarn",
        "factor": 4.0,
        "rope_theta": 1e6,
        "original_max_position_embeddings": 32_768,
    }


def test_weights_that_were_scaled_stay_as_they_are_in_the_next_stage() -> None:
    twice = RopeScaling(kind="yarn", factor=4.0)
    first = _scaled({"rope_theta": 1e6, "max_position_embeddings": 1024}, twice)
    # the first stage's model says as many positions as its config asked for
    second = first | {"max_position_embeddings": 4096}
    assert _scaled(second, twice) == second
    assert second["rope_parameters"]["original_max_position_embeddings"] == 1024
    with pytest.raises(UserError, match=r"scaled already \(yarn by 4.0\); remove the key"):
        _scaled(second, RopeScaling(kind="yarn", factor=2.0))


def test_bytes_that_are_not_the_promised_ones_end_the_run_before_its_first_step(
    built: Path, tmp_path: Path
) -> None:
    manifest = load_manifest(built)
    start = assembled(tmp_path, built)
    config = started(tower=str(start), projector=str(start), decoder=str(start))
    build(config, built)
    path = start / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    check_start(config, manifest, "m.json")  # headers are as they were
    with pytest.raises(DamagedData, match=r"start/model.safetensors: sha256 .* is promised"):
        build_model(config, rules_of(manifest))
    about = json.loads((start / "config.json").read_text())
    about["text_config"]["rms_norm_eps"] = 1e-5
    (start / "config.json").write_text(json.dumps(about))
    with pytest.raises(DamagedData, match=r"start/config.json: sha256"):
        check_start(config, manifest, "m.json")


def assembled(tmp_path: Path, built: Path) -> Path:
    folder = decoder_folder(tmp_path / "qwen", built)
    oryx = oryx_file(tmp_path / "oryx_vit.pth")
    assemble(str(folder), str(oryx), built.parent.parent / "recipe.yaml", tmp_path / "start")
    return tmp_path / "start"


def test_how_a_projector_pools_comes_with_its_weights(tmp_path: Path) -> None:
    trained = {"projector": "gsf", "pool_before_projection": False}
    sources = {"projector": Source(where="a", path=tmp_path, kind=SLOWFAST, config=trained)}
    plain = started(projector="a")
    assert pooled_before(plain, sources) is False
    assert pooled_before(replace(plain, pool_before_projection=True), sources) is True
    assert pooled_before(replace(plain, projector="qformer"), sources) is None
    assert pooled_before(plain, {}) is None


def test_parts_come_from_a_model_of_ours_one_by_one(built: Path, tmp_path: Path) -> None:
    start = str(assembled(tmp_path, built))
    whole = build(started(tower=start, projector=start, decoder=start), built)
    tower = build(started(tower=start), built)
    stored = load_file(Path(start) / "model.safetensors")
    assert whole.state_dict().keys() - stored.keys() == {"language_model.lm_head.weight"}  # tied
    for name, tensor in stored.items():
        assert torch.equal(whole.state_dict()[name], tensor.float())
    same = tower.vision_tower.state_dict()
    assert all(torch.equal(same[n], t) for n, t in whole.vision_tower.state_dict().items())
    other = replace(started(projector=start, tower=start, decoder=start), projector="attn_meanq")
    with pytest.raises(UserError, match=r"start: no tensor projector.query.weight; .*\[32, 32\]"):
        build(other, built)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_a_merged_adapter_is_a_start_and_an_adapter_alone_is_none(
    built: Path, tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    model = SlowFastForConditionalGeneration.from_pretrained(
        assembled(tmp_path, built), dtype=torch.float32
    )
    tuned = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], r=2))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    tuned.save_pretrained(tmp_path / "adapter")
    tuned.merge_and_unload().save_pretrained(tmp_path / "merged")
    merged = str(tmp_path / "merged")
    found = build(started(tower=merged, projector=merged, decoder=merged), built).state_dict()
    name = "language_model.model.layers.0.self_attn.q_proj.weight"
    before = load_file(tmp_path / "start" / "model.safetensors")[name].float()
    assert torch.equal(found[name], load_file(tmp_path / "merged" / "model.safetensors")[name])
    assert not torch.equal(found[name], before)
    with pytest.raises(UserError, match="adapter alone; merge it"):
        build(started(decoder=str(tmp_path / "adapter")), built)
