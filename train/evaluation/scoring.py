"""Answers -> numbers: exact match after normalisation, per question type, with intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from train.evaluation.answers import normalise_answer

_Z = 1.959963984540054


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Right answers of `count`; `low`..`high` is the Wilson 95 % interval of the accuracy.

    `majority` is the most frequent answer of the task file itself, right `majority_accuracy`.
    """

    count: int
    right: int
    accuracy: float
    low: float
    high: float
    majority: str
    majority_accuracy: float
    answers: int


def wilson(correct: int, count: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a proportion; (0, 1) where nothing was counted."""
    if count == 0:
        return 0.0, 1.0
    # the interval is asymmetric near 0 and 1, where the normal one would leave them
    share = correct / count
    spread = _Z**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = _Z * sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def score(answers: Sequence[str], truths: Sequence[str]) -> Score:
    """One question type, or all of them as one."""
    # normalised alike, so that marks and case decide nothing
    replies, true = ([normalise_answer(text) for text in texts] for texts in (answers, truths))
    right = sum(a == b for a, b in zip(replies, true, strict=True))
    frequencies = Counter(true)
    # ties fall to the greatest text
    majority, often = max(frequencies.items(), key=lambda item: (item[1], item[0]))
    low, high = wilson(right, len(true))
    return Score(
        count=len(true),
        right=right,
        accuracy=right / len(true),
        low=low,
        high=high,
        majority=majority,
        majority_accuracy=often / len(true),
        answers=len(frequencies),
    )


def score_types(
    types: Sequence[str], answers: Sequence[str], truths: Sequence[str]
) -> dict[str, Score]:
    """A score per question type, types in alphabetical order."""
    scores = {}
    for kind in sorted(set(types)):
        rows = [i for i, other in enumerate(types) if other == kind]
        scores[kind] = score([answers[i] for i in rows], [truths[i] for i in rows])
    return scores
