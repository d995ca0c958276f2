"""The pages that are made from the code; `python -m tests.reference_pages` writes them."""

from __future__ import annotations

from pathlib import Path

from mixtures.recipe.reference import MADE, page
from mixtures.recipe.types import Benchmarks, Recipe
from pipeline.report.remedies import REMEDIES
from shards.outcome import CODES
from train.ablation.grid import Grid
from train.config import Config

DOCS = Path(__file__).resolve().parent.parent / "docs"
MISTAKES = """A key that is not here is an error, and so is one without a value. All mistakes of a file are named
at once, each in one line: file, key, what is wrong, what to do."""  # noqa: E501
RECIPES = f"""Every key of a recipe, and of the list of benchmarks that `python -m pipeline leaks build` reads.
{MISTAKES}"""  # noqa: E501
CONFIGS = f"""Every key of a training config; what a file leaves out has its default.
{MISTAKES}"""
GRIDS = f"""Every key of a grid, the file of `python -m train ablate` ([ablations](ablations.md)).
{MISTAKES}"""
REFUSALS = """Why a record or a sample is not kept. Every refusal is a row of `OUT/refused.parquet` with its stage, its
code and a detail: what was seen, and where. `OUT/report.html` shows them by source and code."""  # noqa: E501
GROUPS = {
    "Records": ("What is judged of a row: [sources](sources.md#what-is-refused-of-a-row).",
                ("ROW_", "TEXT_", "TURN", "SPAN_")),
    "Media": ("Bounds: [media](media.md#bounds-and-codes); names: [sources](sources.md#names).",
              ("MEDIA_",)),
    "Fetching and archives": ("Bounds: [sources](sources.md#fetching).", ("FETCH_", "ARCHIVE_")),
    "Filter decisions": (
        "Of one recipe, not of the pool: [data model](data_model.md#filter-decisions).",
        ("",),
    ),
}  # fmt: skip
"""What is said of the codes that begin so and are in no group before."""


def refusals() -> str:
    """The page of the table shards.outcome.CODES."""
    left, parts = dict(CODES), [f"# Refusal codes\n\n{MADE}\n\n{REFUSALS}\n"]
    for title, (text, starts) in GROUPS.items():
        own = [code for code in left if code.startswith(starts)]
        rows = "".join(f"| `{code}` | {left.pop(code)} | {remedy(code)} |\n" for code in own)
        head = "| code | means | what to do | for example |\n|---|---|---|---|\n"
        parts.append(f"## {title}\n\n{text}\n\n{head}{rows}")
    return "\n".join(parts)


def remedy(code: str) -> str:
    """What to do, and an example, as two cells of a table."""
    return f"{REMEDIES[code].do} | {REMEDIES[code].example}".replace("<", "\\<")


KINDS = {"recipe": Recipe, "list_of_benchmarks": Benchmarks}
KEYS = {
    DOCS / "recipe_reference.md": page("Keys of a recipe", RECIPES, **KINDS),
    DOCS / "grid_reference.md": page("Keys of a grid", GRIDS, grid=Grid),
    DOCS / "config_reference.md": page("Keys of a training config", CONFIGS, config=Config),
}
PAGES = KEYS | {DOCS / "refusal_codes.md": refusals()}

if __name__ == "__main__":
    for path, text in PAGES.items():
        path.write_text(text)
