"""The same plan, byte for byte, whatever Python makes it (requirement: numpy, pyarrow, tokenizers).

Other interpreters are taken from the path and from SLOWFAST_PYTHONS (paths, `:` between them).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.plan_made import written

ROOT = Path(__file__).parents[3]
GOLDEN = "f8e46f58c344b3466aebf6ae8f06595f884df0f5a4ed5033a4945613a9fe1903"
NEEDED = "import fsspec, numpy, pyarrow, tokenizers, yaml"


def pythons() -> list[str]:
    """This interpreter, and every other that could plan."""
    named = (shutil.which(f"python3.{minor}") for minor in range(11, 16))
    given = os.environ.get("SLOWFAST_PYTHONS", "").split(os.pathsep)
    able = [
        path
        for path in dict.fromkeys([*named, *given])
        if path and not subprocess.run([path, "-c", NEEDED], capture_output=True).returncode
    ]
    return [sys.executable, *able]


def test_a_plan_is_the_golden_one(tmp_path: Path) -> None:
    assert written(tmp_path)["manifest.json"] == GOLDEN


@pytest.mark.parametrize("python", pythons())
@pytest.mark.parametrize("seed", ["1", "random"])
def test_every_python_writes_the_same_bytes(tmp_path: Path, python: str, seed: str) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "theirs").mkdir()
    odd = {"PYTHONHASHSEED": seed, "LC_ALL": "C", "TZ": "Pacific/Apia"}
    command = [python, "-m", "tests.support.plan_made", str(tmp_path / "theirs")]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | odd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == written(tmp_path / "ours")
