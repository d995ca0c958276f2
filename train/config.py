"""What a training run is: one tree of frozen dataclasses, defaults in code, YAML overrides.

Layout, frames, tokenizer and packs are the manifest's; a config may state the layout it was
written for, and `check_layout` refuses to train over another one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from mixtures.keys import Integer, Rate, RateOrZero, Text, YesNo, key, one_of
from mixtures.recipe import fields
from mixtures.recipe.strict_yaml import load_yaml
from mixtures.tokens.layout_types import LayoutConfig
from shards.errors import UserError

ENGINES = ("torch", "deepspeed")


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionSize:
    """The vision tower. The last four keys make it the encoder of SigLIP 2
    (train.model.vision.SIGLIP2); their defaults are Oryx-ViT's."""

    hidden_size: Annotated[Integer, key("Width of the tower.", "1152", least=1)] = 96
    num_hidden_layers: Annotated[Integer, key("Blocks.", "27", least=1)] = 4
    num_attention_heads: Annotated[Integer, key("Heads of a block.", "16", least=1)] = 4
    intermediate_size: Annotated[Integer, key("Width of a block's MLP.", "4304", least=1)] = 384
    position_grid: Annotated[
        Integer, key("Side of the square table of positions.", "24", least=1)
    ] = 16
    patch_size: Annotated[
        Integer, key("Pixels of a side of a patch: the manifest's.", "16", least=1)
    ] = 16
    antialias: Annotated[
        YesNo, key("Whether positions are averaged where the table is shrunk.", "true")
    ] = False
    activation: Annotated[str, one_of("gelu", "gelu_tanh"), key("Of the MLPs.", "gelu_tanh")] = (
        "gelu"
    )
    final_norm: Annotated[YesNo, key("Whether a norm follows the last block.", "true")] = False
    patch_order: Annotated[
        str,
        one_of("cphpw", "phpwc"),
        key("How the pixels of a patch are laid out: channels first or last.", "phpwc"),
    ] = "cphpw"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSize:
    """The Qwen2 decoder; its vocabulary is the manifest's tokenizer."""

    hidden_size: Annotated[Integer, key("Width of the decoder.", "1536", least=1)] = 128
    num_hidden_layers: Annotated[Integer, key("Blocks.", "28", least=1)] = 4
    num_attention_heads: Annotated[Integer, key("Heads of a block.", "12", least=1)] = 4
    num_key_value_heads: Annotated[
        Integer, key("Heads of keys and values that they share.", "2", least=1)
    ] = 2
    intermediate_size: Annotated[Integer, key("Width of a block's MLP.", "8960", least=1)] = 256
    max_position_embeddings: Annotated[
        Integer, key("Positions of a sequence at most.", "32768", least=1)
    ] = 32_768
    tie_word_embeddings: Annotated[
        YesNo, key("Whether the last layer is the table of word vectors.", "false")
    ] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """AdamW; the rate rises for `warmup_steps`, then a cosine falls to `floor` times `lr`."""

    lr: Annotated[Rate, key("The highest learning rate.", "2e-5")] = 1e-3
    betas: Annotated[
        tuple[Rate, Rate],
        key("Decay of the means of gradients and of their squares.", "[0.9, 0.999]"),
    ] = (0.9, 0.98)
    weight_decay: Annotated[RateOrZero, key("Decay of weight matrices.", "0")] = 0.01
    warmup_steps: Annotated[Integer, key("Steps until `lr` is reached.", "100", least=0)] = 40
    schedule: Annotated[str, one_of("cosine"), key("How the rate falls.", "cosine")] = "cosine"
    floor: Annotated[RateOrZero, key("The last rate, as a share of `lr`.", "0.1")] = 0.05
    clip: Annotated[Rate, key("The norm that gradients are cut to.", "1")] = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One run."""

    vision: Annotated[VisionSize, key("Size of the vision tower.", "{hidden_size: 1152}")] = (
        VisionSize()
    )
    text: Annotated[TextSize, key("Size of the decoder.", "{hidden_size: 1536}")] = TextSize()
    optimizer: Annotated[Optimizer, key("The optimizer and its rate.", "{lr: 2e-5}")] = Optimizer()
    layout: Annotated[
        LayoutConfig | None,
        key("The layout that the config was written for; the manifest must have it.",
            "{slow_frames: 32}"),
    ] = None  # fmt: skip
    projector: Annotated[
        Text, key("Its name in train.model.projectors; it fits the manifest's arrangement.", "isf")
    ] = "gsf"
    pool_before_projection: Annotated[
        YesNo, key("Whether patches are pooled before the MLP or after it.", "false")
    ] = True
    packed_attention: Annotated[
        str,
        one_of("sdpa_blocks", "flex", "varlen"),
        key("How samples of a pack are kept apart (docs/model.md).", "flex"),
    ] = "sdpa_blocks"
    steps: Annotated[Integer, key("Steps of the optimizer.", "800", least=1)] = 100
    global_batch: Annotated[Integer, key("Packs of a step, over all processes.", "64", least=1)] = 4
    micro_batch: Annotated[Integer, key("Packs of one forward pass.", "1", least=1)] = 4
    seed: Annotated[Integer, key("Of the weights that are made anew.", "1", least=0)] = 0
    save_every: Annotated[Integer, key("Steps between two checkpoints.", "200", least=1)] = 100
    engine: Annotated[
        str,
        one_of(*ENGINES),
        key("`torch`: one process; `deepspeed`: any number of them.", "deepspeed"),
    ] = "torch"
    zero_stage: Annotated[
        Integer, one_of(1, 2, 3), key("What deepspeed spreads over processes (ZeRO).", "3")
    ] = 2
    init_from: Annotated[
        Text,
        key("The folder of a model whose weights the run starts from.", "runs/demo/train1/model"),
    ] = ""
    workers: Annotated[Integer, key("Threads that prepare packs ahead; 0: none.", "4", least=0)] = 1
    cache_mib: Annotated[Integer, key("Decoded clips in memory, in MiB.", "4096", least=0)] = 512
    node_folder: Annotated[
        Text,
        key("A folder on a disk of this node, for the index that its ranks share and for remote "
            "data (default: in the system's temporary folder).", "/scratch/run"),
    ] = ""  # fmt: skip
    node_mib: Annotated[Integer, key("Remote data in that folder, in MiB.", "65536", least=1)] = (
        16_384
    )


def load_config(path: Path) -> Config:
    """The config in `path`; UserError has a line for every mistake: file, key and remedy."""
    value = load_yaml(path)
    return fields.parse(Config, {} if value is None else value, str(path))


_HOW_NOT_WHAT = {
    *("engine", "zero_stage", "micro_batch", "save_every"),
    *("workers", "cache_mib", "node_folder", "node_mib"),
}
"""Keys that spread the same computation over processes, memory and disks."""


def digest(config: Config) -> str:
    """sha256 over every value that decides what the run computes, but for its last digits."""
    value = {name: item for name, item in asdict(config).items() if name not in _HOW_NOT_WHAT}
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def check_layout(config: Config, layout: LayoutConfig, where: str) -> None:
    """Raise UserError where the config's model does not fit the manifest's layout."""
    pairs: list[tuple[str, Any, Any]] = [
        ("vision: patch_size", config.vision.patch_size, layout.patch)
    ]
    if config.layout is not None:
        own, theirs = asdict(config.layout), asdict(layout)
        pairs += [(f"layout: {name}", own[name], theirs[name]) for name in own]
    for name, wanted, held in pairs:
        if wanted != held:
            raise UserError(
                f"{name}: the config says {wanted}, the manifest {where} says {held}; "
                "change the config, or plan another manifest"
            )
