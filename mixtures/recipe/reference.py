"""Pages about the keys of hand-written YAML, made from the fields that read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from fractions import Fraction
from typing import get_args, get_type_hints

from mixtures.recipe.fields import keys_of, schema_of, words

MADE = "<!-- Made from the code by `python -m tests.reference_pages`; changes here are lost. -->"
_HEAD = "| key | type | default | meaning | example |\n|---|---|---|---|---|"


def page(title: str, text: str, **kinds: type) -> str:
    """A page in Markdown with a table for each dataclass, and for every one inside it."""
    sections = [one for name, kind in kinds.items() for one in _sections(name, kind)]
    tables = [_section(name, kind) for name, kind in dict.fromkeys(sections)]
    return "\n\n".join([f"# {title}", MADE, text, *tables]) + "\n"


def _section(name: str, model: type) -> str:
    """One mapping: what it is, and its keys."""
    text = " ".join(str(model.__doc__).split())
    return f"## {name}\n\n{text}\n\n{_HEAD}\n" + "\n".join(_rows(model))


def _sections(name: str, model: type) -> Iterator[tuple[str, type]]:
    """A dataclass and those inside it, by the keys that hold them."""
    yield name, model
    for inner_name in _keys(model):
        for inner in _dataclasses(_hints(model)[inner_name]):
            yield from _sections(inner_name, inner)


def _keys(model: type) -> list[str]:
    """Keys in the order of the code: a class's own, then those of the class that it extends."""
    known = keys_of(model)
    # a class's own keys first, as they stand in the code
    own = [name for one in model.__mro__ for name in vars(one).get("__annotations__", {})]
    return [name for name in own if name in known]


def _hints(model: type) -> dict[str, object]:
    return get_type_hints(model)


def _dataclasses(hint: object) -> Iterator[type]:
    if isinstance(hint, type) and is_dataclass(hint) and keys_of(hint):
        yield hint
    for part in get_args(hint):
        yield from _dataclasses(part)


def _rows(model: type) -> Iterator[str]:
    schemas = keys_of(model)
    of = {field.name: field for field in fields(model)}
    for name in _keys(model):
        type_words = words(schemas[name], schema_of(model))
        if any(_dataclasses(_hints(model)[name])):
            type_words = type_words.replace("a mapping", f"[a mapping](#{name})")
        example = f"`{name}: {schemas[name]['examples'][0]}`"
        cells = (f"`{name}`", type_words, _default(of[name]), schemas[name]["description"], example)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _default(field: Field[object]) -> str:
    """The default as YAML spells it."""
    if field.default is MISSING:
        return "required" if field.default_factory is MISSING else "its defaults"
    value = field.default
    if is_dataclass(value) and keys_of(type(value)):
        return "its defaults"
    if value is None or value == "" or value == ():
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, Fraction):
        return f"`{float(value):g}`"
    return f"`{list(value) if isinstance(value, tuple) else value}`"
