"""The command lines of all packages: which of them print tables, and can say the same as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mixtures.__main__
import pipeline.__main__
import train.__main__
from shards.errors import Parser
from tests.support.tiny_pool import tiny_manifest

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
