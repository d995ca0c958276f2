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
DESCRIBE_IMAGE = "Describe this image in detail."
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


def chosen(question: str, options: object, answer: object) -> tuple[str, str] | Problem:
    """A question with its options as lettered lines, and the letter of its answer.

    An answer is the text of an option, its letter, or its number from 0; where these name several,
    the record is refused.
    """
    if isinstance(options, dict):
        options = [options[name] for name in sorted(options)]
    if not isinstance(options, list):
        return Problem("ROW_WRONG_TYPE", f"options are a {type(options).__name__}, not a list")
    texts = ["" if each is None else each for each in options]
    if not all(isinstance(each, str) for each in texts):
        return Problem("ROW_WRONG_TYPE", "options are not all texts")
    while texts and not texts[-1].strip():
        texts.pop()
    told = answer.strip() if isinstance(answer, str) else answer
    named = {i for i, text in enumerate(texts) if text.strip() == told}
    if isinstance(told, str):
        named |= {i for i, letter in enumerate(ascii_uppercase) if told.strip("().") == letter}
        told = int(told) if told.isascii() and told.isdigit() and len(told) < 3 else told
    if type(told) is int:
        named |= {told}
    if len(named) != 1:
        return Problem("ROW_BAD_ANSWER", f"{str(answer)[:40]!r} names {len(named)} options")
    return lettered(question, texts, named.pop())
