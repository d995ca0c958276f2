"""Pages about keys say what the code reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reference_pages import PAGES


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_is_what_the_code_makes(path: Path) -> None:
    assert path.read_text() == PAGES[path], "run `python -m tests.reference_pages`"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_key_has_a_row_with_five_cells(path: Path) -> None:
    rows = [line for line in path.read_text().splitlines() if line.startswith("| `")]
    assert len(rows) > 20 and all(line.replace("\\|", "").count("|") == 6 for line in rows)
    assert not [line for line in rows if "|  |" in line]
