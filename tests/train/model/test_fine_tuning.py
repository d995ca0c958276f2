"""The trainers of others train the model, as docs/model.md shows it: its lines are run here."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor

from tests.support.chat.tiny_chat import (
    LAYOUT,
    VIEW,
    asked,
    chat_model,
    chat_processor,
    picture,
)
from train.model import register
from train.model.modeling import SlowFastForConditionalGeneration
from train.model_folder import load_saved

SHOWN = (Path(__file__).parents[3] / "docs/model.md").read_text().partition("### Fine-tuning")[2]
BLOCKS = re.findall(r"```python\n(.*?)```", SHOWN, re.S)[:3]
ANSWER = {"role": "assistant", "content": "seven"}
TALKS = [[*asked({"type": "image", "image": picture()}), ANSWER], [*asked(), ANSWER]] * 5
ROWS = [
    {
        "prompt": [{"role": "user", "content": "which digit is this"}],
        "completion": [ANSWER],
        "images": [picture()],
    }
] * 10
QUICK = "per_device_train_batch_size=2, learning_rate=1e-2, use_cpu=True, report_to=[]"
# warnings of the libraries about themselves, not about what they are given
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A folder to work in, and the names that the page has by then."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ | {"WANDB_MODE": "disabled"})
    register()
    torch.manual_seed(0)
    chat_model().save_pretrained("model")
    chat_processor(tmp_path).save_pretrained("model")
    return {
        "model": AutoModelForImageTextToText.from_pretrained("model"),
        "processor": AutoProcessor.from_pretrained("model"),
        "talks": TALKS,
        "rows": ROWS,
    }


def loss_of(model: SlowFastForConditionalGeneration, world: dict[str, Any]) -> float:
    batch = world["processor"].apply_chat_template(
        TALKS[:2], tokenize=True, return_assistant_tokens_mask=True
    )
    taught = batch.pop("assistant_masks") == 1
    with torch.no_grad():
        loss = model.eval()(**batch, labels=batch["input_ids"].masked_fill(~taught, -100)).loss
    return float(loss)


def run(block: str, world: dict[str, Any]) -> None:
    assert len([line for line in block.splitlines() if line.strip()]) <= 10
    quick = block.replace("max_steps=5", f"max_steps=5, {QUICK}")
    exec(compile(quick, "docs/model.md", "exec"), world)


def test_the_trainer_of_transformers_trains_it(world: dict[str, Any]) -> None:
    before = loss_of(world["model"], world)
    run(BLOCKS[0], world)
    assert loss_of(world["model"], world) < before - 0.5


def test_trl_trains_it(world: dict[str, Any]) -> None:
    pytest.importorskip("trl")
    before = loss_of(world["model"], world)
    run(BLOCKS[1], world)
    assert loss_of(world["model"], world) < before - 0.5


def test_a_low_rank_adapter_is_trained_merged_and_loaded(world: dict[str, Any]) -> None:
    pytest.importorskip("peft")
    run(BLOCKS[0].rpartition("Trainer(")[0], world)
    before = loss_of(world["model"], world)
    run(BLOCKS[2], world)
    loaded = AutoModel.from_pretrained("runs/demo/tuned")
    assert isinstance(loaded, SlowFastForConditionalGeneration)
    merged = loss_of(world["merged"], world)
    assert merged < before
    assert loss_of(loaded, world) == pytest.approx(merged, rel=1e-4)
    ours = load_saved(Path("runs/demo/tuned"))  # as chat and evaluate do
    pairs = zip(ours.model.parameters(), loaded.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert (ours.rules.view, ours.rules.layout) == (VIEW, LAYOUT)


def test_an_accelerate_loop_trains_it(world: dict[str, Any]) -> None:
    accelerate = pytest.importorskip("accelerate")
    run(BLOCKS[0].partition("options =")[0], world)
    before = loss_of(world["model"], world)
    accelerator = accelerate.Accelerator(cpu=True)
    loader = torch.utils.data.DataLoader(TALKS, batch_size=2, collate_fn=world["collate"])
    optimizer = torch.optim.AdamW(world["model"].parameters(), lr=1e-2)
    model, optimizer, loader = accelerator.prepare(world["model"].train(), optimizer, loader)
    for _, batch in zip(range(5), loader, strict=False):
        accelerator.backward(model(**batch).loss)
        optimizer.step()
        optimizer.zero_grad()
    assert loss_of(accelerator.unwrap_model(model), world) < before - 0.5
