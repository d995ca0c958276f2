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
    done = begin(file, head)
    with file.open("a", encoding="utf-8") as lines:
        for window in windows(item for item in copy.items() if item_id(item) not in done):
            for made in _asked(answerer, copy, window, pathways, rules, subtitles=subtitles):
                done[made.id] = made
                lines.write(json.dumps(asdict(made), ensure_ascii=False) + "\n")
            lines.flush()
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
    whole = text[: text.rfind(b"\n") + 1].decode("utf-8")
    rows = [json.loads(line) for line in whole.splitlines()]
    if rows and rows[0] != head:
        other = [key for key in head if rows[0].get(key) != head[key]]
        raise UserError(
            f"{file}: predictions of another run ({other[0]}: {rows[0].get(other[0])!r}, now "
            f"{head[other[0]]!r}); give another --out, or remove it"
        )
    kept = whole if rows else json.dumps(head) + "\n"
    temporary = file.with_name(f".{file.name}.tmp")
    file.parent.mkdir(parents=True, exist_ok=True)
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
    wanted = [ref for item in items if isinstance(item, BenchmarkItem) for ref in item.media]
    shown = see_references(answerer, copy, wanted) if pathways != "none" else {}
    made: dict[str, Prediction] = {}
    asked: list[tuple[BenchmarkItem, Asked]] = []
    for item in items:
        if isinstance(item, RowRefusal):
            made[item.record] = _unread(item)
            continue
        seen = [shown[ref] for ref in item.media] if pathways != "none" else []
        missing = [each for each in seen if not isinstance(each, Watched)]
        if missing:
            made[item.id] = _about(item, missing=missing[0].reason)
            continue
        watched = tuple(each.seen for each in seen if isinstance(each, Watched))
        words = ""
        if subtitles and watched:
            times = [float(at) for at in answerer.look(watched[0], item.question).seconds]
            words = on_screen(copy.subtitles(item), times)
        asked.append((item, Asked(text=prompt(item, rules, words), seen=watched)))
    replies = answerer.answer([each for _, each in asked], pathways, rules.max_new_tokens)
    for (item, each), said in zip(asked, replies, strict=True):
        judged = _judged(item, each.text, said, rules)
        made[item.id] = replace(judged, subtitled=each.text != prompt(item, rules))
    return [made[item_id(item)] for item in items]


def _judged(item: BenchmarkItem, asked: str, said: Said, rules: Prompts) -> Prediction:
    task = item.groups.get("task", ("",))[0]
    scored = bool(item.answers) and task not in rules.unscored
    reply = said.text
    read = read_letter(reply, item.options) if item.options else normalise_answer(reply)
    return _about(
        item,
        prompt=asked,
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


def scores(made: Sequence[Prediction], rules: Prompts) -> dict[str, Any]:
    """The score as the authors define it, tables by axis, and what is not in it."""
    scored = [one for one in made if one.credit is not None]
    missing = Counter(one.missing.partition(":")[0] for one in made if one.missing)
    choices = [one for one in scored if one.options]
    return {
        "complete": not missing,
        "questions": len(made),
        "scored": len(scored),
        "missing": dict(missing),
        "missing_examples": [asdict(one) for one in made if one.missing][:3],
        "without_public_answer": sum(not one.missing and one.credit is None for one in made),
        "unread_choices": sum(not one.read for one in choices),
        "with_subtitles": sum(one.subtitled for one in made),
        "cut": sum(one.cut for one in scored),
        "score": _row(scored, rules.mean_of),
        "majority": _majority(scored),
        "tables": {axis: _by(scored, axis) for axis in rules.tables},
    }


def _row(made: Sequence[Prediction], mean_of: str = "") -> dict[str, Any]:
    groups = [one.groups.get(mean_of, [""])[0] for one in made] if mean_of else None
    found: Estimate = estimate(
        [one.credit or 0.0 for one in made], [one.video for one in made], groups
    )
    error = found.error if found.clusters > 1 else None
    return {"mean": found.mean, "error": error, "count": found.count, "videos": found.clusters}


def _by(made: Sequence[Prediction], axis: str) -> dict[str, dict[str, Any]]:
    """A row for each value of an axis; a question of several values counts in each."""
    rows: dict[str, list[Prediction]] = defaultdict(list)
    for one in made:
        for value in one.groups.get(axis, []):
            rows[value].append(one)
    return {value: _row(rows[value]) for value in sorted(rows)}


def _majority(made: Sequence[Prediction]) -> dict[str, Any]:
    """The most frequent answer of the scored questions, and how often it is right: a floor."""
    known = Counter(
        answer if one.options else normalise_answer(answer)
        for one in made
        for answer in set(one.answers)
    )
    if not known:
        return {"answer": "", "mean": 0.0}
    answer, often = max(known.items(), key=lambda pair: (pair[1], pair[0]))
    return {"answer": answer, "mean": often / len(made)}
