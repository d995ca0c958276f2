"""Save, commit, verify, load: a checkpoint exists once its folder has its name.

    OUT/checkpoints/.step-00000120.tmp/            while it is written, by all ranks
    OUT/checkpoints/step-00000120/state-*          what is trained (train.engine.state_files)
    OUT/checkpoints/step-00000120/model/           what a model folder says beside its weights
    OUT/checkpoints/step-00000120/COMMITTED.json   written last: step, ids, sha256 of each file

What else lies there is a crash's leftover: never read, removed by the next run (`sweep`).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.envelope import Envelope
from shards.errors import DamagedData, UserError
from shards.ids import sha256_file, sha256_hex
from shards.store import Store
from train.data.data_state import DataState
from train.guard import GuardState
from train.json_files import fsync
from train.run_keys import Keep

COMMITTED = "COMMITTED.json"
MODEL = "model"
"""The folder in a checkpoint that says of a model folder everything but its weights."""
ENVELOPE = Envelope(
    schema="slowfast-mix/checkpoint/5",
    if_damaged="delete its folder to resume from the checkpoint before it",
    if_outdated="give another --out, or delete its folder",
)
_TEMPORARY = ".tmp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A committed state after `step` steps, `updates` of them taken, of a run of `total` steps.

    `data` is the stream's state and `guard` the guard's; `config` is what decides
    (`train.run_folder.settings.deciding`); `bases` says what each part was started from, and
    `frozen` source and digest of those that are not trained, which are in no file here. `branch` is
    the checkpoint of another run that this one went on from, or ""; `held_out` is the held-out loss
    by `float.hex`, or "".
    """

    folder: Path
    step: int
    updates: int
    total: int
    manifest_id: str
    config: dict[str, str]
    precision: str
    optimizer_state: str
    bases: dict[str, str]
    frozen: dict[str, dict[str, str]]
    branch: str
    held_out: str
    guard: GuardState
    data: DataState
    files: dict[str, str]


def pending(root: Path, step: int) -> Path:
    """Where the files of this step are gathered: the same on every rank."""
    return root / f".{_name(step)}{_TEMPORARY}"


def begin(temporary: Path, description: Mapping[str, bytes]) -> dict[str, str]:
    """Make the folder, with nothing in it but what describes the model; the sha256 of its files."""
    # a killed save may have left files of this very step
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    store = Store(temporary)
    for name, data in description.items():
        store.put(f"{MODEL}/{name}", data)
    return {f"{MODEL}/{name}": sha256_hex(data) for name, data in description.items()}


def commit(temporary: Path, head: Mapping[str, Any], files: Mapping[str, str], keep: Keep) -> Path:
    """Make what lies in `temporary` the checkpoint of head["step"], then prune.

    `files` has the sha256 of every file there, told by whoever wrote and synced it.
    """
    # the record is written last, into the temporary folder
    Store(temporary).put(COMMITTED, ENVELOPE.seal({**head, "files": dict(files)}))
    final = temporary.parent / _name(head["step"])
    # the same step was saved before, by a run that then lost it
    _remove(final)
    # one rename makes the folder a checkpoint: readers see all of it or nothing
    temporary.rename(final)
    fsync(final.parent)
    prune(final.parent, keep)
    return final


def latest(root: Path) -> Checkpoint | None:
    """The record of the highest committed checkpoint; its files are still to be verified."""
    folders = _committed(root)
    return read(folders[-1]) if folders else None


def read(folder: Path) -> Checkpoint:
    """The record of a checkpoint; UserError if the folder is none, DamagedData if it is damaged."""
    path = folder / COMMITTED
    if not path.is_file():
        raise UserError(f"{folder}: no checkpoint (no {COMMITTED}); name a folder step-N of a run")
    committed = Checkpoint(folder=folder, **ENVELOPE.unseal(path.read_bytes(), str(path)))
    if not (folder.name == _name(committed.step) and committed.step == committed.data["step"]):
        raise DamagedData(
            f"{path}: step {committed.step} of the weights and {committed.data['step']} of the "
            f"data, in {folder.name}; {ENVELOPE.if_damaged}"
        )
    return committed


def at(root: Path, step: int) -> Checkpoint:
    """The record of the checkpoint of a step; UserError names those that are there."""
    if step not in (there := steps(root)):
        named = ", ".join(map(str, there)) or "none"
        raise UserError(f"--from {step}: no checkpoint of it in {root}; there are: {named}")
    return read(folder_of(root, step))


def verify(committed: Checkpoint, rank: int = 0, world_size: int = 1) -> None:
    """Hash this rank's share of the files; DamagedData names one that is not as it was saved."""
    # the files are shared out by number: together the ranks hash each once
    for name in sorted(committed.files)[rank::world_size]:
        path = committed.folder / name
        whole = path.is_file()
        if not whole or sha256_file(path) != committed.files[name]:
            what = "not the bytes that were saved" if whole else "not there"
            raise DamagedData(
                f"{path}: {what}; delete {committed.folder} to resume from the checkpoint before it"
            )


def check_same_frozen(committed: Checkpoint, frozen: dict[str, dict[str, str]]) -> None:
    """Raise UserError unless the parts that are not trained are those the checkpoint stands on."""
    for part, saved in committed.frozen.items():
        now = frozen[part]
        if now["sha256"] != saved["sha256"]:
            raise UserError(
                f"{committed.folder}: trained over the {part} of {saved['source']} (sha256 "
                f"{saved['sha256'][:12]}), that of {now['source']} is another one "
                f"({now['sha256'][:12]}); give the one of before, or another --out"
            )


def check_same_branch(committed: Checkpoint, branch: Path) -> None:
    """Raise UserError unless the run of this checkpoint went on from `branch`: a run that goes on
    from its own checkpoints would leave it unread."""
    # the same command again, from this folder or from another one
    if str(branch) == committed.branch or branch.absolute() == Path(committed.branch).absolute():
        return
    began = f"went on from {committed.branch}" if committed.branch else "began anew"
    raise UserError(
        f"{committed.folder}: its run {began}, not from {branch}; leave out --branch to go on with "
        "it, or give another --out"
    )


def sweep(root: Path) -> None:
    """Remove what a killed save or prune left behind; only the owner of the run may."""
    committed = set(_committed(root))
    # hidden ones too: `.step-N.tmp` of a save, `.step-N.old.tmp` of a removal
    for path in root.glob("*step-*"):
        if path not in committed:
            shutil.rmtree(path)


def prune(root: Path, keep: Keep) -> None:
    """Remove the checkpoints that `keep` does not name."""
    folders = _committed(root)
    kept = set(folders[-keep.last :])
    if keep.every is not None:
        kept |= {folder for folder in folders if _step(folder) % keep.every == 0}
    if keep.best is not None:
        losses = {folder: read(folder).held_out for folder in folders}
        # a checkpoint between two looks has no loss to be judged by
        judged = [folder for folder in folders if losses[folder]]
        kept |= set(sorted(judged, key=lambda one: float.fromhex(losses[one]))[: keep.best])
    for folder in folders:
        if folder not in kept:
            _remove(folder)


def folder_of(root: Path, step: int) -> Path:
    """Where the checkpoint of a step lies, or would."""
    return root / _name(step)


def steps(root: Path) -> list[int]:
    """The steps whose checkpoints are there."""
    return [_step(folder) for folder in _committed(root)]


def _remove(folder: Path) -> None:
    """In one step no checkpoint any more, then gone."""
    if folder.is_dir():
        # renamed first: half a folder is never taken for a checkpoint
        doomed = folder.with_name(f".{folder.name}.old{_TEMPORARY}")
        folder.rename(doomed)
        shutil.rmtree(doomed)


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _committed(root: Path) -> list[Path]:
    return sorted(path.parent for path in root.glob(f"step-*/{COMMITTED}"))
