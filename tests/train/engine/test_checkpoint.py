from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shards.errors import DamagedData, UserError
from shards.ids import sha256_file
from train.engine import checkpoint
from train.run_keys import Keep

NEWEST = Keep()


def save(root: Path, step: int, keep: Keep = NEWEST, held_out: str = "") -> Path:
    folder = checkpoint.pending(root, step)
    files = checkpoint.begin(folder, {"config": b"sizes"})
    (folder / "state").write_bytes(b"weights")
    files["state"] = sha256_file(folder / "state")
    head = {
        "step": step,
        "updates": step - 1,
        "total": 200,
        "manifest_id": "m",
        "config": {"parts: decoder: lr": "2e-05"},
        "precision": "fp32",
        "optimizer_state": "fp32",
        "bases": {"tower": "here"},
        "branch": "",
        "held_out": held_out,
        "frozen": {"tower": {"source": "here", "sha256": "00ff"}},
        "guard": {"losses": [(2.7).hex()], "skipped": 1},
        "data": {"step": step},
    }
    return checkpoint.commit(folder, head, files, keep)


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_nothing_saved_is_nothing_found(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "none") is None
    with pytest.raises(UserError, match="no checkpoint"):
        checkpoint.read(tmp_path / "none")


def test_the_highest_committed_step_is_found_and_two_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 20, 100):
        save(tmp_path, step)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert (found.step, found.data, set(found.files)) == (
        100,
        {"step": 100},
        {"model/config", "state"},
    )
    assert names(tmp_path) == ["step-00000020", "step-00000100"]


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (Keep(last=1), [60]),
        (Keep(last=9), [10, 20, 30, 40, 50, 60]),
        (Keep(last=1, every=20), [20, 40, 60]),
        (Keep(last=2, every=30), [30, 50, 60]),
    ],
)
def test_the_newest_stay_and_those_of_every_so_many_steps(
    tmp_path: Path, keep: Keep, kept: list[int]
) -> None:
    for step in range(10, 70, 10):
        save(tmp_path, step, keep=keep)
    assert checkpoint.steps(tmp_path) == kept and len(names(tmp_path)) == len(kept)


def test_those_with_the_lowest_held_out_loss_stay(tmp_path: Path) -> None:
    losses = {10: 0.5, 20: 0.25, 30: 0.75, 40: None, 50: 0.3, 60: 0.9}
    for step, loss in losses.items():
        told = "" if loss is None else loss.hex()
        save(tmp_path, step, keep=Keep(last=1, best=2), held_out=told)
    assert checkpoint.steps(tmp_path) == [20, 50, 60]


class Killed(BaseException):
    """The process ends at this very call."""


def killed_at(patch: pytest.MonkeyPatch, number: int) -> None:
    """The `number`-th change of the disk, and every one after it, does not happen."""
    done = [0]

    def guarded(change: Callable[..., object]) -> Callable[..., object]:
        def tried(*arguments: object, **options: object) -> object:
            done[0] += 1
            if done[0] > number:
                raise Killed
            return change(*arguments, **options)

        return tried

    for name in ("rename", "unlink", "rmdir", "mkdir"):
        patch.setattr(os, name, guarded(getattr(os, name)))
    patch.setattr(Path, "replace", guarded(Path.replace))


def test_a_kill_at_any_change_of_the_disk_loses_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    """Save and prune, killed at each change in turn, under a step that is new and one that is not:
    what was committed before is there, and the next run finds nothing else."""
    for again in (False, True):
        for number in range(100):
            root = tmp_path / f"{again}-{number}"
            for step in (5, 10, *([15] if again else [])):
                save(root, step, keep=Keep(last=3))
            with pytest.MonkeyPatch.context() as patch:
                killed_at(patch, number)
                try:
                    save(root, 15, keep=Keep(last=1))
                    whole = True
                except Killed:
                    whole = False
            found = checkpoint.latest(root)
            assert found is not None and found.step >= 10
            checkpoint.verify(found)
            checkpoint.sweep(root)
            assert names(root) == [f"step-{step:08d}" for step in checkpoint.steps(root)]
            if whole:
                break
        assert number > 5 and checkpoint.steps(root) == [15]


@pytest.mark.parametrize("name", ["model/config", "state"])
def test_a_changed_byte_is_refused_before_anything_is_loaded(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 5) / name
    data = bytearray(path.read_bytes())
    data[2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedData, match=f"{name}: not the bytes that were saved"):
        checkpoint.verify(checkpoint.read(tmp_path / "step-00000005"))


def test_ranks_verify_a_share_each_and_all_of_it_together(tmp_path: Path) -> None:
    found = checkpoint.read(save(tmp_path, 5))
    (found.folder / "state").unlink()
    refused = []
    for rank in range(3):
        try:
            checkpoint.verify(found, rank, 3)
        except DamagedData as error:
            refused.append(str(error))
    assert len(refused) == 1 and "state: not there; delete " in refused[0]


def test_a_checkpoint_of_another_version_is_named_so(tmp_path: Path) -> None:
    note = save(tmp_path, 5) / checkpoint.COMMITTED
    value = checkpoint.ENVELOPE.unseal(note.read_bytes(), "here")
    note.write_text(json.dumps(value | {"schema": "slowfast-mix/checkpoint/3"}))
    said = (
        r"step-00000005/COMMITTED\.json: written by another version .*checkpoint/5.*; give another"
    )
    with pytest.raises(UserError, match=said):
        checkpoint.latest(tmp_path)


def test_a_damaged_commit_note_is_refused(tmp_path: Path) -> None:
    note = save(tmp_path, 5) / checkpoint.COMMITTED
    note.write_bytes(note.read_bytes().replace(b'"step":5', b'"step":4', 1))
    with pytest.raises(DamagedData, match=r"COMMITTED\.json: not as it was written; delete"):
        checkpoint.latest(tmp_path)


@pytest.mark.parametrize("change", [{"step": 4}, {"data": {"step": 4}}])
def test_step_folder_and_data_agree(tmp_path: Path, change: dict[str, object]) -> None:
    note = save(tmp_path, 5) / checkpoint.COMMITTED
    value = checkpoint.ENVELOPE.unseal(note.read_bytes(), "here")
    note.write_bytes(checkpoint.ENVELOPE.seal(value | change))
    with pytest.raises(DamagedData, match=r"COMMITTED\.json: step .* data, in step-00000005"):
        checkpoint.latest(tmp_path)


def test_a_folder_that_was_renamed_is_no_other_step(tmp_path: Path) -> None:
    save(tmp_path, 5).rename(tmp_path / "step-00000006")
    with pytest.raises(DamagedData, match="in step-00000006; delete its folder"):
        checkpoint.latest(tmp_path)
