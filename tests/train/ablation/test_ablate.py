"""An ablation from its grid to its table: planned without media, trained once, taken up again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mixtures.manifest.files import load_manifest
from mixtures.plan.build_manifest import build_manifest
from shards.errors import UserError
from tests.support.tiny_run import ONE_THREAD, metrics
from tests.train.ablation.tiny_grid import InProcess, ablate, in_process, world
from train.ablation import ablate as work
from train.ablation import plans, queue, results
from train.ablation.ablate import read_ablation
from train.ablation.comparisons import comparisons, measures_of
from train.ablation.grid import load_grid
from train.ablation.plans import plan_runs
from train.ablation.results import find_result
from train.ablation.variants import resolve

torch.set_num_threads(1)
__all__ = ["in_process"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("ablation")).parent


@pytest.fixture(scope="module")
def done(root: Path) -> Path:
    """The whole grid, run once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queue, "Popen", InProcess)
        assert ablate(patch, str(root / "grid.yaml"), "--out", str(root / "out")) == 0
    return root / "out"


def grid_with(root: Path, tmp_path: Path, old: str, new: str) -> Path:
    text = (root / "grid.yaml").read_text()
    assert old in text
    path = tmp_path / "grid.yaml"
    path.write_text(text.replace(old, new))
    return path


def test_every_run_leaves_a_result_and_every_variant_a_row(done: Path) -> None:
    ablation, results = read_ablation(done)
    assert ablation.names == ["base", "double_clips"]
    assert {(one.variant, one.seed) for one in results} == {
        (name, seed) for name in ablation.names for seed in (3, 4)
    }
    found = comparisons(results, ablation.names)
    whole = {(one.variant, one.measure): one for one in found if not one.part}
    assert len(whole) == 2 and {one.difference.seeds for one in whole.values()} == {2}
    assert all(one.verdict == "no claim: 2 of 5 seeds" for one in whole.values())
    parts = {(one.measure, one.part) for one in found if one.part}
    assert ("held-out loss", "clips") in parts and len(parts) == 4
    base, told = ablation.variants
    assert base.shares == {"pictures": "1/3", "clips": "2/3"} and told.shares == {}
    assert told.changes == ("recipe: layout: slow_frames: 1", "source clips: 2 times its ratio")
    assert any("clips:" in line for line in told.differs)


def test_a_result_says_what_the_run_logged(done: Path) -> None:
    _, results = read_ablation(done)
    for one in results:
        (folder,) = (done / "runs").glob(f"{one.variant}.{one.seed}.*")
        looks = (folder / "held_out.jsonl").read_text().splitlines()
        loss = measures_of(one)["held-out loss", ""].mean
        assert loss == pytest.approx(json.loads(looks[-1])["loss"], rel=1e-12)
        rows = metrics(folder)
        assert one.supervised == sum(row["supervised"] for row in rows) and one.steps == len(rows)
        scores = json.loads((folder / "scores.json").read_text())["pathways"]["both"]["tasks"]
        (name,) = one.asked
        assert measures_of(one)[name, ""].mean == scores[name]["all"]["accuracy"]
        assert set(one.asked[name].floors) == {"none", "majority"}


def test_equal_budget_means_equal_supervised_tokens(root: Path, done: Path) -> None:
    _, results = read_ablation(done)
    base = next(one for one in results if (one.variant, one.seed) == ("base", 3))
    for one in results:
        rows = metrics(next((done / "runs").glob(f"{one.variant}.{one.seed}.*")))
        before = one.supervised - rows[-1]["supervised"]
        assert before < base.supervised <= one.supervised


def test_what_is_there_is_not_trained_again_wherever_it_came_from(
    root: Path,
    done: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    in_process: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    # another machine, another name for one variant, one run not there
    shutil.copytree(done / "results", tmp_path / "out/results")
    (gone,) = (tmp_path / "out/results").glob("base.4.*")
    gone.unlink()
    path = grid_with(root, tmp_path, "name: double_clips", "name: twice")
    # wide: how long numbers are decides where cells are wrapped
    monkeypatch.setenv("COLUMNS", "200")
    assert ablate(monkeypatch, str(path), "--out", str(tmp_path / "out")) == 0
    assert in_process == [f"run {tmp_path}/out/plans/base.4/train.yaml", "evaluate --model"]
    ours, theirs = (read_ablation(each)[1] for each in (tmp_path / "out", done))
    assert [one.seed for one in ours if one.variant == "twice"] == [3, 4]
    new, old = ([o for o in some if (o.variant, o.seed) == ("base", 4)] for some in (ours, theirs))
    assert new[0].held_out == old[0].held_out and new[0].asked == old[0].asked
    assert "no claim: 2 of 5 seeds" in capsys.readouterr().out


def test_other_code_is_told_and_repeated_only_if_asked(
    root: Path,
    done: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    in_process: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(done / "results", tmp_path / "out/results")
    path = next((tmp_path / "out/results").glob("base.3.*"))
    old = results.read_result(path)
    results.write_result(tmp_path / "out", path.stem, replace(old, code="0123456789"))
    # whoever edits a module while this runs changes nothing here
    monkeypatch.setattr(work, "code_digest", lambda: old.code)
    words = (str(root / "grid.yaml"), "--out", str(tmp_path / "out"))
    assert ablate(monkeypatch, *words) == 0 and not in_process
    assert "made by other code (01234567), repeated with --again: base 3" in capsys.readouterr().out
    assert ablate(monkeypatch, *words, "--again", "--dry-run", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    states = [row["state"] for row in told["tables"][0]["rows"]]
    assert states == ["to do", *["there"] * 3] and path.is_file()
    assert ablate(monkeypatch, *words, "--again") == 0
    assert len(in_process) == 2 and results.read_result(path).code != "0123456789"


def test_a_run_that_diverges_is_a_row_that_says_so_and_is_not_tried_again(
    root: Path,
    done: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    in_process: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(done / "results", tmp_path / "out/results")
    hot = "{name: hot, config: {parts: {decoder: {lr: 1e30}}}}"
    path = grid_with(root, tmp_path, "variants:", f"variants:\n  - {hot}")
    words = (str(path), "--out", str(tmp_path / "out"))
    assert ablate(monkeypatch, *words) == 0
    said = capsys.readouterr().out
    assert "hot, seed 3: diverged at step" in said and "hot, seed 4: diverged at step" in said
    in_process.clear()
    assert ablate(monkeypatch, *words) == 0 and not in_process


def test_a_run_that_fails_is_told_and_the_others_go_on(
    root: Path,
    done: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    in_process: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(done / "results", tmp_path / "out/results")
    for seed in (3, 4):
        next((tmp_path / "out/results").glob(f"base.{seed}.*")).unlink()
    words = (str(root / "grid.yaml"), "--out", str(tmp_path / "out"))
    assert ablate(monkeypatch, *words, "--dry-run") == 0
    # the folder of one run is taken by another one
    name = next((done / "results").glob("base.3.*")).stem
    (tmp_path / "out/runs").mkdir()
    (tmp_path / "out/runs" / name).mkdir()
    (tmp_path / "out/runs" / name / "checkpoints").write_text("no folder")
    assert ablate(monkeypatch, *words) == 2
    assert "base, seed 3: ended with status" in capsys.readouterr().err
    assert len([one for one in read_ablation(tmp_path / "out")[1] if one.variant == "base"]) == 1


def test_planning_that_decodes_is_a_bug(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoding(*words: Any) -> Any:
        (root / "pool/clips/new.tar").write_bytes(b"")
        return real(*words)

    real = build_manifest
    monkeypatch.setattr(plans, "build_manifest", decoding)
    grid = load_grid(root / "grid.yaml")
    try:
        with pytest.raises(AssertionError, match="has decoded"):
            plan_runs(grid, resolve(grid, "g"), tmp_path, "g")
    finally:
        (root / "pool/clips/new.tar").unlink()


def test_the_order_of_what_both_keep_is_the_same_for_one_seed(done: Path) -> None:
    def keys(variant: str, seed: int) -> list[str]:
        manifest = load_manifest(done / f"plans/{variant}.{seed}")
        table = manifest.tables[manifest.names.index("clips")]
        rows = manifest.epochs.drawn(manifest.names.index("clips"), np.arange(9))
        return [table["key"][i].tobytes().hex() for i in rows[0]]

    assert keys("base", 3) == keys("double_clips", 3) != keys("base", 4)


def test_results_are_found_by_what_they_are_and_not_by_their_name(done: Path) -> None:
    ablation, _ = read_ablation(done)
    assert find_result(done, ablation.runs[0][2]) is not None
    assert find_result(done, ablation.runs[0][2][:8] + "0" * 24) is None
    path = next((done / "results").glob("base.3.*"))
    torn = done.parent / "torn"
    (torn / "results").mkdir(parents=True, exist_ok=True)
    (torn / "results" / path.name).write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="not as it was written; remove it"):
        find_result(torn, ablation.runs[0][2])


def processes_of(out: Path) -> list[int]:
    """Those whose command line names the folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if str(out).encode() in place.read_bytes():
                found.append(int(place.parent.name))
    return found


@pytest.mark.faults
def test_a_queue_that_is_killed_leaves_nothing_running_and_repeats_no_run(
    root: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = [sys.executable, "-m", "train", "ablate", str(root / "grid.yaml"), "--out", str(out)]
    queue_of = subprocess.Popen(words, env=ONE_THREAD, stdout=subprocess.DEVNULL)
    while not (first := sorted((out / "results").glob("*.json"))):
        assert queue_of.poll() is None
        time.sleep(0.05)
    # one run is done, the next one is under way
    while not list((out / "runs").glob("double_clips.3.*/metrics.jsonl")):
        assert queue_of.poll() is None
        time.sleep(0.05)
    queue_of.kill()
    queue_of.wait()
    while processes_of(out):
        time.sleep(0.05)
    before = {path: path.stat().st_mtime_ns for path in first}
    done = subprocess.run(words, env=ONE_THREAD, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(read_ablation(out)[1]) == 4


def test_a_skipped_step_is_no_divergence_while_the_run_may_go_on(tmp_path: Path) -> None:
    row = json.dumps({"step": 4, "objection": "its loss is nan"}) + "\n"
    for text, told in (("{policy: stop}", True), ("{policy: skip, at_most: 2}", False)):
        (tmp_path / "config.yaml").write_text(f"guard: {text}\n")
        (tmp_path / "skipped.jsonl").write_text(row)
        assert bool(results.divergence(tmp_path)) == told
    (tmp_path / "skipped.jsonl").write_text(row * 3)
    assert results.divergence(tmp_path) == "step 4: its loss is nan"
    (tmp_path / "run.json").write_text("{}")
    assert results.divergence(tmp_path) == ""
