"""From published weights to answers: assemble, stage one with a frozen tower, stage two, chat."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, AutoProcessor

from mixtures.manifest.files import load_manifest
from shards.errors import UserError
from tests.support.chat.one_question import chat
from tests.support.fake_hub import COMMIT, REPO, serve
from tests.support.published.made_weights import oryx_file, oryx_weights, qwen_folder
from tests.support.tiny_pool import tiny_manifest
from tests.support.tiny_run import metrics, pool_of
from train.assemble import assemble
from train.config import load_config
from train.loop import run
from train.model import register
from train.model.modeling import SlowFastForConditionalGeneration
from train.model_folder import load_saved
from train.weights.convert import from_oryx

torch.set_num_threads(1)
STAGE = """
parts:
  tower: {{init: {start}, train: {tuned}}}
  projector: {{init: {start}, lr: 2e-3}}
  decoder: {{init: {start}, lr: 1e-3}}
schedule: {{warmup: 2}}
stop: {{steps: 4}}
save_every: 4
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`build/manifest.json` and its pool, `qwen`, `oryx/oryx_vit.pth`, and `start` made of them."""
    folder = tmp_path_factory.mktemp("world")
    manifest = tiny_manifest(folder)
    qwen_folder(folder / "qwen", load_manifest(manifest).tokenizer)
    oryx_file(folder / "oryx" / "oryx_vit.pth")
    recipe = folder / "recipe.yaml"
    assemble(str(folder / "qwen"), str(folder / "oryx"), recipe, folder / "start")
    return folder


@torch.no_grad()
def test_a_start_model_is_its_decoder_and_its_tower(world: Path) -> None:
    model = SlowFastForConditionalGeneration.from_pretrained(world / "start").eval()
    own = AutoModelForCausalLM.from_pretrained(world / "qwen").eval()
    assert model.dtype == own.dtype == torch.bfloat16
    ids = torch.arange(40).reshape(2, 20) + 100
    assert torch.equal(model(input_ids=ids).logits, own(input_ids=ids).logits)
    whole = SlowFastForConditionalGeneration.from_pretrained(world / "start", dtype=torch.float32)
    expected = from_oryx(oryx_weights())
    found = whole.vision_tower.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_start_model_is_a_model_folder_for_transformers_too(world: Path) -> None:
    register()
    processor = AutoProcessor.from_pretrained(world / "start")
    saved = load_saved(world / "start")
    assert processor.rules.layout == saved.rules.layout and saved.manifest_id == ""
    manifest = load_manifest(world / "build" / "manifest.json")
    assert saved.rules.view == manifest.view
    assert saved.rules.codec.tokenizer_sha256 == manifest.codec.tokenizer_sha256


def test_large_weights_become_several_files(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.weights.model_shards.SHARD_BYTES", 1 << 20)
    words = (str(world / "qwen"), str(world / "oryx"), world / "recipe.yaml")
    count = assemble(*words, tmp_path / "start")
    assert len(list((tmp_path / "start").glob("*.safetensors"))) > 2
    one, several = (
        SlowFastForConditionalGeneration.from_pretrained(folder / "start", dtype=torch.float32)
        for folder in (world, tmp_path)
    )
    assert count == sum(p.numel() for p in several.parameters())
    pairs = zip(one.state_dict().items(), several.state_dict().items(), strict=True)
    assert all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in pairs)
    with pytest.raises(UserError, match="start: is there already; give another --out"):
        assemble(*words, tmp_path / "start")


def test_from_published_weights_through_both_stages_to_an_answer(
    world: Path, tmp_path: Path
) -> None:
    manifest = world / "build" / "manifest.json"
    start = world / "start"
    for number, tuned in ((1, "false"), (2, "true")):
        out = tmp_path / f"stage{number}"
        (tmp_path / "run.yaml").write_text(STAGE.format(start=start, tuned=tuned))
        run(load_config(tmp_path / "run.yaml"), manifest, pool_of(manifest), out)
        start = out / "model"
    losses = [row["loss"] for n in (1, 2) for row in metrics(tmp_path / f"stage{n}")]
    assert losses[4] < losses[0]  # stage two goes on from what stage one learned
    towers = [
        SlowFastForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        for folder in (world / "start", tmp_path / "stage1/model", tmp_path / "stage2/model")
    ]
    first, frozen, tuned_one = (each.vision_tower.state_dict() for each in towers)
    assert all(torch.equal(frozen[name], first[name]) for name in first)
    assert not torch.equal(tuned_one["layers.0.mlp.fc1.weight"], first["layers.0.mlp.fc1.weight"])
    assert towers[2].config.text_config.rope_parameters["rope_theta"] == 1e6
    picture = tmp_path / "red.png"
    Image.fromarray(np.full((64, 64, 3), (220, 30, 30), np.uint8)).save(picture)
    for model in (world / "start", tmp_path / "stage2/model"):
        assert chat(model, "image", picture, "Which colour?").looked[0].size == (64, 64)


def test_weights_come_from_the_hub_at_a_commit(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {path.name: path.read_bytes() for path in (world / "qwen").iterdir()}
    files |= {"README.md": b"#", "original/consolidated.pth": b"other"}
    monkeypatch.setenv("SLOWFAST_CACHE", str(tmp_path / "cache"))
    with serve(files) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        words = (str(world / "oryx"), world / "recipe.yaml")
        assemble(f"hf://{REPO}@{COMMIT}", *words, tmp_path / "start")
        asked = set(server.calls)
    fetched = {path.rpartition("/")[2] for path in asked if "/resolve/" in path}
    assert fetched == {path.name for path in (world / "qwen").iterdir()}
    for name in ("model.safetensors", "config.json"):
        there, here = (folder / "start" / name for folder in (tmp_path, world))
        assert there.read_bytes() == here.read_bytes()
    # fetched once: the hub is gone now
    assemble(f"hf://{REPO}@{COMMIT}", *words, tmp_path / "again")
    with pytest.raises(UserError, match="all 40 digits of the commit; a branch moves"):
        assemble(f"hf://{REPO}@main", *words, tmp_path / "other")
