"""Table Y of the hazards, recipe by recipe: a line that says why, and nothing written."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import mixtures.__main__
from shards.errors import run_command
from tests.hostile.recipes import CODES, KEPT, REFUSED
from tests.support.made_pool import TOKENIZER, MadePool, many


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer, and a pool beside whatever recipe comes."""
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "tokenizer.json").write_bytes(TOKENIZER)
    MadePool(sources={"a": many("a", 9), "b": many("b", 9)}).make(folder / "pool")
    return folder


def plan(home: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["mixtures", "plan", "r.yaml", "--pool", "pool", "--out", str(out)]
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "argv", command)
    run_command(mixtures.__main__.main)


def test_the_table_holds_every_code_of_the_hazards() -> None:
    assert sorted({code for code, _, _ in REFUSED.values()}) == sorted(f"RECIPE_{c}" for c in CODES)


@pytest.mark.parametrize(("code", "data", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_recipe_is_a_line_that_says_why_and_writes_nothing(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: str,
    data: bytes,
    message: str,
) -> None:
    (home / "r.yaml").write_bytes(data)
    before = sorted(home.rglob("*"))
    with pytest.raises(SystemExit) as left:
        plan(home, tmp_path / "out", monkeypatch)
    said = capsys.readouterr()
    assert left.value.code == 2 and said.out == ""
    assert re.fullmatch(r"(error: r\.yaml: [^\n]+\n)+", said.err), said.err
    assert message in said.err
    if code != "RECIPE_PATH_REFUSED":
        assert "outside" not in said.err  # the reason is the one of its code
    assert sorted(home.rglob("*")) == before and not list(tmp_path.rglob("manifest.json"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("data", KEPT.values(), ids=KEPT.keys())
def test_a_good_recipe_is_planned(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    (home / "r.yaml").write_bytes(data)
    plan(home, tmp_path / "out", monkeypatch)
    assert (tmp_path / "out" / "manifest.json").exists()
