"""A conversation as people read it: who says what, where its media stand, and what is learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.table import Table

from mixtures.tokens.text import pieces_of
from shards.sample import Turn


class Line(NamedTuple):
    """One turn: its role, its text with `<NAME>` where a medium stands, and if it is learned."""

    role: str
    text: str
    learned: bool


def lines(turns: Sequence[Turn], names: Sequence[str]) -> list[Line]:
    """The turns over media called by `names`, in the order of the clips."""
    return [
        Line(
            role=turn.role,
            text="".join(
                text if clip is None else f"{text}<{names[clip]}> "
                for text, clip in pieces_of(turn)
            ),
            learned=turn.loss == 1,
        )
        for turn in turns
    ]


def table(said: Sequence[Line]) -> Table:
    """A row for each turn; learned ones are marked."""
    shown = Table(box=None, show_header=False, padding=(0, 1))
    shown.add_column(no_wrap=True)
    shown.add_column(overflow="fold")
    for line in said:
        shown.add_row(line.role, line.text + ("  (learned)" if line.learned else ""))
    return shown
