"""A run that is asked to stop, and folders that not every rank sees; one process of several ranks.

Several processes: tests/train/run_folder/test_nodes.py.
"""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path

import pytest

from shards.errors import UserError
from shards.store import Store
from tests.support.tiny_pool import tiny_manifest
from tests.support.tiny_run import TINY, exact, metrics, pool_of
from train import loop
from train.__main__ import parser
from train.data.pack_stream import Stream
from train.engine import checkpoint
from train.loop import Training, run
from train.run_folder import shared_folder
from train.run_folder.shared_folder import check_shared
from train.run_folder.signals import listening


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_manifest(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def unbroken(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken")
    assert run(TINY, built, pool_of(built), out) == 0
    return out


def sent_in(patch: pytest.MonkeyPatch, step: int, sent: signal.Signals) -> None:
    """The process gets a signal while it waits for the packs of a step."""
    drawn = Stream._handed_out

    def steps(stream: Stream, *arguments: object) -> object:
        for packs in drawn(stream, *arguments):  # type: ignore[arg-type]
            if stream.step == step:
                os.kill(os.getpid(), sent)
            yield packs

    patch.setattr(Stream, "_handed_out", steps)


@pytest.mark.parametrize(("sent", "step"), [(signal.SIGTERM, 3), (signal.SIGUSR1, 5)])
def test_a_signal_saves_behind_its_step_and_the_run_goes_on_bit_for_bit(
    built: Path, unbroken: Path, tmp_path: Path, sent: signal.Signals, step: int
) -> None:
    before = signal.getsignal(sent)
    with pytest.MonkeyPatch.context() as patch:
        sent_in(patch, step, sent)
        assert run(TINY, built, pool_of(built), tmp_path) == 143
    assert signal.getsignal(sent) == before
    assert checkpoint.steps(tmp_path / "checkpoints") == [step]
    told = json.loads((tmp_path / "stopped.json").read_text())
    assert told == {"signal": sent.name, "step": step, "total": 12, "saved": step}
    assert not (tmp_path / "model").exists() and not (tmp_path / "run.json").exists()
    assert run(TINY, built, pool_of(built), tmp_path) == 0
    assert not (tmp_path / "stopped.json").exists()
    assert exact(metrics(tmp_path)) == exact(metrics(unbroken))


def test_a_run_that_is_complete_when_it_is_asked_to_stop_is_complete(
    built: Path, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        sent_in(patch, 12, signal.SIGTERM)
        assert run(TINY, built, pool_of(built), tmp_path) == 0
    assert (tmp_path / "model").is_dir() and not (tmp_path / "stopped.json").exists()


def test_a_signal_of_any_rank_stops_them_all() -> None:
    class Ranks:
        """An engine of two ranks: the other one was sent SIGUSR1."""

        def totals(self, *values: float) -> list[float]:
            return [float(value) + other for value, other in zip(values, (0, 1, 0), strict=True)]

    with listening() as asked:
        assert asked.any_rank(Ranks(), has_lost=False) == ("SIGUSR1", False)  # type: ignore[arg-type]
        assert asked.any_rank(Ranks(), has_lost=True) == ("SIGUSR1", True)  # type: ignore[arg-type]


def test_a_run_that_was_taken_over_writes_no_more(built: Path, tmp_path: Path) -> None:
    taken = loop.settle

    def settle(training: Training, *arguments: object) -> None:
        taken(training, *arguments)  # type: ignore[arg-type]
        training.claim.lost = "another one"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "settle", settle)
        with pytest.raises(UserError, match=r"taken over by another run \(another one\)"):
            run(TINY, built, pool_of(built), tmp_path)
    assert checkpoint.steps(tmp_path / "checkpoints") == []


def test_a_folder_that_a_rank_does_not_see_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_shared(tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(shared_folder, "PATIENCE", 0.0)
    monkeypatch.setattr(shared_folder, "_write", lambda _: "on-another-disk")
    with pytest.raises(UserError, match=r"rank 0 on .* cannot read there what rank 0 wrote on"):
        check_shared(tmp_path)


@pytest.mark.parametrize("why", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_cannot_be_written_is_named_before_the_model_is_built(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: int
) -> None:
    put = Store.put

    def full(store: Store, name: str, data: bytes) -> None:
        if name.startswith(".probe"):
            raise OSError(why, os.strerror(why), store.path(name))
        put(store, name, data)

    monkeypatch.setattr(Store, "put", full)
    monkeypatch.setattr(loop, "build_model", pytest.fail)
    with pytest.raises(UserError, match=rf"{tmp_path}/\.probe.*: {os.strerror(why)}"):
        run(TINY, built, pool_of(built), tmp_path)
    assert not (tmp_path / "owner.json").exists()


def test_an_object_store_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(["run", "c.yaml", "--manifest", "m", "--out", "s3://bucket/run"])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "argument --out: s3://bucket/run: what a run leaves is" in said
