"""A pool of small scenes and its manifest, made through the contract alone; seconds, no ffmpeg."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from mixtures.plan import build_manifest
from mixtures.recipe import Recipe, load_recipe
from mixtures.text import TextCodec, train_tokenizer
from shards.ids import canonical_json, sha256_hex, short_hash
from shards.index import CLIPS, LEAKS, LENGTHS, MEDIA, PAIRS, REFUSED, SAMPLES, table_of
from shards.pool import Pool
from shards.sample import Clip, Turn, digest_turns, key_of, turns_to_json
from shards.writer import clip_members, tar_bytes

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
QUESTIONS = ("Which colour?", "Which colour came last?")
RECIPE = """
name: tiny
seed: 3
profile: {{fps: 2, frame_cap: 16}}
frames: {{fps: 2, cap: 4, area: 4096, selection: uniform}}
layout: {{slow_frames: 2, timestamps: {timestamps}}}
text: {{tokenizer: {tokenizer}}}
pack_tokens: 256
pack_patches: 512
pack_window: 32
{length}
sources:
  - {{name: pictures, dataset: d, format: llava_json, annotations: a, licence: mit, {pictures}}}
  - {{name: clips, dataset: d, format: llava_json, annotations: a, licence: mit, {clips}}}
"""


def tiny_manifest(
    folder: Path,
    *,
    seed: int = 3,
    timestamps: str = "none",
    ratio: tuple[str, str] = ("weight: 1", "weight: 2"),
) -> Path:
    """`folder/pool` with 12 pictures and 18 clips; returns `folder/build/manifest.json`."""
    tokenizer = folder / "tokenizer.json"
    folder.mkdir(parents=True, exist_ok=True)
    words = [*QUESTIONS, *COLOURS, "user\n", "assistant\n"]
    tokenizer.write_bytes(train_tokenizer(words * 4, 280))
    text = RECIPE.format(
        tokenizer=tokenizer,
        timestamps=timestamps,
        pictures=ratio[0],
        clips=ratio[1],
        length="length: 60" if ratio[0].startswith("weight") else "",
    )
    path = folder / "recipe.yaml"
    path.write_text(text.replace("seed: 3", f"seed: {seed}"))
    recipe = load_recipe(path)
    pool = Pool(str(folder / "pool"), recipe.profile)
    codec = TextCodec(tokenizer.read_bytes())
    _commit(pool, codec, "pictures", [_scene(i, 1) for i in range(12)])
    _commit(pool, codec, "clips", [_scene(i, 6) for i in range(18)])
    return _plan(recipe, pool, folder / "build")


def _plan(recipe: Recipe, pool: Pool, out: Path) -> Path:
    revisions = {source.name: "r" for source in recipe.sources}
    tables = {"clusters": PAIRS.empty_table(), "leaks": LEAKS.empty_table()}
    pool.commit("compare", "1", {"sources": revisions, "held_out": {}}, [], tables)
    plan = build_manifest(recipe, pool, revisions)
    plan.manifest.write(str(out))
    return out / "manifest.json"


def _scene(number: int, frames: int) -> tuple[list[bytes], list[Turn]]:
    """A clip of one colour that turns to another half way, and its questions."""
    names = list(COLOURS)
    first, last = names[number % 3], names[number // 3 % 3]
    shown = [first if 2 * i < frames else last for i in range(frames)]
    rng = np.random.default_rng([number, frames])
    jpegs = []
    for name in shown:
        pixels = np.clip(np.array(COLOURS[name]) + rng.normal(0, 8, (64, 64, 3)), 0, 255)
        jpegs.append(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels.astype(np.uint8)), 90))
    turns = [
        Turn(role="user", text=QUESTIONS[0], media=((0, 0),)),
        Turn(role="assistant", text=shown[0]),
    ]
    if frames > 1:
        turns += [Turn(role="user", text=QUESTIONS[1]), Turn(role="assistant", text=shown[-1])]
    return jpegs, turns


def _clip(source: str, number: int, jpegs: list[bytes], profile_id: str) -> Clip:
    return Clip(
        clip_id=short_hash([source, number, profile_id]),
        kind="image" if len(jpegs) == 1 else "video",
        pts=tuple(range(0, 500 * len(jpegs), 500)),
        time_base=(1, 1000),
        duration=(len(jpegs), 2),
        width=64,
        height=64,
        nbytes=tuple(map(len, jpegs)),
        rotation=0,
        is_vfr=False,
        source_fps=(2, 1),
        colour="bt709",
    )


def _commit(
    pool: Pool, codec: TextCodec, source: str, scenes: list[tuple[list[bytes], list[Turn]]]
) -> None:
    clips = [
        _clip(source, i, jpegs, pool.profile.profile_id) for i, (jpegs, _) in enumerate(scenes)
    ]
    tar, extents = tar_bytes(
        clip_members(clip, canonical_json(asdict(clip)), jpegs)
        for clip, (jpegs, _) in zip(clips, scenes, strict=True)
    )
    samples, lengths = [], []
    for number, (clip, (_, turns)) in enumerate(zip(clips, scenes, strict=True)):
        key = key_of(turns, [clip.clip_id])
        samples.append(_sample_row(source, number, key, turns, clip))
        lengths.append({"source": source, "key": key, "tokens": codec.count_turns(turns)})
    count = len(scenes)
    counts = {"records": count, "records_refused": 0, "samples": count, "samples_refused": 0}
    admitted = pool.commit(
        "admit",
        "1",
        {"source": source, "dataset": "d", "revision": "r", "format": "llava_json"},
        [source],
        {
            "index/samples": table_of(SAMPLES, samples),
            "index/media": MEDIA.empty_table(),
            "refused": REFUSED.empty_table(),
        },
        counts=counts,
    )
    part = {"part": f"{sha256_hex(tar)}.tar"}
    rows = [
        {**_clip_row(clip), **asdict(extent), **part}
        for clip, extent in zip(clips, extents, strict=True)
    ]
    pool.commit("decode", "1", {}, [source], {"index/clips": table_of(CLIPS, rows)}, {"clips": tar})
    folder = f"lengths/{codec.profile_id}"
    pool.commit(
        "lengths",
        "1",
        {"text_profile": codec.profile_id},
        admitted.outputs["index/samples"],
        {folder: table_of(LENGTHS, lengths)},
    )


def _sample_row(
    source: str, number: int, key: str, turns: list[Turn], clip: Clip
) -> dict[str, Any]:
    return {
        "source": source,
        "revision": "r",
        "key": key,
        "record": f"{source}-{number}",
        "turns": json.dumps(turns_to_json(turns)),
        "turns_digest": digest_turns(turns),
        "clip_ids": [clip.clip_id],
        "dataset": "d",
        "licence": "mit",
        "num_turns": len(turns),
        "num_chars": sum(len(turn.text) for turn in turns),
    }


def _clip_row(clip: Clip) -> dict[str, Any]:
    return asdict(clip) | {
        "media_digest": clip.clip_id,
        "codec": "mjpeg",
        "container": "tar",
        "source_size": [64, 64],
        "differences": [0] * len(clip.pts),
    }
