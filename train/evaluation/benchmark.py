"""A model asked all questions of a benchmark's copy: predictions as they come, then scores.

    copy ─► items, a few videos at a time ─► replies ─► OUT.NAME.PATHWAYS.jsonl ─► scores

The file of predictions is the state: a run that was killed goes on behind its last whole line,
where model, questions and prompts are the same, and repeats at most the videos it was at.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.sources.benchmarks.item import BenchmarkItem
from pipeline.sources.records import MediaRef, RowRefusal
from shards.errors import UserError
from shards.ids import short_hash
from train.evaluation.answerer import Answerer, Asked, Said
from train.evaluation.answers import credit, normalise_answer, read_letter
from train.evaluation.copies import Copy, on_screen
from train.evaluation.rules import Prompts, prompt, prompts
from train.evaluation.statistics import Estimate, estimate
from train.evaluation.watched import Watched, see_references

VIDEOS_AT_A_TIME = 8
"""Videos whose decoded frames are held together, which bounds an evaluation's memory."""
SCHEMA = "slowfast-mix/predictions/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One line of the file: what was asked and said of an item, or why it was not.

    `credit` is None of what nobody scores here: an item without public answer, one for a judge, one
    whose media are missing (`missing` says why).
    """

    id: str
    video: str
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


def run_benchmark(
    answerer: Answerer, copy: Copy, pathways: str, file: Path, *, subtitles: bool = False
) -> dict[str, Any]:
    """Ask what the file does not hold yet; the scores of all."""
    rules = prompts(copy.benchmark.name)
    # what makes predictions comparable: questions, prompts, model, precision
    head = {
        "schema": SCHEMA,
        "benchmark": copy.benchmark.name,
        "questions": copy.digest(),
        "prompts": rules.version,
        "prompts_digest": short_hash([getattr(rules, name) for name in Prompts.__slots__]),
        "pathways": pathways,
        "subtitles": subtitles,
        **answerer.identity,
    }
    # the file is the state: ids that it holds are not asked again
    done = begin(file, head)
    with file.open("a", encoding="utf-8") as lines:
        for window in windows(item for item in copy.items() if item_id(item) not in done):
            for prediction in _asked(answerer, copy, window, pathways, rules, subtitles=subtitles):
                done[prediction.id] = prediction
                lines.write(json.dumps(asdict(prediction), ensure_ascii=False) + "\n")
            lines.flush()
            # on disk before the next videos are opened
            os.fsync(lines.fileno())
    return {**head, **scores(list(done.values()), rules)}


def item_id(item: BenchmarkItem | RowRefusal) -> str:
    """What names a question in the file, whether it could be read or not."""
    return item.record if isinstance(item, RowRefusal) else item.id


def begin(file: Path, head: dict[str, Any]) -> dict[str, Prediction]:
    """The predictions of an earlier run of the same head; else an empty file that begins with it.

    A line that a kill cut short is cut off. UserError where the file is another run's.
    """
    text = file.read_bytes() if file.exists() else b""
    # up to the last whole line
    whole = text[: text.rfind(b"\n") + 1].decode("utf-8")
    rows = [json.loads(line) for line in whole.splitlines()]
    if rows and rows[0] != head:
        differing = [key for key in head if rows[0].get(key) != head[key]]
        raise UserError(
            f"{file}: predictions of another run ({differing[0]}: "
            f"{rows[0].get(differing[0])!r}, now {head[differing[0]]!r}); give "
            "another --out, or remove it"
        )
    kept = whole if rows else json.dumps(head) + "\n"
    temporary = file.with_name(f".{file.name}.tmp")
    file.parent.mkdir(parents=True, exist_ok=True)
    # rewritten as a whole, then renamed: never half a head
    temporary.write_text(kept, encoding="utf-8")
    temporary.replace(file)
    return {row["id"]: Prediction(**row) for row in rows[1:]}


def windows(
    items: Iterable[BenchmarkItem | RowRefusal],
) -> Iterator[list[BenchmarkItem | RowRefusal]]:
    """The items in order, so many together as name at most VIDEOS_AT_A_TIME media."""
    window: list[BenchmarkItem | RowRefusal] = []
    media: set[MediaRef] = set()
    for item in items:
        more = set() if isinstance(item, RowRefusal) else set(item.media)
        # a bound on decoded frames in memory, not on questions
        if window and len(media | more) > VIDEOS_AT_A_TIME:
            yield window
            window = []
            media = set()
        window.append(item)
        media |= more
    if window:
        yield window


def _asked(
    answerer: Answerer,
    copy: Copy,
    items: Sequence[BenchmarkItem | RowRefusal],
    pathways: str,
    rules: Prompts,
    *,
    subtitles: bool,
) -> list[Prediction]:
    """A prediction for each of these items."""
    # media of the window, each decoded once for all of its questions
    references = [ref for item in items if isinstance(item, BenchmarkItem) for ref in item.media]
    shown = see_references(answerer, copy, references) if pathways != "none" else {}
    predictions: dict[str, Prediction] = {}
    questions: list[tuple[BenchmarkItem, Asked]] = []
    for item in items:
        if isinstance(item, RowRefusal):
            predictions[item.record] = _unread(item)
            continue
        seen = [shown[ref] for ref in item.media] if pathways != "none" else []
        missing = [question for question in seen if not isinstance(question, Watched)]
        if missing:
            predictions[item.id] = _about(item, missing=missing[0].reason)
            continue
        watched = tuple(question.seen for question in seen if isinstance(question, Watched))
        words = ""
        if subtitles and watched:
            # subtitles are cut to what is on screen while the shown frames are
            times = [float(at) for at in answerer.clip_view(watched[0], item.question).seconds]
            words = on_screen(copy.subtitles(item), times)
        questions.append((item, Asked(text=prompt(item, rules, words), seen=watched)))
    # one call: questions are batched by their lengths
    replies = answerer.answer(
        [question for _, question in questions], pathways, rules.max_new_tokens
    )
    for (item, question), reply in zip(questions, replies, strict=True):
        judged = _judged(item, question.text, reply, rules)
        predictions[item.id] = replace(judged, subtitled=question.text != prompt(item, rules))
    return [predictions[item_id(item)] for item in items]


def _judged(item: BenchmarkItem, prompt_text: str, said: Said, rules: Prompts) -> Prediction:
    task = item.groups.get("task", ("",))[0]
    # sets without public answers are answered, for a submission or a judge
    scored = bool(item.answers) and task not in rules.unscored
    reply = said.text
    read = read_letter(reply, item.options) if item.options else normalise_answer(reply)
    return _about(
        item,
        prompt=prompt_text,
        reply=reply,
        read=read,
        cut=said.cut,
        credit=credit(reply, item, rules.compare) if scored else None,
    )


def _about(item: BenchmarkItem, **more: Any) -> Prediction:
    return Prediction(
        id=item.id,
        video=item.media[0].name or item.media[0].address if item.media else item.id,
        groups={name: list(values) for name, values in item.groups.items()},
        answers=list(item.answers),
        options=len(item.options),
        **more,
    )


def _unread(refused: RowRefusal) -> Prediction:
    return Prediction(
        id=refused.record,
        video="",
        groups={},
        answers=[],
        options=0,
        missing=f"{refused.code}: {refused.detail}",
    )


# Scores ------------------------------------------------------------------------


def scores(predictions: Sequence[Prediction], rules: Prompts) -> dict[str, Any]:
    """The score as the authors define it, tables by axis, and what is not in it."""
    scored = [prediction for prediction in predictions if prediction.credit is not None]
    missing = Counter(
        prediction.missing.partition(":")[0] for prediction in predictions if prediction.missing
    )
    choices = [prediction for prediction in scored if prediction.options]
    return {
        "complete": not missing,
        "questions": len(predictions),
        "scored": len(scored),
        "missing": dict(missing),
        "missing_examples": [
            asdict(prediction) for prediction in predictions if prediction.missing
        ][:3],
        "without_public_answer": sum(
            not prediction.missing and prediction.credit is None for prediction in predictions
        ),
        "unread_choices": sum(not prediction.read for prediction in choices),
        "with_subtitles": sum(prediction.subtitled for prediction in predictions),
        "cut": sum(prediction.cut for prediction in scored),
        "score": _row(scored, rules.mean_of),
        "majority": _majority(scored),
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
    return {"mean": mean.mean, "error": error, "count": mean.count, "videos": mean.clusters}


def _by(predictions: Sequence[Prediction], axis: str) -> dict[str, dict[str, Any]]:
    """A row for each value of an axis; a question of several values counts in each."""
    rows: dict[str, list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        for value in prediction.groups.get(axis, []):
            rows[value].append(prediction)
    return {value: _row(rows[value]) for value in sorted(rows)}


def _majority(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """The most frequent answer of the scored questions, and how often it is right: a floor."""
    known = Counter(
        answer if prediction.options else normalise_answer(answer)
        for prediction in predictions
        # an item with several right answers counts for each
        for answer in set(prediction.answers)
    )
    if not known:
        return {"answer": "", "mean": 0.0}
    # ties fall to the greatest text: the same on every machine
    answer, often = max(known.items(), key=lambda pair: (pair[1], pair[0]))
    return {"answer": answer, "mean": often / len(predictions)}
