"""The terminal, as every command writes to it: what strangers named is shown, not obeyed."""

from __future__ import annotations

from typing import Any

import rich.console
from rich.text import Text

from shards.errors import escaped


class Console(rich.console.Console):
    """rich's console without markup and emoji codes, with control characters spelled out.

    Lines that a command prints, and the cells of its tables, all pass `render_str`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """The text for the terminal; our own line breaks are kept."""
        return super().render_str("\n".join(map(escaped, text.split("\n"))), **options)
