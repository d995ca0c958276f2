"""Questions put into words: lettered options, and one question about one medium."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase

from pipeline.sources.records import (
    MediaRef,
    Record,
    RowRefusal,
    check,
    read_name,
    refusal,
    spoken_text,
)
from pipeline.untrusted import Problem
from shards.sample import Turn

BY_LETTER = "Answer with the option's letter from the given choices directly."
BRIEFLY = "Answer the question using a single word or phrase."
DESCRIBE = "Describe this video in detail."
CONTAINERS = (".mp4", ".mkv", ".webm")


def lettered(question: str, options: Sequence[str], index: int) -> tuple[str, str] | Problem:
    """(question with its options as lettered lines, letter of the answer); `index` from 0."""
    options = [option.strip() for option in options]
    if not 0 <= index < len(options) <= len(ascii_uppercase):
        return Problem("ROW_BAD_ANSWER", f"answer {index}, {len(options)} options")
    if not all(options):
        return Problem("ROW_MISSING_FIELD", "an option is blank")
    if not question.strip():
        return Problem("TURN_EMPTY", "the question is blank")
    lines = [f"{letter}. {text}" for letter, text in zip(ascii_uppercase, options, strict=False)]
    return "\n".join([question.strip(), *lines, BY_LETTER]), ascii_uppercase[index]


def video_file(stem: object, *, link_only: bool = False) -> MediaRef | Problem:
    """A video known by its name without an ending: mp4, mkv or webm, whichever is there."""
    names = [read_name(f"{stem}{ending}") for ending in CONTAINERS if isinstance(stem, str)]
    found = [name for name in names if isinstance(name, str)]
    if not isinstance(stem, str) or not stem.strip():
        return Problem("ROW_WRONG_TYPE", "the video's name is not text")
    return MediaRef(kind="video", name=found[0], also=tuple(found[1:]), link_only=link_only)


def asked(
    record: str, media: MediaRef | Problem, question: object, answer: object
) -> Record | RowRefusal:
    """One question about one medium, which stands before it, and its answer."""
    if isinstance(media, Problem):
        return refusal(record, media)
    said = [
        spoken_text(value, what) for value, what in ((question, "question"), (answer, "answer"))
    ]
    for text in said:
        if isinstance(text, Problem):
            return refusal(record, text)
    turns = (
        Turn(role="user", text=str(said[0]), media=((0, 0),)),
        Turn(role="assistant", text=str(said[1])),
    )
    return check(Record(record=record, turns=turns, media=(media,)))
