"""Keys of hand-written YAML: which values they take, what they mean, and an example.

A field of a frozen dataclass is a key. Its type says what may be written, its `key` the rest:

    fps: Annotated[Integer, key("Frames of every second.", "2", least=1, most=60)] = 1

`mixtures.recipe.fields` reads files by these fields; `mixtures.recipe.reference` lists them.
Types are strict: a word is no number, 1 is no true.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any

from pydantic import Field, Strict, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

SAID = "said"
"""The type of a mistake whose message says what is wrong, after its place."""
RULE = "rule"
"""The type of a mistake whose message says what must stand there."""
UNKNOWN = "extra_forbidden"
"""The type of a mistake: a key that is none."""
WORDS = "words"
"""Where the JSON schema of a type keeps what may be written, in words."""


def key(
    meaning: str,
    example: str,
    *,
    least: int | None = None,
    most: int | None = None,
) -> Any:
    """What belongs to a key besides its type: meaning, an example in YAML, bounds of an Integer."""
    # pydantic keeps these in the schema, from which messages and the reference page are made
    return Field(description=meaning, examples=[example], ge=least, le=most)


@dataclass(frozen=True, slots=True)
class Rule:
    """A type in words, and the function that reads it; it raises ValueError for anything else."""

    words: str
    read: Callable[[Any], object]

    def __get_pydantic_core_schema__(self, _source: object, _handler: object) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._validate)

    def __get_pydantic_json_schema__(self, _schema: object, _handler: object) -> dict[str, Any]:
        return {WORDS: self.words}

    def _validate(self, value: Any) -> object:
        try:
            return self.read(value)
        except ValueError as error:
            # "{words}" is pydantic's own template, filled in when the message is shown
            raise PydanticCustomError(RULE, "must be {words}", {"words": self.words}) from error


@dataclass(frozen=True, slots=True)
class NotAKey:
    """A field of the value that nobody writes by hand."""

    def __get_pydantic_core_schema__(self, _source: object, _handler: object) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._refuse)

    def __get_pydantic_json_schema__(self, _schema: object, _handler: object) -> dict[str, Any]:
        return {}

    def _refuse(self, _value: object) -> None:
        raise PydanticCustomError(UNKNOWN, "no key")


def mistakes_within(mistakes: Mapping[str, tuple[str, str]]) -> ValidationError:
    """What a validator of a mapping raises: key -> (type, what is wrong there)."""
    details = [
        # pydantic joins these places to the one of the mapping
        InitErrorDetails(type=PydanticCustomError(kind, text), loc=(place,), input=None)
        for place, (kind, text) in mistakes.items()
    ]
    return ValidationError.from_exception_data("", details)


def _text(value: Any) -> str:
    # unprintable text could rewrite a terminal that shows it
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError(value)
    return value


def _name(value: Any) -> str:
    # it names files and columns of tables: nothing that a path or a shell reads otherwise
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", _text(value)):
        raise ValueError(value)
    return str(value)


def _exact(value: Any) -> Fraction:
    """An integer or a finite decimal of at most 1e12, to its last digit."""
    # a bool is an int to Python, and no number here
    finite = type(value) is int or (isinstance(value, Decimal) and value.is_finite())
    if not finite or not -12 <= Decimal(value).adjusted() <= 12:
        raise ValueError(value)
    return Fraction(value)


def _above_0(value: Any) -> Fraction:
    if (exact := _exact(value)) <= 0:
        raise ValueError(value)
    return exact


def _not_negative(value: Any) -> Fraction:
    return Fraction(0) if type(value) is int and value == 0 else _above_0(value)


def between(low: str, high: str) -> Rule:
    """An exact number from `low` to `high`, both written as decimals."""

    def read(value: Any) -> Fraction:
        exact = _exact(value)
        if not Fraction(low) <= exact <= Fraction(high):
            raise ValueError(value)
        return exact

    return Rule(f"a number from {low} to {high}", read)


def _float(value: Any) -> float:
    if (
        # strict_yaml reads decimals as Decimal: "1e400" is finite there and no float
        type(value) not in (int, Decimal)
        or not math.isfinite(read := float(Decimal(value)))
        or read < 0
    ):
        raise ValueError(value)
    return read


def _float_above_0(value: Any) -> float:
    if not (read := _float(value)):
        raise ValueError(value)
    return read


def _share(value: Any) -> Fraction:
    """A share: a decimal, or a fraction in words, `1/3`."""
    # six digits a side: enough for any share, and cheap to reduce
    quotient = isinstance(value, str) and re.fullmatch(r"[1-9][0-9]{0,5}/[1-9][0-9]{0,5}", value)
    share = Fraction(value) if quotient else _exact(value)
    if not 0 < share <= 1:
        raise ValueError(value)
    return share


def _count_or_share(value: Any) -> int | Fraction:
    if type(value) is not int:
        return _share(value)
    if value < 0:
        raise ValueError(value)
    return value


def one_of(*allowed: str | int) -> Rule:
    """One of some words, integers or truth values."""

    def read(value: Any) -> object:
        # types are compared too: True equals 1, and `yes` is not `true`
        if not any(type(value) is type(one) and value == one for one in allowed):
            raise ValueError(value)
        return value

    words = [str(one).lower() if isinstance(one, bool) else str(one) for one in allowed]
    return Rule(f"one of {', '.join(words)}", read)


def one_or_more(value: object) -> object:
    """What may be written alone stands for a list of it."""
    return [value] if isinstance(value, str) else value


Integer = Annotated[int, Strict()]
YesNo = Annotated[bool, Strict()]
Text = Annotated[str, Rule("printable text", _text)]
Name = Annotated[str, Rule("letters, digits, '_', '-' or '.'", _name)]
Positive = Annotated[Fraction, Rule("a number above 0 (1e-12 to 1e12)", _above_0)]
PositiveOrZero = Annotated[Fraction, Rule("0, or a number above 0 (1e-12 to 1e12)", _not_negative)]
Rate = Annotated[float, Rule("a number above 0", _float_above_0)]
RateOrZero = Annotated[float, Rule("0, or a number above 0", _float)]
Share = Annotated[Fraction, Rule("a share above 0 and up to 1, as 0.25 or 1/4", _share)]
CountOrShare = Annotated[
    int | Fraction, Rule("a count, or a share of all as 0.03 or 1/30", _count_or_share)
]
