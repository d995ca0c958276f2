"""One question about one file, as a conversation of one turn."""

from __future__ import annotations

from pathlib import Path

from train.chat.conversation import Conversation, Reply
from train.evaluation.answerer import Answerer


def chat(model: Path, kind: str, path: Path, question: str, relevance: Path | None = None) -> Reply:
    """The reply; `relevance` as for `Answerer`."""
    talk = Conversation(Answerer(model, relevance))
    talk.show(kind, path)
    return talk.ask(question)
