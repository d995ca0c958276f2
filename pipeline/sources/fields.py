"""The fields of a row: read, or refused because they change its meaning, or counted by name.

A format says which fields it reads. Of the others, those that would change what a sample says or
teaches refuse their record where they are not empty; all the rest are left behind and counted.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pipeline.untrusted import Problem

Row = dict[str, Any]
Reads = Mapping[str, Collection[str]]
"""Field -> the names that are read of the objects in it; none where it is read as it stands.

The names are Reads themselves where objects hold objects, as turns hold parts.
"""

CHANGES_MEANING = frozenset(
    "audio audios input_audio tools functions tool_calls tool_call function_call history system "
    "system_prompt reasoning_content thinking mask loss_mask positive_messages "
    "negative_messages".split()
)
"""What else is heard, called, said, thought or left out of the loss."""
MEDIA_FIELDS = frozenset("image images video videos".split())
_MEDIA_OF_OBJECTS = MEDIA_FIELDS | frozenset("image_url image_path video_url video_path".split())
_PREFERENCES = ("chosen", "rejected")  # and whatever starts so: rejected_response, ...
_VERDICTS = ("label", "kto_tag")  # false: the answer is a bad one
_WEIGHTS = ("weight", "loss", "loss_weight", "sample_weight")  # of a whole row; 1 says nothing
_BLANK = ("", "[]", "{}", "null")


class NotFinite(float):
    """NaN or an infinity that JSON spells as a word: no value of a field that is read."""


def unread(
    row: Row, reads: Reads, meaning: Collection[str] = CHANGES_MEANING
) -> dict[str, Any] | Problem:
    """The fields that are left behind, each with its first value, or why the row is refused.

    A field of the objects in a list is called `list[].field`; empty ones are not told. Objects in a
    field that is read may name no media but where that is read.
    """
    left_behind: dict[str, Any] = {}
    for name, value in row.items():
        # a field that is read as text needs no further look
        if name in reads:
            if isinstance(value, str):
                continue
            if _holds_not_finite(value, reads[name]):
                return Problem("ROW_NOT_FINITE", f"{name} holds NaN or an infinite number")
            others = _others(name, value, reads[name])
        else:
            others = iter([(name, name, value)])
        # what is not read is either harmless and counted, or changes the meaning and refuses
        for path, key, field_value in others:
            problem = _problem(path, key, field_value, meaning)
            if problem:
                return problem
            if not is_empty(field_value):
                left_behind.setdefault(path, field_value)
    return left_behind


def _others(path: str, value: Any, known: Collection[str]) -> Iterator[tuple[str, str, Any]]:
    """(path, name, value) of what is not read of the objects in a field."""
    if not known or not isinstance(value, (list, dict)):
        return
    inside = path if isinstance(value, dict) else f"{path}[]"
    for part in [value] if isinstance(value, dict) else value:
        for key in part if isinstance(part, dict) else ():
            if key not in known:
                yield f"{inside}.{key}", key, part[key]
            # texts hold no objects, and are most of what there is
            elif not isinstance(part[key], str) and isinstance(known, Mapping):
                yield from _others(f"{inside}.{key}", part[key], known[key])


def _problem(path: str, key: str, value: Any, meaning: Collection[str]) -> Problem | None:
    # a label of false stands for an answer to avoid, whatever else the row holds
    if key in _VERDICTS and str(value).lower() == "false":
        return Problem("ROW_PREFERENCE", f"{path} is false: the answer is one to avoid")
    if is_empty(value) or (key in _WEIGHTS and value in (1, "1", "1.0")):
        return None
    if key.startswith(_PREFERENCES):
        return Problem("ROW_PREFERENCE", f"holds {path}")
    # media that a turn names are its own, wherever those of the row stand
    if key in meaning or key in _WEIGHTS or (path != key and key in _MEDIA_OF_OBJECTS):
        return Problem("ROW_FIELD_UNREAD", f"{path} changes the meaning, and is not read")
    return None


def is_empty(value: Any) -> bool:
    """Whether a field says nothing: null, blank, an empty list or object, NaN as tables have it."""
    if isinstance(value, str):
        return value.strip() in _BLANK
    if isinstance(value, dict):
        return all(is_empty(member) for member in value.values())
    # pandas and pyarrow write NaN for a missing number
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or value is False or value in ([], b"")


def _holds_not_finite(value: Any, known: Collection[str]) -> bool:
    """Whether a value that is read is one; of objects whose names are known only these are."""
    if isinstance(value, list):
        return any(_holds_not_finite(each, known) for each in value if not isinstance(each, str))
    if not isinstance(value, dict):
        return isinstance(value, NotFinite)
    return any(
        _holds_not_finite(each, known[name] if isinstance(known, Mapping) else ())
        for name, each in value.items()
        if not isinstance(each, str) and (not known or name in known)
    )
