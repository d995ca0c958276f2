"""The errors a person can cause or must act on.

    UserError(ValueError)      something the person at the keyboard can mend: exit status 2
      DamagedData              bytes that are not what their index says: names the place
      MissingData              bytes that an index names and nobody holds

A broken sample is never an exception: it is a `shards.outcome.Refused` record. Every other
exception is a bug or a failing machine, and is allowed to show its traceback.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from shards import SCRIPT, tool_version

_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
"""Categories of characters that a terminal obeys, hides or reorders by, or that no font has."""


def escaped(text: str) -> str:
    """Text of strangers as it may be shown: on one line, what a terminal would obey spelled out."""
    # the usual case, without a look at every character
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        sign.encode("unicode_escape").decode() if unicodedata.category(sign) in _UNSEEN else sign
        for sign in text
    )


class UserError(ValueError):
    """What is wrong, where, and the remedy: a line for each argument; exit status 2.

    Names of strangers stand in such lines, so what a terminal would obey in them is spelled out.
    """

    def __str__(self) -> str:
        return "\n".join(escaped(str(line)) for line in self.args)


class DamagedData(UserError):
    """Stored bytes fail their checksum or their shape; the message names file and place."""


class MissingData(UserError):
    """An index or a manifest names bytes that the given data does not hold."""


class Mistakes:
    """Mistakes found one after the other, to be told all at once."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """A UserError inside is kept for `tell`, and what follows goes on."""
        try:
            yield
        except UserError as error:
            self._lines += (str(line) for line in error.args)

    def tell(self) -> None:
        """Raise UserError with a line for every mistake, if there was one."""
        if self._lines:
            raise UserError(*dict.fromkeys(self._lines))


@contextmanager
def opening(where: str) -> Iterator[None]:
    """Whatever goes wrong while a library opens a stranger's file is a UserError in one line.

    For calls of libraries alone, whose errors are of every class; memory that is short is none.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        said = (str(error).strip().splitlines() or [""])[0][:200]
        raise UserError(
            f"{where}: cannot be opened ({type(error).__name__}: {said}); fetch or export it again"
        ) from error


class Parser(argparse.ArgumentParser):
    """A command line whose mistakes are one line as well, and status 2; each command of it tells
    the version."""

    def __init__(self, *, add_help: bool = True, **options: Any) -> None:
        super().__init__(add_help=add_help, **options)
        # one without help of its own takes both from its parents
        if add_help:
            self.add_argument(
                "--version",
                action="version",
                version=f"{SCRIPT} {tool_version()}",
                help="print the version and exit",
            )

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the words that were given, and what was meant."""
        sys.stderr.write(f"error: {escaped(message)}{_meant(message)}; see {self.prog} --help\n")
        sys.exit(2)


def _meant(message: str) -> str:
    """The choice that is nearly what was written, if there is one."""
    found = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
    choices = re.findall(r"[\w.-]+", found[2]) if found else []
    near = difflib.get_close_matches(found[1], choices, 1, 0.5) if found else []
    return f"; did you mean {near[0]!r}?" if near else ""


def run_command(main: Callable[[], None]) -> None:
    """Run a command line; a UserError or a refused folder becomes a line each and status 2."""
    try:
        main()
    # a mistake of the person at the keyboard: its lines, no traceback
    except UserError as error:
        sys.stderr.writelines(f"error: {line}\n" for line in str(error).split("\n"))
        sys.exit(2)
    # paths that were given wrong surface as these four
    except (PermissionError, FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        sys.stderr.write(
            f"error: {escaped(str(error.filename))}: {error.strerror}; check the path and rights\n"
        )
        sys.exit(2)
