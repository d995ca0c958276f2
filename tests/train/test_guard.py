"""Which steps are objected to; that they are not taken, under every engine, is in
tests/train/engine/test_parts.py."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from mixtures.manifest.files import load_manifest
from shards.errors import UserError
from tests.support.tiny_pool import tiny_manifest
from train.config import Guard
from train.data.pack_stream import Stream
from train.guard import LEAST, MOST, StepGuard, samples_of
from train.json_files import StepLog

STRICT = Guard(spike=6.0)


def guard_after(losses: int, rule: Guard = STRICT) -> StepGuard:
    guard = StepGuard(rule)
    for loss in np.random.default_rng(0).normal(2, 0.1, losses):
        assert not guard.objection(loss, 1.0)
        guard.took(loss)
    return guard


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_objected_to_from_the_first_step(value: float) -> None:
    assert StepGuard(STRICT).objection(value, 1.0) == f"its loss is {value}"
    assert StepGuard(STRICT).objection(1.0, value) == f"its gradient norm is {value}"
    assert not StepGuard(STRICT).objection(1e9, 1e9)


def test_a_loss_far_above_its_like_is_objected_to_and_one_below_is_not() -> None:
    few, many = guard_after(LEAST - 1), guard_after(LEAST)
    assert not few.objection(100.0, 1.0)
    assert "deviations above the" in many.objection(3.0, 1.0)
    assert not many.objection(2.3, 1.0) and not many.objection(0.0, 1.0)
    assert not guard_after(LEAST, Guard(spike=50.0)).objection(3.0, 1.0)
    assert "any deviation" in _constant().objection(1.1, 1.0)


def _constant() -> StepGuard:
    guard = StepGuard(STRICT)
    for _ in range(LEAST):
        guard.took(1.0)
    return guard


def test_the_last_losses_are_what_a_step_is_compared_with_also_after_a_resume() -> None:
    guard = guard_after(MOST + 300)
    state = guard.state()
    assert len(state["losses"]) == MOST
    again = StepGuard(STRICT)
    again.load(json.loads(json.dumps(state)))
    for loss in np.linspace(2.4, 2.8, 50):
        assert again.objection(loss, 1.0) == guard.objection(loss, 1.0)


def test_the_run_ends_at_the_first_objection_or_after_so_many() -> None:
    with pytest.raises(UserError, match=r"step 3: its loss is nan; .* S; .*at_most: 1}"):
        StepGuard(STRICT).refuse(3, "its loss is nan", Path("S"))
    guard = StepGuard(Guard(policy="skip", at_most=2))
    guard.refuse(3, "w", Path("S"))
    again = StepGuard(guard.rule)
    again.load(guard.state())
    again.refuse(5, "w", Path("S"))
    with pytest.raises(UserError, match="step 9: w"):
        again.refuse(9, "w", Path("S"))


def test_the_samples_of_a_step_are_those_that_were_in_it(tmp_path: Path) -> None:
    manifest = load_manifest(tiny_manifest(tmp_path))
    stream = Stream(manifest, str(tmp_path / "pool"), global_batch=3, workers=0)
    for step, packs in zip(range(40), stream.steps(), strict=False):  # beyond the length, too
        named = samples_of(manifest, step, stream.sampler.place_of(step), 3)
        keys = sorted(key for pack in packs for key in pack.keys)
        assert sorted(sample["key"] for sample in named) == keys
        assert {sample["source"] for sample in named} <= {"pictures", "clips"}


def test_a_log_is_json_and_is_cut_where_a_resumed_run_begins(tmp_path: Path) -> None:
    path = tmp_path / "out" / "log.jsonl"
    log = StepLog(path, 0)
    for step in (1, 2, 4):
        log.write({"step": step, "loss": math.nan, "norm": math.inf, "why": None})
    with path.open("a") as file:
        file.write('{"step": 5, "lo')
    rows = [
        json.loads(line, parse_constant=pytest.fail) for line in path.read_text().split("\n")[:3]
    ]
    assert rows[0] == {"step": 1, "loss": None, "norm": None, "why": None}
    StepLog(path, 3)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]
    StepLog(path, 9)
    assert len(path.read_text().splitlines()) == 2
