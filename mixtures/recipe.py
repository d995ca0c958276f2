"""Recipes: hand-written YAML that chooses sources, their ratio, and how they are shown.

Every key is known, typed and bounded; anything else is a UserError naming file, key and remedy.
Paths in a recipe are relative to the current directory.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from mixtures import rules
from mixtures.checks import RATIOS, check
from mixtures.filters import Filter, filters
from mixtures.joining import JoinRule
from mixtures.layout import ARRANGEMENTS, TIMESTAMPS, VIDEO_MULTIPLE, LayoutConfig, View
from mixtures.schedule import MAX_PERIOD
from mixtures.strict_yaml import load_yaml
from shards.profile import Profile

UNITS = ("samples", "tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """Published archives, or loose files: an address or a pattern, and the folder they lie in.

    What `at` holds is named from there on; `under` is put before those names.
    """

    at: str
    under: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One dataset of a recipe; exactly one of weight, repeat and budget is set.

    `weight` is a share, `repeat` how often each sample is seen, `budget` an amount; weights and
    budgets count in the recipe's unit. No sample is seen more than `max_repeats` times: a ratio
    that asks for more is an error, or with `allow_short` is cut. A larger share of media in a row
    refused with one code than `max_refused` stops the source (pipeline.fuse).
    `format`, `annotations`, `media` and `archives` may be left to the catalogue's entry `dataset`.
    """

    name: str
    dataset: str
    format: str = ""
    annotations: tuple[str, ...] = ()
    media: str = ""
    archives: tuple[Archive, ...] = ()
    licence: str
    weight: Fraction | None = None
    repeat: Fraction | None = None
    budget: int | None = None
    max_repeats: int | None = None
    allow_short: bool = False
    max_refused: Fraction = Fraction(1, 5)
    filters: tuple[Filter, ...] = ()
    revision: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Evaluation data that the training sources must not contain."""

    name: str
    dataset: str
    format: str = ""
    annotations: tuple[str, ...] = ()
    media: str = ""
    archives: tuple[Archive, ...] = ()
    licence: str = "unknown"
    revision: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakRule:
    """The folder of a leak index; samples that ask a benchmark's question are flagged or refused.

    Samples whose media match a benchmark's are refused in any case.
    """

    index: str
    text: str = "flag"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRule:
    """How a conversation becomes token ids."""

    tokenizer: str
    revision: str = "local"
    template: str = "chatml"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackRule:
    """Budgets of one pack in tokens and patches; packs are made within `window` positions."""

    tokens: int = 32_768
    patches: int = 262_144
    window: int = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRule:
    """From position `start` on these sources have these weights (0: none), the rest keep theirs."""

    start: int
    weights: dict[str, Fraction]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A mixture as intended.

    `length` counts samples or tokens, as `unit` says; None means as far as no source repeats.
    Of samples over the same media whose texts are at least `near_text` alike, one is kept. With
    `canonical_clips` near copies of a clip are shown as one (mixtures.canonical); of the samples
    over one clip `max_samples_per_clip` are kept.
    """

    path: Path
    name: str
    seed: int
    sources: tuple[Source, ...]
    held_out: tuple[HeldOut, ...]
    leaks: LeakRule | None
    near_text: Fraction | None
    profile: Profile
    frames: View
    layout: LayoutConfig
    text: TextRule
    pack: PackRule
    unit: str
    length: int | None
    period: int
    stages: tuple[StageRule, ...]
    allow_licences: tuple[str, ...] | None
    max_shard_bytes: int | None
    join_by_clip: JoinRule | None
    canonical_clips: bool
    max_samples_per_clip: int | None

    @property
    def ratio(self) -> str:
        """What every source gives: weight, repeat or budget."""
        first = self.sources[0]
        return next((name for name in RATIOS if getattr(first, name) is not None), RATIOS[0])

    def weights(self) -> list[tuple[int, list[Fraction]]]:
        """(start, weight of each source) of the stages of a weight recipe, the first from 0."""
        current = [source.weight or Fraction(0) for source in self.sources]
        found = [(0, current)]
        for stage in self.stages:
            pairs = zip(self.sources, current, strict=True)
            current = [stage.weights.get(source.name, weight) for source, weight in pairs]
            found = [*(found if stage.start else []), (stage.start, current)]
        return found

    def to_json(self) -> dict[str, Any]:
        """What of the recipe a manifest remembers: choices only, no path, no label of bytes."""
        always = {
            "name": self.name,
            "ratio": self.ratio,
            "unit": self.unit,
            "length": self.length,
            "max_repeats": {
                s.name: s.max_repeats for s in self.sources if s.max_repeats is not None
            },
            "allow_short": [source.name for source in self.sources if source.allow_short],
            "filters": {
                source.name: {each.column: each.to_json() for each in source.filters}
                for source in self.sources
                if source.filters
            },
            "held_out": [held_out.name for held_out in self.held_out],
            "allow_licences": None if self.allow_licences is None else list(self.allow_licences),
            "max_shard_bytes": self.max_shard_bytes,
        }
        asked = {
            "near_text": None if self.near_text is None else str(self.near_text),
            "canonical_clips": self.canonical_clips or None,
            "max_samples_per_clip": self.max_samples_per_clip,
        }
        return always | {name: value for name, value in asked.items() if value is not None}


def _addresses(value: Any, where: str) -> tuple[str, ...]:
    if isinstance(value, str):
        return (rules.text(value, where),)
    found: tuple[str, ...] = rules.entries(rules.text)(value, where)
    return found


def _archive(value: Any, where: str) -> Archive:
    if isinstance(value, str):
        return Archive(at=rules.text(value, where))
    known = {"at": rules.text, "under": rules.text}
    found: Archive = rules.section(Archive, known, "at")(value, where)
    return found


def held_out(**values: Any) -> HeldOut:
    return HeldOut(**({"dataset": values["name"]} | values))


_AREA = rules.integer(VIDEO_MULTIPLE**2, 4096**2)
_PROFILE = {
    "fps": rules.integer(1, 60),
    "frame_cap": rules.integer(1, 65_536),
    "video_area": _AREA,
    "image_area": _AREA,
    "jpeg_quality": rules.integer(1, 100),
    "tone_map": rules.one_of("hable"),
}
_FRAMES = {
    "fps": rules.integer(1, 60),
    "cap": rules.integer(1, 65_536),
    "area": _AREA,
    "selection": rules.one_of("uniform", "uniform_last", "scene", "difference"),
    "memory": rules.integer(1, 65_536),
}
_LEAKS = {"index": rules.text, "text": rules.one_of("flag", "refuse")}
_LAYOUT = {
    "patch": rules.one_of(16),
    "slow_frames": rules.integer(1, 65_536),
    "slow_stride": rules.one_of(1, 2, 4),
    "fast_mode": rules.one_of("stride", "tokens"),
    "fast_stride": rules.one_of(1, 2, 4),
    "timestamps": rules.one_of(*TIMESTAMPS),
    "pathways": rules.one_of("both", "slow", "fast", "none"),
    "image_token_budget": rules.integer(1, 1 << 20),
    "arrangement": rules.one_of(*ARRANGEMENTS),
    "fast_frames": rules.one_of("all", "complement"),
    "newlines": rules.one_of("slow", "all", "none"),
    "queries": rules.integer(1, 4096),
    "memory_tokens": rules.integer(0, 65_536),
}
_TEXT = {"tokenizer": rules.text, "revision": rules.text, "template": rules.one_of("chatml")}
HELD_OUT: dict[str, rules.Rule] = {
    "name": rules.name,
    "format": rules.name,
    "annotations": _addresses,
    "media": rules.text,
    "archives": rules.entries(_archive),
    "dataset": rules.text,
    "licence": rules.text,
    "revision": rules.text,
}
_SOURCE = HELD_OUT | {
    "weight": rules.positive,
    "repeat": rules.positive,
    "budget": rules.integer(1, 10**12),
    "max_repeats": rules.integer(1, 10**6),
    "allow_short": rules.yes_or_no,
    "max_refused": rules.share("0", "1"),
    "filters": filters,
}
_JOIN = {"max_turns": rules.integer(2, 65_536), "max_tokens": rules.integer(16, 1 << 24)}
_STAGE: dict[str, rules.Rule] = {
    "start": rules.integer(0, 10**12),
    "weights": rules.named(rules.positive_or_zero),
}
_RECIPE: dict[str, rules.Rule] = {
    "name": rules.name,
    "seed": rules.integer(0, (1 << 63) - 1),
    "sources": rules.entries(rules.section(Source, _SOURCE, "name dataset licence")),
    "held_out": rules.entries(rules.section(held_out, HELD_OUT, "name")),
    "leaks": rules.section(LeakRule, _LEAKS, "index"),
    "near_text": rules.share("0.8", "1"),
    "profile": rules.section(Profile, _PROFILE),
    "frames": rules.section(View, _FRAMES),
    "layout": rules.section(LayoutConfig, _LAYOUT),
    "text": rules.section(TextRule, _TEXT, "tokenizer"),
    "pack_tokens": rules.integer(16, 1 << 24),
    "pack_patches": rules.integer(16, 1 << 30),
    "pack_window": rules.integer(1, 65_536),
    "unit": rules.one_of(*UNITS),
    "length": rules.integer(1, 10**12),
    "stages": rules.entries(rules.section(StageRule, _STAGE, "start weights")),
    "period": rules.integer(1, MAX_PERIOD),
    "allow_licences": rules.entries(rules.text),
    "max_shard_bytes": rules.integer(1, 1 << 60),
    "join_by_clip": rules.section(JoinRule, _JOIN, "max_turns max_tokens"),
    "canonical_clips": rules.yes_or_no,
    "max_samples_per_clip": rules.integer(1, 10**6),
}


def load_recipe(path: Path) -> Recipe:
    """The recipe in `path`; UserError names the file, the key and the remedy."""
    values: dict[str, Any] = rules.section(dict, _RECIPE, "name seed sources text")(
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
    }
    recipe = Recipe(path=path, pack=PackRule(**budgets), **(defaults | values))
    check(recipe)
    return recipe
