"""Hand-written YAML becomes a Recipe: which sources, in which ratio, shown how.

Every key is known, typed and bounded; anything else is a UserError naming file, key and remedy.
Paths in a recipe are relative to the current directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mixtures.recipe import fields
from mixtures.recipe.allowed_paths import allowed_paths
from mixtures.recipe.types import Recipe
from mixtures.recipe.validate import check


def load_recipe(path: Path, allowed: Sequence[str] = ()) -> Recipe:
    """The recipe in `path`; UserError has a line for every mistake: file, key and remedy.

    It may name what lies in its own folder, in the current one, and in those that are `allowed`.
    """
    paths = allowed_paths(allowed)
    recipe = replace(fields.load(Recipe, path), path=path, allowed_paths=paths)
    check(recipe)
    return recipe
