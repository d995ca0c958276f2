"""Bounds on foreign bytes that several rooms hold to: paths, texts, how far things unpack."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

MAX_RATIO = 100  # unpacked to packed bytes
SLACK = 10 << 20  # bytes that any archive may unpack to
MAX_PATH = 1_024
DIRECTION_MARKS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a part of a row is refused."""

    code: str
    detail: str


def text_problems(text: str, what: str, bound: int) -> Iterator[Problem]:
    """What is wrong with a foreign text: `what` it is, and the most characters it may have."""
    # Parquet, JSON and filters cut strings at a NUL, each in its own way
    if "\0" in text:
        yield Problem("TEXT_NUL", f"{what} holds a NUL")
    # half a surrogate pair cannot be written as UTF-8
    if _SURROGATE.search(text):
        yield Problem("TEXT_SURROGATE", f"{what} holds half a surrogate pair")
    if len(text) > bound:
        yield Problem("TEXT_TOO_LONG", f"{what} has {len(text)} characters, at most {bound}")


def path_problems(name: str) -> Iterator[Problem]:
    """A path must stay inside the media folder and mean nothing to ffmpeg or a shell.

    Parts are separated by / or, as Windows writes them, by backslashes.
    """
    yield from text_problems(name[: MAX_PATH + 1], "the media path", MAX_PATH)
    if not name or name == "." or name.startswith(("/", "\\", "-", "~")) or _SCHEME.match(name):
        yield Problem("MEDIA_PATH_REFUSED", f"{name[:100]!r} is not a relative path")
    if ".." in name.replace("\\", "/").split("/"):
        yield Problem("MEDIA_PATH_REFUSED", f"{name[:100]!r} may leave the media folder")
    # direction marks show a name in another order than its bytes have
    if any(unicodedata.category(c) == "Cc" or c in DIRECTION_MARKS for c in name):
        yield Problem("MEDIA_PATH_REFUSED", f"{name[:100]!r} holds control characters")
