"""Published turns -> the turns of a record: who speaks, what is learned, where media stand.

Media placeholders leave the text here and become places: `Turn.media` holds (index into
`Record.media`, offset in characters). Contents are texts with placeholders, or lists of parts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from pipeline.sources.records import (
    MAX_TEXT,
    MAX_TURNS,
    NOISE,
    MediaRef,
    read_name,
    read_span,
)
from pipeline.untrusted import Problem
from shards.sample import Turn

ROLES = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "system": "system",
    "developer": "system",
}
"""Names of the known families, in lower case."""
LOSSES = {"weight": 1, "loss": 1, "train": 1, "loss_mask": 1, "mask": 0}
"""Fields of a turn that say whether it is learned, and the value that says so."""
TURN_FIELDS = frozenset({"from", "value", "role", "content", *LOSSES})
"""What is read of a published turn."""
_IMAGE, _VIDEO = "<image>", "<video>"
_PLACE = re.compile(f"{_IMAGE}|{_VIDEO}")
_PLACEHOLDERS = {"image": re.compile(_IMAGE), "video": re.compile(f"{_IMAGE}|{_VIDEO}")}


class Mention(NamedTuple):
    """A medium that a turn speaks of: by itself, by its number among its kind, or the next one."""

    kind: str
    ref: MediaRef | None = None
    place: int | None = None


class Spoken(NamedTuple):
    """One published turn; `text` has its placeholders yet, `mentions` are those of a question."""

    role: str
    text: str
    loss: int = 1
    mentions: tuple[Mention, ...] = ()
    tagged: bool = False


def read_talk(
    value: Any, media: Sequence[MediaRef], system: Any = None
) -> tuple[tuple[Turn, ...], tuple[MediaRef, ...]] | Problem:
    """(turns, media in the order in which the questions mention them) of a list of turns.

    Accepts {from, value} and {role, content}. `system` is said before the first turn. A question's
    first placeholders are taken, one a medium; further ones stay in the text, where `check` refuses
    them. Media that no question mentions stand before the first one, if it is a single image, as
    LLaVA-OneVision publishes some subsets, or if turns are {role, content}, as TRL reads them.
    """
    spoken = _spoken(value, system)
    if isinstance(spoken, Problem):
        return spoken
    ordered = _in_order([m for said in spoken for m in said.mentions], media)
    if isinstance(ordered, Problem):
        return ordered
    turns = _place_media(spoken, [ref.kind for ref in ordered])
    placed = sum(len(turn.media) for turn in turns)
    loose = [ref.kind for ref in ordered] == ["image"] or not any(said.tagged for said in spoken)
    if placed == 0 and loose:
        return before_first_question(turns, len(ordered)), ordered
    if placed < len(ordered):
        return Problem("MEDIA_PLACEHOLDER_COUNT", f"{placed} placeholders, {len(ordered)} media")
    return turns, ordered


# Turns -------------------------------------------------------------------------


def _spoken(value: Any, system: Any) -> list[Spoken] | Problem:
    if not isinstance(value, list):
        return Problem("ROW_WRONG_TYPE", f"conversations is a {type(value).__name__}")
    if not value:
        return Problem("TURNS_EMPTY", "no turn")
    if len(value) > MAX_TURNS:
        return Problem("TURNS_TOO_MANY", f"{len(value)} turns")
    spoken: list[Spoken] = []
    for number, turn in enumerate(value):
        said = _read_turn(turn, number)
        if isinstance(said, Problem):
            return said
        spoken.append(said)
    if spoken[0].role == "system" and not spoken[0].text.strip():
        del spoken[0]
    return _with_system(spoken, system)


def _with_system(spoken: list[Spoken], system: Any) -> list[Spoken] | Problem:
    """The turns behind what the row's field `system` says."""
    if system is None or system == "":
        return spoken
    if not isinstance(system, str):
        return Problem("ROW_WRONG_TYPE", f"system is a {type(system).__name__}")
    if spoken and spoken[0].role == "system":
        if spoken[0].text.strip() == system.strip():
            return spoken
        return Problem("TURNS_OUT_OF_ORDER", "a field system, and another system turn")
    return [Spoken(role="system", text=system), *spoken]


def _read_turn(turn: Any, number: int) -> Spoken | Problem:
    row = turn if isinstance(turn, dict) else {}
    tagged = row.get("from") is not None and row.get("value") is not None
    role, content = row.get("from" if tagged else "role"), row.get("value" if tagged else "content")
    if role is None or content is None:
        return Problem("TURN_WRONG_SHAPE", f"turn {number} is not {{from, value}}")
    if not isinstance(role, str):
        return Problem("ROW_WRONG_TYPE", f"turn {number} is from a {type(role).__name__}")
    known = ROLES.get(role.lower())
    if not known:
        return Problem("TURN_WRONG_SHAPE", f"turn {number} is from {role[:40]!r}")
    loss = _loss(turn, known, number)
    if isinstance(loss, Problem):
        return loss
    found = _content(content, number)
    if isinstance(found, Problem):
        return found
    text, mentions = found
    if len(text) > MAX_TEXT:
        return Problem("TEXT_TOO_LONG", f"turn {number} has {len(text)} characters")
    asked = tuple(mentions) if known == "user" else ()
    text = text.replace(NOISE, "")
    return Spoken(role=known, text=text, loss=loss, mentions=asked, tagged=tagged)


def _loss(turn: dict[str, Any], role: str, number: int) -> int | Problem:
    """1 of an answer that is learned; only answers can be, and only whole."""
    if LOSSES.keys().isdisjoint(turn):
        return int(role == "assistant")
    said = {name: turn[name] for name in LOSSES if turn.get(name) is not None}
    for name, value in said.items():
        if not isinstance(value, (int, float)) or value not in (0, 1):
            return Problem("TURN_WEIGHT", f"turn {number} has {name} {str(value)[:40]}, not 0 or 1")
    losses = {int(value == LOSSES[name]) for name, value in said.items()}
    if len(losses) > 1:
        return Problem("TURN_WEIGHT", f"turn {number}: {', '.join(said)} contradict one another")
    loss = losses.pop() if losses else int(role == "assistant")
    if loss and role != "assistant":
        return Problem("TURN_WEIGHT", f"turn {number} of the {role} has a loss; answers alone have")
    return loss


# Contents ----------------------------------------------------------------------


def _content(value: Any, number: int) -> tuple[str, list[Mention]] | Problem:
    """(text with placeholders, what it mentions) of a text or of a list of parts."""
    if isinstance(value, str):
        kinds = {_IMAGE: "image", _VIDEO: "video"}
        return value, [Mention(kind=kinds[place]) for place in _PLACE.findall(value)]
    if not isinstance(value, list):
        return Problem("ROW_WRONG_TYPE", f"turn {number} says a {type(value).__name__}, not text")
    text = ""
    mentions = []
    for part in value:
        said = _part(part, number)
        if isinstance(said, Problem):
            return said
        if isinstance(said, Mention):
            mentions.append(said)
            text += f"<{said.kind}>"
        else:
            text += said
    return text, mentions


def _part(part: Any, number: int) -> str | Mention | Problem:
    """The text or the medium of one part of a content list; null fields are as good as absent."""
    if isinstance(part, str):
        part = {"type": "text", "text": part}
    if not isinstance(part, dict):
        return Problem("ROW_WRONG_TYPE", f"turn {number} holds a {type(part).__name__}")
    filled = {name: value for name, value in part.items() if value is not None}
    kind = filled.get("type", next((k for k in ("image", "video", "text") if k in filled), ""))
    if kind == "text":
        text = filled.get("text")
        if not isinstance(text, str):
            return Problem("ROW_WRONG_TYPE", f"turn {number} holds text that is none")
        if _PLACE.search(text):
            return Problem("TEXT_SPECIAL_TOKEN", f"turn {number} spells {_PLACE.findall(text)[0]}")
        return text
    if kind not in ("image", "video"):
        return Problem("TURN_WRONG_SHAPE", f"turn {number} holds a part of type {str(kind)[:40]!r}")
    return _mention(kind, filled, number)


def _mention(kind: str, part: dict[str, Any], number: int) -> Mention | Problem:
    """A medium of a content list: with its path, with its number, or the next one of its kind."""
    value = next((part[name] for name in (kind, "path", "url") if name in part), None)
    if value is None:
        index = part.get("index")
        if index is not None and (type(index) is not int or index < 0):
            return Problem("ROW_WRONG_TYPE", f"turn {number} holds an index that is no number")
        return Mention(kind, place=index)
    if isinstance(value, list):
        return Problem("ROW_WRONG_TYPE", f"turn {number} holds a {kind} as a list of {len(value)}")
    name = read_name(value)
    span = read_span([part.get("video_start"), part.get("video_end")])
    for problem in (name, span):
        if isinstance(problem, Problem):
            return problem
    return Mention(kind=kind, ref=MediaRef(kind=kind, name=str(name), span=_pair(span)))


def _pair(span: tuple[int, int] | Problem | None) -> tuple[int, int] | None:
    return span if isinstance(span, tuple) else None


# Places ------------------------------------------------------------------------


def _in_order(
    mentions: Sequence[Mention], media: Sequence[MediaRef]
) -> tuple[MediaRef, ...] | Problem:
    """The media in the order in which they are mentioned; those that are not stand last."""
    left = {kind: [ref for ref in media if ref.kind == kind] for kind in ("image", "video")}
    every = {kind: [*refs] for kind, refs in left.items()}
    ordered = []
    for mention in mentions:
        waiting = left[mention.kind]
        if mention.ref:
            ordered.append(mention.ref)
        elif mention.place is not None:
            known = every[mention.kind]
            if mention.place >= len(known) or known[mention.place] not in waiting:
                told = f"{mention.kind} {mention.place} of {len(known)} is mentioned, or twice"
                return Problem("MEDIA_PLACEHOLDER_COUNT", told)
            waiting.remove(known[mention.place])
            ordered.append(known[mention.place])
        elif waiting:
            ordered.append(waiting.pop(0))
    return (*ordered, *left["image"], *left["video"])


def _place_media(spoken: Sequence[Spoken], kinds: Sequence[str]) -> tuple[Turn, ...]:
    """Turns whose questions gave up their placeholders, as many as there are media."""
    turns = []
    placed = 0
    for said in spoken:
        text = said.text
        places: list[tuple[int, int]] = []
        while said.role == "user" and placed < len(kinds):
            found = _PLACEHOLDERS[kinds[placed]].search(text, places[-1][1] if places else 0)
            if not found:
                break
            text = text[: found.start()] + text[found.end() :]
            places.append((placed, found.start()))
            placed += 1
        turns.append(_stripped(said, text, places))
    return tuple(turns)


def _stripped(said: Spoken, text: str, places: Sequence[tuple[int, int]]) -> Turn:
    """A turn without white space at its ends; places move with the text."""
    lead = len(text) - len(text.lstrip())
    text = text.strip()
    media = tuple((clip, min(max(at - lead, 0), len(text))) for clip, at in places)
    return Turn(role=said.role, text=text, media=media, loss=said.loss)


def before_first_question(turns: Sequence[Turn], count: int) -> tuple[Turn, ...]:
    """The turns, with `count` media before the text of the first question."""
    first = next((i for i, turn in enumerate(turns) if turn.role == "user"), None)
    places = tuple((clip, 0) for clip in range(count))
    return tuple(
        replace(turn, media=places) if i == first else turn for i, turn in enumerate(turns)
    )
