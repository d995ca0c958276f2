"""The results that are committed: docs/ablations.md says what the commands say of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from train.ablation.ablate import read_ablation
from train.ablation.command import show
from train.ablation.tables import says

ROOT = Path(__file__).resolve().parents[3]
RESULTS = Path("examples/results")


def test_the_documents_say_what_suggest_says_of_the_committed_mixtures() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "train", "suggest", str(RESULTS / "mixtures")],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    said = "\n".join(line.rstrip() for line in (done.stdout + done.stderr).splitlines())
    assert said in (ROOT / "docs/ablations.md").read_text()


def test_the_documents_say_how_the_suggestion_did(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    show(False, says(*read_ablation(ROOT / RESULTS / "mixtures_check"), ""))
    told = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    rows = [line for line in told if line.startswith(" held-out loss")]
    documented = (ROOT / "docs/ablations.md").read_text().splitlines()
    assert len(rows) == 3 and not set(rows) - set(documented)
