"""Hand-written YAML becomes a Recipe: which sources, in which ratio, shown how.

Every key is known, typed and bounded; anything else is a UserError naming file, key and remedy.
Paths in a recipe are relative to the current directory.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mixtures.recipe import fields
from mixtures.recipe.types import Recipe
from mixtures.recipe.validate import check


def load_recipe(path: Path) -> Recipe:
    """The recipe in `path`; UserError has a line for every mistake: file, key and remedy."""
    recipe = replace(fields.load(Recipe, path), path=path)
    check(recipe)
    return recipe
