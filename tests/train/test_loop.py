from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from shards.errors import UserError
from tests.support.tiny_pool import tiny_manifest
from tests.support.tiny_run import CONFIG, ONE_THREAD, TINY, exact, metrics, pool_of
from train.config import RandomInit, Stop, all_from
from train.loop import run
from train.model_folder import load_saved

torch.set_num_threads(1)  # models this small wait for threads longer than they compute


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_manifest(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def unbroken(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken")
    run(TINY, built, pool_of(built), out)
    return out


def test_a_run_learns_logs_and_leaves_a_model(unbroken: Path) -> None:
    rows = metrics(unbroken)
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert all(row["data_seconds"] >= 0 and row["compute_seconds"] > 0 for row in rows)
    saved = load_saved(unbroken / "model")
    assert saved.rules.layout.slow_frames == 2
    assert saved.rules.view.cap == 4
    assert saved.profile.frame_cap == 16
    kept = sorted(path.name for path in (unbroken / "checkpoints").iterdir())
    assert kept == ["step-00000010", "step-00000012"]


def test_a_finished_run_is_not_repeated(built: Path, unbroken: Path) -> None:
    before = (unbroken / "metrics.jsonl").read_bytes()
    run(TINY, built, pool_of(built), unbroken)
    assert (unbroken / "metrics.jsonl").read_bytes() == before


def test_a_run_killed_in_the_middle_goes_on_bit_for_bit(
    built: Path, unbroken: Path, tmp_path: Path
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(f"{CONFIG}stop: {{steps: 12}}\n")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "train", "run", str(config), "--manifest", str(built)]
    command += ["--out", str(out)]
    root = Path(__file__).parents[2]
    child = subprocess.Popen(
        command, cwd=root, env=ONE_THREAD, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    committed = out / "checkpoints" / "step-00000005" / "COMMITTED.json"
    deadline = time.monotonic() + 90
    while child.poll() is None and not committed.exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    assert child.poll() is None, child.communicate()[1].decode()[-2000:]
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stderr.close()  # type: ignore[union-attr]
    assert 5 <= len(metrics(out)) < 12
    again = subprocess.run(
        command, cwd=root, env=ONE_THREAD, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr[-2000:]
    assert again.stdout == "" and set(again.stderr.split()[:1]) == {"train"}
    assert not re.search("warning|accelerator", again.stderr, re.IGNORECASE)
    assert exact(metrics(out)) == exact(metrics(unbroken))


def test_another_config_or_manifest_does_not_resume_here(
    built: Path, unbroken: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="saved with config"):
        run(
            replace(TINY, parts=all_from(TINY.parts, RandomInit(1))),
            built,
            pool_of(built),
            unbroken,
        )
    other = tiny_manifest(tmp_path, seed=9)
    with pytest.raises(UserError, match="saved with manifest"):
        run(TINY, other, pool_of(other), unbroken)


def test_the_next_stage_starts_from_the_weights_of_the_first(
    built: Path, unbroken: Path, tmp_path: Path
) -> None:
    model = str(unbroken / "model")
    parts = all_from(TINY.parts, model)
    run(replace(TINY, stop=Stop(steps=4), parts=parts), built, pool_of(built), tmp_path / "second")
    assert metrics(tmp_path / "second")[0]["loss"] < 0.8 * metrics(unbroken)[0]["loss"]
    small = replace(TINY, parts=parts, vision=replace(TINY.vision, num_hidden_layers=2))
    with pytest.raises(UserError, match=r"vision: num_hidden_layers: .* says 2, .* says 1"):
        run(small, built, pool_of(built), tmp_path / "third")
    with pytest.raises(UserError, match=r"init: .*: no config.json"):
        none = all_from(TINY.parts, str(tmp_path))
        run(replace(TINY, parts=none), built, pool_of(built), tmp_path / "third")


def test_a_finite_order_too_short_for_the_steps_is_refused_before_work(tmp_path: Path) -> None:
    path = tiny_manifest(tmp_path, ratio=("repeat: 1", "repeat: 1"))
    with pytest.raises(UserError, match=r"its order ends after \d+ packs, 500 steps"):
        run(replace(TINY, stop=Stop(steps=500)), path, pool_of(path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_line_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("stopp: {steps: 3}\n")
    done = subprocess.run(
        [sys.executable, "-m", "train", "run", str(config), "--manifest", "m", "--out", "o"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == f"error: {config}: unknown key 'stopp'; did you mean 'stop'?\n"
