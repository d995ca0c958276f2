"""The pages that are made from the code; `python -m tests.reference_pages` writes them."""

from __future__ import annotations

from pathlib import Path

from mixtures.recipe.reference import page
from mixtures.recipe.types import Benchmarks, Recipe
from train.config import Config

DOCS = Path(__file__).resolve().parent.parent / "docs"
MISTAKES = """A key that is not here is an error, and so is one without a value. All mistakes of a file are named
at once, each in one line: file, key, what is wrong, what to do."""  # noqa: E501
RECIPES = f"""Every key of a recipe, and of the list of benchmarks that `python -m pipeline leaks build` reads.
{MISTAKES}"""  # noqa: E501
CONFIGS = f"""Every key of a training config; what a file leaves out has its default.
{MISTAKES}"""
KINDS = {"recipe": Recipe, "list_of_benchmarks": Benchmarks}
PAGES = {
    DOCS / "recipe_reference.md": page("Keys of a recipe", RECIPES, **KINDS),
    DOCS / "config_reference.md": page("Keys of a training config", CONFIGS, config=Config),
}

if __name__ == "__main__":
    for path, text in PAGES.items():
        path.write_text(text)
