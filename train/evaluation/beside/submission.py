"""Predictions of a split whose answers are not public, as its publisher takes them.

The layouts are those of public code: egoschema, longvideobench and perception_test_mc of
EvolvingLMMs-Lab/lmms-eval (147ad5c, lmms_eval/tasks/egoschema/utils.py; 03a5823,
lmms_eval/tasks/longvideobench/utils.py; 06f392e, lmms_eval/tasks/perceptiontest/test/utils.py). Of
other sets nothing is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from train.evaluation.predictions import Prediction


def egoschema(predictions: Sequence[Prediction]) -> dict[str, int]:
    """Video -> number of the option, from 0; -1 where none was read."""
    # one question for each video: its uid is the question's
    return {Path(one.video).stem: number_of(one) for one in predictions}


def longvideobench(predictions: Sequence[Prediction]) -> dict[str, str]:
    """Question -> the letter."""
    return {one.published: one.read for one in predictions}


def perception_test(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """A row for each question, with the number of the option, -1 where none was read."""
    return [
        {
            "video_name": Path(one.video).stem,
            "question": one.question,
            "question_id": one.published,
            "pred_id": number_of(one),
        }
        for one in predictions
    ]


SUBMISSIONS: Mapping[str, Callable[[Sequence[Prediction]], Any]] = {
    "egoschema": egoschema,
    "longvideobench": longvideobench,
    "perception_test_mc": perception_test,
}


def submission(name: str, predictions: Sequence[Prediction], file: Path) -> Path | None:
    """Write what a set's publisher takes, of all questions, where some have no public answer."""
    asked = [one for one in predictions if not one.missing]
    # where all answers are public there is nobody to send them to
    if name not in SUBMISSIONS or all(one.answers for one in asked):
        return None
    file.write_text(json.dumps(SUBMISSIONS[name](asked), indent=1) + "\n", encoding="utf-8")
    return file


def number_of(prediction: Prediction) -> int:
    """The number of the option that was read, from 0; -1 for none."""
    return ascii_uppercase.index(prediction.read) if prediction.read else -1
