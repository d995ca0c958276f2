"""Predictions as they come: a file of lines for each set and what was shown, and what a kill left.

    OUT.NAME.SHOWN.jsonl             a head, then a line for each question in published order
    OUT.NAME.SHOWN.jsonl.RANK.part   the same of one process, in the order in which it asked

The files are the state. Parts are gathered into the file when a run begins and when it ends: what
stands in a whole line of any of them, under the same head, is not asked again; what was missing is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from shards.errors import UserError
from train.json_files import fsync

SCHEMA = "slowfast-mix/predictions/2"
Head = Mapping[str, Any]
"""What makes predictions comparable: questions, prompts, model, frames, precision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One line of the file: what was asked and said of an item, or why it was not.

    `published` is its id as published, `place` counts the published questions. `credit` is None of
    what nobody scores here: an item without public answer, one for a judge, one whose media are
    missing (`missing` says why).
    """

    id: str
    published: str
    place: int
    video: str
    question: str
    groups: dict[str, list[str]]
    answers: list[str]
    options: int
    prompt: str = ""
    reply: str = ""
    read: str = ""
    cut: bool = False
    subtitled: bool = False
    credit: float | None = None
    missing: str = ""


def gathered(file: Path, head: Head) -> list[Prediction]:
    """All predictions of a file and of its parts, now in the file, in published order.

    UserError where one of them is another run's.
    """
    parts = parts_of(file)
    first_predictions: dict[str, Prediction] = {}
    for path in (file, *parts):
        for prediction in read_lines(path, head):
            # the file before its parts: a question asked twice keeps its first prediction,
            # but one whose media were missing the one that was asked
            kept = first_predictions.setdefault(prediction.id, prediction)
            if kept.missing:
                first_predictions[prediction.id] = prediction
    # in published order, whichever rank asked: the file does not tell how many ranks there were
    rows = sorted(first_predictions.values(), key=lambda prediction: prediction.place)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.tmp")
    # written as a whole, then renamed: a kill leaves the file and the parts as they were
    with temporary.open("w", encoding="utf-8") as lines:
        lines.write(json.dumps(head) + "\n")
        write_lines(lines, rows)
    temporary.replace(file)
    fsync(file.parent)
    # only now: what stood in them is in the file, and on disk
    for path in parts:
        path.unlink()
    return rows


def parts_of(file: Path) -> list[Path]:
    """The parts beside a file, by name."""
    if not file.parent.is_dir():
        return []
    there = (path for path in file.parent.iterdir() if path.suffix == ".part")
    return sorted(path for path in there if path.name.startswith(f"{file.name}."))


@contextmanager
def part(file: Path, rank: int, head: Head) -> Iterator[IO[str]]:
    """The part of one process, to write into; what stands in it already stays."""
    path = file.with_name(f"{file.name}.{rank}.part")
    with path.open("a", encoding="utf-8") as lines:
        # a part that a kill left goes on under its head, which `gathered` compared
        if not path.stat().st_size:
            lines.write(json.dumps(head) + "\n")
        yield lines


def write_lines(lines: IO[str], predictions: Iterable[Prediction]) -> None:
    """A line for each, on disk when this returns."""
    for prediction in predictions:
        lines.write(json.dumps(asdict(prediction), ensure_ascii=False) + "\n")
    lines.flush()
    # a prediction costs seconds of a GPU: it shall survive the machine
    os.fsync(lines.fileno())


def read_lines(path: Path, head: Head | None = None) -> list[Prediction]:
    """The predictions in a file's whole lines; a line that a kill cut short is left out.

    UserError where they are of another head than this, or no predictions at all.
    """
    text = path.read_bytes() if path.exists() else b""
    whole = text[: text.rfind(b"\n") + 1]
    try:
        rows = [json.loads(line) for line in whole.decode("utf-8").splitlines()]
        predictions = [Prediction(**row) for row in rows[1:]]
    except (ValueError, TypeError, RecursionError) as error:
        # another version's lines do not parse either: that it is another run says more than the
        # field
        if rows_head := _head_of(whole):
            _refuse_other(path, rows_head, head)
        raise UserError(f"{path}: a damaged file of predictions ({error}); remove it") from error
    if rows:
        _refuse_other(path, rows[0], head)
    return predictions


def head_of(path: Path) -> dict[str, Any]:
    """The head of a file of predictions; UserError where there is none."""
    with path.open("rb") as file:
        head = _head_of(file.readline())
    if head.get("schema") != SCHEMA:
        raise UserError(f"{path}: no predictions of {SCHEMA}; evaluate that model again")
    return head


def _head_of(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line.splitlines()[0])
    except (ValueError, IndexError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _refuse_other(path: Path, there: Any, head: Head | None) -> None:
    if head is None or there == head:
        return
    other = there if isinstance(there, dict) else {}
    # the first key that differs, in the order of the head
    differing = next((key for key in head if other.get(key) != head[key]), "schema")
    raise UserError(
        f"{path}: predictions of another run ({differing}: {other.get(differing)!r}, now "
        f"{head.get(differing)!r}); give another --out, or remove it"
    )
