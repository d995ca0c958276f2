"""The catalogue of public datasets: where they are, in which form, and under which terms."""

from __future__ import annotations

import difflib
import functools
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from mixtures.recipe.strict_yaml import load_yaml
from mixtures.recipe.types import Archive, HeldOut, Source
from pipeline.sources import FORMATS, MAPPED
from shards.errors import UserError

CATALOGUE = Path(__file__).with_name("catalogue.yaml")
ID = "{id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """One entry. `ids` are hub ids (or other places), the first one is tried first.

    `annotations` and `archives` are addresses in which {id} stands for a hub id; without
    annotations the user must name local copies; without a format no adapter reads it. `rows` and
    `size` are as published, or empty.
    `sure` says of rows, size and files: verified, computed, or recalled and to be checked.
    """

    name: str
    ids: tuple[str, ...]
    licence: str
    gated: bool = False
    terms: str = ""
    format: str = ""
    kind: str
    task: str
    ids_repeat: bool = False
    rows: str = ""
    size: str = ""
    annotations: tuple[str, ...] = ()
    archives: tuple[Archive, ...] = ()
    sure: str
    note: str = ""


@functools.cache
def catalogue() -> dict[str, Dataset]:
    """Every dataset of the catalogue by name; UserError names an entry that does not fit."""
    return {name: _dataset(name, entry) for name, entry in load_yaml(CATALOGUE).items()}


def _dataset(name: str, fields_of: dict[str, Any]) -> Dataset:
    known = {field.name for field in fields(Dataset)} - {"name"}
    lists = ("ids", "annotations", "archives")
    # the catalogue is ours, but a person edits it: a key that nothing reads would be silent
    if not set(fields_of) <= known or fields_of.get("format", "") not in ("", *FORMATS):
        raise UserError(f"{CATALOGUE}: {name}: {sorted(set(fields_of) - known)}, or its format")
    values = fields_of | {key: tuple(fields_of.get(key, ())) for key in lists}
    values["archives"] = tuple(
        Archive(at=archive) if isinstance(archive, str) else Archive(**archive)
        for archive in values["archives"]
    )
    return Dataset(name=name, **values)


def _check_columns(source: Source | HeldOut, form: str, where: str) -> None:
    """UserError where `columns` say nothing, or too little, about the source's format."""
    named = {name for name, _ in source.columns}
    if named and form not in MAPPED:
        raise UserError(f"{where}: {source.name}: columns: only of formats {', '.join(MAPPED)}")
    # exactly one of the two says what is learned
    if form == "table" and ("answer" in named) == ("messages" in named):
        raise UserError(
            f"{where}: {source.name}: columns: a table needs `answer` (and `question`), or "
            "`messages`, as in {question: prompt, answer: response, image: path}"
        )


def completed(source: Source | HeldOut, where: str) -> Source | HeldOut:
    """The source with what it leaves to the catalogue; UserError if nobody says where it is.

    {id} in addresses is still open: pipeline.jobs.collect tries the dataset's ids in their order.
    """
    entry = catalogue().get(source.dataset)
    _check_columns(source, source.format or (entry.format if entry else ""), where)
    if not entry:
        if not source.format or not source.annotations:
            near = difflib.get_close_matches(source.dataset, catalogue(), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(
                f"{where}: {source.name}: dataset {source.dataset!r} is not in the catalogue"
                f"{hint}; else give it `format` and `annotations`"
            )
        return source
    # a licence is stated by the recipe too, so that nobody overlooks it: both must agree
    if isinstance(source, Source) and source.licence != entry.licence:
        raise UserError(
            f"{where}: {source.name}: licence: {source.licence!r}, the catalogue says "
            f"{entry.licence!r} of {source.dataset}; write that"
        )
    # the user's copy replaces the catalogue's archives as a whole
    given = source.media or source.archives
    full = replace(
        source,
        format=source.format or entry.format,
        annotations=source.annotations or entry.annotations,
        archives=source.archives if given else entry.archives,
        ids_repeat=source.ids_repeat or entry.ids_repeat,
    )
    if not full.annotations:
        raise UserError(
            f"{where}: {source.name}: {source.dataset} must be had from {', '.join(entry.ids)}; "
            "name your copy as `annotations` and `media`"
        )
    return full
