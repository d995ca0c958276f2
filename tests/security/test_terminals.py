"""Names that strangers chose are shown on terminals and in logs, and never obeyed there."""

from __future__ import annotations

import io
import pickle

import pytest
from rich.table import Table

from mixtures.console import Console
from pipeline.fetch.url_guard import FetchProblem
from pipeline.media.decoded import Broken
from shards.errors import UserError, run_command
from shards.outcome import Refused

NAMES = ["[/x]", "[bold]a", "\x1b[2Ja", "a\rb", "a\nerror: forged", "\u202ea", "\x9b31m", ":smile:"]


@pytest.mark.parametrize("name", NAMES)
def test_a_table_and_a_line_show_a_name_as_it_is_spelled(name: str) -> None:
    said = io.StringIO()
    console = Console(file=said, width=200, force_terminal=True, color_system=None)
    table = Table("name", box=None)
    table.add_row(name.replace("\n", " "))
    console.print(table)
    console.print(name.replace("\n", " "), highlight=False)
    for line in said.getvalue().splitlines()[1:]:
        spelled = name.replace("\n", " ").encode("unicode_escape").decode()
        assert line.strip() == spelled and line.isprintable()


@pytest.mark.parametrize("name", NAMES)
def test_an_error_is_one_line_for_each_mistake(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise pickle.loads(pickle.dumps(UserError(f"{name}: wrong", "another")))

    with pytest.raises(SystemExit):
        run_command(fails)
    lines = capsys.readouterr().err.split("\n")
    assert len(lines) == 3 and lines[1:] == ["error: another", ""]
    assert lines[0].startswith("error: ") and lines[0].isprintable()


@pytest.mark.parametrize("name", NAMES)
def test_a_detail_is_one_printable_line(name: str) -> None:
    refused = Refused(
        source="s", record="r", key="", stage="admit", code="ROW_NOT_JSON", detail=name, origin="o"
    )
    details = (refused.detail, Broken("UNREADABLE", name).refusal.detail)
    for said in (*details, FetchProblem("FETCH_REFUSED", name).detail):
        assert said.isprintable()
