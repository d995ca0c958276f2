"""A model asked all questions of a benchmark's copy: predictions as they come.

    copy ─► items ─► by video ─► sharded over ranks ─► a few videos decoded ─► asked, one by one

A video is decoded once, whatever it is asked under (its pathways, none of them, its frames
shuffled), and encoded once for each. After each video its predictions are on disk: a kill repeats
at most the video that a process was at. Of pictures, a batch takes a video's place.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_uppercase
from typing import IO, Any

from mixtures.tokens.layout_types import View
from pipeline.sources.benchmarks.item import BenchmarkItem
from pipeline.sources.records import MediaRef, RowRefusal
from shards.ids import short_hash
from train import ranks
from train.data.user_media import Seen
from train.evaluation.answerer import Answerer, VisualQuestion
from train.evaluation.answers import credit, normalise_answer, read_letter
from train.evaluation.copies import Copy, Missing, on_screen
from train.evaluation.predictions import (
    SCHEMA,
    Head,
    Prediction,
    gathered,
    part,
    write_lines,
)
from train.evaluation.replying.replies import Said
from train.evaluation.rules import Prompts, prompt, prompts
from train.evaluation.watched import Watched, see_references, shuffled

VIDEOS_AT_A_TIME = 16
"""Videos that are decoded together at most."""
MEDIA_MEMORY = 2 << 30
"""Bytes of decoded frames that a process holds, unless it is told otherwise."""
NONE, SHUFFLED = "none", "shuffled_frames"


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberedItem:
    """A question, or what stands in its place, and which of the published ones it is."""

    number: int
    item: BenchmarkItem | RowRefusal

    @property
    def id(self) -> str:
        """What names it in the file, whether it could be read or not."""
        return self.item.record if isinstance(self.item, RowRefusal) else self.item.id

    @property
    def media(self) -> tuple[MediaRef, ...]:
        """What it shows."""
        return () if isinstance(self.item, RowRefusal) else self.item.media


@dataclass(slots=True, kw_only=True)
class Work:
    """What one process did: questions asked, media decoded, clips encoded by the tower."""

    asked: int = 0
    decoded: int = 0
    encoded: int = 0


@dataclass(slots=True, kw_only=True)
class Held:
    """How many media may be decoded together: so many of the largest seen so far fit `limit`."""

    limit: int
    largest: int = 0

    def most(self, kind: str, batch: int) -> int:
        """Of videos VIDEOS_AT_A_TIME, of images a batch, or fewer; one while nothing is known, and
        where one alone is more than the limit."""
        if not self.largest:
            return 1
        wanted = VIDEOS_AT_A_TIME if kind == "video" else batch
        return max(1, min(wanted, self.limit // self.largest))

    def saw(self, decoded: Iterable[Seen]) -> None:
        """Remember the largest of these."""
        # bytes of the JPEGs: what is held between questions; pixels live for one question only
        sizes = [sum(map(len, seen.jpegs)) for seen in decoded]
        self.largest = max([self.largest, *sizes])


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One copy asked of one model: under which conditions, and into which files."""

    answerer: Answerer
    copy: Copy
    files: Mapping[str, Path]
    subtitles: bool = False
    memory: int = MEDIA_MEMORY
    work: Work = field(default_factory=Work)

    @property
    def rules(self) -> Prompts:
        """How the set is asked and scored."""
        return prompts(self.copy.benchmark.name)

    def heads(self) -> dict[str, Head]:
        """By condition, what its predictions depend on."""
        rules = self.rules
        head = {
            "schema": SCHEMA,
            "benchmark": self.copy.benchmark.name,
            "questions": self.copy.digest(),
            "prompts": rules.version,
            # the version is raised by hand, the digest cannot be forgotten
            "prompts_digest": short_hash([getattr(rules, name) for name in Prompts.__slots__]),
            "subtitles": self.subtitles,
            **self.answerer.identity,
        }
        return {shown: head | {"shown": shown} for shown in self.files}

    def ask(self) -> dict[str, list[Prediction]]:
        """Ask what the files do not hold yet, each rank its videos; all predictions, in order."""
        heads = self.heads()
        # a part is gathered by the first rank, before any rank opens one
        known = {shown: self._gathered(shown, head) for shown, head in heads.items()}
        # what was missing is looked for again: the copy may have been mended since
        done = {
            shown: {one.id for one in found if not one.missing} for shown, found in known.items()
        }
        with ExitStack() as stack:
            lines = {
                shown: stack.enter_context(part(self.files[shown], ranks.rank(), head))
                for shown, head in heads.items()
            }
            self._ask_all(lines, done)
        ranks.by_each(lambda: None)  # all parts are written
        return of_the_same({shown: self._gathered(shown, head) for shown, head in heads.items()})

    def _gathered(self, condition: str, head: Head) -> list[Prediction]:
        return ranks.by_first(lambda: gathered(self.files[condition], head))

    def _ask_all(self, lines: Mapping[str, IO[str]], done: Mapping[str, set[str]]) -> None:
        placed = (NumberedItem(number=i, item=item) for i, item in enumerate(self.copy.items()))
        # what some condition still lacks; those that have it leave it out below
        left = (one for one in placed if any(one.id not in ids for ids in done.values()))
        # sharded by what is left, so that ranks share a rerun evenly, whoever asked what before
        groups = shard_of_rank(by_media(left), ranks.rank(), ranks.world_size())
        held = Held(limit=self.memory)
        kind, batch = self.copy.benchmark.kind, self.answerer.batch
        while window := list(itertools.islice(groups, held.most(kind, batch))):
            self._ask_window(window, held, lines, done)

    def _ask_window(
        self,
        window: Sequence[list[NumberedItem]],
        held: Held,
        lines: Mapping[str, IO[str]],
        done: Mapping[str, set[str]],
    ) -> None:
        """Decode the media of a window and ask about them; they are let go before the next."""
        shown = self._see(window)
        held.saw(one.seen for one in shown.values() if isinstance(one, Watched))
        for unit in units(window):
            for condition, file in lines.items():
                asked = [one for one in unit if one.id not in done[condition]]
                there = under(condition, asked, shown, self.answerer.rules.view)
                # on disk before the next unit is asked: a kill costs one unit
                write_lines(file, self._predictions(asked, condition, there))

    def _see(self, window: Sequence[Sequence[NumberedItem]]) -> dict[MediaRef, Watched | Missing]:
        """The media of a window, each decoded once; where nothing is to be shown, those that are
        not there."""
        wanted = [ref for group in window for one in group for ref in one.media]
        if set(self.files) == {NONE}:
            places = {ref: self.copy.find(ref) for ref in wanted if ref.data is None}
            return {ref: at for ref, at in places.items() if isinstance(at, Missing)}
        shown = see_references(self.answerer, self.copy, wanted)
        self.work.decoded += sum(isinstance(one, Watched) for one in shown.values())
        return shown

    def _predictions(
        self,
        items: Sequence[NumberedItem],
        condition: str,
        shown: Mapping[MediaRef, Watched | Missing],
    ) -> list[Prediction]:
        """A prediction for each of these."""
        predictions: list[Prediction] = []
        questions: list[tuple[NumberedItem, VisualQuestion]] = []
        for numbered in items:
            question = self._question(numbered, condition, shown)
            if isinstance(question, VisualQuestion):
                questions.append((numbered, question))
            else:
                predictions.append(question)
        before = self.answerer.encoded
        # one call: questions that show the same share the model's pass over it
        replies = self.answerer.answer(
            [question for _, question in questions],
            pathways_of(condition, self.answerer),
            self.rules.max_new_tokens,
        )
        self.work.asked += len(questions)
        self.work.encoded += self.answerer.encoded - before
        for (numbered, question), said in zip(questions, replies, strict=True):
            predictions.append(judged(numbered, question.text, said, self.rules))
        return predictions

    def _question(
        self, numbered: NumberedItem, condition: str, shown: Mapping[MediaRef, Watched | Missing]
    ) -> VisualQuestion | Prediction:
        """How a question is put, or why it cannot be."""
        if isinstance(numbered.item, RowRefusal):
            return unread(numbered.number, numbered.item)
        item, rules = numbered.item, self.rules
        # not decoded, and not known to be missing, where no condition shows it
        media = [shown[ref] for ref in item.media if ref in shown]
        # without one of its media it would be another question than the published one; a floor is
        # of the questions that the score is of, so without pictures it is not asked either
        if missing := next((each for each in media if isinstance(each, Missing)), None):
            return about(numbered.number, item, missing=missing.reason)
        seen = [each.seen for each in media if isinstance(each, Watched) and condition != NONE]
        return VisualQuestion(
            text=prompt(item, rules, self._subtitles(item, seen)),
            seen=tuple(seen),
            options=item.options if rules.choose == "likelihood" else (),
        )

    def _subtitles(self, item: BenchmarkItem, seen: Sequence[Seen]) -> str:
        if not self.subtitles or not seen:
            return ""
        # subtitles are cut to what is on screen while the shown frames are
        times = [float(at) for at in self.answerer.clip_view(seen[0], item.question).seconds]
        return on_screen(self.copy.subtitles(item), times)


def under(
    condition: str,
    numbered: Sequence[NumberedItem],
    shown: Mapping[MediaRef, Watched | Missing],
    view: View,
) -> Mapping[MediaRef, Watched | Missing]:
    """What these questions are shown: their media, or the same with their frames shuffled."""
    if condition != SHUFFLED:
        return shown
    there = {ref: shown[ref] for one in numbered for ref in one.media}
    return {
        ref: Watched(shuffled(each.seen, view)) if isinstance(each, Watched) else each
        for ref, each in there.items()
    }


def pathways_of(condition: str, answerer: Answerer) -> str:
    """The visual blocks that the model is given: shuffled frames are shown as it was trained."""
    return answerer.rules.layout.pathways if condition == SHUFFLED else condition


def is_masked(condition: str, answerer: Answerer) -> bool:
    """Whether less is shown than in training: a floor of these weights, not of their training."""
    return condition not in (answerer.rules.layout.pathways, SHUFFLED)


def of_the_same(predictions: Mapping[str, list[Prediction]]) -> dict[str, list[Prediction]]:
    """Predictions by condition, of which what is missing in one is missing in all: `none` may have
    been asked alone before, when no medium was decoded."""
    lost = {row.id: row for rows in predictions.values() for row in rows if row.missing}
    return {
        condition: [lost.get(row.id, row) for row in rows]
        for condition, rows in predictions.items()
    }


# Order -------------------------------------------------------------------------


def by_media(placed: Iterable[NumberedItem]) -> Iterator[list[NumberedItem]]:
    """Questions about the same media together, in the order of their first one.

    What needs no file (bytes that came with the row, text alone, a bad row) passes as it comes, so
    that no more than one row of bytes is held.
    """
    waiting: dict[tuple[MediaRef, ...], list[NumberedItem]] = {}
    for one in placed:
        if not one.media or any(ref.data is not None for ref in one.media):
            yield [one]
        else:
            waiting.setdefault(one.media, []).append(one)
    yield from waiting.values()


def shard_of_rank(
    groups: Iterable[list[NumberedItem]], rank: int, world: int
) -> Iterator[list[NumberedItem]]:
    """The groups of one rank: every world-th."""
    return itertools.islice(groups, rank, None, world)


def units(window: Sequence[list[NumberedItem]]) -> Iterator[list[NumberedItem]]:
    """What is asked at once: the questions about a video, or all that show none."""

    def number(pair: tuple[int, list[NumberedItem]]) -> int:
        place, group = pair
        # -1 joins neighbours: pictures and texts share a batch, each video is a unit of its own
        return place if any(ref.kind == "video" for one in group for ref in one.media) else -1

    for _, same in itertools.groupby(enumerate(window), key=number):
        yield [one for _, group in same for one in group]


# Predictions -------------------------------------------------------------------


def judged(numbered: NumberedItem, prompt_text: str, said: Said, rules: Prompts) -> Prediction:
    """The prediction of a reply: what was read of it, and its credit where there is any."""
    item = numbered.item
    assert isinstance(item, BenchmarkItem)
    reply, read = said.text, ""
    if said.chosen is not None:
        reply = item.options[said.chosen]
        read = ascii_uppercase[said.chosen]
    elif item.options:
        read = read_letter(reply, item.options)
    else:
        read = normalise_answer(reply)
    task = item.groups.get("task", ("",))[0]
    # sets without public answers are answered, for a submission or a judge
    scored = bool(item.answers) and task not in rules.unscored
    earned = float(read in item.answers) if item.options else credit(reply, item, rules.compare)
    return about(
        numbered.number,
        item,
        prompt=prompt_text,
        reply=reply,
        read=read,
        cut=said.cut,
        subtitled=prompt_text != prompt(item, rules),
        credit=earned if scored else None,
    )


def about(number: int, item: BenchmarkItem, **more: Any) -> Prediction:
    """The prediction of an item with these fields."""
    return Prediction(
        id=item.id,
        published=item.published,
        place=number,
        video=item.media[0].name or item.media[0].address if item.media else item.id,
        question=item.question,
        groups={name: list(values) for name, values in item.groups.items()},
        answers=list(item.answers),
        options=len(item.options),
        **more,
    )


def unread(number: int, refused: RowRefusal) -> Prediction:
    """What stands in the place of a row that is no question."""
    return Prediction(
        id=refused.record,
        published="",
        place=number,
        video="",
        question="",
        groups={},
        answers=[],
        options=0,
        missing=f"{refused.code}: {refused.detail}",
    )
