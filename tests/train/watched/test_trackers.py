"""What experiment trackers are told of a run, and traces of its steps."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from shards.errors import UserError
from tests.support.tiny_pool import tiny_manifest
from tests.support.tiny_run import TINY, exact, metrics, pool_of
from train.__main__ import parser
from train.config import Stop
from train.loop import run
from train.run_keys import HeldOutLoss, Shown
from train.watched import trackers
from train.watched.trackers import check_trackers, scalars, tracked

SIX = replace(TINY, stop=Stop(steps=6))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_manifest(tmp_path_factory.mktemp("tiny"))


class Told:
    """Stands for both libraries, and notes what they are called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def install(self, patch: pytest.MonkeyPatch) -> None:
        board, wandb = ModuleType("torch.utils.tensorboard"), ModuleType("wandb")
        board.SummaryWriter = self._writer  # type: ignore[attr-defined]
        wandb.init = self._init  # type: ignore[attr-defined]
        wandb.Settings = dict  # type: ignore[attr-defined]
        patch.setitem(sys.modules, "torch.utils.tensorboard", board)
        patch.setitem(sys.modules, "wandb", wandb)

    def _writer(self, folder: Path, purge_step: int) -> SimpleNamespace:
        self.calls.append(("board", folder.name, purge_step))
        return SimpleNamespace(
            add_scalar=lambda *one: self.calls.append(("scalar", *one)),
            close=lambda: self.calls.append(("closed",)),
        )

    def _init(self, **given: Any) -> SimpleNamespace:
        self.calls.append(("init", given["mode"], given["id"]))
        return SimpleNamespace(
            define_metric=lambda *one, **more: self.calls.append(("metric", *one, more)),
            log=lambda row: self.calls.append(("log", row)),
            finish=lambda: self.calls.append(("finished",)),
        )

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self.calls if call[0] == kind]


def test_trackers_are_told_every_figure_of_every_step_and_the_held_out_loss(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    told.install(monkeypatch)
    shown = Shown(trackers=("tensorboard", "wandb"))
    rule = HeldOutLoss(manifest=str(built), every=3, samples=2)
    config = replace(SIX, held_out=rule)
    assert run(config, built, pool_of(built), tmp_path / "out", None, shown) == 0
    assert told.of("board") == [("tensorboard", 1)] and told.of("closed") == [()]
    rows = metrics(tmp_path / "out")
    seen = {(name, step): value for name, value, step in told.of("scalar")}
    for row in rows:
        for name in ("loss", "grad_norm", "lr_decoder", "tokens_per_second"):
            assert seen[name, row["step"]] == row[name]  # to the bit
        assert {name: seen[f"loss/{name}", row["step"]] for name in row["by_source"]} == (
            row["by_source"]
        )
    assert {step for name, step in seen if name == "held_out/loss"} == {3, 6}
    assert ("held_out/loss/clips", 3) in seen and ("mfu", 1) not in seen
    logged = [row for (row,) in told.of("log")]
    assert [row["step"] for row in logged] == [1, 2, 3, 3, 4, 5, 6, 6]
    assert logged[0]["loss"] == rows[0]["loss"] and told.of("finished") == [()]
    assert told.of("init")[0][0] == "offline"
    assert told.of("metric") == [("*", {"step_metric": "step"})]


def test_a_start_that_goes_on_hides_what_an_earlier_one_wrote_beyond_it_and_keeps_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    told.install(monkeypatch)
    for done in (0, 7):
        with tracked(("tensorboard", "wandb"), tmp_path, done) as tell:
            tell({"step": done + 1, "loss": 2.0}, "")
    assert told.of("board") == [("tensorboard", 1), ("tensorboard", 8)]
    first, second = told.of("init")
    assert first == second
    assert told.of("init")[0] != ("offline", "")


def test_only_finite_numbers_are_told() -> None:
    row = {"step": 3, "loss": float("nan"), "mfu": None, "objection": "its loss is nan"}
    row |= {"tokens": 5, "by_source": {"a": 1.5, "b": float("inf")}}
    assert scalars(row) == {"tokens": 5.0, "loss/a": 1.5}
    assert scalars(row, "held_out/") == {"held_out/tokens": 5.0, "held_out/loss/a": 1.5}


def test_a_library_that_is_not_there_is_named_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed = ModuleSpec("tensorboard", None, origin="tensorboard/__init__.py")
    # a folder of the library's name, as a run leaves it, is found too, but is no module
    for left in (None, ModuleSpec("wandb", None)):
        found = {"tensorboard": installed, "wandb": left}
        monkeypatch.setattr(trackers, "find_spec", found.get)
        check_trackers(["tensorboard"])
        with pytest.raises(UserError, match=r"^--track wandb: not installed; pip install wandb$"):
            check_trackers(["tensorboard", "wandb"])
    for words in (["--track", "mlflow"], ["--profile", "0"]):
        with pytest.raises(SystemExit):
            parser().parse_args(["run", "c.yaml", *words])
    assert "write a number of at least 1" in capsys.readouterr().err


def test_tensorboard_itself_reads_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tracked(("tensorboard",), tmp_path, 0) as tell:
        tell({"step": 4, "loss": 2.5, "by_source": {"a": 1.5}}, "")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(one.step, one.value) for one in events.Scalars("loss/a")] == [(4, 1.5)]


def test_a_trace_holds_just_the_steps_that_were_asked_for_and_changes_no_loss(
    built: Path, tmp_path: Path
) -> None:
    plain, traced = tmp_path / "plain", tmp_path / "traced"
    run(SIX, built, pool_of(built), plain)
    run(SIX, built, pool_of(built), traced, None, Shown(profile=2))
    assert exact(metrics(traced)) == exact(metrics(plain))
    (path,) = (traced / "profile").iterdir()
    assert path.name == "steps-3-to-4-rank-0.json"
    events = json.loads(path.read_text())["traceEvents"]
    names = [event.get("name", "") for event in events]
    assert len({name for name in names if name.startswith("ProfilerStep#")}) == 2
    assert "aten::addmm" in names or "aten::mm" in names


def test_more_steps_than_are_left_are_refused_before_the_model_is_built(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.loop.build_model", pytest.fail)
    with pytest.raises(UserError, match=r"--profile 5: 6 steps are left, of which the first 2"):
        run(SIX, built, pool_of(built), tmp_path, None, Shown(profile=5))
