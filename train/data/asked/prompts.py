"""Prompts that are in the template already, and the images and videos that belong to their pads.

`processor(text=, images=, videos=)` of transformers gives media beside the text: one, a list of
them in order of the pads, or a list for each text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixtures.tokens.text import IM_START, IMAGE_PAD, VIDEO_PAD, pads_of
from shards.errors import UserError
from train.data.user_media import UserMedium, times_of

PADS = {IMAGE_PAD: "image", VIDEO_PAD: "video"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A text in the template and its media, in order of its pads."""

    text: str
    media: tuple[UserMedium, ...]


def read_prompts(
    text: str | Sequence[str] | None, images: Any, videos: Any, metadata: Any = None
) -> list[Prompt]:
    """One prompt for each text; `metadata` are transformers' VideoMetadata of the videos, in order.

    A text without any pad that is no chat either (pipelines give such) has its media in front.
    UserError names a text whose pads and media differ in number.
    """
    texts = [text] if isinstance(text, str) else list(text or [])
    if not texts or not all(isinstance(each_text, str) for each_text in texts):
        raise UserError("processor: give text, a string or a list of them (text=...)")
    images_of = _per_text(images, _is_image, texts, "image")
    videos_of = _per_text(videos, _is_video, texts, "video")
    about = iter(_about(metadata))
    return [
        _prompt(f"text {number}", each_text, shown, filmed, about)
        for number, (each_text, shown, filmed) in enumerate(
            zip(texts, images_of, videos_of, strict=True)
        )
    ]


def _prompt(
    name: str, text: str, pictures: Sequence[Any], films: Sequence[Any], about: Iterator[Any]
) -> Prompt:
    kinds = [PADS[pad] for pad in pads_of(text)]
    # pipelines of transformers give a bare question: media stand before it
    if not kinds and IM_START not in text:
        kinds = ["image"] * len(pictures) + ["video"] * len(films)
        text = "".join(f"<|{kind}_pad|>" for kind in kinds) + text
    media_of = {"image": list(pictures), "video": list(films)}
    for kind, media in media_of.items():
        # pads and media are counted per kind, so that the message says which is missing
        if kinds.count(kind) != len(media):
            raise UserError(
                f"{name}: {kinds.count(kind)} {kind} pads, {len(media)} {kind}s; give one for each "
                f"<|{kind}_pad|>"
            )
    media = []
    for number, kind in enumerate(kinds):
        where = f"{name}, medium {number}"
        value = media_of[kind].pop(0)
        metadata = next(about, None) if kind == "video" else None
        times = None if metadata is None else times_of(metadata, len(value), where)
        media.append(UserMedium(kind=kind, value=value, name=where, times=times))
    return Prompt(text=text, media=tuple(media))


def _per_text(
    media: Any, is_one: Callable[[Any], bool], texts: Sequence[str], kind: str
) -> list[list[Any]]:
    """A list of media for each text."""
    if media is None:
        return [[] for _ in texts]
    if is_one(media):
        # one medium, a list of them, or a list for each text: told by what the items are
        media = [media]
    if all(is_one(item) for item in media):
        return _in_order(list(media), texts, kind)
    if len(media) != len(texts) or not all(isinstance(item, list | tuple) for item in media):
        raise UserError(
            f"processor: {kind}s of {type(media[0]).__name__}; give one, a list, or one list for "
            f"each of {len(texts)} texts"
        )
    return [list(item) for item in media]


def _in_order(flat: list[Any], texts: Sequence[str], kind: str) -> list[list[Any]]:
    """A flat list dealt out by pads; without pads, one for each text, or all for the only one."""
    counts = [sum(PADS[pad] == kind for pad in pads_of(text)) for text in texts]
    if not any(counts):
        counts = [len(flat)] if len(texts) == 1 else [1] * len(texts)
    # no guess at which text a missing medium belongs to
    if sum(counts) != len(flat):
        raise UserError(
            f"processor: {sum(counts)} {kind} pads in the texts, {len(flat)} {kind}s; give one "
            f"for each <|{kind}_pad|>"
        )
    rest = iter(flat)
    return [[next(rest) for _ in range(count)] for count in counts]


def _about(metadata: Any) -> list[Any]:
    """Metadata of videos in order, however they are nested."""
    if metadata is None:
        return []
    if isinstance(metadata, Mapping):
        return [metadata]
    return [entry for part in metadata for entry in _about(part)]


def _is_image(value: Any) -> bool:
    return not isinstance(value, list | tuple) and (
        isinstance(value, str | Path | bytes) or getattr(value, "ndim", 3) == 3
    )


def _is_video(value: Any) -> bool:
    if isinstance(value, list | tuple):  # of frames, that is of pictures in memory
        return bool(value) and all(_is_image(v) and not isinstance(v, str | Path) for v in value)
    return isinstance(value, str | Path) or getattr(value, "ndim", 0) == 4
