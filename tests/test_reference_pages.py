"""Pages about keys say what the code reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline import console_script
from pipeline.console_script import OWNERS
from pipeline.report.remedies import REMEDIES
from shards.outcome import CODES
from tests.reference_pages import DOCS, EVALUATION, KEYS, PAGES, _leaves
from train.evaluation.listing import listing


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_is_what_the_code_makes(path: Path) -> None:
    assert path.read_text() == PAGES[path], "run `python -m tests.reference_pages`"


@pytest.mark.parametrize("path", KEYS, ids=lambda path: path.name)
def test_every_key_has_a_row_with_five_cells(path: Path) -> None:
    rows = [line for line in path.read_text().splitlines() if line.startswith("| `")]
    assert len(rows) > 20 and all(line.replace("\\|", "").count("|") == 6 for line in rows)
    assert not [line for line in rows if "|  |" in line]


def test_the_sets_of_the_page_are_those_that_the_command_lists() -> None:
    text = EVALUATION.read_text()
    names = list(listing().columns[0].cells)
    assert re.findall(r"^### (\w+)$", text, re.M) == names and len(names) == 18
    assert re.findall(r"^\| \[`(\w+)`\]", text, re.M) == names
    told = text.partition("<!-- made: sets -->")[2].partition("<!-- /made -->")[0]
    for name, one in zip(names, told.split("\n### ")[1:], strict=True):
        assert [line[:7] for line in one.splitlines() if line[:2] == "- "][:4] == [
            *("- Get: ", "- Files", "- Media", "- Score")
        ]
        assert f"train evaluate --model OUT/model --out scores.json --benchmark {name}=" in one


def test_every_command_of_the_console_script_has_a_heading() -> None:
    told = re.findall(r"^## python -m (.*)$", (DOCS / "commands.md").read_text(), re.M)
    script = console_script.parser()
    names = [
        f"{'' if name.startswith('train ') else OWNERS[name.split()[0]]} {name}".strip()
        for name, _ in _leaves(script)
    ]
    assert sorted(told) == sorted(names) and len(told) > 30


def test_every_refusal_code_says_what_to_do_and_shows_an_example() -> None:
    assert REMEDIES.keys() == CODES.keys()
    assert all(remedy.do and remedy.example for remedy in REMEDIES.values())


def test_every_refusal_code_has_one_row_and_what_pages_call_a_code_is_one() -> None:
    rows = (DOCS / "refusal_codes.md").read_text().splitlines()
    assert sorted(line.split("`")[1] for line in rows if line.startswith("| `")) == sorted(CODES)
    starts = "|".join({code.partition("_")[0] for code in CODES if "_" in code})
    for path in DOCS.glob("*.md"):
        named = set(re.findall(rf"`((?:{starts})_[A-Z_]+)[:`]", path.read_text()))
        assert named <= set(CODES), f"{path.name}: {named - set(CODES)}"
