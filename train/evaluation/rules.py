"""How a benchmark is asked and scored, read from its file in train/evaluation/benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import ascii_uppercase

from mixtures.recipe.strict_yaml import load_yaml
from pipeline.sources.benchmarks.item import BenchmarkItem

FOLDER = Path(__file__).with_name("benchmarks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """One benchmark's prompts, comparison and averages.

    `version` is raised with every change of the file, and is in every result. `choice` is the
    prompt of a question with options, each a line by `option`; `text` of one without; `subtitles`
    goes before either. `choose` says how a choice is read: by the letter in the `reply`, or by the
    `likelihood` of each option's text as the reply. `compare` names the rule of free text
    (train.evaluation.answers). `mean_of` is the axis whose values weigh the same in the score, of
    none all questions do; `tables` are the axes that are printed. Questions of the tasks `unscored`
    are answered, for a judge. `source` says whose prompt and average these are, `get` where a copy
    is to be had, `paper` the scores of SlowFast-LLaVA-1.5 by size.
    """

    version: int
    source: str
    get: str
    choice: str = (
        "{question}\n{options}\nAnswer with the option's letter from the given choices directly."
    )
    option: str = "{letter}. {text}"
    text: str = "{question}\nAnswer the question using a single word or phrase."
    subtitles: str = "This video's subtitles are listed below:\n{subtitles}\n"
    choose: str = "reply"
    compare: str = "exact"
    mean_of: str = ""
    tables: tuple[str, ...] = ()
    unscored: tuple[str, ...] = ()
    max_new_tokens: int = 16
    paper: str = ""


@cache
def prompts(name: str) -> Prompts:
    """The file of the benchmark `name`."""
    tree = load_yaml(FOLDER / f"{name}.yaml")
    lists = {key: tuple(tree.get(key, ())) for key in ("tables", "unscored")}
    return Prompts(**tree | lists)


def prompt(item: BenchmarkItem, wording: Prompts, subtitles: str = "") -> str:
    """What the model is asked: the question, its options, and how to answer."""
    lines = [
        wording.option.replace("{letter}", letter).replace("{text}", text)
        for letter, text in zip(ascii_uppercase, item.options, strict=False)
    ]
    form = wording.choice if item.options else wording.text
    # replaced by name, not by str.format: questions hold braces
    text_asked = form.replace("{options}", "\n".join(lines)).replace("{question}", item.question)
    return (
        wording.subtitles.replace("{subtitles}", subtitles) + text_asked
        if subtitles
        else text_asked
    )
