"""Table M: every mistake is answered in one line, status 2, at once, with nothing heavy begun.

Seconds hang on what else a machine does, so they are held to their bound by `make faults` alone.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.mistakes import MISTAKES, make_world

ROOT = Path(__file__).resolve().parents[2]
CPU_S = 1.5


@pytest.fixture(scope="module")
def answers() -> Iterator[dict[str, dict[str, Any]]]:
    """What each mistake is answered; the world lies where a user without rights gets to."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        world = Path(folder) / "world"
        world.mkdir()
        make_world(world)
        done = subprocess.run(
            [sys.executable, "-m", "tests.hostile.mistakes", str(world)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        told = map(json.loads, done.stdout.splitlines())
        yield {one["name"]: one for one in told}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_at_once(answers: dict[str, dict[str, Any]], name: str) -> None:
    mistake, answer = MISTAKES[name], answers[name]
    said = answer["said"].splitlines()
    assert answer["status"] == 2, answer["said"]
    assert len(said) == mistake.lines and all(line.startswith("error: ") for line in said), said
    assert re.search(mistake.says, answer["said"]), said
    assert not answer["heavy"] and not answer["started"]


@pytest.mark.faults
def test_no_mistake_costs_much(answers: dict[str, dict[str, Any]]) -> None:
    costs = {name: answer["cpu"] for name, answer in answers.items()}
    assert max(costs.values()) <= CPU_S, {n: c for n, c in costs.items() if c > CPU_S}


def test_there_are_as_many_as_were_asked_for() -> None:
    assert len(MISTAKES) >= 60


def test_an_interpreter_that_is_too_old_is_named(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    # as 3.9 would: the question is answered by the status alone
    old.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 9)\n$2"'
    )
    old.chmod(0o755)
    make = ["make", "--no-print-directory", "-B", f"PYTHON={old}", f"VENV={tmp_path}/venv"]
    done = subprocess.run(
        [*make, f"{tmp_path}/venv/ready"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    (said,) = [line for line in (done.stdout + done.stderr).splitlines() if "error: " in line]
    assert "is older than Python 3.11" in said and not (tmp_path / "venv").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("pipeline build nowhere.yaml --out out", "error: nowhere.yaml: No such file"),
        ("mixtures diff a b", "error: "),
        ("train run nowhere.yaml --dry-run", "error: nowhere.yaml: No such file"),
    ],
)
def test_a_command_line_as_people_type_it(words: str, says: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *words.split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and done.stderr.startswith(says)
    assert done.stderr.count("\n") == 1
