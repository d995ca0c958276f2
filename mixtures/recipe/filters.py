"""Filters of a recipe: conditions on columns of the sample index and the clip index.

A condition on a clip column must hold for every clip of a sample. A missing value fails. Columns of
scores (`python -m pipeline score`) are named `scores.NAME`, those of frames by how they become one
value of their clip: `scores.NAME.mean`, `.least` or `.most`.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import PlainValidator, WithJsonSchema

from mixtures.keys import SAID, WORDS, mistakes_within
from shards.index import CLIPS, SAMPLES

_BOUNDS = ("min", "max")
SCORES = "scores."
"""How the names of columns of scores begin."""
MADE_ONE = ("mean", "least", "most")
"""How the scores of a clip's frames become one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """`column` within [least, most], or one of `allowed`; `of_clips` says whose column it is."""

    column: str
    of_clips: bool
    least: int | None = None
    most: int | None = None
    allowed: tuple[Any, ...] | None = None

    @property
    def score(self) -> tuple[str, str]:
        """The name of the scorer, and how its scores become one ("": there is but one)."""
        name, _, made_one = self.column.removeprefix(SCORES).partition(".")
        return name, made_one

    def holds(self, values: pa.ChunkedArray) -> NDArray[np.bool_]:
        """Which of the column's values pass."""
        # a null is compared with nothing and passes nothing
        passed = pc.is_valid(values)
        if self.least is not None:
            passed = pc.and_(passed, pc.greater_equal(values, self.least))
        if self.most is not None:
            passed = pc.and_(passed, pc.less_equal(values, self.most))
        if self.allowed is not None:
            wanted = pa.array(self.allowed, values.type)
            passed = pc.and_(passed, pc.is_in(values, value_set=wanted))
        return np.asarray(pc.fill_null(passed, False), bool)

    def wanted(self) -> str:
        """The condition for people."""
        if self.allowed is not None:
            return f"one of {', '.join(map(str, self.allowed))}"
        bounds = [f"at least {self.least}"] if self.least is not None else []
        bounds += [f"at most {self.most}"] if self.most is not None else []
        return " and ".join(bounds)


def filters(value: Any) -> tuple[Filter, ...]:
    """The filters in `{column: {min, max} | {one_of: [...]}}`; mistakes are named by column."""
    if not isinstance(value, dict):
        raise ValueError(f"must be a mapping, not {value!r}")
    read = []
    wrong = {}
    for column, condition in value.items():
        try:
            read.append(_filter(column, condition))
        except ValueError as error:
            wrong[column] = (SAID, str(error))
    if wrong:
        raise mistakes_within(wrong)
    return tuple(read)


Filters = Annotated[
    tuple[Filter, ...],
    PlainValidator(filters),
    WithJsonSchema({WORDS: "a mapping of columns to `{min: ..., max: ...}` or `{one_of: [...]}`"}),
]


def _filter(column: str, condition: Any) -> Filter:
    kind, of_clips = _column(column)
    if not isinstance(condition, dict):
        raise ValueError(f"must be a mapping, not {condition!r}")
    keys = set(condition)
    # values of the column's own type, so that a word never meets a number
    if keys == {"one_of"}:
        values = condition["one_of"]
        if not isinstance(values, list) or not values or not all(_is_a(v, kind) for v in values):
            raise ValueError(f"one_of: must list values of type {kind}, not {values!r}")
        return Filter(column=column, of_clips=of_clips, allowed=tuple(values))
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if not keys or not keys <= set(_BOUNDS) or not is_number:
        wanted = "{min: ..., max: ...} or {one_of: [...]}" if is_number else "{one_of: [...]}"
        raise ValueError(f"must be {wanted}, not {condition!r}")
    for key in keys:
        if type(condition[key]) is not int:
            raise ValueError(f"{key}: must be an integer, not {condition[key]!r}")
    least = condition.get("min")
    most = condition.get("max")
    if least is not None and most is not None and least > most:
        raise ValueError(f"min {least} is above max {most}; nothing would pass")
    return Filter(column=column, of_clips=of_clips, least=least, most=most)


def _column(name: str) -> tuple[pa.DataType, bool]:
    """The type of an index column with one value per row, and whether it is the clips'."""
    if name.startswith(SCORES):
        return _score_column(name)
    known: dict[str, tuple[pa.DataType, bool]] = {}
    # columns with one value a row; where both have a name, the sample's is meant
    for schema, of_clips in ((CLIPS, True), (SAMPLES, False)):
        known |= {f.name: (f.type, of_clips) for f in schema if not pa.types.is_nested(f.type)}
    if name not in known:
        raise ValueError(f"the index has no such column; it has {', '.join(sorted(known))}")
    return known[name]


def _score_column(name: str) -> tuple[pa.DataType, bool]:
    scorer, _, made_one = name.removeprefix(SCORES).partition(".")
    if not scorer or (made_one and made_one not in MADE_ONE):
        raise ValueError(
            f"must be {SCORES}NAME, or of frames {SCORES}NAME.mean, .least or .most, e.g. "
            f"{SCORES}sharpness.mean"
        )
    return pa.int64(), True


def _is_a(value: Any, kind: pa.DataType) -> bool:
    if pa.types.is_boolean(kind):
        return isinstance(value, bool)
    if pa.types.is_string(kind):
        return isinstance(value, str)
    return type(value) is int or (pa.types.is_floating(kind) and isinstance(value, Decimal))
