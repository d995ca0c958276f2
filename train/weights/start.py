"""What a run starts from: each part's source, the values that it fixes, and whether all of it fits.

The values of a source win. The config may change the projector, the layout, how packs attend, the
number of positions and their scaling; any other key of `vision` and `text` is an assertion over the
source's value, and a size only where the part is drawn anew.

Everything here is told from the config, the manifest and headers: seconds before torch is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mixtures.manifest.manifest import Manifest
from mixtures.tokens.text import TextCodec
from shards.errors import UserError, opening
from shards.ids import sha256_file
from train.config import (
    DRAWN_TEXT,
    DRAWN_VISION,
    PARTS,
    Config,
    Parts,
    RopeScaling,
    TextSize,
    VisionSize,
    said,
)
from train.weights.decoders import head_sizes
from train.weights.source import DECODER, Source, open_source
from train.weights.tables import check_holds, check_table, part_table, text_values, vision_values
from train.weights.tensor_files import read_json

Sources = Mapping[str, Source]
"""Part -> where it comes from; a part that is not here is drawn anew."""
_CHANGES = ("max_position_embeddings", "rope_scaling")
_LEFT_OUT = {"tie_word_embeddings": False}
"""What a published config means where it does not say it."""


def open_sources(parts: Parts, wanted: Iterable[str] = PARTS) -> Sources:
    """Look into what the `init` of each `wanted` part names, each place once."""
    inits = {name: getattr(parts, name).init for name in wanted}
    named = {name: init for name, init in inits.items() if isinstance(init, str)}
    # one look at a folder that several parts name
    opened = {}
    for where in dict.fromkeys(named.values()):
        with opening(f"init: {where}"):
            opened[where] = open_source(where)
    for part, where in named.items():
        check_holds(part, opened[where])
    return {part: opened[where] for part, where in named.items()}


def files_of(sources: Sources) -> str:
    """The files that say which tensors there are."""
    return ", ".join(dict.fromkeys(str(source.config_file) for source in sources.values())) or "-"


def vision_of(config: Config, sources: Sources) -> dict[str, Any]:
    """The values of the vision config; UserError where the config asserts another."""
    source = sources.get("tower")
    if source is None:
        return said(DRAWN_VISION) | said(config.vision)
    values = vision_values(source)
    _check_said("vision", config.vision, values, source)
    return values


def text_of(config: Config, sources: Sources, tokens: int) -> dict[str, Any]:
    """The values of the decoder's config, for `tokens` of them where it is drawn anew."""
    source = sources.get("decoder")
    if source is None:
        values = {"model_type": "qwen2", "vocab_size": tokens} | said(DRAWN_TEXT)
        values |= {name: value for name, value in said(config.text).items() if name not in _CHANGES}
    else:
        values = text_values(source)
        _check_said("text", config.text, values, source)
    if config.text.rope_scaling is not None:
        values = _scaled(values, config.text.rope_scaling)
    if config.text.max_position_embeddings is not None:
        values |= {"max_position_embeddings": config.text.max_position_embeddings}
    return values


def _scaled(values: dict[str, Any], scaling: RopeScaling) -> dict[str, Any]:
    """The values with positions scaled: in transformers' layout, which once had `rope_theta`.

    Those of weights that are scaled already stay; UserError where another scaling is asked for.
    """
    rope = dict(values.get("rope_parameters") or values.get("rope_scaling") or {})
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        # what YaRN was stretched from is known there alone
        if (kind, rope.get("factor")) == (scaling.kind, scaling.factor):
            return values
        raise UserError(
            f"text: rope_scaling: {scaling.kind} by {scaling.factor:g} is asked for, the weights' "
            f"positions are scaled already ({kind} by {rope.get('factor')}); remove the key"
        )
    rope |= {"rope_type": scaling.kind, "factor": scaling.factor}
    # older configs have `rope_theta` beside the scaling, transformers 5 inside it
    if "rope_theta" in values:
        rope["rope_theta"] = values["rope_theta"]
    # YaRN (Peng et al., 2023) stretches frequencies by how they turned within the trained length
    if scaling.kind == "yarn":
        rope["original_max_position_embeddings"] = values["max_position_embeddings"]
    others = {name: v for name, v in values.items() if name not in ("rope_theta", "rope_scaling")}
    return others | {"rope_parameters": rope}


def _check_said(
    name: str, size: VisionSize | TextSize, values: dict[str, Any], source: Source
) -> None:
    # without the key there are as many heads of keys and values as of queries
    held = _LEFT_OUT | {"num_key_value_heads": values["num_attention_heads"]} | values
    for key, wanted in said(size).items():
        if key not in _CHANGES and held.get(key) != wanted:
            raise UserError(
                f"{name}: {key}: the config says {wanted}, {source.config_file} says "
                f"{held.get(key)}; the weights win, so remove the key or name other weights"
            )


def check_start(config: Config, manifest: Manifest, where: str) -> None:
    """Raise UserError for the first thing that fits neither the weights nor the manifest.

    Tensors of a pickle, and of a family that has no table, are compared when the model is built.
    """
    sources = open_sources(config.parts)
    with opening(files_of(sources)):
        _check_sources(config, sources, manifest, where)


def _check_sources(config: Config, sources: Sources, manifest: Manifest, where: str) -> None:
    for part, source in sources.items():
        table = part_table(part, source) if source.stored else None
        if table is not None:
            check_table(part, source, table)
    wrong = [*_wrong_decoder(config, sources, manifest, where)]
    tower = sources.get("tower")
    # a pickle's sizes are known when it is read
    if tower is None or tower.stored:
        wrong += wrong_tower(vision_of(config, sources), tower, manifest.layout.patch, where)
    if wrong:
        raise UserError(wrong[0])


def wrong_tower(
    vision: Mapping[str, Any], source: Source | None, patch: int, where: str
) -> Iterator[str]:
    """What is wrong with a tower of these values: its heads, or its patches."""
    of = "vision" if source is None else str(source.config_file)
    width, heads = vision["hidden_size"], vision["num_attention_heads"]
    if width % heads:
        yield (
            f"{of}: num_attention_heads: {heads} does not divide hidden_size: {width}; correct one "
            "of them"
        )
    if vision["patch_size"] != patch:
        yield (
            f"{of}: patch_size: {vision['patch_size']}, {where} says {patch}; name "
            "another tower, or plan another manifest"
        )


def _wrong_decoder(
    config: Config, sources: Sources, manifest: Manifest, where: str
) -> Iterator[str]:
    source = sources.get("decoder")
    codec = manifest.codec
    values = text_of(config, sources, codec.vocab_size)
    of = "text" if source is None else str(source.config_file)
    # before the tables: a width that heads do not divide gives shapes that mislead
    head_sizes(values, of)
    longest = max(
        (int(table["tokens"].max()) for table in manifest.tables if len(table)), default=0
    )
    if longest > (most := values["max_position_embeddings"]):
        yield (
            f"{of}: max_position_embeddings: {most}, a sample of {where} has {longest} tokens; "
            "write `text: {max_position_embeddings: N}` and `rope_scaling`, or plan shorter packs"
        )
    if source is not None:
        yield from wrong_tokens(source, codec, where)


def wrong_tokens(source: Source, codec: TextCodec, where: str) -> Iterator[str]:
    """What is wrong with a decoder under this tokenizer: no row for a token, or another one's."""
    rows = text_values(source)["vocab_size"]
    # more rows than tokens is usual: published tables are padded to a round number
    if rows < codec.vocab_size:
        yield (
            f"{source.config_file}: vocab_size: {rows}, the tokenizer of {where} has "
            f"{codec.vocab_size} tokens; name the tokenizer of this decoder in the recipe"
        )
    path = source.path / "tokenizer.json"
    if not path.is_file():
        if source.kind == DECODER:
            yield f"{path}: no such file, so nobody can say which token a row is; fetch it too"
        return
    # the same bytes: no need to compare the vocabularies
    if sha256_file(path) == codec.tokenizer_sha256:
        return
    theirs = _token_ids(read_json(path))
    ours = codec.vocabulary()
    # by token, so that the same one is named on every run
    for token in sorted(theirs.keys() | ours.keys()):
        if theirs.get(token) != ours.get(token):
            yield (
                f"{path}: token {token!r} has id {theirs.get(token)}, in the tokenizer of {where} "
                f"{ours.get(token)}; plan with the decoder's own tokenizer.json"
            )
            return


def _token_ids(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    # tokens of chat templates are `added_tokens`, beside the vocabulary of the merges
    added = {each["content"]: each["id"] for each in tokenizer.get("added_tokens", [])}
    return {**tokenizer["model"]["vocab"], **added}
