"""A run is made again from its run.json, and two runs are compared by theirs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from shards.errors import DamagedData, UserError
from tests.support.ranks import launch
from tests.support.tiny_pool import tiny_manifest
from tests.support.tiny_run import TINY as SHORT
from tests.support.tiny_run import metrics, pool_of
from train.config import Stop
from train.loop import run
from train.reproduce import diff, reproduce
from train.run_folder import record
from train.run_folder.record import read_record, verdict

TINY = replace(SHORT, stop=Stop(steps=20))
LOSSES = Path(__file__).with_name("tiny_losses.json")
"""The losses of TINY over the tiny pool; a commit that changes them says why."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_manifest(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def unbroken(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run."""
    out = tmp_path_factory.mktemp("unbroken")
    assert run(TINY, built, pool_of(built), out) == 0
    return out


def test_the_record_holds_every_loss_to_the_bit(built: Path, unbroken: Path) -> None:
    found = read_record(unbroken)
    losses = {str(row["step"]): float(row["loss"]).hex() for row in metrics(unbroken)}
    assert found.losses == losses and len(losses) == found.step == 20
    assert found.manifest == str(built) and found.lock == ""
    assert found.made_with["processes"] == "1" and found.made_with["device"].startswith("CPU")
    assert found.bases["tower"] == "{random: 0}"


def test_the_losses_are_those_that_are_on_record(unbroken: Path) -> None:
    recorded = json.loads(LOSSES.read_text())
    assert [row["loss"] for row in metrics(unbroken)] == pytest.approx(recorded, rel=1e-4)


def test_of_a_long_run_the_first_losses_are_kept_and_those_of_every_hundredth_step(
    tmp_path: Path,
) -> None:
    rows = [
        {"step": n, "loss": n / 7, "objection": "bad" if n == 5 else None} for n in range(1, 451)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    kept = dict(record._losses(tmp_path / "metrics.jsonl"))
    assert list(map(int, kept)) == [*(n for n in range(1, 101) if n != 5), 200, 300, 400]
    assert all(float.fromhex(kept[str(n)]) == n / 7 for n in map(int, kept))


def test_a_run_is_made_again_from_its_start_and_from_a_checkpoint(
    built: Path, unbroken: Path
) -> None:
    before = sorted(path for path in unbroken.rglob("*"))
    told = reproduce(unbroken / "run.json", pool_of(built), None, 0)
    assert told == ["bit-equal (20 losses, steps 1 to 20)"]
    told = reproduce(unbroken, pool_of(built), built, 15)
    assert told == ["bit-equal (5 losses, steps 16 to 20)"]
    assert sorted(path for path in unbroken.rglob("*")) == before
    with pytest.raises(UserError, match=r"--from 3: no checkpoint of it .* there are: 15, 20"):
        reproduce(unbroken, pool_of(built), None, 3)


def test_what_differs_is_named_with_the_losses(
    built: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "code_digest", lambda: "other")
    told = reproduce(unbroken, pool_of(built), None, 0)
    assert told[0].startswith("bit-equal") and told[1].startswith("code: saved with ")
    other = tiny_manifest(tmp_path / "other", seed=9)
    with pytest.raises(UserError, match=r"the run had .*; name that one by --manifest"):
        reproduce(unbroken, pool_of(built), other, 0)
    warmer = replace(TINY, schedule=replace(TINY.schedule, warmup=3))
    run(warmer, other, pool_of(other), tmp_path / "out")
    *lines, last = diff(unbroken, tmp_path / "out")
    assert [line.split(":")[0] for line in lines] == ["manifest_id", "schedule", "code"]
    assert last.startswith("different (20 losses, steps 1 to 20)\nfrom step 1 on, most at step ")
    assert diff(unbroken, unbroken) == ["bit-equal (20 losses, steps 1 to 20)"]


def test_a_record_that_is_damaged_or_not_there_is_named(unbroken: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run\.json: not there; a run has it when it is complete"):
        read_record(tmp_path / "run.json")
    shutil.copy(unbroken / "run.json", tmp_path)
    path = tmp_path / "run.json"
    path.write_bytes(path.read_bytes().replace(b'"step":20', b'"step":21'))
    with pytest.raises(DamagedData, match=r"run\.json: not as it was written"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("far", "precision", "told"),
    [
        (0.0, "fp32", "bit-equal"),
        (1e-7, "fp32", "equal to rounding"),
        (1e-5, "fp32", "different"),
        (1e-3, "bf16", "equal to rounding"),
        (1e-2, "bf16", "different"),
    ],
)
def test_how_far_losses_are_apart_has_three_names(far: float, precision: str, told: str) -> None:
    left = {str(n): (2.0).hex() for n in range(1, 5)}
    right = left | {"3": (2.0 * (1 + far)).hex(), "9": (1.0).hex()}
    assert verdict(left, right, precision).startswith(f"{told} (4 losses, steps 1 to 4)")
    assert verdict({}, right, precision) == "no step in common"


def test_what_rounding_began_may_grow_as_training_lets_it() -> None:
    def told(far: dict[int, float], begin: int = 0) -> str:
        right = {str(n): (2.0 * (1 + d)).hex() for n, d in far.items()}
        return verdict(dict.fromkeys(right, (2.0).hex()), right, "fp32", begin).split(" (")[0]

    # as two launches of the demo's first stage on 1 and 2 processes
    grown = {2: 3.6e-9, 30: 8.6e-8, 60: 3.5e-7, 80: 1.8e-6, 90: 2.1e-5, 95: 5.7e-4}
    assert told(grown) == told(grown | {90_000: 5e-3}) == "equal to rounding"
    # the same difference in the first step behind a checkpoint, and one that training cannot make
    assert told({1095: 5.7e-4}, 1094) == "different"
    assert told(grown | {95: 2e-2}) == "different"


def test_a_rate_one_percent_higher_is_another_run(
    built: Path, unbroken: Path, tmp_path: Path
) -> None:
    part = replace(TINY.parts.decoder, lr=TINY.parts.decoder.lr * 1.01)
    run(replace(TINY, parts=replace(TINY.parts, decoder=part)), built, pool_of(built), tmp_path)
    assert diff(unbroken, tmp_path)[-1].startswith("different (20 losses, steps 1 to 20)\n")


def test_on_another_number_of_processes_the_engine_follows_and_is_named(
    built: Path, unbroken: Path
) -> None:
    # the run's own engine trains one process
    command = ["train", "reproduce", str(unbroken / "run.json"), "--pool", pool_of(built)]
    first, where, *others = launch(command, 120).splitlines()
    assert first == "equal to rounding (20 losses, steps 1 to 20)"
    assert where.startswith("from step ")
    # said once, though both ranks compare
    named = {line.partition(":")[0]: line for line in others}
    assert named["processes"] == "processes: saved with 1, this run has 2"
    assert named["engine"] == "engine: saved with torch, this run has deepspeed"
    assert len(named) == len(others) and "code" not in named


def test_what_a_run_started_from_may_lie_elsewhere(
    built: Path, unbroken: Path, tmp_path: Path
) -> None:
    start = tmp_path / "start"
    shutil.copytree(unbroken / "model", start)
    frozen = replace(TINY.parts.tower, train=False, init=str(start))
    learned = replace(TINY.parts.decoder, init=str(start))
    parts = replace(TINY.parts, tower=frozen, decoder=learned)
    out = tmp_path / "out"
    run(replace(TINY, parts=parts, stop=Stop(steps=10)), built, pool_of(built), out)
    start.rename(moved := tmp_path / "moved")
    with pytest.raises(UserError, match=f"{start}"):
        reproduce(out, pool_of(built), None, 0)
    both = {"tower": str(moved), "decoder": str(moved)}
    told = reproduce(out, pool_of(built), None, 0, places=both)
    assert told == ["bit-equal (10 losses, steps 1 to 10)"]
    # behind a checkpoint only what was not trained is read
    told = reproduce(out, pool_of(built), None, 5, places={"tower": str(moved)})
    assert told == ["bit-equal (5 losses, steps 6 to 10)"]
    with pytest.raises(UserError, match="decoder: it was trained, and is in the checkpoint of"):
        reproduce(out, pool_of(built), None, 5, places=both)
    with pytest.raises(UserError, match=r"projector: the run drew it \(\{random: 0\}\); leave"):
        reproduce(out, pool_of(built), None, 0, places={"projector": str(moved)})
