"""Steps of images and videos on several ranks, the tower in one call or many, all of its frames
learned from or some: the losses are those of one process."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.ranks import TOWERS, keep_until, launch, of_steps
from tests.support.tiny_pool import tiny_manifest
from tests.support.tiny_run import exact, metrics, pool_of
from train.loop import run


def jobs_for(manifest: Path, folder: Path, steps: int, chunks: dict[str, int]) -> dict[str, Any]:
    """Job by name: each use of the tower, under ZeRO 2 and 3."""
    return {
        f"{tower}-{stage}": {
            "manifest": str(manifest),
            "out": str(folder / f"{tower}-{stage}"),
            "stage": stage,
            "keep": steps,
            "steps": steps,
            "tower": tower,
            "chunk": chunks[tower],
        }
        for tower in TOWERS
        for stage in (2, 3)
    }


def worst_loss(folder: Path, jobs: dict[str, Any]) -> dict[str, float]:
    """By job, how far its losses are from those of one process, as a share of them."""
    found = {}
    for name, job in jobs.items():
        one = folder / f"{job['tower']}-1"
        if not one.exists():
            config = of_steps(job["steps"], job["tower"], job["chunk"])
            run(config, Path(job["manifest"]), pool_of(Path(job["manifest"])), one)
        pairs = zip(metrics(folder / name), metrics(one), strict=True)
        found[name] = max(abs(a["loss"] - b["loss"]) / b["loss"] for a, b in pairs)
    return found


@pytest.mark.timeout(2700)
@pytest.mark.parametrize("steps", [8, pytest.param(60, marks=pytest.mark.faults)])
def test_two_ranks_lose_what_one_process_loses(tmp_path: Path, steps: int) -> None:
    manifest = tiny_manifest(tmp_path / "made", talk=True, timestamps="none, memory_tokens: 3")
    jobs = jobs_for(manifest, tmp_path, steps, dict.fromkeys(TOWERS, 40))
    (tmp_path / "jobs.json").write_text(json.dumps(list(jobs.values())))
    launch(["tests.support.ranks", str(tmp_path / "jobs.json")], 2400)
    worst = worst_loss(tmp_path, jobs)
    assert max(worst.values()) <= 1e-6, worst


@pytest.mark.faults
@pytest.mark.timeout(4500)
def test_four_ranks_lose_what_one_process_loses(tmp_path: Path) -> None:
    manifest = tiny_manifest(tmp_path / "made", talk=True, timestamps="none, memory_tokens: 3")
    chunks = {tower: 20 * (1 + at) for at, tower in enumerate(TOWERS)}
    jobs = jobs_for(manifest, tmp_path, 200, chunks)
    (tmp_path / "jobs.json").write_text(json.dumps(list(jobs.values())))
    launch(["tests.support.ranks", str(tmp_path / "jobs.json")], 4200, ranks=4)
    worst = worst_loss(tmp_path, jobs)
    assert max(worst.values()) <= 1e-4, worst


def test_a_run_that_draws_frames_goes_on_bit_for_bit(tmp_path: Path) -> None:
    manifest, config = tiny_manifest(tmp_path / "made"), of_steps(8, "stochastic")
    config = replace(config, save_every=4)
    run(config, manifest, pool_of(manifest), tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    keep_until(tmp_path / "cut", 4)
    run(config, manifest, pool_of(manifest), tmp_path / "cut")
    assert exact(metrics(tmp_path / "cut")) == exact(metrics(tmp_path / "whole"))
