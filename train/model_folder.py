"""The model folder: what evaluation and chat load, and the next stage starts from.

config.json, model.safetensors, generation_config.json    as transformers' save_pretrained has them
manifest.json, README.md                                   what it was trained over; the model card
processor_config.json, chat_template.jinja, ...            the processor, for transformers
tokenizer.json                                             the manifest's tokenizer, its bytes
data.json                                                  manifest id, layout, view, profile,
                                                           and the sha256 of every other file
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor
from torch.nn import Parameter
from transformers import PreTrainedModel

from mixtures.manifest.files import MANIFEST
from mixtures.manifest.manifest import Manifest
from mixtures.tokens.layout_types import LayoutConfig, View
from mixtures.tokens.text import IM_END, IMAGE_PAD, VIDEO_PAD, VISION_END, VISION_START, TextCodec
from shards.errors import UserError, opening
from shards.ids import canonical_json, sha256_file, short_hash
from shards.profile import Profile
from train.config import PARTS, Config
from train.data.feature_cache import FeatureCache, told
from train.data.render import Rules
from train.engine.adapters import add_adapters, draw_adapters
from train.engine.interface import whole_shape
from train.engine.placement import put, unfilled
from train.json_files import write_json
from train.model.calls.loading import check_whole
from train.model.config import SlowFastConfig
from train.model.finite import check_finite
from train.model.modeling import SlowFastForConditionalGeneration
from train.model.processing import SlowFastProcessor, processor_of
from train.weights.fill import fill
from train.weights.folder_json import (
    DESCRIPTION,
    SCHEMA,
    read_description,
    read_model_config,
)
from train.weights.packed_check import check_packed
from train.weights.source import SLOWFAST
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


def build_model(
    config: Config, rules: Rules, saved: Path | None = None
) -> SlowFastForConditionalGeneration:
    """The config's model with its weights, each part's from its source or drawn anew.

    Every parameter lies where the config's engine keeps it, and is read by itself: no process holds
    a second copy. `saved` is what a checkpoint says of its model: its values are taken from there,
    only parts that are not trained get their weights here, and nothing else is opened. UserError
    where the weights do not fit the config or the tokenizer, or where the decoder is of a kind that
    packs would train wrongly.
    """
    # of a resumed run, only weights that checkpoints do not hold are looked for
    parts = [part for part in PARTS if saved is None or not getattr(config.parts, part).trains_own]
    named = open_sources(config.parts, parts)
    sources = {part: with_names(source) for part, source in named.items()}
    if saved is None:
        wanted = model_config(config, rules, sources)
    else:
        wanted = SlowFastConfig.from_pretrained(saved, packed_attention=config.packed_attention)
    check_packed(wanted.text_config.to_dict())
    # parameters lie where the engine wants them (under ZeRO-3 a slice each), without values yet
    with unfilled(config), opening(files_of(sources)):
        model = SlowFastForConditionalGeneration(wanted)
        model.tie_weights()
    parameters = dict(model.named_parameters())
    shapes = {name: tuple(whole_shape(p)) for name, p in parameters.items()}
    own = partial(_put_own, parameters)
    fill(model, config.parts, sources, shapes, own, parts)
    # after `fill`: peft renames the layers that it wraps
    add_adapters(model, config.parts)
    draw_adapters(model, config.parts)
    # set on the model, so that `generate` ends a turn as training data does
    model.generation_config.update(**generation_values(wanted, rules.codec))
    return model


def keep_features(
    model: SlowFastForConditionalGeneration, config: Config, manifest: Manifest, weights: str
) -> str:
    """Have a model keep the features of its frozen tower on disk; how large they can get.

    `weights` is the digest of the tower's.
    """
    vision = model.config.vision_config
    tower = short_hash([weights, repr(sorted(vision.to_dict().items()))])
    cache = FeatureCache(Path(config.feature_cache), tower, config.precision)
    model.vision_tower.feature_cache = cache
    return told(config.feature_cache, manifest, vision.hidden_size, config.precision)


def _put_own(parameters: Mapping[str, Parameter], name: str, value: Tensor) -> None:
    put(parameters[name], value)


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
    # a token that means another word to the decoder would go unnoticed in the loss for long
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
            pool_before_projection=pooled_before(config, sources),
            packed_attention=config.packed_attention,
            visual_token_ids=[codec.token_id(name) for name in NEVER_SAID],
            token_count=codec.vocab_size,
        )


def pooled_before(config: Config, sources: Sources) -> bool | None:
    """Whether patches are pooled before the projection: as the config says, else as the weights of
    such a projector were trained, else None, for its own default."""
    source = sources.get("projector")
    if config.pool_before_projection is not None or source is None:
        return config.pool_before_projection
    if source.kind != SLOWFAST or source.config.get("projector") != config.projector:
        return None
    pooled: bool | None = source.config.get("pool_before_projection")
    return pooled


def description_of(model: PreTrainedModel, manifest: Manifest, rules: Rules) -> dict[str, bytes]:
    """The files of a model folder but for its weights, by name."""
    profile = manifest.contents.profile
    about = Description(rules=rules, profile=profile, manifest_id=manifest.manifest_id)
    with TemporaryDirectory() as name:
        folder = Path(name)
        # transformers sets this when it saves weights; here it saves the config alone
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(folder)
        model.generation_config.save_pretrained(folder)
        (folder / MANIFEST).write_bytes(canonical_json(manifest.contents.to_json()))
        describe(folder, manifest.tokenizer, about)
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


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
    this version, DamagedData names a file that is not as it was written, or a tensor that is
    missing or too much."""
    if (folder / "processor_config.json").is_file() and not (folder / DESCRIPTION).is_file():
        return _saved_by_transformers(folder)
    about = read_description(folder)
    # all bytes first: nothing of a damaged folder is parsed
    for name, digest in about["files"].items():
        checked(folder / name, digest)
    tokenizer = (folder / "tokenizer.json").read_bytes()
    codec = TextCodec(tokenizer, about["template"], str(folder / "tokenizer.json"))
    with opening(str(folder)):
        view, layout = View(**about["frames"]), LayoutConfig(**about["layout"])
    model = _whole_model(folder)
    return Saved(
        model=model,
        rules=Rules(view=view, layout=layout, codec=codec),
        profile=Profile.from_json(about["profile"], str(folder / DESCRIPTION)),
        manifest_id=about["manifest_id"],
    )


def _saved_by_transformers(folder: Path) -> Saved:
    """What `save_pretrained` of a model and of its processor leave, such as one that an adapter was
    merged into: the processor has the rules, and nobody promises digests."""
    sys.stderr.write(f"{folder}: no {DESCRIPTION}, so its bytes are compared with nothing\n")
    with opening(str(folder)):
        processor = SlowFastProcessor.from_pretrained(folder)
    return Saved(
        model=_whole_model(folder),
        rules=processor.rules,
        profile=processor.media_profile,
        manifest_id="",
    )


def _whole_model(folder: Path) -> SlowFastForConditionalGeneration:
    # config and headers are judged by us, with names and remedies, before transformers opens them
    read_model_config(folder)
    stored_in_folder(folder)
    with opening(str(folder)):
        loaded = SlowFastForConditionalGeneration.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True
        )
    model: SlowFastForConditionalGeneration = loaded[0]
    # transformers draws what is missing anew and only warns
    check_whole(folder, loaded[1])
    # nothing promises this of a folder that others wrote
    check_finite(model.named_parameters(), str(folder))
    return model
