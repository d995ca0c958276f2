"""Several ranks under ZeRO 1, 2 and 3: they train as one process does, and go on from each other.

All of it happens in one launch of two ranks (tests/ranks.py): starting them costs the most.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.ranks import SHARED, STEPS, keep_until
from tests.test_loop import ONE_THREAD, exact, metrics, pool_of
from tests.tiny_pool import tiny_manifest
from train import checkpoint
from train.engine import distinct_weights
from train.loop import run
from train.saved import load_saved

pytestmark = pytest.mark.timeout(400)  # whichever test comes first waits for all the runs
CHAIN = [(3, 4), (1, 6), (2, 8), (2, 8)]
"""ZeRO stage, and the last of its checkpoints that the next one finds."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`one`: a single process. `many`: the same run handed from it to ranks and back. `memory-1`,
    `memory-3`: frames beyond the cap, a single process and two ranks under ZeRO-3."""
    folder = tmp_path_factory.mktemp("zero")
    plain = tiny_manifest(folder / "plain")
    beyond = tiny_manifest(folder / "beyond", timestamps="none, memory_tokens: 3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "KEEP", STEPS)
        run(SHARED, plain, pool_of(plain), folder / "one")
    shutil.copytree(folder / "one", folder / "many")
    keep_until(folder / "many", 2)
    run(SHARED, beyond, pool_of(beyond), folder / "memory-1")
    jobs = [
        {"manifest": str(plain), "out": str(folder / "many"), "stage": stage, "keep": keep}
        for stage, keep in CHAIN
    ]
    jobs.append({"manifest": str(beyond), "out": str(folder / "memory-3"), "stage": 3, "keep": 0})
    (folder / "jobs.json").write_text(json.dumps(jobs))
    launch(folder / "jobs.json")
    run(SHARED, plain, pool_of(plain), folder / "many")
    return folder


def launch(jobs: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, *"-m torch.distributed.run --nproc_per_node 2 --standalone".split()),
            *("-m", "tests.ranks", str(jobs)),
        ],
        cwd=Path(__file__).parent.parent,
        env=ONE_THREAD,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def same(left: list[dict[str, Any]], right: list[dict[str, Any]]) -> None:
    """The same samples at every step, and losses and norms but for the order of addition."""
    for name in ("step", "lr", "supervised", "tokens", "samples"):
        assert [row[name] for row in left] == [row[name] for row in right]
    for name, tolerance in (("loss", 1e-6), ("grad_norm", 1e-5)):
        wanted = pytest.approx([row[name] for row in right], rel=tolerance)
        assert [row[name] for row in left] == wanted


def test_a_run_goes_from_one_process_to_two_under_every_stage_and_back(runs: Path) -> None:
    one = metrics(runs / "one")
    assert len(one) == STEPS
    same(metrics(runs / "many"), one)
    weights = [distinct_weights(load_saved(runs / n / "model").model) for n in ("many", "one")]
    for name, weight in weights[1].items():
        torch.testing.assert_close(weights[0][name], weight, rtol=1e-3, atol=2e-5)


def test_every_stage_trains_on_from_what_another_saved(runs: Path) -> None:
    one = metrics(runs / "one")
    for number in range(len(CHAIN)):
        same(rows(runs / "many" / f"metrics-{number}.jsonl"), one)


def test_the_same_ranks_go_on_bit_for_bit(runs: Path) -> None:
    before, again = (rows(runs / "many" / f"metrics-{number}.jsonl") for number in (2, 3))
    assert exact(again) == exact(before)


def test_a_memory_trains_under_zero_3_where_ranks_hold_unequal_numbers_of_frames(
    runs: Path,
) -> None:
    same(metrics(runs / "memory-3"), metrics(runs / "memory-1"))
