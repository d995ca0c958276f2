"""A few questions of an ablation as its models answered them, with the frames that they saw."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from shards.profile import Profile
from train.ablation.ablate import Ablation
from train.ablation.results import SCORES
from train.data.user_media import MediaRefusal, Seen, see_each
from train.evaluation.answerer import Answerer, VisualQuestion
from train.evaluation.attended import AttendedFrame, attended
from train.evaluation.on_tasks import named_tasks
from train.evaluation.tasks import Question, read_tasks

MOST, FRAMES, SIDE = 6, 8, 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A thumbnail as a data URI, and its presentation time."""

    data: str
    seconds: str
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A question, its answer, and what each variant said (of the first seed); `attended` says where
    it looked while it said so."""

    type: str
    question: str
    truth: str
    said: Mapping[str, str]
    frames: tuple[Frame, ...]
    attended: Mapping[str, Sequence[AttendedFrame]]


def examples_of(out: Path, ablation: Ablation, *, attend: bool = False) -> list[Example]:
    """At most MOST questions, first those on which the variants differ; none where the runs'
    folders or the task files are not on this machine. With `attend` every model says its replies
    again, and tells where it attends."""
    replies = _replies(out, ablation)
    tasks = {n: p for n, p in named_tasks([Path(p) for p in ablation.tasks]).items() if p.is_file()}
    chosen = [
        (question, said)
        for name, path in tasks.items()
        for question, said in _chosen(read_tasks(path), replies.get(name, {}))
    ][:MOST]
    frames = _frames([question for question, _ in chosen])
    attention: list[dict[str, list[AttendedFrame]]] = [{} for _ in chosen]
    if attend:
        attention = _attended(out, ablation, chosen)
    return [
        Example(
            type=question.type,
            question=question.text,
            truth=question.answer,
            said=said,
            frames=shown,
            attended=looks,
        )
        for (question, said), shown, looks in zip(chosen, frames, attention, strict=True)
    ]


def _replies(out: Path, ablation: Ablation) -> dict[str, dict[str, list[str]]]:
    """Task -> variant -> every reply, of the first seed that each has here."""
    replies: dict[str, dict[str, list[str]]] = {}
    for variant, folder in _first_runs(out, ablation).items():
        scores: dict[str, Any] = json.loads((folder / SCORES).read_text())
        tasks = scores["pathways"].get(scores["trained_pathways"], {"tasks": {}})["tasks"]
        for name, scored in tasks.items():
            said = [answer["said"] for answer in scored["answers"]]
            replies.setdefault(name, {})[variant] = said
    return replies


def _first_runs(out: Path, ablation: Ablation) -> dict[str, Path]:
    """The folder of each variant's first seed that has scores here."""
    folders: dict[str, Path] = {}
    for variant, seed, key in ablation.runs:
        folder = out / "runs" / f"{variant}.{seed}.{key[:8]}"
        if (folder / SCORES).is_file():
            folders.setdefault(variant, folder)
    return folders


def _shows_evenly(path: Path) -> bool:
    return bool(json.loads(path.read_text())["selection"] != "query")


def _attended(
    out: Path, ablation: Ablation, chosen: Sequence[tuple[Question, Mapping[str, str]]]
) -> list[dict[str, list[AttendedFrame]]]:
    """By question and variant, where the model attends; a model is loaded once."""
    by_question: list[dict[str, list[AttendedFrame]]] = [{} for _ in chosen]
    for variant, folder in _first_runs(out, ablation).items():
        # what is shown by the question wants a model of its own to be shown again
        if not _shows_evenly(folder / SCORES):
            continue
        # one model at a time is held
        answerer = Answerer(folder / "model")
        media = answerer.see([q.medium for q, said in chosen if q.medium and variant in said])
        for (question, said), by_variant in zip(chosen, by_question, strict=True):
            if question.medium and variant in said:
                asked = VisualQuestion(text=question.text, seen=(media[question.medium],))
                by_variant[variant] = attended(answerer, asked, said[variant])
    return by_question


def _chosen(
    questions: Sequence[Question], replies: Mapping[str, Sequence[str]]
) -> Iterator[tuple[Question, dict[str, str]]]:
    """One question of each type in turn, those first on which replies differ most."""
    if not replies or any(len(said) != len(questions) for said in replies.values()):
        return
    said = [{name: each[n] for name, each in replies.items()} for n in range(len(questions))]
    order = sorted(range(len(questions)), key=lambda n: -len(set(said[n].values())))
    left = list(order)
    while left:
        seen: set[str] = set()
        for n in list(left):
            if questions[n].type not in seen:
                seen.add(questions[n].type)
                left.remove(n)
                yield questions[n], said[n]


def _frames(questions: Sequence[Question]) -> list[tuple[Frame, ...]]:
    media = {q.medium: None for q in questions if q.medium is not None and q.medium.path}
    asked = [(m.path.absolute(), m.kind, None, m.name) for m in media if m.path]
    seen = dict(zip(media, see_each(asked, Profile()), strict=True)) if asked else {}
    return [tuple(_thumbnails(seen.get(q.medium))) if q.medium else () for q in questions]


def _thumbnails(outcome: Seen | MediaRefusal | None) -> Iterator[Frame]:
    if not isinstance(outcome, Seen):
        return
    count, (above, below) = len(outcome.jpegs), outcome.clip.time_base
    # evenly, the first and the last among them
    places = sorted({round(i * (count - 1) / max(FRAMES - 1, 1)) for i in range(FRAMES)})
    for n in places:
        with Image.open(io.BytesIO(outcome.jpegs[n])) as opened:
            image = opened.convert("RGB")
        image.thumbnail((SIDE, SIDE))
        sink = io.BytesIO()
        image.save(sink, "JPEG", quality=75)
        data = "data:image/jpeg;base64," + base64.b64encode(sink.getvalue()).decode()
        seconds = f"{outcome.clip.pts[n] * above / below:.1f} s" if count > 1 else ""
        yield Frame(data=data, seconds=seconds, width=image.width, height=image.height)
