"""A grid's variants resolved: each one's whole recipe and config, one thing other than the base's.

Trees of YAML are changed and read again by the validators of recipes and configs, so that a variant
can say whatever a file can, and nothing else.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from mixtures.recipe import fields
from mixtures.recipe.strict_yaml import load_yaml
from mixtures.recipe.types import RATIOS, Recipe
from mixtures.recipe.validate import check
from shards.errors import Mistakes, UserError
from train.ablation.drawn_mixtures import drawn_variants
from train.ablation.grid import BASE, Grid, Sweep, Variant
from train.config import PARTS, Config, RandomInit, config_of, load_config

Tree = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A variant, or the base, as it is planned and trained, but for its seed."""

    name: str
    changes: tuple[str, ...]
    recipe: Recipe
    config: Config


def resolve(grid: Grid, where: str, allowed: Sequence[Path] = ()) -> list[Resolved]:
    """The base and every variant of a grid that stands in the file `where`.

    UserError has a line for every mistake, and for variants that are the same.
    """
    trees = load_yaml(Path(grid.recipe)), load_yaml(Path(grid.config))
    base = Resolved(
        name=BASE,
        changes=(),
        recipe=_recipe(trees[0], Path(grid.recipe), grid.recipe, allowed),
        config=load_config(Path(grid.config)),
    )
    mistakes = Mistakes()
    variants = [base]
    for location, variant in _spelled_out(grid, base.recipe, where):
        with mistakes.noted():
            changed = changed_tree(trees[0], variant, f"{where}: {location}")
            resolved = Resolved(
                name=variant.name,
                changes=tuple(_told(variant)),
                recipe=_recipe(changed, base.recipe.path, f"{where}: {location}: recipe", allowed),
                config=config_of(
                    merged(trees[1] or {}, variant.config), f"{where}: {location}: config"
                ),
            )
            variants.append(_another(resolved, variants, f"{where}: {location}"))
    mistakes.tell()
    return variants


def seeded(resolved: Resolved, seed: int) -> tuple[Recipe, Config]:
    """Recipe and config of the run with this seed: of the order, of the draws of frames, and of
    what is drawn anew of the weights."""
    parts = {name: getattr(resolved.config.parts, name) for name in PARTS}
    drawn = {
        name: replace(part, init=RandomInit(seed))
        for name, part in parts.items()
        if isinstance(part.init, RandomInit)
    }
    config = replace(
        resolved.config,
        parts=replace(resolved.config.parts, **drawn),
        stochastic=replace(resolved.config.stochastic, seed=seed),
    )
    return replace(resolved.recipe, seed=seed), config


def _another(resolved: Resolved, others: Sequence[Resolved], location: str) -> Resolved:
    """The variant; UserError where it is one that is there already."""
    for other in others:
        if (resolved.recipe, resolved.config) == (other.recipe, other.config):
            raise UserError(
                f"{location}: is the same as {other.name!r}; change something, or remove it"
            )
        if resolved.name == other.name:
            raise UserError(f"{location}: another one is named {resolved.name!r} too; rename it")
    return resolved


def _spelled_out(grid: Grid, recipe: Recipe, where: str) -> Iterator[tuple[str, Variant]]:
    """Every variant and its place in the file, those of `each_source` and `sweep` written out."""
    names = [source.name for source in recipe.sources]
    for number, variant in enumerate(grid.variants):
        yield f"variants[{number}] ({variant.name})", variant
    for what in grid.each_source:
        for name in names:
            location = f"each_source: {what} ({name})"
            if what == "leave_out":
                yield location, Variant(name=f"without_{name}"[:64], leave_out=(name,))
            else:
                yield location, Variant(name=f"double_{name}"[:64], times={name: Fraction(2)})
    if grid.sweep is not None:
        for share in grid.sweep.shares:
            yield f"sweep: {share}", _with_share(grid.sweep, share, recipe, where)
    if grid.mixtures is not None:
        if recipe.ratio != "weight" or recipe.stages:
            raise UserError(
                f"{where}: mixtures: {recipe.path} has no weights, or `stages` of its own; give "
                "every source a weight, and no stages"
            )
        # drawn around the base's weights
        for variant in drawn_variants(grid.mixtures, _shares(recipe)):
            yield f"mixtures ({variant.name})", variant


def _shares(recipe: Recipe) -> dict[str, Fraction]:
    """The weight of each source, of a sum of 1."""
    total = sum(source.weight or 0 for source in recipe.sources)
    return {source.name: (source.weight or Fraction(0)) / total for source in recipe.sources}


def shares_of(variant: Resolved, base: Resolved) -> dict[str, Fraction]:
    """The share of each of the base's sources in a mixture that differs from it in weights alone;
    nothing of any other variant."""
    recipe = base.recipe
    # a source that is left out has a weight of 0
    alike = {source.name: replace(source, weight=None) for source in recipe.sources}
    is_mixture = (
        recipe.ratio == variant.recipe.ratio == "weight"
        and not recipe.stages
        and variant.config == base.config
        and replace(variant.recipe, sources=()) == replace(recipe, sources=())
        and all(alike.get(one.name) == replace(one, weight=None) for one in variant.recipe.sources)
    )
    return dict.fromkeys(alike, Fraction(0)) | _shares(variant.recipe) if is_mixture else {}


def _with_share(sweep: Sweep, share: Fraction, recipe: Recipe, where: str) -> Variant:
    """Weights under which the sources of a sweep have this share; the others keep their parts."""
    if recipe.ratio != "weight":
        raise UserError(f"{where}: sweep: {recipe.path} gives no weights; write its variants out")
    for name in sweep.sources:
        _check_source(name, [source.name for source in recipe.sources], f"{where}: sweep: sources")
    weights = {source.name: source.weight or Fraction(0) for source in recipe.sources}
    total = sum(weights.values())
    swept = sum(weights[name] for name in set(sweep.sources))
    name = f"{sweep.name}_{float(share):g}"
    rest = [one for one in weights if one not in sweep.sources]
    if share == 1 or not rest:
        return Variant(name=name, leave_out=tuple(rest))
    times = {
        one: share * total / swept
        if one in sweep.sources
        else (1 - share) * total / (total - swept)
        for one in weights
    }
    return Variant(name=name, times=times)


def merged(tree: Tree, over: Mapping[str, Any] | None) -> Tree:
    """A tree with the values of another one, mapping by mapping; lists are replaced whole."""
    merged_tree = dict(tree)
    for name, value in (over or {}).items():
        inner = merged_tree.get(name)
        if isinstance(inner, dict) and isinstance(value, dict):
            value = merged(inner, value)
        merged_tree[name] = value
    return merged_tree


def changed_tree(tree: Tree, variant: Variant, where: str) -> Tree:
    """The recipe's tree as the variant has it; sources are known by name."""
    recipe = merged(tree, variant.recipe)
    sources = [dict(source) for source in recipe["sources"]]
    names = [source["name"] for source in sources]
    named = {"sources": variant.sources, "leave_out": variant.leave_out, "times": variant.times}
    for key, wanted in named.items():
        for name in wanted or ():
            _check_source(name, names, f"{where}: {key}")
    if variant.times and recipe.get("stages"):
        raise UserError(
            f"{where}: times: {recipe['name']!r} has `stages`, whose weights win; write "
            "the variant's own, as `recipe: {stages: [...]}`, and `sources: {NAME: {weight: N}}`"
        )
    for source in sources:
        _multiply(source, (variant.times or {}).get(source["name"]))
    kept = [source for source in sources if source["name"] not in variant.leave_out]
    of = variant.sources or {}
    return recipe | {"sources": [merged(source, of.get(source["name"])) for source in kept]}


def _multiply(tree: Tree, times: Fraction | None) -> None:
    """The ratio of a source, so many times as high; a decimal as YAML would have it."""
    for ratio in RATIOS:
        if times is not None and ratio in tree:
            value = Fraction(tree[ratio]) * times
            whole = value.denominator == 1
            exact = Decimal(value.numerator) / Decimal(value.denominator)
            tree[ratio] = int(value) if whole else exact


def _check_source(name: str, names: Sequence[str], where: str) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        remedy = f"did you mean {near[0]!r}?" if near else f"name one of {', '.join(names)}"
        raise UserError(f"{where}: no source is named {name!r}; {remedy}")


def _recipe(tree: object, path: Path, where: str, allowed: Sequence[Path]) -> Recipe:
    """The recipe of a tree; lines about it begin with `where`."""
    recipe = replace(fields.parse(Recipe, tree, where), path=path, allowed_paths=tuple(allowed))
    with _told_of(where, str(path)):
        check(recipe)
    return recipe


@contextmanager
def _told_of(where: str, path: str) -> Iterator[None]:
    """Lines of a UserError that begin with a path begin with `where` instead."""
    try:
        yield
    except UserError as error:
        raise UserError(
            *(f"{where}{str(line).removeprefix(path)}" for line in error.args)
        ) from error


def _told(variant: Variant) -> Iterator[str]:
    """What a variant changes, in words: `recipe: duplicates: keep`."""
    for location, tree in (("recipe", variant.recipe), ("config", variant.config)):
        yield from (f"{location}: {line}" for line in _lines(tree or {}))
    for name, tree in (variant.sources or {}).items():
        yield from (f"source {name}: {line}" for line in _lines(tree))
    yield from (f"without source {name}" for name in variant.leave_out)
    for name, times in (variant.times or {}).items():
        yield f"source {name}: {float(times):.4g} times its ratio"


def _lines(tree: Any) -> Iterator[str]:
    if not isinstance(tree, dict):
        yield str(tree).lower() if isinstance(tree, bool) else str(tree)
        return
    for name, inner in tree.items():
        yield from (f"{name}: {line}" for line in _lines(inner))
