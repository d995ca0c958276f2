"""`--allow-path FOLDER`: what a recipe may name outside its own folder and the current one.

Whoever runs a command says so, never the recipe: a recipe of a stranger allows itself nothing. The
folders stand in no id: the same sources give the same manifest wherever they lie.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

from shards.errors import UserError

OPTION = "--allow-path"


def add_option(command: argparse.ArgumentParser) -> None:
    """Give a command that reads recipes the option, as `arguments.allowed`."""
    command.add_argument(
        OPTION,
        dest="allowed",
        metavar="FOLDER",
        action="append",
        default=[],
        help="a folder elsewhere that the recipe may name, and links may lead to; may be repeated",
    )


def allowed_paths(allowed: Sequence[str]) -> tuple[Path, ...]:
    """The folders as given, `..` taken out; UserError names each that is no absolute path."""
    # a relative one would be another folder on another machine, and in a job's package
    if wrong := [one for one in allowed if not Path(one).is_absolute()]:
        raise UserError(*(f"{OPTION} {one}: not an absolute path; write it whole" for one in wrong))
    return tuple(Path(os.path.normpath(one)) for one in allowed)


def check_here(folders: Iterable[Path]) -> None:
    """UserError names this machine and each of the folders that it does not have."""
    here = platform.node()
    if missing := [one for one in folders if not one.is_dir()]:
        raise UserError(
            *(
                f"{OPTION} {one}: no such folder on {here}; every machine must have it at this path"
                for one in missing
            )
        )
