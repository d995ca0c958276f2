"""Messages as evaluation harnesses give them -> questions to a model, decoded as its training data.

[{"role": "user", "content": [{"type": "video", "url": path}, {"type": "text", "text": ...}]}]
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from shards.errors import UserError
from shards.profile import Profile
from train.data.user_media import KINDS, MediaRefusal, Seen, Stills, see_each
from train.evaluation.answerer import VisualQuestion

MICROSECONDS = 1_000_000
Message = Mapping[str, Any]
Span = tuple[int, int] | None
Item = tuple[Path | Stills, str, Span, str]
"""A place, "image" or "video", its span in microseconds, and its name in messages."""
GREEDY: Mapping[str, tuple[Any, ...]] = {
    "temperature": (None, 0),
    "do_sample": (None, False),
    "num_beams": (None, 1),
}
"""What a harness may ask for: replies are greedy. top_p and top_k say nothing then."""
KNOWN = ("max_new_tokens", "until", "top_p", "top_k", *GREEDY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """The text of one user turn; media behind the first words are marked as `<image N>`."""

    text: str
    media: tuple[Mapping[str, Any], ...]


def wording(messages: Sequence[Message]) -> Wording:
    """The text and the media of a question; UserError for more turns than one of a user."""
    if [message["role"] for message in messages] != ["user"]:
        roles = ", ".join(message["role"] for message in messages)
        raise UserError(f"turns of {roles}; the model is asked one question of a user at a time")
    text = ""
    media: list[Mapping[str, Any]] = []
    for content in messages[0]["content"]:
        if content["type"] == "text":
            text += content["text"]
        elif content["type"] in KINDS:
            media.append(content)
            # what no mark names stands before the text
            text += f"<image {len(media)}>" if text else ""
        else:
            raise UserError(f"a medium of type {content['type']!r}; give {' or '.join(KINDS)}")
    return Wording(text=text, media=tuple(media))


def questions(conversations: Sequence[Sequence[Message]], profile: Profile) -> list[VisualQuestion]:
    """The questions with their media, decoded together; UserError names one that is refused."""
    worded = [wording(messages) for messages in conversations]
    with _files([content for each in worded for content in each.media]) as items:
        seen = iter(see_each(items, profile))
        return [
            VisualQuestion(
                text=each.text, seen=tuple(_accepted(next(seen), content) for content in each.media)
            )
            for each in worded
        ]


def new_tokens(options: Mapping[str, Any], default: int) -> int:
    """The length that a reply may have; UserError for what a greedy reply cannot honour."""
    for name, value in options.items():
        if name not in KNOWN or value not in GREEDY.get(name, (value,)):
            raise UserError(
                f"generation option {name}={value!r}: replies are greedy; remove it, or set "
                + (f"{name}: {GREEDY[name][1]}" if name in GREEDY else f"one of {', '.join(KNOWN)}")
            )
    return int(options.get("max_new_tokens") or default)


def cut(reply: str, stops: str | Sequence[str] | None) -> str:
    """The reply up to the first of these texts."""
    ends = [stops] if isinstance(stops, str) else stops or ()
    for stop in ends:
        reply = reply.partition(stop)[0] if stop else reply
    return reply.strip()


@contextmanager
def _files(contents: Sequence[Mapping[str, Any]]) -> Iterator[list[Item]]:
    """The places of these media; pictures in memory by way of lossless files."""
    with tempfile.TemporaryDirectory() as folder:
        items: list[Item] = []
        for number, content in enumerate(contents):
            value, span = _place(content)
            if isinstance(value, Image.Image):
                path = Path(folder, f"{number}.png")
                value.convert("RGB").save(path)
                value = path
            items.append((Path(value).absolute(), content["type"], span, _name(content)))
        yield items


def _place(content: Mapping[str, Any]) -> tuple[Any, Span]:
    """A path or a picture, and the part of a video that is shown."""
    value = content["url"]
    start, end = content.get("start_time"), content.get("end_time")
    # some tasks put path and span into one value
    if isinstance(value, Mapping):
        start, end = value.get("video_start", start), value.get("video_end", end)
        value = value.get("url") or value.get("path") or value.get("video")
    if not isinstance(value, str | Path | Image.Image):
        raise UserError(f"a {content['type']} as {type(value).__name__}; give a path or a picture")
    if start is None and end is None:
        return value, None
    if start is None or end is None:
        raise UserError(f"{value}: a span without {'start' if start is None else 'end'}; give both")
    return value, (round(start * MICROSECONDS), round(end * MICROSECONDS))


def _name(content: Mapping[str, Any]) -> str:
    value, _ = _place(content)
    return f"a picture of {value.size}" if isinstance(value, Image.Image) else str(value)


def _accepted(outcome: Seen | MediaRefusal, content: Mapping[str, Any]) -> Seen:
    if isinstance(outcome, MediaRefusal):
        raise UserError(f"{_name(content)}: {outcome.code}: {outcome.detail}; give another file")
    return outcome
