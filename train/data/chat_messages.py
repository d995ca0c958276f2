"""A user's messages -> the turns of a sample, and the media they show, opened.

A message is a dictionary of `role` and `content`; content is a text, or a list of parts of which
each is a text, an image or a video.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from shards.errors import UserError
from shards.profile import Profile
from shards.sample import ROLES, Turn
from train.data.user_media import Seen, see_files, see_frames, see_image

Message = Mapping[str, Any]


def read_messages(
    key: str, messages: Sequence[Message], profile: dict[str, Any]
) -> tuple[list[Turn], list[Seen]]:
    """The turns of a conversation and all its media in order; `profile` is theirs, as JSON.

    UserError names the conversation, `key`, and what of it is none of the things above.
    """
    seen: list[Seen] = []
    turns = [_turn(key, message, seen, profile) for message in messages]
    return turns, seen


def given_scores(messages: Sequence[Message]) -> list[Sequence[int] | None]:
    """The scores that each medium carries, in order of the media."""
    contents = [m.get("content") for m in messages if not isinstance(m.get("content"), str)]
    parts = [part for content in contents for part in content or []]
    return [part.get("scores") for part in parts if part.get("type") != "text"]


def _turn(key: str, message: Message, seen: list[Seen], profile: dict[str, Any]) -> Turn:
    """One message; its media join `seen`."""
    role = message.get("role")
    content = message.get("content")
    if role not in ROLES:
        raise UserError(f"{key}: role {role!r}; use one of {', '.join(ROLES)}")
    text = ""
    media = []
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    for part in parts or []:
        if part.get("type") == "text":
            text += part["text"]
            continue
        media.append((len(seen), len(text)))
        seen.append(_see(f"{key}, medium {len(seen)}", part, profile))
    return Turn(role=role, text=text, media=tuple(media))


def _see(name: str, part: Message, profile_json: dict[str, Any]) -> Seen:
    """The image or video of a part, as the pool would hold it."""
    profile = Profile.from_json(profile_json, "processor_config.json")
    kind = part.get("type")
    medium = part.get(kind, part.get("path")) if kind in ("image", "video") else None
    if isinstance(medium, str | Path):
        path = Path(medium).absolute()
        return see_files([(path, str(kind), f"{name} ({medium})")], profile)[0]
    if kind == "image" and isinstance(medium, Image.Image):
        return see_image(medium, profile, name)
    if kind == "video" and isinstance(medium, np.ndarray) and "seconds" in part:
        return see_frames(medium, part["seconds"], profile, name)
    raise UserError(
        f"{name}: a part of type {kind!r} holding {type(medium).__name__}; give text, an image "
        "as path or PIL image, a video as path, or as frames with `seconds`"
    )
