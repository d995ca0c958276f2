"""A pool of small scenes and its manifest, made through the contract alone; seconds, no ffmpeg."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import simplejpeg

from benchmarks.inputs.made_source import Scene, commit_comparison, commit_source
from mixtures.plan.build_manifest import build_manifest
from mixtures.recipe.load import load_recipe
from mixtures.recipe.types import Recipe
from mixtures.tokens.text import TextCodec, train_tokenizer
from shards.pool import Pool
from shards.sample import Turn

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
QUESTIONS = ("Which colour?", "Which colour came last?")
RECIPE = """
name: tiny
seed: 3
profile: {{fps: 2, frame_cap: 16}}
frames: {{fps: 2, cap: 4, area: 4096, min_area: 4096, selection: uniform}}
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
TALK = "  - {name: talk, dataset: d, format: llava_json, annotations: a, licence: mit, weight: 3}\n"


def tiny_manifest(
    folder: Path,
    *,
    seed: int = 3,
    timestamps: str = "none",
    ratio: tuple[str, str] = ("weight: 1", "weight: 2"),
    join: str = "",
    talk: bool = False,
) -> Path:
    """`folder/pool` with 12 pictures and 18 clips; returns `folder/build/manifest.json`.

    `talk` adds 9 conversations without pictures, long enough for packs that hold nothing else.
    With `join` (the bounds of `join_by_clip`) every question is a sample of its own in the pool.
    """
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
    text += TALK * talk
    text += f"join_by_clip: {{{join}}}\n" if join else ""
    path = folder / "recipe.yaml"
    path.write_text(text.replace("seed: 3", f"seed: {seed}"))
    recipe = load_recipe(path)
    pool = Pool(str(folder / "pool"), recipe.profile)
    codec = TextCodec(tokenizer.read_bytes())
    apart = bool(join)
    commit_source(pool, codec, "pictures", [_scene(i, 1) for i in range(12)], apart=apart)
    commit_source(pool, codec, "clips", [_scene(i, 6) for i in range(18)], apart=apart)
    if talk:
        commit_source(pool, codec, "talk", [talk_scene(i, 20 + i % 3 * 24) for i in range(9)])
    return _plan(recipe, pool, folder / "build")


def _plan(recipe: Recipe, pool: Pool, out: Path) -> Path:
    revisions = commit_comparison(pool, [source.name for source in recipe.sources])
    plan = build_manifest(recipe, pool, revisions)
    plan.write(str(out))
    return out / "manifest.json"


def talk_scene(number: int, words: int) -> Scene:
    """A conversation without pictures: the colours in an order of its own."""
    names = list(COLOURS)
    said = " ".join(names[(number + i * (1 + number // 3)) % 3] for i in range(words))
    return [], [Turn(role="user", text="Colours?"), Turn(role="assistant", text=said)]


def _scene(number: int, frames: int) -> Scene:
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
