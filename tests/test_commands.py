"""The command lines of all packages: which of them print tables, and can say the same as JSON."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import benchmarks.__main__
import mixtures.__main__
import pipeline.__main__
import train.__main__
from benchmarks.frame import at_least, show
from examples import demo, make_data
from mixtures.console import Console
from pipeline.sources.benchmarks import BENCHMARKS
from pipeline.sources.catalogue import catalogue
from shards.errors import Parser
from tests.support.tiny_pool import tiny_manifest
from train.evaluation.tables import tables_of

PARSERS = {
    "mixtures": mixtures.__main__.parser(),
    "pipeline": pipeline.__main__.parser(),
    "train": train.__main__.parser(),
}
LINES = {
    *(f"pipeline {name}" for name in "rebuild pack report compact".split()),
    *(f"train {name}" for name in "assemble export watch reproduce diff report".split()),
}
"""Commands that print lines alone; all others print tables or answers, also as JSON."""
TINY = "--step 0 --rank 0 --world-size 1"
RUN = {
    "mixtures plan": "{root}/recipe.yaml --pool {root}/pool --out {root}/new",
    "mixtures diff": "{root}/build {root}/build",
    "mixtures explain": "{root}/build " + TINY,
    "pipeline pool ls": "{root}/pool --manifests {root}/build",
    "pipeline pool du": "{root}/pool",
    "pipeline pool gc": "{root}/pool --keep {root}/build",
    "pipeline pool export": "{root}/pool --manifest {root}/build --out {root}/exported",
    "pipeline show": "{root}/build --pool {root}/pool --source clips",
    "pipeline sources": "",
    "train evaluate": "--list",
}
"""Commands that take no time, and what they are given."""


def leaves(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, Parser]]:
    """(name, parser) of every command below a parser."""
    inner = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    for action in inner:
        for word, command in action.choices.items():
            yield from leaves(command, f"{name} {word}")
    if not inner:
        assert isinstance(parser, Parser)
        yield " ".join(name.split()), parser


COMMANDS = dict(leaf for name, parser in PARSERS.items() for leaf in leaves(parser, name))


def test_every_command_that_prints_tables_takes_json() -> None:
    assert LINES < COMMANDS.keys() and set(RUN) < COMMANDS.keys()
    with_json = {n for n, one in COMMANDS.items() if "--json" in one._option_string_actions}
    assert with_json == COMMANDS.keys() - LINES


def test_every_command_and_every_option_says_what_it_is() -> None:
    for name, parser in COMMANDS.items():
        silent = [one.dest for one in parser._actions if not one.help]
        assert not silent, f"{name}: {silent}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("commands")
    tiny_manifest(folder)
    return folder


@pytest.mark.parametrize("name", RUN)
def test_what_it_prints_then_is_one_json_value(
    name: str, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package, *command = name.split()
    words = [*command, *RUN[name].format(root=root).split(), "--json"]
    monkeypatch.setattr(sys, "argv", [package, *words])
    {"mixtures": mixtures, "pipeline": pipeline, "train": train}[package].__main__.main()
    assert json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", RUN)
def test_a_terminal_of_80_columns_cuts_no_word(
    name: str, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package, *command = name.split()
    monkeypatch.setattr(sys, "argv", [package, *command, *RUN[name].format(root=root).split()])
    if name in ("mixtures plan", "pipeline pool export"):
        monkeypatch.setattr(sys, "argv", [*sys.argv[:-1], f"{root}/{name.split()[-1]} again"])
    monkeypatch.setenv("COLUMNS", "80")
    {"mixtures": mixtures, "pipeline": pipeline, "train": train}[package].__main__.main()
    said = capsys.readouterr().out
    assert "…" not in said
    if name in ("pipeline sources", "train evaluate"):
        # every name, whole on its line
        names = list(catalogue()) if name == "pipeline sources" else list(BENCHMARKS)
        assert [one for one in names if f"\n{one}" not in f"\n{said}"] == []


SCORED = {"count": 100, "right": 97, "accuracy": 0.97, "low": 0.9, "high": 0.99}
TASKS = {"scenes/test": {"types": {"flashes": SCORED | {"majority_accuracy": 0.5}}}}
TASKS["scenes/test"] |= {"all": SCORED, "majority_per_type": 0.5}


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_scores_are_whole_in_any_width(columns: int) -> None:
    result = {"masked": True, "tasks": TASKS}
    pathways = {"both": result | {"masked": False}, "shuffled_frames": result}
    console = Console(width=columns, file=io.StringIO(), force_terminal=True)
    for table in tables_of({"pathways": pathways, "benchmarks": {}}, console):
        console.print(table)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in said and said.count("shuffled_frames ") == said.count("(masked)") == 2
    assert said.count("0.970") == 4 and ("97/100" in said) == (columns == 120)


def test_bars_of_benchmarks_are_whole_at_80_columns() -> None:
    console = Console(width=80, file=io.StringIO(), force_terminal=True)
    what = "frames a second, " * 9 + "of train.model.modeling.SlowFastForConditionalGeneration"
    show(console, [at_least(what, 3.25, 0.5)])
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in said and "train.model.modeling.SlowFastForConditionalGeneration" in said


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_tells_the_version(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        COMMANDS[name].parse_args(["--version"])
    assert capsys.readouterr().out.startswith("slowfast-mix ")


@pytest.mark.parametrize("main", [demo.main, make_data.main, benchmarks.__main__.main])
def test_what_is_run_by_its_module_tells_the_version(
    main: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["it", "--version"])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert capsys.readouterr().out.startswith("slowfast-mix ")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("pipeline biuld", "did you mean 'build'?; see "),
        ("pipeline build r.yaml", "the following arguments are required: --out; see "),
        ("train model --size 2b", "invalid choice: '2b'"),
    ],
)
def test_a_mistyped_word_is_answered_in_one_line(
    words: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    package, *rest = words.split()
    with pytest.raises(SystemExit, match="2"):
        PARSERS[package].parse_args(rest)
    said = capsys.readouterr().err
    assert said.startswith("error: ") and says in said and said.count("\n") == 1
