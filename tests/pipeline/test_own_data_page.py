"""docs/own_data.md: every command is run from an empty folder, and prints what stands there."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.own_data_page import PAGE, commands, plain, walked, walking

FIRST_ROAD = re.compile(r"^## Build$", re.M)


@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_the_page_is_what_its_commands_print() -> None:
    with walking() as (folder, environment):
        assert plain(walked(PAGE.read_text(), folder, environment)) == plain(PAGE.read_text())


def test_the_page_is_what_its_commands_print_up_to_the_build() -> None:
    begun = PAGE.read_text()[: FIRST_ROAD.search(PAGE.read_text()).start()]  # type: ignore[union-attr]
    assert begun.count("```console") == 3
    with walking() as (folder, environment):
        assert plain(walked(begun, folder, environment)) == plain(begun)


def test_a_walk_writes_files_runs_commands_and_fails_with_one_that_fails(tmp_path: Path) -> None:
    page = (
        "# A\n<!-- file: in/a.txt -->\n```yaml\nx: 1\n```\n\n"
        "```console\n$ cat in/a.txt\nold\n$ echo 0123456789abcdef \\\n    two\n```\nend\n"
    )
    found = walked(page, tmp_path, os.environ)
    assert (
        "$ cat in/a.txt\nx: 1\n$ echo 0123456789abcdef \\\n    two\n0123456789abcdef two\n" in found
    )
    assert found.endswith("```\nend\n") and "old" not in found
    assert plain(found) != plain(page) and "ID two" in plain(found)
    with pytest.raises(AssertionError, match="status 3"):
        walked("```console\n$ exit 3\n```\n", tmp_path, os.environ)


def test_of_what_a_trained_model_prints_its_answer_alone_is_not_compared() -> None:
    block = (
        "```console trained\n$ python -m train chat --question \\\n    Why?\n{}\n{} a.png\n```\n"
    )
    one, two = block.format("a", "looked at"), block.format("b", "looked at")
    assert plain(one) == plain(two) != plain(block.format("a", "saw"))
    assert commands("$ a\nout\n$ b \\\n c\n") == ["a", "b \\\n c"]
