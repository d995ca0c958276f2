"""YAML becomes a frozen dataclass whose fields are its keys; all mistakes are named at once.

pydantic walks the fields and collects what does not fit; here its findings become lines for the
person who wrote the file: `FILE: PLACE: what; remedy`, in the order of the file.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import ErrorDetails

from mixtures.keys import RULE, SAID, UNKNOWN, WORDS
from mixtures.recipe.strict_yaml import load_yaml
from shards.errors import UserError

T = TypeVar("T")
Loc = tuple[int | str, ...]
"""Where a value stands: keys of mappings and indexes of lists, from the top."""
Schema = Mapping[str, Any]
"""The JSON schema of a type: what may be written, and what keys mean."""
_UNKNOWN = (UNKNOWN, "unexpected_keyword_argument")
_A_KEY = "[key]"
"""What pydantic puts after a key, where the key itself is wrong."""
_EMPTY = "is empty; write its value, or remove the key"
_LONGEST = 80
MOST = 100
"""So many mistakes are named; the others are counted."""


def load(model: type[T], path: Path) -> T:
    """The file as a value of the dataclass `model`; UserError names every mistake in it."""
    return parse(model, load_yaml(path), str(path))


def parse(model: type[T], tree: object, where: str) -> T:
    """A tree of plain values as a value of `model`; UserError has one line for each mistake."""
    # all mistakes in one go: a file that is mended line by line is planned line by line
    if wrong := mistakes(model, tree):
        raise UserError(*(f"{where}: {line}" for line in wrong))
    value: T = _adapter(model).validate_python(tree)  # type: ignore[arg-type]
    return value


def mistakes(model: type, tree: object) -> list[str]:
    """What is wrong with a tree, a line for each mistake, in the order of the file."""
    # pydantic would tell of an empty value in its own words, and of all that is missing inside
    empty = set(_empty(tree))
    errors = [error for error in _found(model, tree) if not _lies_in(error["loc"], empty)]
    errors += [ErrorDetails(type=SAID, loc=loc, msg=_EMPTY, input=None) for loc in empty]
    # in the order of the file, so that a person can go down it
    errors.sort(key=lambda error: _position(tree, _loc(error)))
    top = schema_of(model)
    # a key that is nearly right explains the one that is missing beside it
    shown = errors[:MOST]
    meant = {(_loc(error), _near(error, top)) for error in shown}
    lines = [
        ": ".join([*_spelled(tree, _loc(error)), _what(error, tree, top)])
        for error in shown
        if error["type"] != "missing" or (error["loc"][:-1], error["loc"][-1]) not in meant
    ]
    more = [f"and {len(errors) - MOST} more"] if len(errors) > MOST else []
    return list(dict.fromkeys(lines)) + more  # several findings about one value are one mistake


def _found(model: type, tree: object) -> list[ErrorDetails]:
    try:
        _adapter(model).validate_python(tree)
    except ValidationError as error:
        return error.errors(include_url=False)
    return []


@cache
def _adapter(model: type) -> TypeAdapter[Any]:
    """The reader of a dataclass and of those inside it: their fields are all the keys there are."""
    return TypeAdapter(with_config(ConfigDict(extra="forbid"))(model))


class _Described(GenerateJsonSchema):
    """A JSON schema without complaints about defaults that JSON has no word for."""

    ignored_warning_kinds = {"non-serializable-default"}  # noqa: RUF012


@cache
def schema_of(model: type) -> Schema:
    """The JSON schema of a dataclass whose fields are keys."""
    return _adapter(model).json_schema(schema_generator=_Described)


def keys_of(model: type) -> dict[str, Schema]:
    """The keys of one mapping and the schema of each, as a person may write them."""
    return _keys(_resolved(schema_of(model), schema_of(model)))


def words(schema: Schema, top: Schema) -> str:
    """What may be written, in words: `an integer from 1 to 60`."""
    resolved = _resolved(schema, top)
    if WORDS in resolved:
        return str(resolved[WORDS])
    if "const" in resolved:
        return f"one of {resolved['const']}"
    if "prefixItems" in resolved:
        items = resolved["prefixItems"]
        return f"a list of {len(items)}, each {words(items[0], top)}"
    if resolved.get("type") == "array":
        return f"a list, each {words(resolved['items'], top)}"
    kinds = {"object": "a mapping", "boolean": "true or false", "string": "text"}
    return kinds.get(resolved.get("type", ""), "") or _number(resolved)


def _number(schema: Schema) -> str:
    kind = "an integer" if schema["type"] == "integer" else "a number"
    least = schema.get("minimum")
    most = schema.get("maximum")
    if most is not None:
        return f"{kind} from {least} to {most}"
    return kind if least is None else f"{kind} of at least {least}"


def _loc(error: ErrorDetails) -> Loc:
    """Where a mistake is: a key that is unknown or missing is one of the mapping around it."""
    loc = error["loc"]
    if error["type"] in (*_UNKNOWN, "missing"):
        return loc[:-1]
    return loc[:-2] if loc[-1:] == (_A_KEY,) else loc


def _what(error: ErrorDetails, tree: object, top: Schema) -> str:
    """What is wrong there, and what to do about it."""
    kind = error["type"]
    loc = error["loc"]
    at = _loc(error)
    if kind == SAID:
        return error["msg"]
    if kind == "value_error":
        return str(error["ctx"]["error"])
    if kind == "missing" and isinstance(loc[-1], str):
        return f"the key {loc[-1]!r} is missing; add it"
    if kind in _UNKNOWN:
        near = _near(error, top)
        known = ", ".join(_keys(_at(top, at)))
        remedy = f"did you mean {near!r}?" if near else f"the keys here are {known}"
        return f"unknown key {loc[-1]!r}; {remedy}"
    if loc[-1:] == (_A_KEY,):
        return f"the name {loc[-2]!r} {error['msg']}"
    if kind == RULE:
        return f"{error['msg']}, not {_shown(_value(tree, at))}"
    return f"must be {words(_at(top, at), top)}, not {_shown(_value(tree, at))}"


def _near(error: ErrorDetails, top: Schema) -> str:
    """The known key that was meant by one that is not known, or nothing."""
    if error["type"] not in _UNKNOWN:
        return ""
    known = _keys(_at(top, _loc(error)))
    return "".join(difflib.get_close_matches(str(error["loc"][-1]), known, 1))


def _keys(schema: Schema) -> dict[str, Schema]:
    fields = schema.get("properties", {})
    return {name: field for name, field in fields.items() if "description" in field}


def _resolved(schema: Schema, top: Schema) -> Schema:
    """A schema itself, where it is a reference, or one that may be left out."""
    while True:
        if "$ref" in schema:
            schema = top["$defs"][schema["$ref"].rpartition("/")[2]]
        elif "anyOf" in schema and WORDS not in schema:
            # `X | None`: a person writes X, or leaves the key out
            schema = next(one for one in schema["anyOf"] if one.get("type") != "null")
        else:
            return schema


def _at(top: Schema, loc: Loc) -> Schema:
    """The schema of the value at a location."""
    schema = _resolved(top, top)
    for step in loc:
        if isinstance(step, int):
            schema = schema["prefixItems"][step] if "prefixItems" in schema else schema["items"]
        else:
            # keys that people choose (`weights`, `columns`) have one schema for all
            schema = schema.get("properties", {}).get(step) or schema["additionalProperties"]
        schema = _resolved(schema, top)
    return schema


def _empty(tree: object, loc: Loc = ()) -> Iterator[Loc]:
    """Every key and item without a value; nothing is left to be guessed there."""
    items: Iterable[tuple[int | str, object]] = ()
    if isinstance(tree, dict):
        items = tree.items()
    elif isinstance(tree, list):
        items = enumerate(tree)
    for step, item in items:
        if item is None:
            yield (*loc, step)
        yield from _empty(item, (*loc, step))


def _value(tree: object, loc: Loc) -> Any:
    """The value at a location, as it was read."""
    value: Any = tree
    for step in loc:
        if isinstance(value, dict | list):
            value = value[step]  # type: ignore[index]
    return value


def _position(tree: object, loc: Loc) -> tuple[int, ...]:
    """Locations sort as they stand in the file."""
    order = []
    value = tree
    for step in loc:
        order.append(list(value).index(step) if isinstance(value, dict) else int(step))
        value = _value(value, (step,))
    return tuple(order)


def _spelled(tree: object, loc: Loc) -> list[str]:
    """A location for people: `sources[2] (coco)`, `weight`; an item is called by its name."""
    parts: list[str] = []
    value = tree
    for step in loc:
        inner = _value(value, (step,))
        if isinstance(value, dict):
            parts.append(step if str(step).isprintable() else repr(step))  # type: ignore[arg-type]
        elif isinstance(value, list):
            name = inner.get("name") if isinstance(inner, dict) else None
            named = isinstance(name, str) and name.isprintable()
            parts[-1] += f"[{step}]" + (f" ({_shortened(str(name))})" if named else "")
        value = inner
    return parts


def _shown(value: object) -> str:
    """A value in a message: as YAML spells it, short, and in one line."""
    if value is None or isinstance(value, bool):
        return {None: "empty", True: "true", False: "false"}[value]
    shown = str(value) if isinstance(value, Decimal) else repr(value)
    # Decimal by str: its repr would show Python's, not YAML's, spelling
    return _shortened(shown)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _lies_in(loc: Loc, locs: set[Loc]) -> bool:
    return any(loc[:length] in locs for length in range(len(loc) + 1))
