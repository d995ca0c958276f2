"""Perception Test: one object of videos, each with multiple-choice questions of three options.

`{video: {metadata, mc_question: [{id, question, options, answer_id}]}}`. In the cup games the end
of the video shows the answer: a second file maps such a video to the frame it must be cut at
(`cut_frame_mapping_train.json`); without it they are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.sources.fields import Row
from pipeline.sources.json_rows import whole
from pipeline.sources.questions import asked, lettered, video_file
from pipeline.sources.records import MediaRef, Record, RowRefusal, kept, refusal
from pipeline.untrusted import Problem

READS: dict[str, tuple[str, ...]] = {"id": (), "question": (), "options": (), "answer_id": ()}


def read(annotations: Path, cuts: Path | None = None) -> Iterator[Record | RowRefusal]:
    """One record per question, named `<video>/<id>`."""
    cut_at = {} if cuts is None else whole(cuts)
    for video, entry in whole(annotations).items():
        questions = entry.get("mc_question") if isinstance(entry, dict) else None
        if not isinstance(questions, list):
            yield refusal(video, Problem("ROW_MISSING_FIELD", "no list mc_question"))
            continue
        medium = _media(video, entry.get("metadata"), cut_at)
        for number, row in enumerate(questions):
            yield _question(f"{video}/{number}", medium, row)


def _media(video: str, metadata: Any, cut_at: dict[str, Any]) -> MediaRef | Problem:
    """The video, up to its cut if it is a cup game."""
    media = video_file(video)
    known = metadata if isinstance(metadata, dict) else {}
    # a cup game without its cut would show its answer
    if isinstance(media, Problem) or not (known.get("is_cup_game") or video in cut_at):
        return media
    frame = cut_at.get(video)
    rate = known.get("frame_rate")
    if type(frame) is not int or not isinstance(rate, (int, float)) or not 0 < rate < 1000:
        return Problem("SPAN_INVALID", "a cup game whose cut, or whose frame rate, is not known")
    # a frame number at the file's constant rate, as its authors count
    return replace(media, span=(0, round(frame / Fraction(rate) * 1_000_000)))


def _question(name: str, medium: MediaRef | Problem, row: Any) -> Record | RowRefusal:
    if not isinstance(row, dict) or not {"question", "options", "answer_id"} <= set(row):
        return refusal(name, Problem("ROW_MISSING_FIELD", "no question, options and answer_id"))
    return kept(name, row, READS, partial(_record, medium=medium))


def _record(name: str, row: Row, medium: MediaRef | Problem) -> Record | RowRefusal:
    options = row["options"]
    index = row["answer_id"]
    texts = isinstance(options, list) and all(isinstance(option, str) for option in options)
    if not texts or not isinstance(row["question"], str) or type(index) is not int:
        return refusal(name, Problem("ROW_WRONG_TYPE", "question, options or answer_id"))
    said = lettered(row["question"], options, index)
    return refusal(name, said) if isinstance(said, Problem) else asked(name, medium, *said)
