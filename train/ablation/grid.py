"""What an ablation varies, as a person wrote it: GRID.yaml, whose fields are its keys.

`docs/grid_reference.md` is made from them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from mixtures.keys import Integer, Name, Positive, Share, Text, key, one_of, one_or_more
from mixtures.recipe import fields
from shards.errors import UserError

BASE = "base"
"""The name of the runs that every variant is compared with."""
ABLATION = "ablation.json"
"""What says in DIR what was varied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutRecipe:
    """Samples that are not trained on; every variant shows them as it shows its own."""

    recipe: Annotated[Text, key("Their recipe, over the same pool.", "mixtures/demo_held_out.yaml")]
    samples: Annotated[
        Integer, key("So many samples, the first ones of its order.", "512", least=1)
    ] = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One thing that differs from the base: in its recipe, in its config, or in both."""

    name: Annotated[Name, key("What it is called in tables.", "keep_duplicates")]
    recipe: Annotated[
        dict[str, Any] | None,
        key("Keys of the recipe, with the values that they have here.", "{duplicates: keep}"),
    ] = None
    sources: Annotated[
        dict[Name, dict[str, Any]] | None,
        key("Keys of sources, by the name of each.", "{coco: {filters: {width: {min: 320}}}}"),
    ] = None
    leave_out: Annotated[
        tuple[Name, ...],
        BeforeValidator(one_or_more),
        key("Sources that are not in its recipe.", "[coco]"),
    ] = ()
    times: Annotated[
        dict[Name, Positive] | None,
        key("Sources whose weight, repeat or budget is so many times the base's.", "{coco: 2}"),
    ] = None
    config: Annotated[
        dict[str, Any] | None,
        key("Keys of the config, with the values that they have here.", "{projector: isf}"),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A variant for each of some shares of the weights, of which some sources have one together."""

    name: Annotated[Name, key("What its variants are called, before the share.", "images")]
    sources: Annotated[
        tuple[Name, ...],
        BeforeValidator(one_or_more),
        key("The sources; each keeps its part of their share.", "[coco, llava_images]"),
    ]
    shares: Annotated[tuple[Share, ...], key("What they have together.", "[1/4, 1/2, 3/4]")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixtures:
    """Variants with drawn weights, from which `train suggest` learns which are best."""

    count: Annotated[
        Integer, key("So many; `suggest` wants 4 for each source but one.", "24", least=1, most=999)
    ]
    seed: Annotated[
        Integer,
        key(
            "Of the draws; more of one seed begin with the same.", "7", least=0, most=(1 << 63) - 1
        ),
    ] = 1
    concentration: Annotated[
        Positive | None,
        key(
            "The sum of the parameters of a Dirichlet distribution around the base's weights, the "
            "higher the nearer to them (default: the number of sources, which draws evenly if the "
            "base's weights are equal).",
            "8",
        ),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Runs that differ from a base in one thing each, over one pool."""

    recipe: Annotated[Text, key("The recipe of the base.", "mixtures/demo_stage2.yaml")]
    config: Annotated[
        Text, key("The training config of the base.", "train/configs/demo_ablation.yaml")
    ]
    pool: Annotated[Text, key("The pool that all manifests are planned over.", "runs/demo/pool")]
    seeds: Annotated[
        tuple[Integer, ...],
        key("Each variant is trained once with each; claims want five or more.", "[1, 2, 3, 4, 5]"),
    ]
    budget: Annotated[
        Integer | None,
        key("Supervised tokens of every run (default: those of the base, by its config's `stop`).",
            "200000", least=1),
    ] = None  # fmt: skip
    held_out: Annotated[
        HeldOutRecipe | None,
        key(
            "What the held-out loss is taken on.",
            "{recipe: mixtures/demo_held_out.yaml, samples: 512}",
        ),
    ] = None
    tasks: Annotated[
        tuple[Text, ...],
        BeforeValidator(one_or_more),
        key("Task files that every model is asked, as of `evaluate --tasks`.", "[tasks/test.json]"),
    ] = ()
    benchmarks: Annotated[
        dict[Name, Text] | None,
        key("Evaluation sets by name, and the folders of your copies.", "{mvbench: /data/MVBench}"),
    ] = None
    feature_cache: Annotated[
        Text | None,
        key("A folder for the features of frozen towers, which all runs that have one share.",
            "/scratch/features"),
    ] = None  # fmt: skip
    relevance: Annotated[
        Text | None,
        key(
            "A folder of SigLIP, by which variants whose recipe says `selection: query` are shown "
            "frames of what they are asked about.",
            "/models/siglip",
        ),
    ] = None
    floors: Annotated[
        tuple[Annotated[str, one_of("none", "shuffled_frames")], ...],
        BeforeValidator(one_or_more),
        key("Conditions of `evaluate --pathways` that are asked besides.", "[none]"),
    ] = ()
    variants: Annotated[
        tuple[Variant, ...],
        key("What differs from the base.", "[{name: isf, config: {projector: isf}}]"),
    ] = ()
    each_source: Annotated[
        tuple[Annotated[str, one_of("leave_out", "double")], ...],
        BeforeValidator(one_or_more),
        key("A variant for each source of the recipe: without it, or twice its ratio.",
            "[leave_out]"),
    ] = ()  # fmt: skip
    sweep: Annotated[
        Sweep | None,
        key("Variants by share, such as of images and videos.",
            "{name: images, sources: [coco], shares: [1/4, 1/2]}"),
    ] = None  # fmt: skip
    mixtures: Annotated[
        Mixtures | None,
        key("Variants with drawn weights, for `train suggest`.", "{count: 24, seed: 1}"),
    ] = None


def load_grid(path: Path) -> Grid:
    """The grid in `path`; UserError has a line for every mistake: file, key and remedy."""
    grid = fields.load(Grid, path)
    if wrong := [f"{path}: {line}" for line in _conflicts(grid)]:
        raise UserError(*wrong)
    return grid


def _conflicts(grid: Grid) -> Iterator[str]:
    """A line for each thing that keys may not say together."""
    if not grid.seeds:
        yield "seeds: empty; name at least one seed"
    for seed, count in Counter(grid.seeds).items():
        if count > 1:
            yield f"seeds: {seed} is there {count} times; each is trained once, name it once"
        if not 0 <= seed < 1 << 63:
            yield f"seeds: {seed} must be from 0 to 2^63 - 1"
    if not (grid.variants or grid.each_source or grid.sweep or grid.mixtures):
        yield "nothing is varied; write `variants`, `each_source`, `sweep` or `mixtures`"
    for name, count in Counter(variant.name for variant in grid.variants).items():
        if name == BASE:
            yield f"variants: {BASE!r} is what they are compared with; give another name"
        elif count > 1:
            yield f"variants: {count} are named {name!r}; rename them apart"
    if not (grid.held_out or grid.tasks or grid.benchmarks):
        yield "nothing is measured; write `held_out`, `tasks` or `benchmarks`"
    if grid.relevance is not None and not (grid.tasks or grid.benchmarks):
        yield "relevance: nothing is asked without `tasks` or `benchmarks`; remove it"
    if grid.floors and not (grid.tasks or grid.benchmarks):
        yield "floors: nothing is asked without `tasks` or `benchmarks`; remove it"
