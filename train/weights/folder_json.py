"""What the JSON files of a model folder may say: values of a model, never code, nor a kernel.

A folder's own digests say that it is as it was written, not that whoever wrote it is trusted.
transformers takes from a config.json which attention to run (a kernel that it would fetch and run,
if it is named so) and which classes to import; so what may stand there is a list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from shards.errors import UserError
from shards.profile import Profile
from train.weights.tensor_files import read_json

DESCRIPTION = "data.json"
SCHEMA = "slowfast-mix/model/2"
ATTENTIONS = ("eager", "sdpa", "sdpa_blocks", "flex", "varlen", "auto")
"""Those of transformers that need no kernel from elsewhere, and ours (train.model.attention)."""
_ATTENTION_KEYS = (
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_internal",
    "packed_attention",
)
MOST_LAYERS = 4096
"""Above the largest model there is: layers are listed and built one by one before any is read."""
_RUNNING = frozenset(
    "auto_map custom_pipelines custom_generate experts_implementation _experts_implementation "
    "_experts_implementation_internal hub_kernels kernel_config quantization_config "
    "use_kernels".split()
)
"""Keys that make transformers import, fetch or build something else than the model."""
OURS = frozenset(
    "architectures dtype layout model_type packed_attention pool_before_projection projector "
    "text_config tie_word_embeddings token_count torch_dtype transformers_version use_cache "
    "vision_config visual_token_ids".split()
)
"""Every key of the config.json of a model folder of ours."""
TOWERS = frozenset(
    "activation antialias architectures dtype final_norm hidden_size intermediate_size model_type "
    "num_attention_heads num_hidden_layers patch_order patch_size position_grid torch_dtype".split()
)
"""Every key of its `vision_config`."""
_SAID: dict[str, type] = {
    "schema": str,
    "manifest_id": str,
    "layout": dict,
    "frames": dict,
    "template": str,
    "tokenizer_sha256": str,
    "profile": dict,
    "files": dict,
}
"""Every key of data.json."""


def read_model_config(folder: Path) -> dict[str, Any]:
    """A folder's config.json; UserError names the file and the first thing it may not say."""
    # a decoder's config has keys of its family, which transformers knows; ours are all known here
    path = folder / "config.json"
    config = read_json(path)
    ours = config.get("model_type") == "slowfast"
    for wrong in (*_runs(config), *(_unknown(config) if ours else ())):
        raise UserError(f"{path}: {wrong}; fetch or export the folder again, or use another")
    return config


def _runs(config: Mapping[str, Any], within: str = "") -> Iterator[str]:
    """What of a config, and of those inside it, would run something else than the model, or
    without end."""
    for key, value in config.items():
        if key in _RUNNING:
            yield f"{within}{key}: names something to run beside the model, which nothing here does"
        # a name with a slash is a repository of kernels to transformers
        elif key in _ATTENTION_KEYS:
            for one in value.values() if isinstance(value, dict) else [value]:
                if one is not None and one not in ATTENTIONS:
                    yield f"{within}{key}: {str(one)[:80]!r} is none of {', '.join(ATTENTIONS)}"
        # bool is an int, and `use_layer_norm: true` is no number of layers
        elif "layer" in key and type(value) is int and value > MOST_LAYERS:
            yield f"{within}{key}: {value} are more than {MOST_LAYERS}"
        elif isinstance(value, dict):
            yield from _runs(value, f"{within}{key}: ")


def _unknown(config: Mapping[str, Any]) -> Iterator[str]:
    """Keys that no version of ours wrote, and parts that are none."""
    for name in ("vision_config", "text_config"):
        if not isinstance(config.get(name), dict):
            yield f"{name}: not an object"
            return
    yield from (f"unknown key {key!r}" for key in config if key not in OURS)
    # `text_config` is of the decoder's family: `check_packed` judges what it does
    vision = config["vision_config"]
    yield from (f"vision_config: unknown key {key!r}" for key in vision if key not in TOWERS)


def read_description(folder: Path) -> dict[str, Any]:
    """The data.json of a model folder of ours; UserError if it is none, or not of this version."""
    path = folder / DESCRIPTION
    if not path.is_file():
        raise UserError(f"{folder}: not a model folder (no {DESCRIPTION}); give OUT/model of a run")
    about = read_json(path)
    # the version first: of another one nothing else can be said
    if about.get("schema") != SCHEMA:
        raise UserError(
            f"{path}: schema {str(about.get('schema'))[:80]!r}, this version reads {SCHEMA!r}; "
            "train it anew"
        )
    if isinstance(about.get("profile"), dict):
        Profile.from_json(about["profile"], str(path))
    for wrong in _misdescribed(about):
        raise UserError(f"{path}: {wrong}; fetch or export the folder again")
    return about


def _misdescribed(about: Mapping[str, Any]) -> Iterator[str]:
    """Keys that are missing or unknown, values of another type, files that lie elsewhere."""
    yield from (f"unknown key {key!r}" for key in about if key not in _SAID)
    for key, kind in _SAID.items():
        if not isinstance(about.get(key), kind):
            yield f"{key}: missing, or not what it should be"
            return
    # a name with a folder in it could point out of this one
    for name, digest in about["files"].items():
        if PurePosixPath(name).name != name or not isinstance(digest, str):
            yield f"files: {name[:80]!r} is no file of this folder with its sha256"
