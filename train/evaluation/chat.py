"""One question about one image or video, answered with the times of the frames looked at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mixtures.tokens.token_plan import time_text
from shards.errors import UserError
from train.evaluation.answerer import Answerer, Asked
from train.evaluation.tasks import Medium


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer, and the presentation times (as text) of the frames the model was shown."""

    answer: str
    times: tuple[str, ...]
    size: tuple[int, int]


def chat(model: Path, kind: str, path: Path, question: str, relevance: Path | None = None) -> Reply:
    """Ask a saved model; `kind` is "image" or "video", `relevance` as for `Answerer`."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; give --{kind} FILE")
    answerer = Answerer(model, relevance)
    # the same path as an evaluation's: what is seen here is what is scored there
    medium = Medium(kind=kind, name=path.name, path=path.resolve())
    seen = answerer.see([medium])[medium]
    clip_view = answerer.clip_view(seen, question)
    reply = answerer.answer(
        [Asked(text=question, seen=(seen,))], answerer.rules.layout.pathways, 64
    )[0]
    times = tuple(time_text(second) for second in clip_view.seconds)
    return Reply(answer=reply.text, times=times, size=(clip_view.width, clip_view.height))
