"""Steps of images, videos and text on several ranks, the tower in one call or many, all of its
frames learned from or some: the losses are those of one process.

A few steps of the same are in test_deepspeed_engine.py, which has a launch for them.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.ranks import TOWERS, keep_until, launch, of_steps
from tests.support.tiny_pool import tiny_manifest
from tests.support.tiny_run import exact, metrics, pool_of
from tests.train.engine.towers import ALIKE, jobs_for, mixed_manifest, worst_loss
from train.loop import run


@pytest.mark.faults
@pytest.mark.timeout(1500)
def test_two_ranks_lose_what_one_process_loses(tmp_path: Path) -> None:
    jobs = jobs_for(mixed_manifest(tmp_path / "made"), tmp_path, 60, ALIKE)
    (tmp_path / "jobs.json").write_text(json.dumps(list(jobs.values())))
    launch(["tests.support.ranks", str(tmp_path / "jobs.json")], 1200)
    worst = worst_loss(tmp_path, jobs)
    assert max(worst.values()) <= 1e-6, worst


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_four_ranks_lose_what_one_process_loses(tmp_path: Path) -> None:
    manifest = mixed_manifest(tmp_path / "made")
    chunks = {tower: 20 * (1 + at) for at, tower in enumerate(TOWERS)}
    jobs = jobs_for(manifest, tmp_path, 200, chunks)
    (tmp_path / "jobs.json").write_text(json.dumps(list(jobs.values())))
    launch(["tests.support.ranks", str(tmp_path / "jobs.json")], 1500, ranks=4)
    worst = worst_loss(tmp_path, jobs)
    assert max(worst.values()) <= 1e-4, worst


def test_a_run_that_draws_frames_goes_on_bit_for_bit(tmp_path: Path) -> None:
    manifest, config = tiny_manifest(tmp_path / "made"), of_steps(4, "stochastic")
    config = replace(config, save_every=2)
    run(config, manifest, pool_of(manifest), tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    keep_until(tmp_path / "cut", 2)
    run(config, manifest, pool_of(manifest), tmp_path / "cut")
    assert exact(metrics(tmp_path / "cut")) == exact(metrics(tmp_path / "whole"))
