"""What a source's names made necessary: counted in its books, and said once with an example."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypedDict

from pipeline.names import printable, renumbered
from pipeline.sources.media_lookup import Found, MediaTable
from pipeline.sources.near_names import told
from pipeline.sources.pin import Pinned

NEAR = "near"
JUNK = "junk"
FOREIGN = "not UTF-8"
NUMBERED = "numbered"
TOLD = {
    NEAR: "names joined to a file whose name is near",
    JUNK: "files left out that lie beside pictures",
    FOREIGN: "files whose names are not UTF-8",
    NUMBERED: "folders of pictures in the order of their numbers, not of their bytes",
}


class NamedRow(TypedDict):
    """A row of shards.index.NAMED: how often names made something necessary, and one example."""

    what: str
    count: int
    example: str


class NameNotes:
    """Collects over the media of one source, each name once."""

    def __init__(self, table: MediaTable) -> None:
        self._rows: dict[str, NamedRow] = {}
        self._seen: set[tuple[str, str]] = set()
        for name in table.folder.files:
            # bytes that are not UTF-8 were escaped when the folder was listed
            if printable(name) != name:
                self._add(FOREIGN, name, 1, printable(name))

    def note(self, name: str, located: Found) -> None:
        """What was found under a name that a record gives."""
        if located.near:
            self._add(NEAR, name, 1, f"{told(name, located.near)} is {told(located.near, name)}")
        if located.junk:
            self._add(JUNK, located.address, located.junk, name)
        if located.numbered:
            self._add(NUMBERED, located.address, 1, located.numbered)

    def _add(self, what: str, once: str, count: int, example: str) -> None:
        # the same name in many records is told once
        if (what, once) not in self._seen:
            self._seen.add((what, once))
            row = self._rows.setdefault(what, {"what": what, "count": 0, "example": example[:300]})
            row["count"] += count

    def rows(self) -> Iterator[NamedRow]:
        """Rows of shards.index.NAMED."""
        return (self._rows[what] for what in sorted(self._rows))


def names_told(pinned: Pinned, notes: Iterable[NamedRow]) -> str:
    """One line about a source's names, or "" where there is nothing to say."""
    lines = [f"{row['count']} {TOLD[row['what']]} ({row['example']})" for row in notes]
    files = [file for parts, _ in pinned.archives for file in parts]
    loose = [name for name, _ in pinned.loose]
    pairs = [pair for names in (pinned.annotations, files, loose) if (pair := renumbered(names))]
    lines += (f"files in the order of their numbers ({a} before {b})" for a, b in pairs)
    return "; ".join(lines)
