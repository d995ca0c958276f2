"""Sources of a pool made of JPEGs in memory, committed as the stages commit them; no ffmpeg."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import islice
from typing import Any

import simplejpeg

from mixtures.tokens.text import TextCodec
from shards.extents import tar_bytes
from shards.ids import canonical_json, sha256_hex, short_hash
from shards.index import (
    CLIPS,
    LEAKS,
    LENGTHS,
    MEDIA,
    NAMED,
    PAIRS,
    REFERENCES,
    REFUSED,
    SAMPLES,
    UNREAD,
    table_of,
)
from shards.pool import Pool
from shards.receipts import Work
from shards.sample import Clip, Turn, clip_members, digest_turns, key_of, turns_to_json

REVISION = "r"
CLIPS_PER_PART = 256
Scene = tuple[list[bytes], list[Turn]]
"""The JPEGs of a clip at 2 frames a second, and the conversation about it; no JPEGs: text alone."""


def commit_source(
    pool: Pool, codec: TextCodec, source: str, scenes: Iterable[Scene], *, apart: bool = False
) -> None:
    """One clip, if it has any, and one sample per scene: parts, clip index, samples, lengths.

    With `apart` every question and its answer are a sample of their own, over the scene's clip.
    """
    samples: list[dict[str, Any]] = []
    lengths: list[dict[str, Any]] = []
    numbered = enumerate(scenes)
    while group := list(islice(numbered, CLIPS_PER_PART)):
        shown = [(number, jpegs) for number, (jpegs, _) in group if jpegs]
        clips = {number: _clip(pool, source, number, jpegs) for number, jpegs in shown}
        _commit_part(pool, list(clips.values()), [jpegs for _, jpegs in shown])
        for number, (_, scene) in group:
            for turns in _questions(scene) if apart else [scene]:
                row = _sample_row(source, number, turns, clips.get(number))
                samples.append(row)
                counted = {"source": source, "key": row["key"], "tokens": codec.count_turns(turns)}
                lengths.append(counted)
    _commit_samples(pool, source, samples, codec.profile_id, lengths)


def _questions(turns: Sequence[Turn]) -> Iterator[list[Turn]]:
    for question, answer in zip(turns[::2], turns[1::2], strict=True):
        yield [replace(question, media=((0, 0),)), answer]


def commit_comparison(pool: Pool, sources: Sequence[str]) -> dict[str, str]:
    """No duplicates and no leaks among these sources; their revisions."""
    revisions = dict.fromkeys(sources, REVISION)
    schemas = {"clusters": PAIRS, "leaks": LEAKS, "references": REFERENCES}
    facts = {folder: schema.empty_table() for folder, schema in schemas.items()}
    pool.commit(Work("compare", "1", {"sources": revisions, "held_out": {}}, []), facts)
    return revisions


def _clip(pool: Pool, source: str, number: int, jpegs: list[bytes]) -> Clip:
    height, width = simplejpeg.decode_jpeg_header(jpegs[0])[:2]
    return Clip(
        clip_id=short_hash([source, number, pool.profile.profile_id]),
        kind="image" if len(jpegs) == 1 else "video",
        pts=tuple(range(0, 500 * len(jpegs), 500)),
        time_base=(1, 1000),
        duration=(len(jpegs), 2),
        width=width,
        height=height,
        nbytes=tuple(map(len, jpegs)),
        rotation=0,
        is_vfr=False,
        source_fps=(2, 1),
        colour="bt709",
    )


def _commit_part(pool: Pool, clips: Sequence[Clip], frames: Sequence[list[bytes]]) -> None:
    tar, extents = tar_bytes(
        clip_members(clip, canonical_json(asdict(clip)), jpegs)
        for clip, jpegs in zip(clips, frames, strict=True)
    )
    part = f"{sha256_hex(tar)}.tar"
    rows = [
        asdict(clip)
        | asdict(extent)
        | {
            "media_digest": clip.clip_id,
            "codec": "mjpeg",
            "container": "tar",
            "source_size": [clip.width, clip.height],
            "differences": [0] * len(clip.pts),
            "part": part,
        }
        for clip, extent in zip(clips, extents, strict=True)
    ]
    tables = {"index/clips": table_of(CLIPS, rows), "refused": REFUSED.empty_table()}
    names = [clip.clip_id for clip in clips]
    pool.commit(Work("decode", "1", {}, names), tables, {"clips": tar})


def _commit_samples(
    pool: Pool,
    source: str,
    samples: list[dict[str, Any]],
    text_profile: str,
    lengths: list[dict[str, Any]],
) -> None:
    count = len(samples)
    admitted = pool.commit(
        Work(
            "admit",
            "1",
            {
                "source": source,
                "dataset": "d",
                "licence": "mit",
                "revision": REVISION,
                "format": "llava_json",
            },
            [source],
        ),
        {
            "index/samples": table_of(SAMPLES, samples),
            "index/media": MEDIA.empty_table(),
            "refused": REFUSED.empty_table(),
            "unread": UNREAD.empty_table(),
            "named": NAMED.empty_table(),
        },
        counts={"records": count, "records_refused": 0, "samples": count, "samples_refused": 0},
    )
    pool.commit(
        Work("lengths", "1", {"text_profile": text_profile}, admitted.outputs["index/samples"]),
        {f"lengths/{text_profile}": table_of(LENGTHS, lengths)},
    )


def _sample_row(source: str, number: int, turns: list[Turn], clip: Clip | None) -> dict[str, Any]:
    clip_ids = [] if clip is None else [clip.clip_id]
    return {
        "source": source,
        "revision": REVISION,
        "key": key_of(turns, clip_ids),
        "record": f"{source}-{number}",
        "turns": canonical_json(turns_to_json(turns)).decode(),
        "turns_digest": digest_turns(turns),
        "clip_ids": clip_ids,
        "dataset": "d",
        "licence": "mit",
        "num_turns": len(turns),
        "num_chars": sum(len(turn.text) for turn in turns),
    }
