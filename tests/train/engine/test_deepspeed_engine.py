"""Several ranks under ZeRO 1, 2 and 3: they train as one process does, and go on from each other.

All of it happens in one launch of two ranks (tests/support/ranks.py): starting them costs the most.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.ranks import SHARED, STEPS, keep_until, launch
from tests.support.tiny_pool import tiny_manifest
from tests.support.tiny_run import TINY, exact, metrics, pool_of
from train.adapter import Adapter
from train.engine.interface import distinct_weights
from train.loop import run
from train.model_folder import load_saved
from train.run_folder.settings import resolved

pytestmark = pytest.mark.timeout(400)  # whichever test comes first waits for all the runs
ADAPTED = replace(TINY.parts.decoder, adapter=Adapter(rank=4))
LORA = replace(SHARED, parts=replace(SHARED.parts, tower=ADAPTED, decoder=ADAPTED))
"""The shared run with adapters in place of all weights but the projector's."""
CHAIN = [(3, 4), (1, 6), (2, 8), (2, 8)]
"""ZeRO stage, and the last of its checkpoints that the next one finds."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`one`: a single process. `many`: the same run handed from it to ranks and back. `memory-1`,
    `memory-3`: frames beyond the cap, a single process and two ranks under ZeRO-3."""
    folder = tmp_path_factory.mktemp("zero")
    plain = tiny_manifest(folder / "plain")
    beyond = tiny_manifest(folder / "beyond", timestamps="none, memory_tokens: 3")
    run(SHARED, plain, pool_of(plain), folder / "one")
    shutil.copytree(folder / "one", folder / "many")
    keep_until(folder / "many", 2)
    run(SHARED, beyond, pool_of(beyond), folder / "memory-1")
    run(LORA, plain, pool_of(plain), folder / "lora-1")
    shutil.copytree(folder / "lora-1", folder / "lora")
    keep_until(folder / "lora", 2)
    (folder / "lora.yaml").write_text(resolved(LORA))
    jobs = [
        {"manifest": str(plain), "out": str(folder / "many"), "stage": stage, "keep": keep}
        for stage, keep in CHAIN
    ]
    jobs += [
        {"manifest": str(plain), "out": str(folder / "lora"), "stage": stage, "keep": keep,
         "number": number, "config": str(folder / "lora.yaml")}
        for number, (stage, keep) in enumerate(((3, 4), (3, 4), (2, 8)))
    ]  # fmt: skip
    jobs.append({"manifest": str(beyond), "out": str(folder / "memory-3"), "stage": 3, "keep": 0})
    (folder / "jobs.json").write_text(json.dumps(jobs))
    launch(["tests.support.ranks", str(folder / "jobs.json")], 300)
    run(SHARED, plain, pool_of(plain), folder / "many")
    run(LORA, plain, pool_of(plain), folder / "lora")
    return folder


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def differing(left: list[dict[str, Any]], right: list[dict[str, Any]]) -> list[tuple[int, str]]:
    """(step, name) of what differs; losses and norms may, by the order of addition."""
    tolerance = dict.fromkeys(("step", "lr_decoder", "supervised", "tokens", "samples"), 0.0)
    tolerance |= {"loss": 1e-6, "grad_norm": 1e-5}
    return [
        (b["step"], name)
        for a, b in zip(left, right, strict=True)
        for name, allowed in tolerance.items()
        if not abs(a[name] - b[name]) <= allowed * abs(b[name])
    ]


def test_a_run_goes_from_one_process_to_two_under_every_stage_and_back(runs: Path) -> None:
    one = metrics(runs / "one")
    assert len(one) == STEPS and not differing(metrics(runs / "many"), one)
    weights = [distinct_weights(load_saved(runs / n / "model").model) for n in ("many", "one")]
    for name, weight in weights[1].items():
        torch.testing.assert_close(weights[0][name], weight, rtol=1e-3, atol=2e-5)


def test_every_stage_trains_on_from_what_another_saved(runs: Path) -> None:
    one = metrics(runs / "one")
    for number in range(len(CHAIN)):
        assert not differing(rows(runs / "many" / f"metrics-{number}.jsonl"), one)


def test_the_same_ranks_go_on_bit_for_bit(runs: Path) -> None:
    before, again = (rows(runs / "many" / f"metrics-{number}.jsonl") for number in (2, 3))
    assert exact(again) == exact(before)


def test_a_memory_trains_under_zero_3_where_ranks_hold_unequal_numbers_of_frames(
    runs: Path,
) -> None:
    one = metrics(runs / "memory-1")
    assert len(one) == STEPS and not differing(metrics(runs / "memory-3"), one)


def test_adapters_go_from_one_process_to_two_and_back_and_go_on_bit_for_bit(runs: Path) -> None:
    one = metrics(runs / "lora-1")
    assert len(one) == STEPS and not differing(metrics(runs / "lora"), one)
    before, again = (rows(runs / "lora" / f"metrics-{number}.jsonl") for number in (0, 1))
    assert exact(again) == exact(before) and len(before) == STEPS
    assert not differing(rows(runs / "lora" / "metrics-2.jsonl"), one)
    weights = [distinct_weights(load_saved(runs / n / "model").model) for n in ("lora", "lora-1")]
    for name, weight in weights[1].items():
        torch.testing.assert_close(weights[0][name], weight, rtol=1e-3, atol=2e-5)
