"""A grid with all that it names, looked at before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mixtures.recipe.allowed_paths import allowed_paths
from mixtures.recipe.load import load_recipe
from shards.errors import Mistakes, UserError
from train.ablation.grid import Grid, load_grid
from train.ablation.variants import Resolved, resolve
from train.named_files import check_data, check_files


def read(path: Path, allowed: Sequence[str]) -> tuple[Grid, list[Resolved]]:
    """A grid and its variants; UserError for what is wrong with it, or not where it says."""
    grid = load_grid(path)
    mistakes = Mistakes()
    with mistakes.noted():
        check_data(grid.pool)
    with mistakes.noted():
        check_files([Path(task) for task in grid.tasks])
    if grid.relevance is not None and not Path(grid.relevance, "config.json").is_file():
        with mistakes.noted():
            raise UserError(
                f"{path}: relevance: {grid.relevance}: no model folder (no config.json)"
            )
    if grid.held_out is not None:
        with mistakes.noted():
            load_recipe(Path(grid.held_out.recipe), allowed)
    variants: list[Resolved] = []
    with mistakes.noted():
        variants = resolve(grid, str(path), allowed_paths(allowed))
    mistakes.tell()
    return grid, variants
