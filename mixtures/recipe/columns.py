"""Columns of a table by what they mean: `{question: prompt, image: [picture]}`."""

from __future__ import annotations

import difflib
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

from mixtures.keys import SAID, WORDS, mistakes_within, one_or_more

MEANINGS = (
    "question",
    "answer",
    "messages",
    "image",
    "images",
    "video",
    "id",
    "span",
    "options",
    "system",
)
"""What the columns of a table can mean."""
SEVERAL = ("question", "options", "span")
"""Those that may lie in several columns: texts that follow one another, options, start and end."""


def columns(value: Any) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(meaning, names of its columns), sorted; mistakes are named by meaning."""
    if not isinstance(value, dict):
        raise ValueError(f"must be a mapping, not {value!r}")
    wrong = {name: (SAID, said) for name, names in value.items() if (said := _wrong(name, names))}
    if wrong:
        raise mistakes_within(wrong)
    return tuple(sorted((name, tuple(_listed(names))) for name, names in value.items()))


Columns = Annotated[
    tuple[tuple[str, tuple[str, ...]], ...],
    PlainValidator(columns),
    WithJsonSchema({WORDS: f"a mapping of {', '.join(MEANINGS)} to names of columns"}),
]


def _listed(written: Any) -> list[Any]:
    listed = one_or_more(written)
    return listed if isinstance(listed, list) else [listed]


def _wrong(meaning: str, written: Any) -> str:
    if meaning not in MEANINGS:
        # a meaning that nearly is one is named, else all of them
        near = difflib.get_close_matches(meaning, MEANINGS, 1)
        known = f"did you mean {near[0]!r}?" if near else f"it is one of {', '.join(MEANINGS)}"
        return f"no column means this; {known}"
    listed = _listed(written)
    if not listed or not all(isinstance(n, str) and n.strip() and n.isprintable() for n in listed):
        return f"must name columns, not {written!r}"
    if len(listed) > 1 and meaning not in SEVERAL:
        return f"one column, not {len(listed)}"
    return ""
