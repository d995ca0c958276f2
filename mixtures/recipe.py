"""Recipes: hand-written YAML that chooses sources, their ratio, and how they are shown.

Every key is known, typed and bounded; anything else is a UserError naming file, key and remedy.
Paths in a recipe are relative to the current directory.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from mixtures.layout import VIDEO_MULTIPLE, LayoutConfig, View
from mixtures.schedule import MAX_PERIOD, fitting_period, misfit, quotas_of
from mixtures.strict_yaml import load_yaml
from shards.errors import UserError
from shards.profile import Profile

UNITS = ("weight", "repeat", "budget")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


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

    `weight` is a share, `repeat` how often each sample is seen, `budget` a number of samples.
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
class Recipe:
    """A mixture as intended. `length` counts samples; None means as far as no source repeats."""

    path: Path
    name: str
    seed: int
    sources: tuple[Source, ...]
    held_out: tuple[HeldOut, ...]
    profile: Profile
    frames: View
    layout: LayoutConfig
    text: TextRule
    pack: PackRule
    length: int | None
    period: int
    allow_licences: tuple[str, ...] | None
    max_shard_bytes: int | None

    @property
    def unit(self) -> str:
        return next(unit for unit in UNITS if getattr(self.sources[0], unit) is not None)

    def quotas(self, kept: Sequence[int]) -> tuple[int, ...]:
        """Samples of each source in one period, or in all (repeat, budget); `kept` counts rows."""
        if self.unit == "weight":
            return quotas_of(
                [source.weight for source in self.sources if source.weight], self.period
            )
        quotas = tuple(
            source.budget if source.budget is not None else int(rows * (source.repeat or 0))
            for source, rows in zip(self.sources, kept, strict=True)
        )
        for source, quota in zip(self.sources, quotas, strict=True):
            if quota == 0:
                raise UserError(f"{self.path}: {source.name}: repeat: not one sample; raise it")
        return quotas

    def to_json(self) -> dict[str, Any]:
        """What of the recipe a manifest remembers: choices only, no path, no label of bytes."""
        return {
            "name": self.name,
            "unit": self.unit,
            "length": self.length,
            "max_repeats": {
                source.name: source.max_repeats
                for source in self.sources
                if source.max_repeats is not None
            },
            "held_out": [held_out.name for held_out in self.held_out],
            "allow_licences": None if self.allow_licences is None else list(self.allow_licences),
            "max_shard_bytes": self.max_shard_bytes,
        }


Rule = Callable[[Any, str], Any]


def _integer(low: int, high: int) -> Rule:
    def check(value: Any, where: str) -> int:
        if type(value) is not int or not low <= value <= high:
            raise UserError(f"{where}: must be an integer from {low} to {high}, not {value!r}")
        return value

    return check


def _one_of(*allowed: str | int) -> Rule:
    def check(value: Any, where: str) -> Any:
        if isinstance(value, bool) or value not in allowed:
            known = ", ".join(map(str, allowed))
            raise UserError(f"{where}: must be one of {known}, not {value!r}")
        return value

    return check


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise UserError(f"{where}: must be printable text, not {value!r}")
    return value


def _name(value: Any, where: str) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise UserError(f"{where}: must be letters, digits, '_', '-' or '.', not {value!r}")
    return value


def _positive(value: Any, where: str) -> Fraction:
    is_number = type(value) is int or (isinstance(value, Decimal) and value.is_finite())
    if not is_number or value <= 0 or not -12 <= Decimal(value).adjusted() <= 12:
        raise UserError(f"{where}: must be a number above 0 (1e-12 to 1e12), not {value!s}")
    return Fraction(value)


def _texts(value: Any, where: str) -> tuple[str, ...]:
    return tuple(_text(item, f"{where}[{i}]") for i, item in enumerate(_list(value, where)))


def _addresses(value: Any, where: str) -> tuple[str, ...]:
    return (_text(value, where),) if isinstance(value, str) else _texts(value, where)


def _archive(value: Any, where: str) -> Archive:
    if isinstance(value, str):
        return Archive(at=_text(value, where))
    found: Archive = _section(Archive, {"at": _text, "under": _text}, "at")(value, where)
    return found


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise UserError(f"{where}: must be a list, not {value!r}")
    return value


def _section(build: Callable[..., Any], rules: Mapping[str, Rule], required: str = "") -> Rule:
    """A rule for a mapping: known keys only, each by its own rule, then `build(**values)`."""

    def check(value: Any, where: str) -> Any:
        if not isinstance(value, dict):
            raise UserError(f"{where}: must be a mapping, not {value!r}")
        for key in value:
            if key not in rules:
                near = difflib.get_close_matches(key, rules, 1, 0.0)[0]
                raise UserError(f"{where}: unknown key {key!r}; did you mean {near!r}?")
        for key in required.split():
            if key not in value:
                raise UserError(f"{where}: the key {key!r} is missing; add it")
        return build(**{key: rules[key](item, f"{where}: {key}") for key, item in value.items()})

    return check


def _entries(rule: Rule) -> Rule:
    def check(value: Any, where: str) -> tuple[Any, ...]:
        return tuple(rule(item, f"{where}[{i}]") for i, item in enumerate(_list(value, where)))

    return check


def _held_out(**values: Any) -> HeldOut:
    return HeldOut(**({"dataset": values["name"]} | values))


_AREA = _integer(VIDEO_MULTIPLE**2, 4096**2)
_PROFILE = {
    "fps": _integer(1, 60),
    "frame_cap": _integer(1, 65_536),
    "video_area": _AREA,
    "image_area": _AREA,
    "jpeg_quality": _integer(1, 100),
    "tone_map": _one_of("hable"),
}
_FRAMES = {
    "fps": _integer(1, 60),
    "cap": _integer(1, 65_536),
    "area": _AREA,
    "selection": _one_of("uniform"),
}
_LAYOUT = {
    "patch": _one_of(8, 16),
    "slow_frames": _integer(1, 65_536),
    "slow_stride": _one_of(1, 2, 4),
    "fast_mode": _one_of("stride", "tokens"),
    "fast_stride": _one_of(1, 2, 4),
    "timestamps": _one_of("none", "per_frame_text"),
    "pathways": _one_of("both", "slow", "fast", "none"),
    "image_token_budget": _integer(1, 1 << 20),
}
_TEXT = {"tokenizer": _text, "revision": _text, "template": _one_of("chatml")}
_HELD_OUT: dict[str, Rule] = {
    "name": _name,
    "format": _name,
    "annotations": _addresses,
    "media": _text,
    "archives": _entries(_archive),
    "dataset": _text,
    "licence": _text,
    "revision": _text,
}
_SOURCE = _HELD_OUT | {
    "weight": _positive,
    "repeat": _positive,
    "budget": _integer(1, 10**12),
    "max_repeats": _integer(1, 10**6),
}
_RECIPE: dict[str, Rule] = {
    "name": _name,
    "seed": _integer(0, (1 << 63) - 1),
    "sources": _entries(_section(Source, _SOURCE, "name dataset licence")),
    "held_out": _entries(_section(_held_out, _HELD_OUT, "name")),
    "profile": _section(Profile, _PROFILE),
    "frames": _section(View, _FRAMES),
    "layout": _section(LayoutConfig, _LAYOUT),
    "text": _section(TextRule, _TEXT, "tokenizer"),
    "pack_tokens": _integer(16, 1 << 24),
    "pack_patches": _integer(16, 1 << 30),
    "pack_window": _integer(1, 65_536),
    "length": _integer(1, 10**12),
    "period": _integer(1, MAX_PERIOD),
    "allow_licences": _texts,
    "max_shard_bytes": _integer(1, 1 << 60),
}


def load_recipe(path: Path) -> Recipe:
    """The recipe in `path`; UserError names the file, the key and the remedy."""
    values: dict[str, Any] = _section(dict, _RECIPE, "name seed sources text")(
        load_yaml(path), str(path)
    )
    budgets = {
        key: values.pop(f"pack_{key}")
        for key in ("tokens", "patches", "window")
        if f"pack_{key}" in values
    }
    defaults: dict[str, Any] = {
        "held_out": (),
        "profile": Profile(),
        "frames": View(),
        "layout": LayoutConfig(),
        "length": None,
        "period": 1000,
        "allow_licences": None,
        "max_shard_bytes": None,
    }
    recipe = Recipe(path=path, pack=PackRule(**budgets), **(defaults | values))
    _check_names(recipe)
    _check_ratio(recipe)
    check_view(recipe.frames, recipe.profile, str(path))
    return recipe


def _check_names(recipe: Recipe) -> None:
    if not recipe.sources:
        raise UserError(f"{recipe.path}: sources: empty; name at least one source")
    for key, entries in (("sources", recipe.sources), ("held_out", recipe.held_out)):
        names = [entry.name for entry in entries]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UserError(f"{recipe.path}: {key}: two are named {twice!r}; rename one")


def _check_ratio(recipe: Recipe) -> None:
    wanted = _first_unit(recipe)
    for i, source in enumerate(recipe.sources):
        given = [unit for unit in UNITS if getattr(source, unit) is not None]
        if given != [wanted]:
            raise UserError(
                f"{recipe.path}: sources[{i}] ({source.name}): gives {given or 'no ratio'}; every "
                f"source must give exactly one of weight, repeat, budget, here {wanted!r}"
            )
    if recipe.unit != "weight":
        if recipe.length is not None:
            raise UserError(f"{recipe.path}: length: a {recipe.unit} recipe has its own; remove it")
        return
    weights = [source.weight for source in recipe.sources if source.weight is not None]
    worst = misfit(weights, recipe.period)
    if worst is not None:
        better = fitting_period(weights, recipe.period)
        remedy = f"use `period: {better}`" if better else "choose rounder weights"
        raise UserError(
            f"{recipe.path}: sources[{worst}] ({recipe.sources[worst].name}): weight: a period of "
            f"{recipe.period} cannot represent it within 0.1 %; {remedy}"
        )


def _first_unit(recipe: Recipe) -> str:
    first = recipe.sources[0]
    return next((unit for unit in UNITS if getattr(first, unit) is not None), "weight")


def check_view(view: View, profile: Profile, where: str) -> None:
    """Raise UserError where a view asks for more than a pool of this profile holds."""
    pairs = (
        ("fps", view.fps, profile.fps),
        ("cap", view.cap, profile.frame_cap),
        ("area", view.area, profile.video_area),
    )
    for key, wanted, held in pairs:
        if wanted > held:
            raise UserError(
                f"{where}: frames: {key}: the view asks for {wanted}, the pool's profile holds "
                f"{held}; lower it, or raise the profile and build another pool"
            )
