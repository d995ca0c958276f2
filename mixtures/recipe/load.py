"""Hand-written YAML becomes a Recipe: which sources, in which ratio, shown how.

Every key is known, typed and bounded; anything else is a UserError naming file, key and remedy.
Paths in a recipe are relative to the current directory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mixtures.order.schedule import MAX_PERIOD
from mixtures.recipe import fields
from mixtures.recipe.filters import filters
from mixtures.recipe.strict_yaml import load_yaml
from mixtures.recipe.types import (
    UNITS,
    Archive,
    HeldOut,
    JoinRule,
    LeakRule,
    PackRule,
    Recipe,
    Source,
    StageRule,
    TextRule,
)
from mixtures.recipe.validate import check
from mixtures.tokens.layout_types import (
    ARRANGEMENTS,
    TIMESTAMPS,
    VIDEO_MULTIPLE,
    LayoutConfig,
    View,
)
from shards.profile import Profile


def _addresses(value: Any, where: str) -> tuple[str, ...]:
    if isinstance(value, str):
        return (fields.text(value, where),)
    found: tuple[str, ...] = fields.entries(fields.text)(value, where)
    return found


def _archive(value: Any, where: str) -> Archive:
    if isinstance(value, str):
        return Archive(at=fields.text(value, where))
    known = {"at": fields.text, "under": fields.text}
    found: Archive = fields.section(Archive, known, "at")(value, where)
    return found


def held_out(**values: Any) -> HeldOut:
    """Held-out data as a person names it: its dataset is its name unless another is given."""
    return HeldOut(**({"dataset": values["name"]} | values))


_AREA = fields.integer(VIDEO_MULTIPLE**2, 4096**2)
_PROFILE = {
    "fps": fields.integer(1, 60),
    "frame_cap": fields.integer(1, 65_536),
    "video_area": _AREA,
    "image_area": _AREA,
    "jpeg_quality": fields.integer(1, 100),
    "tone_map": fields.one_of("hable"),
}
_FRAMES = {
    "fps": fields.integer(1, 60),
    "cap": fields.integer(1, 65_536),
    "area": _AREA,
    "selection": fields.one_of("uniform", "uniform_last", "scene", "difference"),
    "memory": fields.integer(1, 65_536),
}
_LEAKS = {"index": fields.text, "text": fields.one_of("flag", "refuse")}
_LAYOUT = {
    "patch": fields.one_of(16),
    "slow_frames": fields.integer(1, 65_536),
    "slow_stride": fields.one_of(1, 2, 4),
    "fast_mode": fields.one_of("stride", "tokens"),
    "fast_stride": fields.one_of(1, 2, 4),
    "timestamps": fields.one_of(*TIMESTAMPS),
    "pathways": fields.one_of("both", "slow", "fast", "none"),
    "image_token_budget": fields.integer(1, 1 << 20),
    "arrangement": fields.one_of(*ARRANGEMENTS),
    "fast_frames": fields.one_of("all", "complement"),
    "newlines": fields.one_of("slow", "all", "none"),
    "queries": fields.integer(1, 4096),
    "memory_tokens": fields.integer(0, 65_536),
}
_TEXT = {"tokenizer": fields.text, "revision": fields.text, "template": fields.one_of("chatml")}
HELD_OUT: dict[str, fields.Rule] = {
    "name": fields.name,
    "format": fields.name,
    "annotations": _addresses,
    "media": fields.text,
    "archives": fields.entries(_archive),
    "dataset": fields.text,
    "licence": fields.text,
    "revision": fields.text,
}
"""The rules of an entry of held-out data; a source's entry has more."""
_SOURCE = HELD_OUT | {
    "weight": fields.positive,
    "repeat": fields.positive,
    "budget": fields.integer(1, 10**12),
    "max_repeats": fields.integer(1, 10**6),
    "allow_short": fields.yes_or_no,
    "max_refused": fields.share("0", "1"),
    "filters": filters,
}
_JOIN = {"max_turns": fields.integer(2, 65_536), "max_tokens": fields.integer(16, 1 << 24)}
_STAGE: dict[str, fields.Rule] = {
    "start": fields.integer(0, 10**12),
    "weights": fields.named(fields.positive_or_zero),
}
_RECIPE: dict[str, fields.Rule] = {
    "name": fields.name,
    "seed": fields.integer(0, (1 << 63) - 1),
    "sources": fields.entries(fields.section(Source, _SOURCE, "name dataset licence")),
    "held_out": fields.entries(fields.section(held_out, HELD_OUT, "name")),
    "leaks": fields.section(LeakRule, _LEAKS, "index"),
    "near_text": fields.share("0.8", "1"),
    "profile": fields.section(Profile, _PROFILE),
    "frames": fields.section(View, _FRAMES),
    "layout": fields.section(LayoutConfig, _LAYOUT),
    "text": fields.section(TextRule, _TEXT, "tokenizer"),
    "pack_tokens": fields.integer(16, 1 << 24),
    "pack_patches": fields.integer(16, 1 << 30),
    "pack_window": fields.integer(1, 65_536),
    "unit": fields.one_of(*UNITS),
    "length": fields.integer(1, 10**12),
    "stages": fields.entries(fields.section(StageRule, _STAGE, "start weights")),
    "period": fields.integer(1, MAX_PERIOD),
    "allow_licences": fields.entries(fields.text),
    "max_shard_bytes": fields.integer(1, 1 << 60),
    "join_by_clip": fields.section(JoinRule, _JOIN, "max_turns max_tokens"),
    "canonical_clips": fields.yes_or_no,
    "max_samples_per_clip": fields.integer(1, 10**6),
    "exclude": fields.text,
}


def load_recipe(path: Path) -> Recipe:
    """The recipe in `path`; UserError names the file, the key and the remedy."""
    values: dict[str, Any] = fields.section(dict, _RECIPE, "name seed sources text")(
        load_yaml(path), str(path)
    )
    budgets = {
        key: values.pop(f"pack_{key}")
        for key in ("tokens", "patches", "window")
        if f"pack_{key}" in values
    }
    defaults: dict[str, Any] = {
        "held_out": (),
        "leaks": None,
        "near_text": None,
        "profile": Profile(),
        "frames": View(),
        "layout": LayoutConfig(),
        "unit": "samples",
        "length": None,
        "stages": (),
        "period": 1000,
        "allow_licences": None,
        "max_shard_bytes": None,
        "join_by_clip": None,
        "canonical_clips": False,
        "max_samples_per_clip": None,
        "exclude": None,
    }
    recipe = Recipe(path=path, pack=PackRule(**budgets), **(defaults | values))
    check(recipe)
    return recipe
