"""The one rule for lists of names: frames of a folder, parts of a file, files that fit a pattern.

Numbers in names compare as numbers, everything else by its bytes: `part2` stands before `part10`,
and names without numbers, or with as many digits each, stand as their bytes do.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path, PurePosixPath

JUNK = frozenset({".ds_store", "thumbs.db", "desktop.ini"})
"""What file managers leave beside pictures, in lower case; names that begin with `._` are, too."""

_NUMBER = re.compile(rb"([0-9]+)")


def number_order(name: str) -> tuple[tuple[bytes | tuple[int, bytes], ...], bytes]:
    """What a name is sorted by: digits as numbers of any length, then the bytes of the whole name.

    A number stands where the digit 0 stands among the bytes.
    """
    whole = name.encode("utf-8", "surrogatepass")
    pieces = _NUMBER.split(whole)
    key: list[bytes | tuple[int, bytes]] = []
    # natural sort order: (length, digits) compares numbers of any size without converting them
    for text, digits in zip(pieces[::2], [*pieces[1::2], b""], strict=True):
        number = digits.lstrip(b"0")
        key += [text + b"0", (len(number), number)] if digits else [text]
    return tuple(key), whole


def in_order(names: Iterable[str]) -> list[str]:
    """The names, each once, in the order of their numbers."""
    return sorted(set(names), key=number_order)


def matching(folder: Path, pattern: str) -> list[Path]:
    """The files under a folder that fit a glob pattern, in the order of their numbers."""
    names = (path.relative_to(folder).as_posix() for path in folder.glob(pattern))
    return [folder / name for name in in_order(names)]


def renumbered(names: Iterable[str]) -> tuple[str, str] | None:
    """Two names, equal but for their digits, that this order puts in other places than their bytes.

    The latter of them by bytes stands first here; None if there are none.
    """
    alike: dict[bytes, list[str]] = defaultdict(list)
    for name in in_order(names):
        # equal but for their digits: with every run of digits replaced by one zero
        alike[_NUMBER.sub(b"0", name.encode("utf-8", "surrogatepass"))].append(name)
    pairs = (pair for group in alike.values() for pair in pairwise(group))
    return next(((a, b) for a, b in pairs if a > b), None)


def is_junk(name: str) -> bool:
    """Whether a file manager left this file there, whose path may be given whole."""
    file = PurePosixPath(name).name
    return file.startswith("._") or file.lower() in JUNK


def printable(name: str) -> str:
    """A name as text: bytes that are not UTF-8 are spelled `\\xe9`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
