"""The model folder: what evaluation and chat load, and the next stage starts from.

config.json, model.safetensors, generation_config.json    transformers' save_pretrained
processor_config.json, chat_template.jinja, ...            the processor, for transformers
tokenizer.json                                             the manifest's tokenizer, its bytes
data.json                                                  manifest id, layout, view, profile,
                                                           and the sha256 of every other file
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mixtures.manifest.manifest import Manifest
from mixtures.tokens.layout_types import LayoutConfig, View
from mixtures.tokens.text import IM_END, IMAGE_PAD, VIDEO_PAD, VISION_END, VISION_START, TextCodec
from shards.errors import UserError, opening
from shards.ids import sha256_file
from shards.profile import Profile
from train.config import Config
from train.data.render import Rules
from train.engine.interface import Engine, whole_shape
from train.engine.placement import put, unfilled
from train.json_files import write_json
from train.model.config import SlowFastConfig
from train.model.finite import check_finite
from train.model.modeling import SlowFastForConditionalGeneration
from train.model.processing import processor_of
from train.weights.fill import fill
from train.weights.folder_json import (
    DESCRIPTION,
    SCHEMA,
    read_description,
    read_model_config,
)
from train.weights.packed_check import check_packed
from train.weights.start import (
    Sources,
    files_of,
    open_sources,
    text_of,
    vision_of,
    wrong_tokens,
    wrong_tower,
)
from train.weights.stream import with_names
from train.weights.tensor_files import checked, stored_in_folder

NEVER_SAID = (VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A model folder, loaded."""

    model: SlowFastForConditionalGeneration
    rules: Rules
    profile: Profile
    manifest_id: str


def build_model(config: Config, rules: Rules) -> SlowFastForConditionalGeneration:
    """The config's model with its weights, each part's from its source or drawn anew.

    Every parameter lies where the config's engine keeps it, and is read by itself: no process holds
    a second copy. UserError where the weights do not fit the config or the tokenizer, or where the
    decoder is of a kind that packs would train wrongly.
    """
    named = open_sources(config.parts)
    sources = {part: with_names(source) for part, source in named.items()}
    wanted = model_config(config, rules, sources)
    check_packed(wanted.text_config.to_dict())
    with unfilled(config), opening(files_of(sources)):
        model = SlowFastForConditionalGeneration(wanted)
        model.tie_weights()
    parameters = dict(model.named_parameters())
    shapes = {name: tuple(whole_shape(p)) for name, p in parameters.items()}
    fill(model, config.parts, sources, shapes, lambda name, value: put(parameters[name], value))
    model.generation_config.update(**generation_values(wanted, rules.codec))
    return model


def generation_values(config: SlowFastConfig, codec: TextCodec) -> dict[str, Any]:
    """What ends an answer, and what no answer may hold."""
    end = codec.token_id(IM_END)
    return {
        "eos_token_id": end,
        "pad_token_id": end,
        "suppress_tokens": config.never_generated(),
    }


def model_config(config: Config, rules: Rules, sources: Sources) -> SlowFastConfig:
    """The values of the sources, sizes of the config for parts that are drawn anew, and the
    manifest's layout and tokens."""
    codec = rules.codec
    if "decoder" in sources:
        for line in wrong_tokens(sources["decoder"], codec, "the manifest"):
            raise UserError(line)
    vision = vision_of(config, sources)
    for line in wrong_tower(vision, sources.get("tower"), rules.layout.patch, "the manifest"):
        raise UserError(line)
    text = text_of(config, sources, codec.vocab_size)
    with opening(files_of(sources)):
        return SlowFastConfig(
            vision_config=vision,
            text_config=text,
            layout=asdict(rules.layout),
            projector=config.projector,
            pool_before_projection=config.pool_before_projection,
            packed_attention=config.packed_attention,
            visual_token_ids=[codec.token_id(name) for name in NEVER_SAID],
            token_count=codec.vocab_size,
        )


def export(engine: Engine, manifest: Manifest, rules: Rules, folder: Path) -> None:
    """Write the model folder in one step; every rank calls, the first one writes."""
    weights = engine.weights()
    check_finite(weights.items(), f"{folder}: not written")
    if engine.rank == 0:
        temporary = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        engine.model.save_pretrained(temporary, state_dict=weights)
        profile = manifest.contents.profile
        about = Description(rules=rules, profile=profile, manifest_id=manifest.manifest_id)
        describe(temporary, manifest.tokenizer, about)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    engine.barrier()


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a model folder says besides its weights: how media and text are shown to the model.

    `manifest_id` is "" for a model that was assembled and never trained.
    """

    rules: Rules
    profile: Profile
    manifest_id: str


def describe(folder: Path, tokenizer: bytes, about: Description) -> None:
    """Write tokenizer, processor and data.json beside a model's weights; data.json comes last and
    holds the sha256 of every other file."""
    rules = about.rules
    (folder / "tokenizer.json").write_bytes(tokenizer)
    processor_of(rules, about.profile, str(folder / "tokenizer.json")).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(tokenizer)  # the manifest's own bytes
    value = {
        "schema": SCHEMA,
        "manifest_id": about.manifest_id,
        "layout": asdict(rules.layout),
        "frames": asdict(rules.view),
        "template": rules.codec.template,
        "tokenizer_sha256": rules.codec.tokenizer_sha256,
        "profile": about.profile.to_json(),
        "files": {path.name: sha256_file(path) for path in sorted(folder.iterdir())},
    }
    write_json(folder / DESCRIPTION, value)


def load_saved(folder: Path) -> Saved:
    """Everything in a model folder, each file's bytes checked; UserError if it is none, or not of
    this version, DamagedData names a file that is not as it was written."""
    about = read_description(folder)
    for name, digest in about["files"].items():
        checked(folder / name, digest)
    tokenizer = (folder / "tokenizer.json").read_bytes()
    codec = TextCodec(tokenizer, about["template"], str(folder / "tokenizer.json"))
    read_model_config(folder)
    stored_in_folder(folder)
    with opening(str(folder)):
        view, layout = View(**about["frames"]), LayoutConfig(**about["layout"])
        model = SlowFastForConditionalGeneration.from_pretrained(folder, use_safetensors=True)
    check_finite(model.named_parameters(), str(folder))
    return Saved(
        model=model,
        rules=Rules(view=view, layout=layout, codec=codec),
        profile=Profile.from_json(about["profile"], str(folder / DESCRIPTION)),
        manifest_id=about["manifest_id"],
    )
