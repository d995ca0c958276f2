"""A floor that reads questions and sees nothing: what a set's training split gives away.

Of a choice, naive Bayes over the words of an option, each alone and with the question's first
words: which tell a right option from a wrong one. Of a free answer, the answer that was most
frequent behind the longest same beginning ("per question type prior", Antol et al., VQA, 2015).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import log
from string import ascii_uppercase

from pipeline.sources.benchmarks.item import BenchmarkItem
from train.evaluation.answers import credit, normalise_answer
from train.evaluation.rules import Prompts
from train.evaluation.statistics import estimate

BEGINNING = 4  # words of a question at most
SEEN = 3  # times that a beginning must have been seen


@dataclass(slots=True)
class QuestionOnly:
    """Counts of a training split."""

    right: Counter[tuple[str, ...]] = field(default_factory=Counter)
    wrong: Counter[tuple[str, ...]] = field(default_factory=Counter)
    answers: dict[tuple[str, ...], Counter[str]] = field(
        default_factory=lambda: defaultdict(Counter)
    )
    learnt: int = 0

    def learn(self, item: BenchmarkItem) -> None:
        """Count one question; one without an answer teaches nothing."""
        if not item.answers:
            return
        self.learnt += 1
        for letter, option in zip(ascii_uppercase, item.options, strict=False):
            counts = self.right if letter in item.answers else self.wrong
            counts.update(features(item.question, option))
        if not item.options:
            for beginning in beginnings(item.question):
                self.answers[beginning][normalise_answer(item.answers[0])] += 1

    def reply(self, item: BenchmarkItem) -> str:
        """The likeliest option's letter, or the answer."""
        if item.options:
            scores = [self._odds(features(item.question, option)) for option in item.options]
            return ascii_uppercase[scores.index(max(scores))]
        for beginning in beginnings(item.question):
            counted = self.answers.get(beginning, Counter())
            if counted.total() >= SEEN or not beginning:
                # ties fall to the greatest text: the same on every machine
                return max(counted, key=lambda text: (counted[text], text), default="")
        return ""

    def _odds(self, words: Sequence[tuple[str, ...]]) -> float:
        """The mean log-odds of being right, with Laplace's one for what was never seen."""
        # the mean, so that an option is not right or wrong by its length
        logs = [log(self.right[word] + 1) - log(self.wrong[word] + 1) for word in words]
        return sum(logs) / max(len(logs), 1)


def features(question: str, option: str) -> list[tuple[str, ...]]:
    """The words of an option, each alone and behind the question's first two words."""
    asked = normalise_answer(question).split()[:2]
    words = sorted(set(normalise_answer(option).split()))
    return [(word,) for word in words] + [(*asked, word) for word in words]


def beginnings(question: str) -> Iterator[tuple[str, ...]]:
    """The first words of a question, from BEGINNING of them down to none."""
    words = normalise_answer(question).split()
    for count in range(min(BEGINNING, len(words)), -1, -1):
        yield tuple(words[:count])


def question_only(
    training: Iterable[BenchmarkItem], items: Iterable[BenchmarkItem], rules: Prompts
) -> dict[str, float | int] | None:
    """The score of this floor on the items that are scored, and of how many questions it learnt;
    None where the training split teaches nothing."""
    floor = QuestionOnly()
    for item in training:
        floor.learn(item)
    if not floor.learnt:
        return None
    credits_, groups = [], []
    for item in items:
        task = item.groups.get("task", ("",))[0]
        if item.answers and task not in rules.unscored:
            reply = floor.reply(item)
            earned = float(reply in item.answers) if item.options else None
            credits_.append(credit(reply, item, rules.compare) if earned is None else earned)
            groups.append(item.groups.get(rules.mean_of, ("",))[0])
    mean = estimate(credits_, range(len(credits_)), groups if rules.mean_of else None).mean
    return {"mean": mean, "learnt": floor.learnt}
