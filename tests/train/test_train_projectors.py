"""Every projector trains on a manifest of its own arrangement, and its folder answers questions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from mixtures.recipe.load import load_recipe
from shards.errors import UserError
from tests.support.chat.one_question import chat
from tests.support.tiny_pool import COLOURS, QUESTIONS, tiny_manifest
from tests.support.tiny_run import TINY
from train.config import Stop, load_config
from train.loop import run
from train.model import register
from train.model.projectors import ARRANGEMENTS, PROJECTORS
from train.model_folder import load_saved

ROOT = Path(__file__).parents[2]
MORE = {
    "gsf": "none",
    "isf": "per_frame_text, arrangement: isf",
    "v1": "none, arrangement: v1, fast_mode: tokens, fast_stride: 2",
    "queries": "sentence, arrangement: queries, queries: 4",
}
"""Per arrangement, what stands behind `timestamps:` in the layout of the tiny recipe."""


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {name: tmp_path_factory.mktemp(name) for name in MORE}
    return {name: tiny_manifest(at, timestamps=MORE[name]) for name, at in folders.items()}


@pytest.mark.parametrize("name", PROJECTORS)
def test_a_projector_trains_and_is_saved(
    name: str, manifests: dict[str, Path], tmp_path: Path
) -> None:
    manifest = manifests[ARRANGEMENTS.get(name, "gsf")]
    config = replace(TINY, projector=name, stop=Stop(steps=6), save_every=6)
    run(config, manifest, str(manifest.parent.parent / "pool"), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < rows[0]["loss"]
    saved = load_saved(tmp_path / "model").model
    assert saved.config.projector == name
    assert all(torch.isfinite(p).all() for p in saved.parameters())


def test_transformers_alone_answers_as_chat_does(
    manifests: dict[str, Path], tmp_path: Path
) -> None:
    manifest = manifests["gsf"]
    run(replace(TINY, stop=Stop(steps=6)), manifest, str(manifest.parent.parent / "pool"), tmp_path)
    picture = tmp_path / "red.png"
    Image.new("RGB", (80, 70), COLOURS["red"]).save(picture)
    register()
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "model").eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "model")
    question = {"type": "text", "text": QUESTIONS[0]}
    content = [{"type": "image", "image": str(picture)}, question]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=True, add_generation_prompt=True
    )
    ids = model.generate(**inputs, max_new_tokens=256, do_sample=False)
    said = processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert said.strip() == chat(tmp_path / "model", "image", picture, QUESTIONS[0]).answer


def test_memory_trains(tmp_path: Path) -> None:
    manifest = tiny_manifest(tmp_path, timestamps="none, memory_tokens: 3")
    run(replace(TINY, stop=Stop(steps=4)), manifest, str(tmp_path / "pool"), tmp_path / "out")
    assert load_saved(tmp_path / "out" / "model").model.memory is not None


def test_a_projector_of_another_arrangement_is_refused(
    manifests: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="plan a manifest with `arrangement: isf`"):
        run(
            replace(TINY, projector="isf"),
            manifests["gsf"],
            str(manifests["gsf"].parent.parent / "pool"),
            tmp_path,
        )


def test_every_projector_has_one_config_on_the_demo_and_a_recipe_that_fits() -> None:
    configs = {path.stem: load_config(path) for path in (ROOT / "train/configs").glob("demo_*")}
    assert {config.projector for config in configs.values()} == set(PROJECTORS)
    for name, config in configs.items():
        command = (ROOT / f"train/configs/{name}.yaml").read_text()
        recipe = next((w for w in command.split() if w.startswith("mixtures/")), None)
        if recipe is not None:
            arrangement = load_recipe(ROOT / recipe).layout.arrangement
            assert arrangement == ARRANGEMENTS.get(config.projector, "gsf"), name
