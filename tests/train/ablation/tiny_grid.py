"""A grid over a tiny pool, and its runs in this process: seconds, no process of their own."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_pool import QUESTIONS, tiny_manifest
from tests.support.tiny_run import CONFIG
from train import __main__ as command_line
from train.ablation import queue

GRID = """
recipe: {root}/recipe.yaml
config: {root}/train.yaml
pool: {root}/pool
seeds: [3, 4]
held_out: {{recipe: {root}/held_out.yaml, samples: 30}}
tasks: {root}/tasks.json
floors: [none]
variants:
  - {{name: double_clips, times: {{clips: 2}}, recipe: {{layout: {{slow_frames: 1}}}}}}
"""


def world(root: Path) -> Path:
    """A pool, a recipe, a config, questions and a grid over them; the grid's path."""
    tiny_manifest(root)
    recipe = (root / "recipe.yaml").read_text()
    (root / "held_out.yaml").write_text(recipe.replace("name: tiny", "name: held_out"))
    (root / "train.yaml").write_text(CONFIG + "stop: {steps: 6}\n")
    asked = [{"from": "human", "value": QUESTIONS[0]}, {"from": "gpt", "value": "red"}]
    rows = [{"id": f"q{i}", "type": ["ab"[i % 2]], "conversations": asked} for i in range(4)]
    (root / "tasks.json").write_text(json.dumps(rows))
    path = root / "grid.yaml"
    path.write_text(GRID.format(root=root))
    return path


class InProcess:
    """What the queue takes for a process: the command, run here to its end."""

    started: list[str] = []  # noqa: RUF012

    def __init__(self, command: Sequence[str], **_: Any) -> None:
        self.words = list(command[4:])
        InProcess.started.append(" ".join(self.words[:2]))
        argv, sys.argv = sys.argv, ["train", *self.words]
        try:
            command_line.main()
            self.returncode = 0
        except SystemExit as ended:
            self.returncode = int(ended.code or 0)
        finally:
            sys.argv = argv

    def poll(self) -> int:
        return self.returncode


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs happen in this process; the words of each."""
    InProcess.started = []
    monkeypatch.setattr(queue, "Popen", InProcess)
    return InProcess.started


def ablate(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """`python -m train ablate WORDS` here; its status."""
    monkeypatch.setattr(sys, "argv", ["train", "ablate", *words])
    try:
        command_line.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0
