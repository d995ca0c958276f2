"""Task files asked of a model: a few media at a time, each rank its own, and the scores of all."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from train import ranks
from train.data.user_media import Seen
from train.evaluation.answerer import Answerer, VisualQuestion
from train.evaluation.answers import normalise_answer
from train.evaluation.benchmark import NONE, SHUFFLED, Held, is_masked, pathways_of
from train.evaluation.scoring import score, score_types
from train.evaluation.tasks import Medium, Question
from train.evaluation.watched import shuffled


def named_tasks(paths: Sequence[Path]) -> dict[str, Path]:
    """Task files by folder and name, or by their whole path where two share these."""
    # short names, unless two files share one
    short = Counter(f"{path.parent.name}/{path.stem}" for path in paths)
    names = [f"{path.parent.name}/{path.stem}" for path in paths]
    return {
        name if short[name] == 1 else str(path): path
        for name, path in zip(names, paths, strict=True)
    }


def on_tasks(
    answerer: Answerer,
    questions: Mapping[str, Sequence[Question]],
    conditions: Sequence[str],
    media_memory: int,
) -> dict[str, Any]:
    """Scores of task files by condition; what nobody is shown is not opened."""
    every = [question for of_task in questions.values() for question in of_task]
    by_medium: dict[Medium | None, list[int]] = {}
    for number, question in enumerate(every):
        # a medium is decoded once for all its questions, whichever file they are in
        by_medium.setdefault(question.medium, []).append(number)
    # dealt by medium: no two ranks decode the same one
    mine = list(by_medium.items())[ranks.rank() :: ranks.world_size()]
    said: dict[str, dict[int, str]] = {condition: {} for condition in conditions}
    held = Held(limit=media_memory)
    while mine:
        first, _ = mine[0]
        most = held.most(kind_of(first), answerer.batch)
        # media of one kind: the bound was found for it
        _, of_a_kind = next(itertools.groupby(mine[:most], lambda one: kind_of(one[0])))
        window = list(of_a_kind)
        mine = mine[len(window) :]
        numbers = [number for _, of_medium in window for number in of_medium]
        seen = answerer.see([m for m, _ in window if m is not None and set(conditions) != {NONE}])
        held.saw(seen.values())
        for condition in conditions:
            asked = [_asked(every[number], seen, condition, answerer) for number in numbers]
            replies = answerer.answer(asked, pathways_of(condition, answerer))
            said[condition] |= {n: one.text for n, one in zip(numbers, replies, strict=True)}
        # let go of the frames (the questions hold them too) before the next window is decoded
        del seen, asked
    told = ranks.by_each(lambda: said)
    result = {}
    for condition in conditions:
        replies_of = {n: text for each in told for n, text in each[condition].items()}
        # numbers run over all files, in their order
        rest = iter(range(len(every)))
        result[condition] = {
            "masked": is_masked(condition, answerer),
            "tasks": {
                name: _scores(rows, [replies_of[next(rest)] for _ in rows])
                for name, rows in questions.items()
            },
        }
    return result


def kind_of(medium: Medium | None) -> str:
    return medium.kind if medium else ""


def _asked(
    question: Question, seen: Mapping[Medium, Seen], condition: str, answerer: Answerer
) -> VisualQuestion:
    if question.medium is None or condition == NONE:
        return VisualQuestion(text=question.text)
    one = seen[question.medium]
    if condition == SHUFFLED:
        one = shuffled(one, answerer.rules.view)
    return VisualQuestion(text=question.text, seen=(one,))


def _scores(questions: Sequence[Question], answers: Sequence[str]) -> dict[str, Any]:
    types, truths = (
        [question.type for question in questions],
        [question.answer for question in questions],
    )
    by_type = score_types(types, answers, truths)
    # a floor that knows the type: the most frequent answer of each type
    guessed = sum(scored.majority_accuracy * scored.count for scored in by_type.values()) / len(
        questions
    )
    return {
        "all": asdict(score(answers, truths)),
        "majority_per_type": guessed,
        "types": {name: asdict(type_score) for name, type_score in by_type.items()},
        "answers": [
            {
                "record": question.record,
                "type": question.type,
                "question": question.text,
                "truth": question.answer,
                "said": a,
                "credit": float(normalise_answer(a) == normalise_answer(question.answer)),
            }
            for question, a in zip(questions, answers, strict=True)
        ],
    }
