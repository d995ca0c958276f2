"""What fits neither the weights nor the manifest is said in one line, before torch is imported."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mixtures.manifest.files import load_manifest
from mixtures.tokens.text import train_tokenizer
from shards.errors import UserError
from tests.support.published.made_weights import (
    oryx_file,
    oryx_weights,
    qwen_folder,
    siglip2_folder,
)
from tests.support.tiny_run import TINY
from train.config import Config, Part, Parts, TextSize, VisionSize
from train.data.render import Rules
from train.model_folder import build_model
from train.weights.start import check_start

LAST = "model-00002-of-00002.safetensors"
UP = "model.layers.2.mlp.up_proj.weight"


def config(part: str, place: Path) -> Config:
    parts = Parts(**{part: Part(init=str(place))})
    return replace(TINY, vision=VisionSize(), text=TextSize(), parts=parts)


def change_config(folder: Path, **changes: object) -> None:
    value = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(value))


def change_tensors(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def reindexed(folder: Path) -> None:
    """The index as its files are now."""
    places = {name: f.name for f in sorted(folder.glob("*.safetensors")) for name in load_file(f)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def without(folder: Path) -> None:
    change_tensors(folder / LAST, lambda tensors: tensors.pop(UP))
    reindexed(folder)


def one_more(folder: Path) -> None:
    change_tensors(folder / LAST, lambda tensors: tensors.update({"lm_head.bias": torch.ones(3)}))
    reindexed(folder)


def reshaped(folder: Path) -> None:
    change_tensors(folder / LAST, lambda tensors: tensors.update({UP: torch.ones(32, 48)}))


def quantised(folder: Path) -> None:
    quanta = torch.ones(48, 32, dtype=torch.int8)
    change_tensors(folder / LAST, lambda tensors: tensors.update({UP: quanta}))


def cut_short(folder: Path) -> None:
    os.truncate(folder / LAST, (folder / LAST).stat().st_size - 5)


def other_tokens(folder: Path) -> None:
    (folder / "tokenizer.json").write_bytes(train_tokenizer(["abc abc abd"] * 4, 275))


DECODER: dict[str, tuple[Callable[[Path], object], str]] = {
    "lacks a tensor": (without, rf"qwen: no tensor {UP}; .*config.json wants .*\[48, 32\]"),
    "one too many": (one_more, rf"{LAST}: lm_head.bias \[3\] is unknown to .*config.json"),
    "another shape": (reshaped, rf"{LAST}: {UP} has shape \[32, 48\], .* wants \[48, 32\]"),
    "deeper": (
        lambda f: change_config(f, num_hidden_layers=4),
        r"no tensor model.layers.3.input_layernorm.weight; .* \(and 11 more like it\)",
    ),
    "untied": (
        lambda f: change_config(f, tie_word_embeddings=False),
        r"no tensor lm_head.weight; .*\[320, 32\]",
    ),
    "quantised": (quantised, rf"{LAST}: {UP} is of type I8, .*name the repository of the original"),
    "cut short": (cut_short, rf"{LAST}: \d+ bytes, its header says \d+"),
    "a shard is gone": (lambda f: (f / LAST).unlink(), rf"{LAST}: no such file"),
    "no header": (lambda f: (f / LAST).write_bytes(b"<html>" * 9), f"{LAST}: not a safetensors"),
    "not in the index": (
        lambda f: change_tensors(f / LAST, lambda t: t.update({"more": torch.ones(2)})),
        f"index.json: lacks more, which {LAST} names",
    ),
    "heads": (
        lambda f: change_config(f, num_attention_heads=5),
        "config.json: num_attention_heads: 5 does not divide hidden_size: 32",
    ),
    "shared heads": (
        lambda f: change_config(f, num_key_value_heads=3),
        "config.json: num_key_value_heads: 3 does not divide num_attention_heads: 4",
    ),
    "no size": (lambda f: change_config(f, hidden_size="32"), "hidden_size: '32' is no size"),
    "positions": (
        lambda f: change_config(f, max_position_embeddings=8),
        r"config.json: max_position_embeddings: 8, a sample of m.json has \d+ tokens",
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json: no such file"),
    "another tokenizer": (
        other_tokens,
        r"tokenizer.json: token '.*' has id \w+, in the tokenizer of m.json \w+;",
    ),
    "an adapter": (
        lambda f: (f / "adapter_config.json").write_text("{}"),
        "an adapter alone; merge it",
    ),
    "no config": (
        lambda f: (f / "config.json").unlink(),
        "no config.json, no oryx_vit.pth and 2 safetensors files",
    ),
}


@pytest.mark.parametrize("case", DECODER)
def test_a_decoder_that_does_not_fit_is_refused(built: Path, tmp_path: Path, case: str) -> None:
    manifest = load_manifest(built)
    folder = qwen_folder(tmp_path / "qwen", manifest.tokenizer)
    check_start(config("decoder", folder), manifest, "m.json")
    change, said = DECODER[case]
    change(folder)
    with pytest.raises(UserError, match=said) as raised:
        check_start(config("decoder", folder), manifest, "m.json")
    assert "\n" not in str(raised.value)


def test_fewer_rows_than_tokens_is_an_error(built: Path, tmp_path: Path) -> None:
    manifest = load_manifest(built)
    folder = qwen_folder(tmp_path / "qwen", manifest.tokenizer, vocab_size=260)
    with pytest.raises(UserError, match=r"vocab_size: 260, the tokenizer of m.json has 2[78]\d"):
        check_start(config("decoder", folder), manifest, "m.json")


def test_a_family_without_a_table_is_compared_when_it_is_built(built: Path, tmp_path: Path) -> None:
    manifest = load_manifest(built)
    folder = qwen_folder(tmp_path / "olmo", manifest.tokenizer)
    change_config(folder, model_type="olmo2")
    check_start(config("decoder", folder), manifest, "m.json")
    rules = Rules(view=manifest.view, layout=manifest.layout, codec=manifest.codec)
    with pytest.raises(UserError, match=r"olmo: no tensor .*q_norm.weight; .*config.json wants"):
        build_model(config("decoder", folder), rules)


def siglip2(folder: Path) -> Path:
    return siglip2_folder(folder / "siglip2")


TOWERS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no such place": (lambda f: f / "nothing", "nothing: no such file or folder"),
    "not a tower": (
        lambda f: save_at(f / "a.safetensors", {"x": torch.ones(1)}),
        "a.safetensors holds no vision tower",
    ),
    "26 blocks": (
        lambda f: save_at(f / "a.safetensors", without_block(26)),
        "26 blocks, the published encoder has 27",
    ),
    "lacks a tensor": (
        lambda f: save_at(f / "a.safetensors", without_key("blocks.3.norm2.bias")),
        r"no tensor blocks.3.norm2.bias; .*a.safetensors wants it with shape \[32\]",
    ),
    "unknown": (
        lambda f: save_at(f / "a.safetensors", oryx_weights() | {"head.weight": torch.ones(1)}),
        r"a.safetensors: head.weight \[1\] is unknown",
    ),
    "another encoder": (
        lambda f: siglip2_folder(f / "siglip2", layer_norm_eps=1e-5),
        "layer_norm_eps: 1e-05, the tower computes with 1e-06",
    ),
    "patches": (
        lambda f: siglip2_folder(f / "siglip2", patch_size=14),
        "config.json: patch_size: 14, m.json says 16",
    ),
}


def save_at(path: Path, tensors: dict[str, Tensor]) -> Path:
    save_file(tensors, path)
    return path


def without_block(block: int) -> dict[str, Tensor]:
    return {n: t for n, t in oryx_weights().items() if not n.startswith(f"blocks.{block}.")}


def without_key(key: str) -> dict[str, Tensor]:
    return {n: t for n, t in oryx_weights().items() if n != key}


@pytest.mark.parametrize("case", TOWERS)
def test_a_tower_that_does_not_fit_is_refused(built: Path, tmp_path: Path, case: str) -> None:
    make, said = TOWERS[case]
    with pytest.raises(UserError, match=said):
        check_start(config("tower", make(tmp_path)), load_manifest(built), "m.json")


def test_a_pickle_is_compared_when_it_is_read(built: Path, tmp_path: Path) -> None:
    manifest = load_manifest(built)
    path = oryx_file(tmp_path / "oryx_vit.pth", **{"head.weight": torch.ones(1)})
    check_start(config("tower", path), manifest, "m.json")
    rules = Rules(view=manifest.view, layout=manifest.layout, codec=manifest.codec)
    with pytest.raises(UserError, match=r"oryx_vit.pth: head.weight \[1\] is unknown"):
        build_model(config("tower", path), rules)


def test_a_source_starts_only_what_it_holds(built: Path, tmp_path: Path) -> None:
    manifest = load_manifest(built)
    folder = qwen_folder(tmp_path / "qwen", manifest.tokenizer)
    with pytest.raises(
        UserError, match=r"parts: tower: init: .*qwen is a decoder, which holds no t"
    ):
        check_start(config("tower", folder), manifest, "m.json")


def test_the_heads_of_a_tower_divide_its_width(built: Path) -> None:
    odd = replace(TINY, vision=replace(TINY.vision, num_attention_heads=3))
    with pytest.raises(UserError, match="vision: num_attention_heads: 3 does not divide hidden"):
        check_start(odd, load_manifest(built), "m.json")


@pytest.mark.parametrize(
    ("more", "wrong"),
    [
        ("", "no tensor model.layers.3.input_layernorm.weight"),
        ("layout: {slow_frames: 9}\n", "slow_frames: the config says 9, the manifest"),
        ("schedule: {warmup: 90}\n", "90 steps of warmup"),
    ],
    ids=["weights", "layout", "schedule"],
)
def test_the_command_line_says_so_within_two_cpu_seconds(
    built: Path, tmp_path: Path, more: str, wrong: str
) -> None:
    tokenizer = load_manifest(built).tokenizer
    folder = qwen_folder(tmp_path / "qwen", tokenizer, vocab_size=151_936, shards=4)
    change_config(folder, num_hidden_layers=28)
    text = f"parts: {{decoder: {{init: {folder}}}}}\nstop: {{steps: 60}}\n{more}"
    (tmp_path / "run.yaml").write_text(text)
    words: list[Any] = ["run", tmp_path / "run.yaml", "--manifest", built, "--out", tmp_path / "o"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "train", *map(str, words)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    # what is wrong with the weights is told beside what is wrong with the config
    assert done.returncode == 2 and len(said) == (2 if more else 1), done.stderr[-2000:]
    assert wrong in said[0] and "no tensor model.layers.3" in said[-1]
    assert " torch\n" not in done.stderr and " transformers\n" not in done.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
