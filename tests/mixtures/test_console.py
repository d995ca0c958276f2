"""Tables for people: nothing in them is cut, at any width; what finds no room is named."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.table import Table

from mixtures.console import ACCOUNTS, Console, books_table, fitting
from shards.outcome import Books

BOOKS = Books(
    source="llava_video_178k",
    records=1_500_000,
    records_refused=12,
    samples=1_499_988,
    samples_refused=3_321,
    not_chosen=0,
    chosen=1_496_667,
    joined=0,
    drawn=2_000_000,
    repeats=503_333,
)


def printed(width: int, *books: Books) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(books_table(console, books))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [64, 80, 100, 200])
def test_books_show_names_and_numbers_whole(width: int) -> None:
    text = printed(width, BOOKS, replace(BOOKS, source="clips"))
    assert max(map(len, text.splitlines())) <= width
    for whole in ("llava_video_178k", "1500000", "3321", "2000000"):
        assert whole in text
    assert "…" not in text


def test_columns_of_zeros_make_room_first_and_are_named() -> None:
    text = printed(92, BOOKS)
    assert "not shown for want of room: joined" in text
    assert "repeats" in text and "1499988" in text
    assert "want of room" not in printed(120, BOOKS)


def test_a_column_that_is_zero_for_one_source_alone_is_shown() -> None:
    assert "\n llava_video_178k" in printed(120, BOOKS, replace(BOOKS, joined=7))


def test_every_account_has_a_header() -> None:
    assert set(ACCOUNTS) == {
        name for name in Books.__slots__ if isinstance(getattr(BOOKS, name), int)
    }


def test_a_table_without_rows_has_its_headers() -> None:
    console = Console(file=io.StringIO(), width=40)
    console.print(fitting(console, ["source", "key"], []))
    assert isinstance(console.file, io.StringIO)
    assert "source" in console.file.getvalue()


def test_without_a_terminal_lines_are_as_long_as_a_log_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert Console(file=io.StringIO()).width == 160
    monkeypatch.setenv("COLUMNS", "72")
    assert Console(file=io.StringIO()).width == 72


def test_no_color_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for variable, coloured in (("", True), ("1", False)):
        monkeypatch.setenv("NO_COLOR", variable)
        file = io.StringIO()
        Console(file=file, force_terminal=True).print("left", style="red")
        assert ("\x1b[31m" in file.getvalue()) == coloured


ROWS = [["llava-video-178k-perceptiontest-mc", "Apache-2.0; the card limits use to research"]]


@pytest.mark.parametrize("columns", [79, 60, 20])
def test_a_table_wraps_between_words_or_is_told_row_by_row(columns: int) -> None:
    table = Table("name", "licence")
    table.add_row(*ROWS[0])
    console = Console(file=io.StringIO(), width=columns)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert "…" not in said and set(" ".join(ROWS[0]).split()[1:]) <= set(said.split())
    # where the name itself finds no room, rich folds it
    assert (ROWS[0][0] in said) == (columns > 20)
    assert ("  licence: " in said) == (columns == 20)
