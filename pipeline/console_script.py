"""slowfast-mix: one console script over the commands of all packages.

    slowfast-mix build RECIPE --out OUT      as python -m pipeline build ...
    slowfast-mix plan RECIPE ...             as python -m mixtures plan ...
    slowfast-mix verify DIR                  as python -m shards verify ...
    slowfast-mix train run CONFIG ...        as python -m train run ...

It knows the packages by name and imports nothing of them before a word says which one is meant.
Completion in bash and zsh: `eval "$(register-python-argcomplete slowfast-mix)"`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from contextlib import suppress

from shards import SCRIPT
from shards.errors import Parser, run_command

OWNERS = {
    **dict.fromkeys(
        "init build rebuild pack report show compact pool score sources sandbox leaks".split(),
        "pipeline",
    ),
    **dict.fromkeys("plan diff explain".split(), "mixtures"),
    "verify": "shards",
    "train": "train",
}
"""Words, and the package whose command each is; behind `train` stands a command of its own."""


def main() -> None:
    """Run the command of the package that the first word names."""
    if "_ARGCOMPLETE" in os.environ:
        _complete()
    words = sys.argv[1:]
    package = OWNERS.get(words[0]) if words else None
    if package is None:
        # prints help or version, or says what is wrong with the word
        parser().parse_args(words[:1])
        return
    sys.argv = [SCRIPT, *(words[1:] if package == "train" else words)]
    run_command(importlib.import_module(f"{package}.__main__").main)


def parser() -> Parser:
    """All commands under one parser, for help and completion."""
    top = Parser(
        prog=SCRIPT,
        description="Datasets to mixtures, mixtures to models.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    for package in dict.fromkeys(OWNERS.values()):
        _graft(commands, importlib.import_module(f"{package}.__main__").parser(), package)
    return top


def _graft(commands: argparse._SubParsersAction[Parser], of_package: Parser, package: str) -> None:
    """Put the commands of a package under the script's own; those of train under `train`."""
    if package == "train":
        commands.add_parser(
            "train", parents=[of_package], add_help=False, help="manifest -> weights -> answers"
        )
        return
    (inner,) = (a for a in of_package._actions if isinstance(a, argparse._SubParsersAction))
    told = {choice.dest: choice.help for choice in inner._choices_actions}
    for word, command in inner.choices.items():
        commands.add_parser(word, parents=[command], add_help=False, help=told.get(word))


def _complete() -> None:
    """Answer a shell that asks what may follow; argcomplete exits when it has."""
    with suppress(ModuleNotFoundError):
        import argcomplete

        argcomplete.autocomplete(parser())


if __name__ == "__main__":
    main()
