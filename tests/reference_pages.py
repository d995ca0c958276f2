"""The pages that are made from the code; `python -m tests.reference_pages` writes them."""

from __future__ import annotations

import importlib
import re
from argparse import Action, ArgumentParser, _SubParsersAction
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import fill

from mixtures.recipe.reference import MADE, page
from mixtures.recipe.types import Benchmarks, Recipe
from pipeline.console_script import OWNERS
from pipeline.report.remedies import REMEDIES
from pipeline.sources.benchmarks import BENCHMARKS
from pipeline.sources.benchmarks.item import Benchmark
from shards.outcome import CODES
from train.ablation.grid import Grid
from train.config import Config
from train.evaluation.listing import score_of
from train.evaluation.rules import prompts

Command = tuple[str, ArgumentParser]
"""What a command does in a few words, and its parser."""
DOCS = Path(__file__).resolve().parent.parent / "docs"
EVALUATION = DOCS / "evaluation.md"
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


SETS = re.compile(r"(<!-- made: sets -->\n).*?(<!-- /made -->)", re.S)
SIZES = re.compile(r"1B ([\d.]+), 3B ([\d.]+), 7B ([\d.]+)")


def evaluation() -> str:
    """docs/evaluation.md, whose list of sets is made of what `train evaluate --list` tells, and of
    the readers."""
    return SETS.sub(lambda block: block[1] + _sets() + block[2], EVALUATION.read_text())


def _sets() -> str:
    head = "\n| name | about | score | 1B | 3B | 7B |\n|---|---|---|---|---|---|\n"
    return head + "".join(map(_row, BENCHMARKS)) + "".join(map(_set, BENCHMARKS)) + "\n"


def _row(name: str) -> str:
    scores = SIZES.match(prompts(name).paper)
    cells = [f"[`{name}`](#{name})", BENCHMARKS[name].kind, score_of(name)]
    return f"| {' | '.join([*cells, *(scores.groups() if scores else ('', '', ''))])} |\n"


def _set(name: str) -> str:
    benchmark, rules = BENCHMARKS[name], prompts(name)
    lines = [f"Get: {rules.get}."]
    files = f"Files: {_listed(benchmark.annotations)}, with {_listed(benchmark.columns, 'and')}"
    lines.append(f"{files} ({benchmark.layout}).")
    lines.append(f"Media: {_media(benchmark)}.")
    tables = f", tables by {', '.join(rules.tables)}" if rules.tables else ""
    lines.append(f"Score: {score_of(name)}{tables} ({rules.source}).")
    if rules.paper:
        lines.append(f"SlowFast-LLaVA-1.5: {rules.paper}.")
    command = f"python -m train evaluate --model OUT/model --out scores.json --benchmark {name}="
    told = "\n".join(map(_item, lines))
    return f"\n### {name}\n\n{told}\n\n```bash\n{command}FOLDER\n```\n"


def _media(benchmark: Benchmark) -> str:
    if benchmark.kind == "image":
        return "pictures in the rows"
    # folders of single tasks lie below others
    names = [name for name in benchmark.media if str(Path(name).parent) not in benchmark.media]
    below = ", or a folder below" if len(names) < len(benchmark.media) else ""
    told = [f"in {_listed(names)}{below}"]
    if benchmark.subtitles:
        told.append(f"subtitles in `{benchmark.subtitles}`")
    if benchmark.training:
        training = [f"FOLDER/{name}" for name in benchmark.training]
        told.append(f"for a floor the training split, {_listed(training)}")
    return "; ".join(told)


def _item(text: str) -> str:
    return fill(text, 118, initial_indent="- ", subsequent_indent="  ", break_long_words=False,
                break_on_hyphens=False)  # fmt: skip


def _listed(names: Sequence[str], word: str = "or") -> str:
    *first, last = [f"`{name}`" if name else "the folder itself" for name in names]
    return f"{', '.join(first)} {word} {last}" if first else last


COMMANDS = """Every command and option, as `--help` says them. `slowfast-mix` is the console script of an installed
wheel; from the repository's root the same commands are `python -m PACKAGE ...`, as each heading has it. Every one
of them takes `--help` and `--version`. A mistake in a command line is one line and status 2."""  # noqa: E501


def command_page() -> str:
    """docs/commands.md: a table of arguments for each command."""
    parts = [f"# Commands\n\n{MADE}\n\n{COMMANDS}\n"]
    for package in dict.fromkeys(OWNERS.values()):
        made = importlib.import_module(f"{package}.__main__").parser()
        parts += (_command(package, name, one) for name, one in _leaves(made))
    return "\n".join(parts)


def _leaves(
    parser: ArgumentParser, name: str = "", told: str = ""
) -> Iterator[tuple[str, Command]]:
    """(name, (what it does, parser)) of every command below a parser."""
    inner = [one for one in parser._actions if isinstance(one, _SubParsersAction)]
    for action in inner:
        says = {choice.dest: choice.help or "" for choice in action._choices_actions}
        for word, one in action.choices.items():
            yield from _leaves(one, f"{name} {word}".strip(), says[word])
    if not inner:
        yield name, (told, parser)


def _command(package: str, name: str, command: Command) -> str:
    told, parser = command
    shown = [one for one in parser._actions if one.dest not in ("help", "version")]
    rows = [f"| `{_spelled(one)}` | {_cell(_said(one))} |" for one in shown]
    table = (
        "\n".join(["| argument | what |", "|---|---|", *rows]) if rows else "It takes no argument."
    )
    return f"## python -m {package} {name}\n\n{told}\n\n{table}\n"


def _spelled(one: Action) -> str:
    """An argument as it is typed; several values are told by dots."""
    choices = "|".join(one.choices) if one.choices else ""
    value = "" if one.nargs == 0 else str(one.metavar or choices or one.dest.upper())
    words = [", ".join(one.option_strings), value + (" ..." if one.nargs in ("+", "*") else "")]
    return _cell(" ".join(filter(None, words)))


def _said(one: Action) -> str:
    needed = "required: " if one.required and one.option_strings else ""
    return needed + (one.help or "") % vars(one)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


KINDS = {"recipe": Recipe, "list_of_benchmarks": Benchmarks}
KEYS = {
    DOCS / "recipe_reference.md": page("Keys of a recipe", RECIPES, **KINDS),
    DOCS / "grid_reference.md": page("Keys of a grid", GRIDS, grid=Grid),
    DOCS / "config_reference.md": page("Keys of a training config", CONFIGS, config=Config),
}
PAGES = KEYS | {
    DOCS / "commands.md": command_page(),
    DOCS / "refusal_codes.md": refusals(),
    EVALUATION: evaluation(),
}

if __name__ == "__main__":
    for path, text in PAGES.items():
        path.write_text(text)
