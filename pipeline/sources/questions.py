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
    # as many options as there are letters
    if not 0 <= index < len(options) <= len(ascii_uppercase):
        return Problem("ROW_BAD_ANSWER", f"answer {index}, {len(options)} options")
    if not all(options):
        return Problem("ROW_MISSING_FIELD", "an option is blank")
    if not question.strip():
        return Problem("TURN_EMPTY", "the question is blank")
    # the form of LLaVA's and lmms-eval's multiple-choice prompts
    lines = [f"{letter}. {text}" for letter, text in zip(ascii_uppercase, options, strict=False)]
    return "\n".join([question.strip(), *lines, BY_LETTER]), ascii_uppercase[index]


def video_file(stem: object, *, link_only: bool = False) -> MediaRef | Problem:
    """A video known by its name without an ending: mp4, mkv or webm, whichever is there."""
    # publishers leave the ending out: the first that the media hold
    names = [read_name(f"{stem}{ending}") for ending in CONTAINERS if isinstance(stem, str)]
    sound_names = [name for name in names if isinstance(name, str)]
    if not isinstance(stem, str) or not stem.strip():
        return Problem("ROW_WRONG_TYPE", "the video's name is not text")
    return MediaRef(
        kind="video", name=sound_names[0], also=tuple(sound_names[1:]), link_only=link_only
    )


def asked(
    record: str, medium: MediaRef | Problem, question: object, answer: object
) -> Record | RowRefusal:
    """One question about one medium, which stands before it, and its answer."""
    if isinstance(medium, Problem):
        return refusal(record, medium)
    texts = [
        spoken_text(value, what) for value, what in ((question, "question"), (answer, "answer"))
    ]
    for text in texts:
        if isinstance(text, Problem):
            return refusal(record, text)
    turns = (
        Turn(role="user", text=str(texts[0]), media=((0, 0),)),
        Turn(role="assistant", text=str(texts[1])),
    )
    return check(Record(record=record, turns=turns, media=(medium,)))


def chosen(question: str, options: object, answer: object) -> tuple[str, str] | Problem:
    """A question with its options as lettered lines, and the letter of its answer.

    An answer is the text of an option, its letter, or its number from 0; where these name several,
    the record is refused.
    """
    # an object of options is in the order of its keys: A, B, C
    if isinstance(options, dict):
        options = [options[name] for name in sorted(options)]
    if not isinstance(options, list):
        return Problem("ROW_WRONG_TYPE", f"options are a {type(options).__name__}, not a list")
    texts = ["" if option is None else option for option in options]
    if not all(isinstance(option, str) for option in texts):
        return Problem("ROW_WRONG_TYPE", "options are not all texts")
    # a table of five columns has blank ones behind the last option
    while texts and not texts[-1].strip():
        texts.pop()
    given = answer.strip() if isinstance(answer, str) else answer
    # by text, by letter, by number: all readings are collected, and must agree
    named = {i for i, text in enumerate(texts) if text.strip() == given}
    if isinstance(given, str):
        named |= {i for i, letter in enumerate(ascii_uppercase) if given.strip("().") == letter}
        given = int(given) if given.isascii() and given.isdigit() and len(given) < 3 else given
    if type(given) is int:
        named |= {given}
    if len(named) != 1:
        return Problem("ROW_BAD_ANSWER", f"{str(answer)[:40]!r} names {len(named)} options")
    return lettered(question, texts, named.pop())
