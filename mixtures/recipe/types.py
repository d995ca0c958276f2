"""What a recipe says, as frozen values: sources, held-out data, rules."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from mixtures.recipe.filters import Filter
from mixtures.tokens.layout_types import LayoutConfig, View
from shards.profile import Profile

RATIOS = ("weight", "repeat", "budget")
"""What a source may give; all sources of a recipe give the same."""
UNITS = ("samples", "tokens")
"""What weights, budgets and the length of a recipe count."""


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
    refused with one code than `max_refused` stops the source (pipeline.stages.failure_limit).
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
class JoinRule:
    """Bounds of what is joined into one sample: turns, and tokens with those of its clips."""

    max_turns: int
    max_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRule:
    """From position `start` on these sources have these weights (0: none), the rest keep theirs."""

    start: int
    weights: dict[str, Fraction]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A mixture as intended.

    `length` counts samples or tokens, as `unit` says; None means as far as no source repeats. Of
    samples over the same media whose texts are at least `near_text` alike, one is kept. With
    `canonical_clips` near copies of a clip are shown as one (mixtures.selection.canonical_clips);
    of the samples over one clip `max_samples_per_clip` are kept. `exclude` is a file of take-downs
    (mixtures.selection.exclusions).
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
    exclude: str | None

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
