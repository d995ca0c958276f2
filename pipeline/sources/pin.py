"""What a recipe's source names, pinned: addresses with their commit, digest or version.

Pinning asks servers for commits and file lists and fetches nothing; all that a person can have got
wrong is said here.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mixtures.recipe.types import Archive, HeldOut, Source
from pipeline.archives import part_names
from pipeline.archives.members import kind_of
from pipeline.fetch import hub, local_files
from pipeline.sources import FORMATS
from pipeline.sources.catalogue import ID, catalogue, completed
from shards.errors import UserError

_FIXED = re.compile(r"^[^*?\[]*/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """A source whose addresses are files.

    `archives` are (parts, under), `loose` files that lie by themselves, as (name, address). Links
    in its media folder may end in `homes`, the folders that a recipe may name files of.
    """

    source: Source | HeldOut
    annotations: tuple[str, ...]
    archives: tuple[tuple[tuple[str, ...], str], ...]
    loose: tuple[tuple[str, str], ...]
    homes: tuple[str, ...] = ()
    ids_repeat: bool = False


def pin(source: Source | HeldOut, where: str, allowed_paths: Sequence[Path] = ()) -> Pinned:
    """The source with every address pinned; UserError names recipe, source and key.

    Links among its media may end in the recipe's folder, the current one, and `allowed_paths`.
    """
    full = completed(source, where)
    if full.format not in FORMATS:
        raise UserError(
            f"{where}: format of {full.name!r} is {full.format!r}; "
            f"this version reads {', '.join(sorted(FORMATS))}"
        )
    if full.media:
        local_files.resolve(full.media, f"{where}: media of {full.name}")
    entry = catalogue().get(full.dataset)
    ids = entry.ids if entry else ("",)
    # the ids of a dataset are mirrors: the first that the hub has
    for number, name in enumerate(ids):
        try:
            pinned = _pinned(_with_id(full, name), where)
            own = Path(where).absolute().parent, Path.cwd()
            homes = tuple(str(folder) for folder in (*own, *allowed_paths))
            return replace(pinned, homes=homes, ids_repeat=full.ids_repeat)
        # only the last one's absence is an error
        except hub.HubMissingError:
            if number + 1 == len(ids):
                raise
    raise AssertionError("a dataset without ids")


def _with_id(source: Source | HeldOut, name: str) -> Source | HeldOut:
    return replace(
        source,
        annotations=tuple(address.replace(ID, name) for address in source.annotations),
        archives=tuple(
            Archive(at=archive.at.replace(ID, name), under=archive.under)
            for archive in source.archives
        ),
    )


def _pinned(source: Source | HeldOut, where: str) -> Pinned:
    named_by = f"{where}: annotations of {source.name}"
    annotations = [file for each in source.annotations for file in local_files.pin(each, named_by)]
    for file in annotations:
        if not local_files.is_remote(file) and Path(file).is_dir():
            raise UserError(
                f"{file}: a folder, named by {named_by}; name the files in it: {file}/*"
            )
    # archives of one folder belong together: parts of one file are found among them
    packed: dict[str, list[str]] = defaultdict(list)
    loose = []
    for archive in source.archives:
        for address in local_files.pin(archive.at, f"{where}: archives of {source.name}"):
            if _is_archive(address):
                packed[archive.under].append(address)
            else:
                loose.append((_loose_name(archive, address), address))
    return Pinned(
        source=source,
        annotations=tuple(annotations),
        archives=tuple(
            (each, under)
            for under, addresses in packed.items()
            for each in _archives(addresses, f"{where}: archives of {source.name}")
        ),
        loose=tuple(loose),
    )


def _archives(addresses: Sequence[str], named_by: str) -> list[tuple[str, ...]]:
    """The archives that these files make up; UserError names a missing part and the `named_by`."""
    try:
        return part_names.archives(addresses)
    except UserError as error:
        raise UserError(f"{error}, named by {named_by}") from error


def _is_archive(address: str) -> bool:
    """Whether the file is streamed; UserError for one that nobody can read as it is."""
    name = address.rpartition("/")[2]
    if re.search(r"\.(tar|tgz|zip|z\d\d)\b", name.lower()):
        kind_of(name)
        return True
    return False


def _loose_name(archive: Archive, address: str) -> str:
    """The name of a loose file: its path from the fixed folder of the pattern on."""
    pattern, path = (
        hub.parse(each).path if each.startswith("hf://") else each for each in (archive.at, address)
    )
    fixed = _FIXED.match(pattern)
    # the pattern's folder up to its first wildcard is no part of the names
    inside = path.removeprefix(fixed[0]) if fixed else path
    inside = inside if inside != path else path.rpartition("/")[2]
    return f"{archive.under}/{inside}" if archive.under else inside
