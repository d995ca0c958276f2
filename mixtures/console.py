"""The terminal, as every command writes to it: what strangers named is shown, not obeyed.

Tables fit the terminal: no word is cut. Columns that find no room are named instead, and where
words still do not fit beside each other, each row is a paragraph (the expanded form of `psql`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import rich.console
from rich.cells import cell_len
from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from shards.errors import escaped

if TYPE_CHECKING:  # tables of Arrow, which no command needs to say a line
    from shards.outcome import Books

LOG_WIDTH = 160
"""Columns of a log or a pipe, which have no width of their own."""
_UNBOUNDED = 10_000


class Console(rich.console.Console):
    """rich's console without markup and emoji codes, with control characters spelled out.

    Lines that a command prints, and the cells of its tables, all pass `render_str`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)
        # rich takes 80 where it cannot ask, which would cut the tables of a log
        if not (self.is_terminal or "width" in options or "COLUMNS" in os.environ):
            self.width = LOG_WIDTH

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich prints; without a terminal tables have no boxes around their cells."""
        for each in objects:
            # boxes are for eyes: `grep` and `cut` read columns of text
            if isinstance(each, Table) and not self.is_terminal:
                each.box = None
        super().print(*(_whole(self, each) for each in objects), **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """The text for the terminal; our own line breaks are kept."""
        return super().render_str("\n".join(map(escaped, text.split("\n"))), **options)


def add_json(command: argparse.ArgumentParser) -> None:
    """Give a command that prints tables the option, as `arguments.json`."""
    command.add_argument("--json", action="store_true", help="one JSON value instead of tables")


def write_json(value: object) -> None:
    """Print the value as one line of JSON; fractions, paths and the like as text."""
    # ASCII: a value can hold what strangers named, and no terminal obeys an escape
    text = json.dumps(value, ensure_ascii=True, sort_keys=True, default=str)
    sys.stdout.write(text + "\n")


def tables_json(*tables: Table) -> list[dict[str, Any]]:
    """Tables as they would be printed: for each its title, and its rows by header."""
    titled = []
    for table in tables:
        # a header's line breaks are for narrow terminals, not for programs
        headers = [" ".join(str(column.header).split()) for column in table.columns]
        rows = zip(*(column.cells for column in table.columns), strict=True)
        cells = [dict(zip(headers, map(str, row), strict=True)) for row in rows]
        titled.append({"title": str(table.title or ""), "rows": cells})
    return titled


def _whole(console: Console, printed: object) -> object:
    """A table with every word on one line, or its rows as paragraphs; all else as it is."""
    # without headers it is a list of lines, which rich wraps
    if not isinstance(printed, Table) or not printed.show_header:
        return printed
    needed = console.measure(printed, options=console.options.update(max_width=_UNBOUNDED)).maximum
    if needed <= console.width:
        return printed
    columns = [[str(one) for one in (each.header, *each.cells)] for each in printed.columns]
    full = [_longest(line for cell in cells for line in cell.split("\n")) for cells in columns]
    least = [_longest(word for cell in cells for word in cell.split()) for cells in columns]
    # what stands between and around the cells takes its room too
    room = console.width - (needed - sum(full)) - sum(least)
    if room < 0:
        return _paragraphs(printed)
    # what is left goes where cells want it, in proportion
    wants = [most - fewest for most, fewest in zip(full, least, strict=True)]
    for column, fewest, want in zip(printed.columns, least, wants, strict=True):
        column.width = fewest + room * want // sum(wants)
        column.no_wrap = False
    return printed


def _longest(texts: Iterable[str]) -> int:
    return max((cell_len(escaped(text)) for text in texts), default=0)


def _paragraphs(printed: Table) -> str:
    """The rows of a table below each other: the first cell, then a line for each other one."""
    headers = [" ".join(str(column.header).split()) for column in printed.columns]
    lines = [str(printed.title)] if printed.title else []
    for first, *others in zip(*(column.cells for column in printed.columns), strict=True):
        lines.append(str(first))
        told = zip(headers[1:], others, strict=True)
        lines += [f"  {header}: {cell}" for header, cell in told if str(cell)]
    return "\n".join([*lines, *([str(printed.caption)] if printed.caption else [])])


def fitting(
    console: Console,
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    spare: Sequence[str] = (),
) -> Table:
    """A table no wider than the console, if the columns named in `spare` allow it.

    They are left out, the first named first, until the others fit; the caption says which. A header
    may have several lines.
    """
    # measured as if there were room for all: rich would else report the width it has
    unbounded = console.options.update(max_width=_UNBOUNDED)
    for count in range(len(spare) + 1):
        table = _without(spare[:count], headers, rows)
        if console.measure(table, options=unbounded).maximum <= console.width:
            break
    if count:
        named = ", ".join(header.replace("\n", " ") for header in spare[:count])
        table.caption = f"not shown for want of room: {named}"
    return table


def _without(
    left_out: Sequence[str], headers: Sequence[str], rows: Sequence[Sequence[str]]
) -> Table:
    table = Table(box=None, caption_justify="left")
    shown = [index for index, header in enumerate(headers) if header not in left_out]
    for index in shown:
        justify: JustifyMethod = "right" if _counts(rows, index) else "left"
        table.add_column(headers[index], no_wrap=True, justify=justify)
    for row in rows:
        table.add_row(*(row[index] for index in shown))
    return table


def _counts(rows: Sequence[Sequence[str]], index: int) -> bool:
    """Whether a column holds numbers alone, which stand at the right."""
    return all(row[index].rstrip("%").replace(".", "", 1).isdigit() for row in rows)


ACCOUNTS = {
    "records": "records",
    "records_refused": "records\nrefused",
    "samples": "samples",
    "samples_refused": "samples\nrefused",
    "not_chosen": "not\nchosen",
    "chosen": "chosen",
    "joined": "joined",
    "drawn": "drawn",
    "repeats": "repeats",
}
"""Fields of Books, and what stands above them."""


def books_table(console: Console, books: Sequence[Books]) -> Table:
    """The accounts of each source; where there is little room, first without what is 0 for all."""
    rows = [[one.source, *(str(getattr(one, name)) for name in ACCOUNTS)] for one in books]
    zeros = [
        header for name, header in ACCOUNTS.items() if not any(getattr(one, name) for one in books)
    ]
    rest = [ACCOUNTS[name] for name in ("repeats", "joined", "not_chosen", "samples")]
    # columns of zeros go first, then those that follow from the others
    spare = [*reversed(zeros), *(header for header in rest if header not in zeros)]
    return fitting(console, ["source", *ACCOUNTS.values()], rows, spare)
