"""Rules for the values of hand-written YAML: known keys only, each typed, bounded and named.

A rule takes (value, where it stands) and returns the value as used, or raises a UserError.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from shards.errors import UserError

Rule = Callable[[Any, str], Any]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def integer(low: int, high: int) -> Rule:
    """A rule for an integer from `low` to `high`."""

    def check(value: Any, where: str) -> int:
        if type(value) is not int or not low <= value <= high:
            raise UserError(f"{where}: must be an integer from {low} to {high}, not {value!r}")
        return value

    return check


def one_of(*allowed: str | int) -> Rule:
    """A rule for one of some words or integers."""

    def check(value: Any, where: str) -> Any:
        if isinstance(value, bool) or value not in allowed:
            known = ", ".join(map(str, allowed))
            raise UserError(f"{where}: must be one of {known}, not {value!r}")
        return value

    return check


def yes_or_no(value: Any, where: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise UserError(f"{where}: must be true or false, not {value!r}")
    return value


def text(value: Any, where: str) -> str:
    """Printable text, not blank."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise UserError(f"{where}: must be printable text, not {value!r}")
    return value


def name(value: Any, where: str) -> str:
    """A name of at most 64 letters, digits, '_', '-' and '.'."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise UserError(f"{where}: must be letters, digits, '_', '-' or '.', not {value!r}")
    return value


def positive(value: Any, where: str) -> Fraction:
    """A number above 0, exact."""
    is_number = type(value) is int or (isinstance(value, Decimal) and value.is_finite())
    if not is_number or value <= 0 or not -12 <= Decimal(value).adjusted() <= 12:
        raise UserError(f"{where}: must be a number above 0 (1e-12 to 1e12), not {value!s}")
    return Fraction(value)


def share(low: str, high: str) -> Rule:
    """A rule for a number from `low` to `high`, exact."""

    def check(value: Any, where: str) -> Fraction:
        is_number = type(value) is int or (isinstance(value, Decimal) and value.is_finite())
        if not is_number or not Decimal(low) <= value <= Decimal(high):
            raise UserError(f"{where}: must be a number from {low} to {high}, not {value!s}")
        return Fraction(value)

    return check


def positive_or_zero(value: Any, where: str) -> Fraction:
    """0, or a number above it, exact."""
    return Fraction(0) if type(value) is int and value == 0 else positive(value, where)


def a_list(value: Any, where: str) -> list[Any]:
    """A list of anything."""
    if not isinstance(value, list):
        raise UserError(f"{where}: must be a list, not {value!r}")
    return value


def a_mapping(value: Any, where: str) -> dict[str, Any]:
    """A mapping to anything."""
    if not isinstance(value, dict):
        raise UserError(f"{where}: must be a mapping, not {value!r}")
    return value


def entries(rule: Rule) -> Rule:
    """A rule for a list whose items all follow `rule`."""

    def check(value: Any, where: str) -> tuple[Any, ...]:
        return tuple(rule(item, f"{where}[{i}]") for i, item in enumerate(a_list(value, where)))

    return check


def named(rule: Rule) -> Rule:
    """A rule for a mapping from names of the person's choice to values that follow `rule`."""

    def check(value: Any, where: str) -> dict[str, Any]:
        items = a_mapping(value, where).items()
        return {name(key, where): rule(item, f"{where}: {key}") for key, item in items}

    return check


def section(build: Callable[..., Any], rules: Mapping[str, Rule], required: str = "") -> Rule:
    """A rule for a mapping: known keys only, each by its own rule, then `build(**values)`."""

    def check(value: Any, where: str) -> Any:
        for key in a_mapping(value, where):
            if key not in rules:
                near = difflib.get_close_matches(key, rules, 1, 0.0)[0]
                raise UserError(f"{where}: unknown key {key!r}; did you mean {near!r}?")
        for key in required.split():
            if key not in value:
                raise UserError(f"{where}: the key {key!r} is missing; add it")
        return build(**{key: rules[key](item, f"{where}: {key}") for key, item in value.items()})

    return check
