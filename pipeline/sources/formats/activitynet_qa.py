"""ActivityNet-QA: a file of questions and a file of answers, joined on `question_id`.

Questions: `{video_name, question, question_id}`; answers: `{answer, type, question_id}`. Videos
are `v_<video_name>` with any ending. The answers have one to three words, so the question asks
for a short one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.sources.fields import Row
from pipeline.sources.json_rows import row_record, rows
from pipeline.sources.questions import BRIEFLY, asked, video_file
from pipeline.sources.records import Record, RowRefusal, field_problem, refusal
from pipeline.untrusted import Problem
from shards.errors import UserError

READS: dict[str, tuple[str, ...]] = {"video_name": (), "question": (), "question_id": ()}


def read(questions: Path, answers: Path | None = None) -> Iterator[Record | RowRefusal]:
    """Records of a pair of files; a question without an answer is refused."""
    if answers is None:
        raise UserError(f"{questions}: ActivityNet-QA is two files; name questions and answers")
    answer_of = _answers(answers)
    for number, row in enumerate(rows(questions)):
        yield row_record(row, number, partial(_record, answers=answer_of), READS, "question_id")


def _answers(path: Path) -> dict[str, Any]:
    """question_id -> answer; one that stands twice answers nothing."""
    answer_of: dict[str, Any] = {}
    for row in rows(path):
        if isinstance(row, dict) and isinstance(row.get("question_id"), str):
            name = row["question_id"]
            # two answers to one question contradict each other
            answer_of[name] = None if name in answer_of else row.get("answer")
    if not answer_of:
        raise UserError(f"{path}: no answers with a question_id; is this the file of answers?")
    return answer_of


def _record(name: str, row: Row, answers: dict[str, Any]) -> Record | RowRefusal:
    if problem := field_problem(row, list(READS)):
        return refusal(name, problem)
    if answers.get(name) is None:
        return refusal(name, Problem("ROW_MISSING_FIELD", "no single answer has this question_id"))
    video = row["video_name"]
    question = row["question"]
    media = video_file(f"v_{video}" if isinstance(video, str) and video.strip() else None)
    text = question
    if isinstance(question, str) and question.strip():
        text = f"{question.strip().rstrip('?')}?\n{BRIEFLY}"
    return asked(name, media, text, answers[name])
