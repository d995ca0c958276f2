"""Save, commit, verify, load: a checkpoint exists once its COMMITTED.json does.

    OUT/checkpoints/step-00000120/            the engine's files
    OUT/checkpoints/step-00000120/COMMITTED.json   written last: step, ids, sha256 of each file

A folder without it is a crash's leftover: never read, overwritten by the next save.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.envelope import Envelope
from shards.errors import DamagedData, UserError
from shards.ids import sha256_file
from shards.store import Store
from train.data.data_state import DataState
from train.guard import GuardState
from train.json_files import fsync

COMMITTED = "COMMITTED.json"
ENVELOPE = Envelope(
    schema="slowfast-mix/checkpoint/4",
    if_damaged="delete its folder to resume from the checkpoint before it",
    if_outdated="give another --out, or delete its folder",
)
KEEP = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A committed state after `step` steps, `updates` of them taken, of a run of `total` steps.

    `data` is the stream's state and `guard` the guard's; `frozen` names source and digest of the
    parts that are not trained, which are in no file here.
    """

    folder: Path
    step: int
    updates: int
    total: int
    manifest_id: str
    config: str
    precision: str
    optimizer_state: str
    frozen: dict[str, dict[str, str]]
    guard: GuardState
    data: DataState
    files: dict[str, str]


def pending(root: Path, step: int) -> Path:
    """Where the files of this step are gathered: the same on every rank."""
    return root / f".step-{step:08d}.tmp"


def begin(temporary: Path) -> None:
    """Empty the folder, of a crash's leftovers too."""
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)


def commit(temporary: Path, head: dict[str, Any]) -> Path:
    """Make what lies in `temporary` the checkpoint of head["step"]; then prune to KEEP."""
    files = sorted(path for path in temporary.rglob("*") if path.is_file())
    digests = {str(path.relative_to(temporary)): sha256_file(path) for path in files}
    for path in [*files, *(p for p in temporary.rglob("*") if p.is_dir()), temporary]:
        fsync(path)
    final = temporary.parent / _name(head["step"])
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    fsync(final.parent)
    Store(final).put(COMMITTED, ENVELOPE.seal(head | {"files": digests}))
    _prune(final.parent)
    return final


def latest(root: Path) -> Checkpoint | None:
    """The highest committed checkpoint, every byte verified; DamagedData names a bad file."""
    folders = _committed(root)
    if not folders:
        return None
    found = _read(folders[-1])
    for name, wanted in found.files.items():
        path = found.folder / name
        if not path.is_file() or sha256_file(path) != wanted:
            raise DamagedData(
                f"{path}: not the bytes that were saved; delete {found.folder} to resume from "
                "the checkpoint before it"
            )
    return found


def check_same_run(found: Checkpoint, manifest_id: str, config: str) -> None:
    """Raise UserError unless this checkpoint continues this very run, on however many ranks."""
    pairs = (("manifest", found.manifest_id, manifest_id), ("config", found.config, config))
    for what, saved, now in pairs:
        if saved != now:
            raise UserError(
                f"{found.folder}: saved with {what} {saved}, this run has {now}; "
                "give another --out, or delete this one"
            )


def check_same_frozen(found: Checkpoint, frozen: dict[str, dict[str, str]]) -> None:
    """Raise UserError unless the parts that are not trained are those the checkpoint stands on."""
    for part, saved in found.frozen.items():
        now = frozen[part]
        if now["sha256"] != saved["sha256"]:
            raise UserError(
                f"{found.folder}: trained over the {part} of {saved['source']} (sha256 "
                f"{saved['sha256'][:12]}), that of {now['source']} is another one "
                f"({now['sha256'][:12]}); give the one of before, or another --out"
            )


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _committed(root: Path) -> list[Path]:
    return sorted(path.parent for path in root.glob(f"step-*/{COMMITTED}"))


def _read(folder: Path) -> Checkpoint:
    path = folder / COMMITTED
    found = Checkpoint(folder=folder, **ENVELOPE.unseal(path.read_bytes(), str(path)))
    if not (folder.name == _name(found.step) and found.step == found.data["step"]):
        raise DamagedData(
            f"{path}: step {found.step} of the weights and {found.data['step']} of the data, in "
            f"{folder.name}; {ENVELOPE.if_damaged}"
        )
    return found


def _prune(root: Path) -> None:
    for folder in _committed(root)[:-KEEP]:
        (folder / COMMITTED).unlink()
        shutil.rmtree(folder)
