"""A user's messages -> the turns of a sample, and the media they show.

A message is a dictionary of `role` and `content`; content is a text, or a list of parts of which
each is a text, an image or a video. Keys without a value (None) are not there; a key that nothing
here reads is refused by its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shards.errors import UserError
from shards.sample import ROLES, Turn
from train.data.user_media import KINDS, UserMedium, times_of

Message = Mapping[str, Any]
PLACES = ("url", "path", "base64")
"""Keys of a part that say where its medium is, besides the one named as its type."""
ABOUT = ("seconds", "scores", "video_metadata")
"""Keys of a part that say something of its medium."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """Turns, and all their media in order; `scores` of those that carry some, by number."""

    turns: tuple[Turn, ...]
    media: tuple[UserMedium, ...]
    scores: Mapping[int, Sequence[int]]


def read_messages(key: str, messages: Sequence[Message]) -> Talk:
    """A conversation; UserError names it, by `key`, and what of it is none of the things above."""
    media: list[UserMedium] = []
    scores: dict[int, Sequence[int]] = {}
    turns = tuple(_turn(key, message, media, scores) for message in messages)
    return Talk(turns=turns, media=tuple(media), scores=scores)


def _turn(
    key: str, message: Message, media: list[UserMedium], scores: dict[int, Sequence[int]]
) -> Turn:
    """One message; its media join `media`."""
    fields = _keys(key, message, ("role", "content"))
    role, content = fields.get("role"), fields.get("content")
    if role not in ROLES:
        raise UserError(f"{key}: role {role!r}; use one of {', '.join(ROLES)}")
    text = ""
    places = []
    # a plain text is a content list of one part
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    for part in parts or []:
        if part.get("type") == "text":
            text += _keys(key, part, ("type", "text")).get("text", "")
            continue
        # media are numbered over the whole conversation, placed by character
        places.append((len(media), len(text)))
        name = f"{key}, medium {len(media)}"
        fit: Any = part.get("scores")
        if fit is not None:
            scores[len(media)] = fit
        media.append(_medium(name, part))
    return Turn(role=role, text=text, media=tuple(places))


def _keys(where: str, message: Message, known: Sequence[str]) -> dict[str, Any]:
    """What is given; UserError for keys that would be forgotten."""
    value = {name: item for name, item in message.items() if item is not None}
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise UserError(f"{where}: nothing here reads {unknown}; use {', '.join(known)}")
    return value


def _medium(name: str, part: Message) -> UserMedium:
    """The image or video of a part."""
    kind = str(part.get("type"))
    if kind == "image_url":  # as OpenAI's clients write it
        link = _keys(name, part, ("type", "image_url")).get("image_url")
        place = link.get("url") if isinstance(link, Mapping) else link
        return UserMedium(kind="image", value=place, name=name)
    if kind not in KINDS:
        raise UserError(f"{name}: a part of type {kind!r}; give text, image, or video")
    fields = _keys(name, part, ("type", kind, *PLACES, *(ABOUT if kind == "video" else ())))
    # exactly one place: two may name different media
    places = [fields[key] for key in (kind, *PLACES) if key in fields]
    if len(places) != 1:
        raise UserError(f"{name}: {len(places)} media in one part; give one, as {kind!r}")
    value = places[0]
    if "base64" in fields:
        # OpenAI's clients send base64 with the prefix, transformers' without
        value = value if value.startswith("data:") else f"data:;base64,{value}"
    times = fields.get("seconds")
    if times is None and "video_metadata" in fields:
        # frames in memory know no times of their own
        times = times_of(fields["video_metadata"], len(value), name)
    return UserMedium(kind=kind, value=value, name=name, times=times)
