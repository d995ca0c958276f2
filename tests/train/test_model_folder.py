"""Model folders: what another version wrote is refused by name, whoever opens it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from shards.errors import UserError
from shards.profile import Profile
from train.named_files import a_model
from train.weights.folder_json import SCHEMA, read_description


def test_what_transformers_saved_with_its_processor_is_a_model_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a model folder"):
        a_model(tmp_path)
    for name in ("processor_config.json", "config.json"):
        (tmp_path / name).write_text("{}")
    a_model(tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"schema": "slowfast-mix/model/0"}, "data.json: schema 'slowfast-mix/model/0'.*train it"),
        ({"profile": asdict(Profile()) | {"door": "media-door/2"}}, "kept by media-door/2.*anew"),
    ],
)
def test_a_model_of_before_is_refused_as_a_start_too(
    tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    about = {"schema": SCHEMA, "profile": asdict(Profile()), "tokenizer_sha256": ""} | changed
    (tmp_path / "data.json").write_text(json.dumps(about))
    (tmp_path / "tokenizer.json").write_bytes(b"")
    with pytest.raises(UserError, match=message):
        read_description(tmp_path)
