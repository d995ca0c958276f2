from __future__ import annotations

import json
import os
import re
import shutil
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
from train import loop
from train.config import RandomInit, Schedule, Stop, all_from, load_config
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


def test_a_finished_run_is_not_repeated_and_says_so(
    built: Path, unbroken: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in sorted(unbroken.rglob("*")) if path.is_file()}
    assert unbroken / "owner.json" not in before
    with monkeypatch.context() as patch:
        patch.setattr(loop, "build_model", pytest.fail)
        assert run(TINY, built, pool_of(built), unbroken) == 0
    said = capsys.readouterr().out
    assert said == f"{unbroken}: complete since step 12; {unbroken}/model is the model\n"
    assert {path: path.read_bytes() for path in before} == before


def test_a_run_whose_model_was_not_exported_yet_is_not_complete(
    built: Path, unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(unbroken, tmp_path / "out")
    (out / "run.json").unlink()
    (out / "model/data.json").write_text("{}")
    capsys.readouterr()
    run(TINY, built, pool_of(built), out)
    assert load_saved(out / "model").manifest_id and (out / "run.json").is_file()
    told = f"{out}: complete since step 12; {out}/model is the model"
    assert capsys.readouterr().out.splitlines()[-1] == told


def test_the_config_that_is_kept_is_the_one_that_was_run(unbroken: Path) -> None:
    kept = load_config(unbroken / "config.yaml")
    assert kept == replace(TINY, schedule=replace(TINY.schedule, decay=kept.schedule.decay))
    assert load_manifest_id(unbroken) == load_saved(unbroken / "model").manifest_id


def load_manifest_id(out: Path) -> str:
    return str(json.loads((out / "manifest.json").read_text())["manifest_id"])


@pytest.mark.timeout(600)  # of a machine that is busy
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
    deadline = time.monotonic() + 300
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
    taken_over, *others = again.stderr.splitlines()
    assert f"{out}: taken over from a run that is gone (" in taken_over
    assert f"pid {child.pid}, since " in taken_over
    assert again.stdout == f"{out}: complete since step 12; {out}/model is the model\n"
    assert {line.split()[0] for line in others} == {"train"}
    assert not re.search("warning|accelerator", again.stderr, re.IGNORECASE)
    assert exact(metrics(out)) == exact(metrics(unbroken))


def test_another_config_or_manifest_does_not_resume_here(
    built: Path, unbroken: Path, tmp_path: Path
) -> None:
    warmer = replace(TINY, schedule=Schedule(warmup=7), parts=all_from(TINY.parts, RandomInit(1)))
    with pytest.raises(UserError) as raised:
        run(warmer, built, pool_of(built), unbroken)
    named = f"{unbroken}/checkpoints/step-00000012"
    assert str(raised.value).split("\n") == [
        f"{named}: schedule: warmup: saved with 4, this run has 7",
        *(
            f"{named}: parts: {part}: init: saved with {{random: 0}}, this run has {{random: 1}}"
            for part in ("tower", "projector", "decoder")
        ),
        f"{named}: go on with the values of before, or give another --out",
    ]
    other = tiny_manifest(tmp_path, seed=9)
    with pytest.raises(UserError, match=r"manifest: seed: saved with 3, this run has 9\n"):
        run(TINY, other, pool_of(other), unbroken)
    assert load_manifest_id(unbroken) == load_saved(unbroken / "model").manifest_id


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


def test_the_command_line_says_what_is_wrong_in_a_line_each(tmp_path: Path) -> None:
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
    says = f"error: {config}: unknown key 'stopp'; did you mean 'stop'?\n"
    assert done.stderr == f"{says}error: {Path(__file__).parents[2]}/m/manifest.json: not there\n"
