"""The model folder: what evaluation and chat load, and the next stage starts from.

config.json, model.safetensors, generation_config.json    transformers' save_pretrained
processor_config.json, chat_template.jinja, ...            the processor, for transformers
tokenizer.json                                             the manifest's tokenizer, its bytes
data.json                                                  manifest id, layout, view, profile
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mixtures.manifest.manifest import Manifest
from mixtures.tokens.layout_types import LayoutConfig, View
from mixtures.tokens.text import IM_END, IMAGE_PAD, VIDEO_PAD, VISION_END, VISION_START, TextCodec
from shards.errors import UserError
from shards.ids import sha256_file
from shards.profile import Profile
from train.config import Config, RandomInit
from train.data.render import Rules
from train.engine.interface import Engine
from train.json_files import write_json
from train.model.config import SlowFastConfig
from train.model.finite import check_finite
from train.model.modeling import SlowFastForConditionalGeneration
from train.model.processing import processor_of

NEVER_SAID = (VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD)
SCHEMA = "slowfast-mix/model/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A model folder, loaded."""

    model: SlowFastForConditionalGeneration
    rules: Rules
    profile: Profile
    manifest_id: str


def build_model(config: Config, rules: Rules) -> SlowFastForConditionalGeneration:
    """The config's model: fresh weights by a seed, or those of a folder."""
    init = config.parts.decoder.init
    torch.manual_seed(init.seed if isinstance(init, RandomInit) else 0)
    wanted = model_config(config, rules)
    model = SlowFastForConditionalGeneration(wanted)
    end = rules.codec.token_id(IM_END)
    model.generation_config.update(
        eos_token_id=end, pad_token_id=end, suppress_tokens=wanted.visual_token_ids
    )
    if isinstance(init, str):
        _take_weights(model, Path(init), rules)
    return model


def model_config(config: Config, rules: Rules) -> SlowFastConfig:
    """Sizes from the config, vocabulary and layout from the manifest."""
    return SlowFastConfig(
        vision_config=asdict(config.vision),
        text_config={
            "model_type": "qwen2",
            "vocab_size": rules.codec.vocab_size,
            **asdict(config.text),
        },
        layout=asdict(rules.layout),
        projector=config.projector,
        pool_before_projection=config.pool_before_projection,
        packed_attention=config.packed_attention,
        visual_token_ids=[rules.codec.token_id(name) for name in NEVER_SAID],
    )


def export(engine: Engine, manifest: Manifest, rules: Rules, folder: Path) -> None:
    """Write the model folder in one step; every rank calls, the first one writes."""
    weights = engine.weights()
    check_finite(weights.items(), f"{folder}: not written")
    if engine.rank == 0:
        temporary = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        engine.model.save_pretrained(temporary, state_dict=weights)
        tokenizer = manifest.tokenizer
        (temporary / "tokenizer.json").write_bytes(tokenizer)
        profile = Profile.from_json(manifest.value["profile"], "the manifest's profile")
        made = processor_of(rules, profile, str(temporary / "tokenizer.json"))
        made.save_pretrained(temporary)
        (temporary / "tokenizer.json").write_bytes(tokenizer)  # the manifest's own bytes
        write_json(temporary / "data.json", _description(manifest, rules))
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    engine.barrier()


def _description(manifest: Manifest, rules: Rules) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "manifest_id": manifest.manifest_id,
        "layout": asdict(rules.layout),
        "frames": asdict(rules.view),
        "template": rules.codec.template,
        "tokenizer_sha256": rules.codec.tokenizer_sha256,
        "profile": manifest.value["profile"],
    }


def load_saved(folder: Path) -> Saved:
    """Everything in a model folder; UserError if it is none, or not of this version."""
    about = _read_description(folder)
    tokenizer = (folder / "tokenizer.json").read_bytes()
    codec = TextCodec(tokenizer, about["template"], str(folder / "tokenizer.json"))
    model = SlowFastForConditionalGeneration.from_pretrained(folder)
    check_finite(model.named_parameters(), str(folder))
    return Saved(
        model=model,
        rules=Rules(
            view=View(**about["frames"]), layout=LayoutConfig(**about["layout"]), codec=codec
        ),
        profile=Profile.from_json(about["profile"], str(folder / "data.json")),
        manifest_id=about["manifest_id"],
    )


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / "data.json"
    if not path.is_file():
        raise UserError(f"{folder}: not a model folder (no data.json); give OUT/model of a run")
    about: dict[str, Any] = json.loads(path.read_text())
    if about.get("schema") != SCHEMA:
        raise UserError(
            f"{path}: schema {about.get('schema')!r}, this version reads {SCHEMA!r}; train it anew"
        )
    Profile.from_json(about["profile"], str(path))
    if sha256_file(folder / "tokenizer.json") != about["tokenizer_sha256"]:
        raise UserError(f"{folder / 'tokenizer.json'}: not the model's tokenizer; export it again")
    return about


def _take_weights(model: SlowFastForConditionalGeneration, folder: Path, rules: Rules) -> None:
    about = _read_description(folder)
    if about["tokenizer_sha256"] != rules.codec.tokenizer_sha256:
        raise UserError(
            f"init: {folder} was trained with tokenizer {about['tokenizer_sha256'][:12]}, the "
            f"manifest names {rules.codec.tokenizer_sha256[:12]}; plan both with one tokenizer"
        )
    source = SlowFastForConditionalGeneration.from_pretrained(folder)
    check_finite(source.named_parameters(), f"init: {folder}")
    own, given = dict(model.named_parameters()), dict(source.named_parameters())
    for name in own.keys() | given.keys():
        shapes = [tuple(w[name].shape) if name in w else None for w in (own, given)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"init: {folder} has {name} of shape {shapes[1]}, the config wants "
                f"{shapes[0]}; use the sizes of its config"
            )
    model.load_state_dict(source.state_dict())
