"""torch.compile and torch.export: what is traced computes what runs without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from shards.errors import UserError
from tests.support.chat.tiny_chat import (
    END,
    MARKS,
    asked,
    by_hand,
    chat_model,
    chat_processor,
    frames,
    inputs_of,
    picture,
)
from tests.support.tiny_model import tiny_model
from tests.train.model.test_memory import MEMORY
from train.model.calls.exported import export_parts
from train.model.inputs import VISUAL_INPUTS, VisualArguments

TALK = asked(
    {"type": "video", "video": frames(), "seconds": [*range(6)]},
    {"type": "image", "image": picture()},
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return dict(inputs_of(chat_processor(tmp_path_factory.mktemp("tokenizer")), TALK))


def longer(inputs: dict[str, Any], count: int = 9) -> dict[str, Any]:
    """The same media, and more text behind them."""
    ids = torch.cat([inputs["input_ids"], torch.arange(40, 40 + count)[None]], 1)
    return inputs | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@torch.no_grad()
def test_a_compiled_model_breaks_its_graph_at_the_plan_alone(inputs: dict[str, Any]) -> None:
    torch._dynamo.reset()
    model, graphs = chat_model(), []

    def keep(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model, backend=keep)
    for given in (inputs, inputs | {"patches": 255 - inputs["patches"]}):
        assert torch.equal(compiled(**given).logits, model(**given).logits)
    names = [[node.name for node in g.graph.nodes if node.op == "placeholder"] for g in graphs]
    of_decoder = [[n for n in each if "language_model" in n and "layers" in n] for each in names]
    # one graph in front of the plan, one behind it: tower, projector and the whole decoder
    layers = len(list(model.language_model.model.layers.parameters()))
    assert [len(each) for each in of_decoder] in ([layers], [0, layers])


@torch.no_grad()
def test_exported_parts_are_the_model(inputs: dict[str, Any]) -> None:
    model = chat_model()
    tower, projector, decoder = (p.module() for p in export_parts(model, inputs))
    other = inputs | {"patches": 255 - inputs["patches"], "seconds": inputs["seconds"] + 1}
    for given in (inputs, other, longer(inputs)):
        rows = projector(tower(given["patches"]), given["seconds"])
        logits = decoder(given["input_ids"], rows, given["attention_mask"])
        assert torch.equal(logits, model(**given).logits)


@torch.no_grad()
def test_the_decoder_alone_answers_from_rows_that_tower_and_projector_made(
    inputs: dict[str, Any], tmp_path: Path
) -> None:
    model = chat_model()
    model.language_model.save_pretrained(tmp_path)
    decoder = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(decoder).__name__ == "Qwen2ForCausalLM"
    shown = VisualArguments(*(inputs.get(name) for name in VISUAL_INPUTS))
    rows = model.prompt_rows(inputs["input_ids"], shown)
    options: Any = {"max_new_tokens": 4, "do_sample": False, "suppress_tokens": MARKS}
    said = decoder.generate(inputs_embeds=rows, eos_token_id=None, pad_token_id=END, **options)
    assert said[0].tolist() == by_hand(model, inputs, 4)


def test_what_cannot_be_exported_is_said(inputs: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="memory_tokens"):
        export_parts(tiny_model(layout=MEMORY), inputs)
    text = {name: inputs[name] * 0 + 40 for name in ("input_ids", "attention_mask")}
    with pytest.raises(UserError, match="show nothing"):
        export_parts(chat_model(), text)
