"""`from_pretrained`: types of parts, quantisation, devices, and folders that are checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText

from shards.errors import UserError
from tests.support.chat.tiny_chat import (
    asked,
    chat_model,
    chat_processor,
    frames,
    inputs_of,
    picture,
)
from train.model import register

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
