"""What a recipe may not say although each of its values is well formed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

from mixtures.order.schedule import fitting_period, misfit
from mixtures.recipe.types import RATIOS, Recipe
from mixtures.tokens.layout_types import View
from shards.errors import UserError
from shards.profile import Profile

REMOTE = ("hf", "https", "s3", "gs")
"""Schemes of the addresses that a recipe may name."""


def check(recipe: Recipe) -> None:
    """Raise UserError for the first rule that the recipe breaks."""
    _check_names(recipe)
    _check_ratio(recipe)
    _check_places(recipe)
    _check_join(recipe)
    check_view(recipe.frames, recipe.profile, str(recipe.path))


def _check_places(recipe: Recipe) -> None:
    """Local files lie in the recipe's folder or in the current one: a recipe reads nothing else."""
    homes = (Path(os.path.normpath(recipe.path.parent.absolute())), Path.cwd())
    for where, place in _places(recipe):
        scheme, remote, _ = place.partition("://")
        if remote and scheme not in REMOTE:
            raise UserError(
                f"{recipe.path}: {where}: {place!r} is no address; give one that starts with "
                f"{', '.join(f'{one}://' for one in REMOTE)}, or a path"
            )
        path = Path(os.path.normpath(Path(place).expanduser().absolute()))
        if not remote and not any(path.is_relative_to(home) for home in homes):
            raise UserError(
                f"{recipe.path}: {where}: {place!r} is outside the recipe's folder and the current "
                "one; keep the recipe beside its data, link the data there, or give their address"
            )


def _places(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Every path and address of a recipe, and where it stands."""
    yield "text: tokenizer", recipe.text.tokenizer
    if recipe.leaks is not None:
        yield "leaks: index", recipe.leaks.index
    for key, entries in (("sources", recipe.sources), ("held_out", recipe.held_out)):
        for one in entries:
            where = f"{key}: {one.name}"
            yield from ((f"{where}: annotations", place) for place in one.annotations)
            yield from ((f"{where}: archives", archive.at) for archive in one.archives)
            if one.media:
                yield f"{where}: media", one.media


def _check_join(recipe: Recipe) -> None:
    rule, most = recipe.join_by_clip, recipe.pack.tokens
    if rule is not None and rule.max_tokens > most:
        raise UserError(
            f"{recipe.path}: join_by_clip: max_tokens: {rule.max_tokens} tokens do not fit into a "
            f"pack of {most}; lower it, or raise `pack_tokens`"
        )


def _check_names(recipe: Recipe) -> None:
    if not recipe.sources:
        raise UserError(f"{recipe.path}: sources: empty; name at least one source")
    for key, entries in (("sources", recipe.sources), ("held_out", recipe.held_out)):
        names = [entry.name for entry in entries]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UserError(f"{recipe.path}: {key}: two are named {twice!r}; rename one")


def _check_ratio(recipe: Recipe) -> None:
    wanted = recipe.ratio
    for i, source in enumerate(recipe.sources):
        given = [ratio for ratio in RATIOS if getattr(source, ratio) is not None]
        if given != [wanted]:
            raise UserError(
                f"{recipe.path}: sources[{i}] ({source.name}): gives {given or 'no ratio'}; every "
                f"source must give exactly one of weight, repeat, budget, here {wanted!r}"
            )
        if source.allow_short and source.max_repeats is None and wanted != "budget":
            raise UserError(
                f"{recipe.path}: sources[{i}] ({source.name}): allow_short: nothing can run short "
                "without `max_repeats`; add it, or remove allow_short"
            )
    if wanted == "weight":
        _check_stages(recipe)
        return
    for key in ("length", "stages"):
        if getattr(recipe, key):
            raise UserError(f"{recipe.path}: {key}: a {wanted} recipe has its own; remove it")
    if wanted == "repeat" and recipe.unit != "samples":
        raise UserError(f"{recipe.path}: unit: a repeat recipe counts samples; remove it")


def _check_stages(recipe: Recipe) -> None:
    names = [source.name for source in recipe.sources]
    last = -1
    for i, stage in enumerate(recipe.stages):
        where = f"{recipe.path}: stages[{i}]"
        unknown = next((name for name in stage.weights if name not in names), None)
        if unknown is not None:
            raise UserError(
                f"{where}: weights: no source is named {unknown!r}; name one of {names}"
            )
        if stage.start <= last:
            raise UserError(f"{where}: start: {stage.start} is not after {last}; order the stages")
        if stage.start % recipe.period:
            better = -(-stage.start // recipe.period) * recipe.period
            raise UserError(
                f"{where}: start: {stage.start} is no multiple of the period {recipe.period}; "
                f"use `start: {better}`"
            )
        last = stage.start
    for start, weights in recipe.weights():
        if not any(weights):
            raise UserError(f"{recipe.path}: stages: from {start} on every weight is 0; raise one")
        if recipe.unit == "samples":
            check_period(recipe, weights, start)


def check_period(recipe: Recipe, weights: Sequence[Fraction], start: int) -> None:
    """Raise UserError where the period cannot represent the shares of samples `weights`."""
    worst = misfit(weights, recipe.period)
    if worst is None:
        return
    better = fitting_period(weights, recipe.period)
    remedy = f"use `period: {better}`" if better else "choose rounder weights"
    stage = f" from position {start} on" if start else ""
    raise UserError(
        f"{recipe.path}: sources[{worst}] ({recipe.sources[worst].name}): weight{stage}: a period "
        f"of {recipe.period} cannot represent it within 0.1 %; {remedy}"
    )


def check_view(view: View, profile: Profile, where: str) -> None:
    """Raise UserError where a view asks for more than a pool of this profile holds."""
    if view.min_area > view.area:
        raise UserError(
            f"{where}: frames: min_area: {view.min_area} is more than the area {view.area}; lower "
            "it, or raise the area"
        )
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
