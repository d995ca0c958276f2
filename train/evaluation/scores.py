"""Predictions -> the score as a set's authors define it, tables by axis, and what is in neither."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from train.evaluation.answers import normalise_answer
from train.evaluation.predictions import Prediction
from train.evaluation.rules import Prompts
from train.evaluation.statistics import Estimate, estimate


def scores(predictions: Sequence[Prediction], rules: Prompts) -> dict[str, Any]:
    """The score as the authors define it, tables by axis, and what is not in it."""
    scored = [prediction for prediction in predictions if prediction.credit is not None]
    missing = Counter(
        prediction.missing.partition(":")[0] for prediction in predictions if prediction.missing
    )
    choices = [prediction for prediction in scored if prediction.options]
    return {
        # a file without rows asks nothing: no score of the set either
        "complete": bool(predictions) and not missing,
        "questions": len(predictions),
        "scored": len(scored),
        "missing": dict(missing),
        # three are enough to see what is wrong with a copy
        "missing_examples": [
            asdict(prediction) for prediction in predictions if prediction.missing
        ][:3],
        "without_public_answer": sum(
            not prediction.missing and prediction.credit is None for prediction in predictions
        ),
        "unread_choices": sum(not prediction.read for prediction in choices),
        "with_subtitles": sum(prediction.subtitled for prediction in predictions),
        "cut": sum(prediction.cut for prediction in predictions),
        "score": _row(scored, rules.mean_of),
        "majority": _majority(scored, rules.mean_of),
        "tables": {axis: _by(scored, axis) for axis in rules.tables},
    }


def _row(predictions: Sequence[Prediction], mean_of: str = "") -> dict[str, Any]:
    # the mean over an axis's values, where the authors average so
    groups = (
        [prediction.groups.get(mean_of, [""])[0] for prediction in predictions] if mean_of else None
    )
    mean: Estimate = estimate(
        [prediction.credit or 0.0 for prediction in predictions],
        [prediction.video for prediction in predictions],
        groups,
    )
    error = mean.error if mean.clusters > 1 else None
    # no score is not a score of 0
    return {
        "mean": mean.mean if predictions else None,
        "error": error,
        "count": mean.count,
        "videos": mean.clusters,
    }


def _by(predictions: Sequence[Prediction], axis: str) -> dict[str, dict[str, Any]]:
    """A row for each value of an axis; a question of several values counts in each."""
    rows: dict[str, list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        for value in prediction.groups.get(axis, []):
            rows[value].append(prediction)
    return {
        value: _row(rows[value]) | {"majority": _majority(rows[value])["mean"]}
        for value in sorted(rows)
    }


def _majority(predictions: Sequence[Prediction], mean_of: str = "") -> dict[str, Any]:
    """The most frequent answer of the scored questions, and the score of always giving it."""
    known = Counter(answer for prediction in predictions for answer in _right(prediction))
    if not known:
        return {"answer": "", "mean": None}
    # ties fall to the greatest text: the same on every machine
    answer, _ = max(known.items(), key=lambda pair: (pair[1], pair[0]))
    # scored like a model, with its axis and clusters: a floor of the same kind as the score
    always = [replace(one, credit=float(answer in _right(one))) for one in predictions]
    return {"answer": answer, "mean": _row(always, mean_of)["mean"]}


def _right(prediction: Prediction) -> set[str]:
    """The right answers as they are compared; an item with several counts for each."""
    if prediction.options:
        return set(prediction.answers)
    return {normalise_answer(answer) for answer in prediction.answers}
