"""Rows of published CSV and TSV files, each a dict by the names of the header or a refusal."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator
from pathlib import Path

from pipeline.sources.text_files import opened, suffix_of
from pipeline.untrusted import Problem
from shards.errors import UserError

SUFFIXES = (".csv", ".tsv")


def rows(path: Path, needed: Collection[str]) -> Iterator[dict[str, str] | Problem]:
    """Each row of a file whose header holds the `needed` names; UserError for another header."""
    with opened(path) as file:
        # bytes that are not UTF-8 become half surrogates, which refuse their row and not the file
        text = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
        # TSV by the name alone: sniffing a dialect guesses differently from file to file
        mark = "\t" if suffix_of(path) == ".tsv" else ","
        lines = _lines(csv.reader(text, strict=True, delimiter=mark))
        header = _header(next(lines, []), needed, path)
        for cells in lines:
            yield cells if isinstance(cells, Problem) else _row(header, cells)


def _header(first: list[str] | Problem, needed: Collection[str], path: Path) -> list[str]:
    header = [] if isinstance(first, Problem) else first
    if not set(needed) <= set(header):
        raise UserError(
            f"{path}: the header needs {', '.join(needed)}, and holds "
            f"{', '.join(header)[:300] or 'nothing'}; choose another 'format' or mend `columns`"
        )
    # a dict would keep the last of two columns of one name in silence
    if len(set(header)) < len(header):
        raise UserError(f"{path}: a column stands twice in the header: {', '.join(header)[:300]}")
    return header


def _row(header: list[str], fields: list[str]) -> dict[str, str] | Problem:
    if len(fields) != len(header):
        return Problem("ROW_MISSING_FIELD", f"{len(fields)} cells, the header names {len(header)}")
    # surrogateescape put bytes that are no UTF-8 into this range (PEP 383)
    if any("\udc80" <= sign <= "\udcff" for cell in fields for sign in cell):
        return Problem("ROW_NOT_UTF8", "holds bytes that are not UTF-8")
    return dict(zip(header, fields, strict=True))


def _lines(lines: Iterator[list[str]]) -> Iterator[list[str] | Problem]:
    """The rows of a CSV reader; it starts afresh on the line after one that it refuses."""
    while True:
        try:
            yield next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            # csv's own limit on a field, 128 KB, is the bound of a cell
            long = "larger than field limit" in str(error)
            yield Problem("ROW_TOO_LONG" if long else "ROW_MISSING_FIELD", str(error)[:100])
