"""Published turns -> the turns of a record: who speaks, what is learned, where media stand.

Media placeholders leave the text here and become places: `Turn.media` holds (index into
`Record.media`, offset in characters). Contents are texts with placeholders, or lists of parts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from pipeline.sources.fields import Reads, is_empty
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
MEDIUM_FIELDS = ("path", "bytes")
"""What is read of an object that is a medium, as `datasets` writes one."""
PART_FIELDS: Reads = dict.fromkeys(
    "type text image video path url index video_start video_end".split(), ()
)
TURN_FIELDS: Reads = dict.fromkeys(("from", "role", *LOSSES), ()) | {
    "value": PART_FIELDS,
    "content": PART_FIELDS,
}
"""What is read of a published turn, and of the parts of its content."""
_SAYS = {"text": ("text",), "image": ("image", "path", "url"), "video": ("video", "path", "url")}
"""Type of a part -> the fields of which one says what it is."""
_SAID = tuple(dict.fromkeys(name for names in _SAYS.values() for name in names))
_IMAGE, _VIDEO = "<image>", "<video>"
_PLACE = re.compile(f"{_IMAGE}|{_VIDEO}")
_PLACEHOLDERS = {"image": re.compile(_IMAGE), "video": re.compile(f"{_IMAGE}|{_VIDEO}")}


class Mention(NamedTuple):
    """A medium that a turn speaks of: by itself, by its number among its kind, or the next one."""

    kind: str
    ref: MediaRef | None = None
    number: int | None = None


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
    # media in the order of their mentions: clip n of a record is the n-th that is shown
    ordered = _in_order([mention for said in spoken for mention in said.mentions], media)
    if isinstance(ordered, Problem):
        return ordered
    turns = _place_media(spoken, [ref.kind for ref in ordered])
    placed = sum(len(turn.media) for turn in turns)
    # where placeholders are missing: one image, or contents that never have any
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
        turn_said = _read_turn(turn, number)
        if isinstance(turn_said, Problem):
            return turn_said
        spoken.append(turn_said)
    # an empty system turn is a default of some templates
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
    # {from, value} is ShareGPT's and LLaVA's form, {role, content} OpenAI's
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
    contents = _content(content, number)
    if isinstance(contents, Problem):
        return contents
    text, mentions = contents
    if len(text) > MAX_TEXT:
        return Problem("TEXT_TOO_LONG", f"turn {number} has {len(text)} characters")
    # an answer that spells a placeholder does not show a medium
    mentioned = tuple(mentions) if known == "user" else ()
    text = text.replace(NOISE, "")
    return Spoken(role=known, text=text, loss=loss, mentions=mentioned, tagged=tagged)


def _loss(turn: dict[str, Any], role: str, number: int) -> int | Problem:
    """1 of an answer that is learned; only answers can be, and only whole."""
    if LOSSES.keys().isdisjoint(turn):
        return int(role == "assistant")
    stated = {name: turn[name] for name in LOSSES if turn.get(name) is not None}
    for name, value in stated.items():
        if not isinstance(value, (int, float)) or value not in (0, 1):
            return Problem("TURN_WEIGHT", f"turn {number} has {name} {str(value)[:40]}, not 0 or 1")
    # several fields may say it; they must agree
    losses = {int(value == LOSSES[name]) for name, value in stated.items()}
    if len(losses) > 1:
        return Problem("TURN_WEIGHT", f"turn {number}: {', '.join(stated)} contradict one another")
    loss = losses.pop() if losses else int(role == "assistant")
    if loss and role != "assistant":
        return Problem("TURN_WEIGHT", f"turn {number} of the {role} has a loss; answers alone have")
    return loss


# Contents ----------------------------------------------------------------------


def _content(value: Any, number: int) -> tuple[str, list[Mention]] | Problem:
    """(text with placeholders, what it mentions) of a text or of a list of parts."""
    if isinstance(value, str):
        # each placeholder is the next medium of its kind
        kinds = {_IMAGE: "image", _VIDEO: "video"}
        return value, [Mention(kind=kinds[place]) for place in _PLACE.findall(value)]
    if not isinstance(value, list):
        return Problem("ROW_WRONG_TYPE", f"turn {number} says a {type(value).__name__}, not text")
    text = ""
    mentions = []
    for part in value:
        piece = _part(part, number)
        if isinstance(piece, Problem):
            return piece
        if isinstance(piece, Mention):
            mentions.append(piece)
            text += f"<{piece.kind}>"
        else:
            text += piece
    return text, mentions


def _part(content: Any, number: int) -> str | Mention | Problem:
    """The text or the medium of one part of a content list; null fields are as good as absent."""
    if isinstance(content, str):
        content = {"type": "text", "text": content}
    if not isinstance(content, dict):
        return Problem("ROW_WRONG_TYPE", f"turn {number} holds a {type(content).__name__}")
    filled = {name: value for name, value in content.items() if value is not None}
    kind = filled.get("type", next((k for k in ("image", "video", "text") if k in filled), ""))
    # a second text or medium would be left behind
    said = [name for name in _SAID if not is_empty(filled.get(name))]
    if len(said) > 1 or (said and kind in [*_SAYS] and said[0] not in _SAYS[kind]):
        reason = f"turn {number} holds {' and '.join(said)} in one part of type {str(kind)[:40]!r}"
        return Problem("TURN_WRONG_SHAPE", reason)
    if kind == "text":
        text = filled.get("text")
        if not isinstance(text, str):
            return Problem("ROW_WRONG_TYPE", f"turn {number} holds text that is none")
        # within a list of parts, text that spells a placeholder is no medium
        if _PLACE.search(text):
            return Problem("TEXT_SPECIAL_TOKEN", f"turn {number} spells {_PLACE.findall(text)[0]}")
        return text
    if kind not in ("image", "video"):
        return Problem("TURN_WRONG_SHAPE", f"turn {number} holds a part of type {str(kind)[:40]!r}")
    return _mention(kind, filled, number)


def _mention(kind: str, fields: dict[str, Any], number: int) -> Mention | Problem:
    """A medium of a content list: with its path, with its number, or the next one of its kind."""
    value = next((fields[name] for name in (kind, "path", "url") if name in fields), None)
    if value is None:
        index = fields.get("index")
        if index is not None and (type(index) is not int or index < 0):
            return Problem("ROW_WRONG_TYPE", f"turn {number} holds an index that is no number")
        return Mention(kind, number=index)
    if isinstance(value, list):
        return Problem("ROW_WRONG_TYPE", f"turn {number} holds a {kind} as a list of {len(value)}")
    name = read_name(value)
    span = read_span([fields.get("video_start"), fields.get("video_end")])
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
    # `left` shrinks as media are mentioned; `by_kind` keeps their numbers
    left = {kind: [ref for ref in media if ref.kind == kind] for kind in ("image", "video")}
    by_kind = {kind: [*refs] for kind, refs in left.items()}
    ordered = []
    for mention in mentions:
        waiting = left[mention.kind]
        if mention.ref:
            ordered.append(mention.ref)
        elif mention.number is not None:
            of_kind = by_kind[mention.kind]
            if mention.number >= len(of_kind) or of_kind[mention.number] not in waiting:
                reason = f"{mention.kind} {mention.number} of {len(of_kind)} is mentioned, or twice"
                return Problem("MEDIA_PLACEHOLDER_COUNT", reason)
            waiting.remove(of_kind[mention.number])
            ordered.append(of_kind[mention.number])
        elif waiting:
            ordered.append(waiting.pop(0))
    return (*ordered, *left["image"], *left["video"])


def _place_media(spoken: Sequence[Spoken], kinds: Sequence[str]) -> tuple[Turn, ...]:
    """Turns whose questions gave up their placeholders, as many as there are media."""
    turns = []
    placed = 0
    for turn in spoken:
        text = turn.text
        places: list[tuple[int, int]] = []
        # only questions show media, and only as many as there are
        while turn.role == "user" and placed < len(kinds):
            match = _PLACEHOLDERS[kinds[placed]].search(text, places[-1][1] if places else 0)
            if not match:
                break
            text = text[: match.start()] + text[match.end() :]
            places.append((placed, match.start()))
            placed += 1
        turns.append(_stripped(turn, text, places))
    return tuple(turns)


def _stripped(spoken: Spoken, text: str, positions: Sequence[tuple[int, int]]) -> Turn:
    """A turn without white space at its ends; places move with the text."""
    # offsets count from the stripped text's start
    lead = len(text) - len(text.lstrip())
    text = text.strip()
    media = tuple((clip, min(max(at - lead, 0), len(text))) for clip, at in positions)
    return Turn(role=spoken.role, text=text, media=media, loss=spoken.loss)


def before_first_question(turns: Sequence[Turn], count: int) -> tuple[Turn, ...]:
    """The turns, with `count` media before the text of the first question."""
    first = next((i for i, turn in enumerate(turns) if turn.role == "user"), None)
    places = tuple((clip, 0) for clip in range(count))
    return tuple(
        replace(turn, media=places) if i == first else turn for i, turn in enumerate(turns)
    )
