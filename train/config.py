"""What a training run is: one tree of frozen dataclasses, defaults in code, YAML overrides.

Layout, frames, tokenizer and packs are the manifest's; a config may state the layout it was
written for, and `check_layout` refuses to train over another one.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import asdict, dataclass, fields, is_dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args, get_type_hints

from mixtures.recipe.strict_yaml import load_yaml
from mixtures.tokens.layout_types import LayoutConfig
from shards.errors import UserError

ENGINES = ("torch", "deepspeed")


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionSize:
    """The vision tower; `position_grid` is the side of its square position table.

    The last four make it the encoder of SigLIP 2 (train.model.vision.SIGLIP2); defaults: Oryx-ViT.
    """

    hidden_size: int = 96
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    intermediate_size: int = 384
    position_grid: int = 16
    patch_size: int = 16
    antialias: bool = False
    activation: str = "gelu"
    final_norm: bool = False
    patch_order: str = "cphpw"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSize:
    """The Qwen2 decoder; its vocabulary is the manifest's tokenizer."""

    hidden_size: int = 128
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    intermediate_size: int = 256
    max_position_embeddings: int = 32_768
    tie_word_embeddings: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """AdamW; the rate rises for `warmup_steps`, then a cosine falls to `floor` times `lr`."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    warmup_steps: int = 40
    schedule: str = "cosine"
    floor: float = 0.05
    clip: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One run. `global_batch` and `micro_batch` count packs: per step, and per forward pass.

    `projector` is a name of train.model.projectors; it must fit the manifest's arrangement.
    `cache_mib` bounds decoded clips in memory; `node_folder` (default: in the system's temporary
    folder) is a disk of this node for the index its ranks share and `node_mib` of remote data.
    """

    vision: VisionSize = VisionSize()
    text: TextSize = TextSize()
    optimizer: Optimizer = Optimizer()
    layout: LayoutConfig | None = None
    projector: str = "gsf"
    pool_before_projection: bool = True
    packed_attention: str = "sdpa_blocks"
    steps: int = 100
    global_batch: int = 4
    micro_batch: int = 4
    seed: int = 0
    save_every: int = 100
    engine: str = "torch"
    zero_stage: int = 2
    init_from: str = ""
    workers: int = 1
    cache_mib: int = 512
    node_folder: str = ""
    node_mib: int = 16_384


_CHOICES: dict[str, tuple[Any, ...]] = {
    "engine": ENGINES,
    "zero_stage": (1, 2, 3),
    "schedule": ("cosine",),
    "packed_attention": ("sdpa_blocks", "flex", "varlen"),
    "activation": ("gelu", "gelu_tanh"),
    "patch_order": ("cphpw", "phpwc"),
}
_MAY_BE_ZERO = {"weight_decay", "warmup_steps", "floor", "seed", "workers", "cache_mib"}


def load_config(path: Path) -> Config:
    """The config in `path`; UserError names the file, the key and the remedy."""
    value = load_yaml(path)
    config: Config = _section(Config, {} if value is None else value, str(path))
    return config


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
        pairs += [(f"layout: {key}", own[key], theirs[key]) for key in own]
    for key, wanted, held in pairs:
        if wanted != held:
            raise UserError(
                f"{key}: the config says {wanted}, the manifest {where} says {held}; "
                "change the config, or plan another manifest"
            )


def _section(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise UserError(f"{where}: must be a mapping, not {value!r}")
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind)]
    for key in value:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, 0.0)[0]
            raise UserError(f"{where}: unknown key {key!r}; did you mean {near!r}?")
    return kind(
        **{key: _value(hints[key], key, item, f"{where}: {key}") for key, item in value.items()}
    )


def _value(hint: Any, key: str, value: Any, where: str) -> Any:
    kinds = (hint, *get_args(hint))
    nested = next((k for k in kinds if isinstance(k, type) and is_dataclass(k)), None)
    if nested is not None:
        return _section(nested, value, where)
    if get_args(hint):
        if not isinstance(value, list) or len(value) != len(get_args(hint)):
            raise UserError(f"{where}: must be a list of {len(get_args(hint))}, not {value!r}")
        return tuple(
            _value(part, key, v, where) for part, v in zip(get_args(hint), value, strict=True)
        )
    if hint is float and type(value) in (int, Decimal):
        value = float(value)
    if type(value) is not hint:
        raise UserError(f"{where}: must be {hint.__name__}, not {value!r}")
    if key in _CHOICES and value not in _CHOICES[key]:
        known = ", ".join(map(str, _CHOICES[key]))
        raise UserError(f"{where}: must be one of {known}, not {value!r}")
    if hint in (int, float) and not (value > 0 or (value == 0 and key in _MAY_BE_ZERO)):
        raise UserError(f"{where}: must be above 0, not {value!r}")
    return value
