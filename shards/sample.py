"""What flows: a sample is one conversation and the clips it talks about.

A turn names its media by (clip index, character offset), never by a special token in its text.
On disk a sample is two adjacent tar members with one stem: `.json` (everything below; every field
but `frame_scores` is always present) and `.mjpeg` (the JPEGs of all clips back to back, in order).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from shards.errors import DamagedData, UserError
from shards.ids import KEY_PATTERN, sample_key, turns_digest

SCHEMA = "slowfast-mix/sample/2"
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One utterance; `media` holds (clip index, offset into `text`) in order of appearance.

    A conversation shows a clip where it first mentions it, and there alone. `loss` is 1 of an
    answer that is learned, 0 of one that is only read, and of every turn that is no answer.
    """

    role: str
    text: str
    media: tuple[tuple[int, int], ...] = ()
    loss: int = 1

    def __post_init__(self) -> None:
        # only answers are ever learned
        if self.role != "assistant":
            object.__setattr__(self, "loss", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """The frames kept of one video, or one image (a clip of one frame).

    `pts` are the decoder's presentation times, in units of `time_base` seconds (a fraction),
    relative to the start of the clip; all frames have the size `width` x `height` in pixels.
    `differences` say how much each frame differs from the one before, 0..255 (empty: not known).
    """

    clip_id: str
    kind: str
    pts: tuple[int, ...]
    time_base: tuple[int, int]
    duration: tuple[int, int]
    width: int
    height: int
    nbytes: tuple[int, ...]
    rotation: int
    is_vfr: bool
    source_fps: tuple[int, int]
    colour: str
    differences: tuple[int, ...] = ()

    def seconds(self) -> list[float]:
        """Presentation time of each frame in seconds from the start of the clip."""
        return [pts * self.time_base[0] / self.time_base[1] for pts in self.pts]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a sample was published: dataset name, content revision, record id, licence."""

    dataset: str
    revision: str
    record: str
    licence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipScores:
    """How well the frames fit what the sample asks: `values` has one integer for each stored frame
    of each clip; `scorer` is the digest of what gave them."""

    scorer: str
    values: tuple[tuple[int, ...], ...]

    def by_clip(self) -> dict[int, tuple[int, ...]]:
        """The scores of each clip by its number."""
        return dict(enumerate(self.values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One conversation and its clips; `key` is its content id, unique within `source`.

    `frame_scores` are there where a manifest selects frames by them.
    """

    key: str
    source: str
    turns: tuple[Turn, ...]
    clips: tuple[Clip, ...]
    origin: Origin
    frame_scores: ClipScores | None = None


def digest_turns(turns: Sequence[Turn]) -> str:
    """The digest of the normalised turns, as used in keys and for exact text duplicates."""
    # what is not learned is another sample: its digest differs
    unlearned = (t.role == "assistant" and not t.loss for t in turns)
    spoken = ((t.role, t.text, [clip for clip, _ in t.media]) for t in turns)
    return turns_digest(spoken, unlearned)


def key_of(turns: Sequence[Turn], clip_ids: Sequence[str]) -> str:
    """The sample key of a conversation over these clips."""
    return sample_key(digest_turns(turns), clip_ids)


def joined(conversations: Sequence[Sample], key: str) -> Sample:
    """Conversations of one source over the same clips as one, each after the other."""
    first = conversations[0]
    records = " + ".join(one.origin.record for one in conversations)
    turns = tuple(turn for one in conversations for turn in one.turns)
    return replace(first, key=key, turns=turns, origin=replace(first.origin, record=records))


def turns_to_json(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Turns as JSON objects with every field present."""
    return [
        {
            "role": t.role,
            "text": t.text,
            "media": [list(place) for place in t.media],
            "loss": t.loss,
        }
        for t in turns
    ]


def turns_from_json(value: Sequence[dict[str, Any]]) -> tuple[Turn, ...]:
    """The inverse of `turns_to_json`; UserError for turns of before they had a loss."""
    if any("loss" not in turn for turn in value):
        raise UserError("turns without a loss, of an earlier version; build pool and shards anew")
    return tuple(
        Turn(
            role=t["role"],
            text=t["text"],
            media=tuple((int(clip), int(at)) for clip, at in t["media"]),
            loss=int(t["loss"]),
        )
        for t in value
    )


def sample_to_json(sample: Sample, epoch: int) -> bytes:
    """The `.json` member: one object, stable key order, every field present but `frame_scores`,
    which stands where frames are selected by them."""
    value: dict[str, Any] = {
        "schema": SCHEMA,
        "key": sample.key,
        "source": sample.source,
        "epoch": epoch,
        "turns": turns_to_json(sample.turns),
        "clips": [asdict(clip) for clip in sample.clips],
        "origin": asdict(sample.origin),
    }
    if sample.frame_scores is not None:
        value["frame_scores"] = asdict(sample.frame_scores)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def sample_from_json(data: bytes, where: str) -> Sample:
    """The inverse of `sample_to_json`; DamagedData names `where`.

    A sample of another schema is not damaged, so that none stands in for it: UserError.
    """
    try:
        value = json.loads(data)
        if value["schema"] != SCHEMA:
            raise UserError(
                f"{where}: schema {value['schema']!r}, this version reads {SCHEMA!r}; build pool "
                "and shards anew"
            )
        return Sample(
            key=value["key"],
            source=value["source"],
            turns=turns_from_json(value["turns"]),
            clips=tuple(clip_from_json(clip) for clip in value["clips"]),
            origin=Origin(**value["origin"]),
            frame_scores=_scores_from_json(value.get("frame_scores")),
        )
    except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DamagedData(f"{where}: not a sample: {error!r}") from error


def _scores_from_json(value: dict[str, Any] | None) -> ClipScores | None:
    if value is None:
        return None
    return ClipScores(scorer=value["scorer"], values=tuple(map(tuple, value["values"])))


def clip_from_json(value: dict[str, Any]) -> Clip:
    """A Clip from its JSON object or its index row (lists become tuples, other keys refused)."""
    pairs: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v
        for name, v in value.items()
        # JSON has lists, the dataclass tuples
    }
    return Clip(**pairs)


def split_frames(clips: Sequence[Clip], payload: memoryview, where: str) -> list[list[memoryview]]:
    """The JPEGs of each clip, cut out of one `.mjpeg` payload."""
    # checked once in total, then cut without copying
    if sum(sum(clip.nbytes) for clip in clips) != len(payload):
        raise DamagedData(f"{where}: {len(payload)} bytes of frames, the clips name another number")
    frames = []
    at = 0
    for clip in clips:
        # running sum of the sizes
        ends = [at := at + size for size in clip.nbytes]
        frames.append(
            [payload[end - size : end] for end, size in zip(ends, clip.nbytes, strict=True)]
        )
    return frames


def sample_members(
    position: int, epoch: int, sample: Sample, frames: Iterable[Sequence[bytes | memoryview]]
) -> list[tuple[str, bytes]]:
    """The two members of a sample in a shard: `<position>_<key>.json` and `.mjpeg`."""
    if not KEY_PATTERN.fullmatch(sample.key):
        raise AssertionError(f"not a sample key: {sample.key!r}")
    stem = f"{position:012d}_{sample.key}"
    payload = b"".join(b"".join(clip) for clip in frames)
    return [(f"{stem}.json", sample_to_json(sample, epoch)), (f"{stem}.mjpeg", payload)]


def clip_members(
    clip: Clip, description: bytes, frames: Sequence[bytes]
) -> list[tuple[str, bytes]]:
    """The two members of a clip in a part of the pool."""
    return [(f"{clip.clip_id}.json", description), (f"{clip.clip_id}.mjpeg", b"".join(frames))]
