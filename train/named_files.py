"""What a command line names is looked for before torch is imported: a mistake costs a second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shards.errors import Mistakes, UserError
from shards.store import Store


def check_files(paths: Sequence[Path]) -> None:
    """UserError has a line for each that is no file."""
    mistakes = Mistakes()
    for path in paths:
        with mistakes.noted():
            if not path.is_file():
                raise UserError(f"{path}: no such file; correct the path")
    mistakes.tell()


def a_model(folder: Path) -> None:
    """UserError unless it is a model folder: of a run or `assemble` (they write data.json last), or
    saved by transformers with its processor."""
    if not any((folder / name).is_file() for name in ("data.json", "processor_config.json")):
        raise UserError(f"{folder}: not a model folder (no data.json); give OUT/model of a run")


def a_run(path: Path) -> None:
    """UserError unless it is a complete run's folder, or its run.json."""
    file = path / "run.json" if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"{file}: not there; a run has it when it is complete")


def a_checkpoint(folder: Path) -> None:
    """UserError unless it is a whole checkpoint."""
    if not (folder / "COMMITTED.json").is_file():
        raise UserError(
            f"{folder}: no checkpoint (no COMMITTED.json); name a folder step-N of a run, or give "
            "--like for a folder that transformers saved"
        )


def check_data(url: str) -> None:
    """UserError unless a pool or shards lie there."""
    if not any(Store(url).exists(name) for name in ("profile.json", "receipt.json")):
        raise UserError(
            f"{url}: neither a pool (profile.json) nor shards (receipt.json); check --data"
        )
