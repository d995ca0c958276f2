"""A pool of noisy pictures and films, its manifest and shards, made once under runs/bench/."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from benchmarks.inputs.made_source import Scene, commit_comparison, commit_source
from mixtures.manifest.files import load_manifest
from mixtures.plan.build_manifest import build_manifest
from mixtures.recipe.load import load_recipe
from mixtures.tokens.text import TextCodec, train_tokenizer
from pipeline.jobs.write_shards import plan_shards, publish
from pipeline.stages.write_shard import write_shard
from shards.pool import Pool
from shards.sample import Turn
from shards.store import Store

ROOT = Path("runs/bench")
RECIPE = """
name: {name}
seed: 11
profile: {{fps: 2, frame_cap: 64}}
frames: {{fps: 2, cap: 64, area: 147456, min_area: 4096, selection: uniform}}
layout: {{slow_frames: 8}}
text: {{tokenizer: {tokenizer}}}
pack_tokens: {pack_tokens}
pack_patches: 32768
pack_window: 64
sources:
"""
SOURCE = """\
  - {{name: {name}, dataset: d, format: llava_json, annotations: a, licence: mit, {ratio}}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """`count` clips of `frames` frames; sides in pixels are drawn from `sides`; `grain`: noise.

    `ratio` is the source's in the recipe.
    """

    name: str
    count: int
    frames: int
    sides: Sequence[int]
    grain: int = 8
    ratio: str = "repeat: 1"


PICTURES = Kind(name="pictures", count=4000, frames=1, sides=(128, 192, 256, 320, 384))
FILMS = Kind(name="films", count=600, frames=16, sides=(384,))
DENSE = Kind(name="dense", count=1500, frames=1, sides=(256,), grain=60)
"""Many bytes for few pixels, where the link is to be the limit and not the decoder."""
STILLS = Kind(name="stills", count=600, frames=1, sides=(384,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Where a made pool, its manifest and its shards lie."""

    pool: str
    manifest: str
    shards: str


def corpus(
    name: str, kinds: Sequence[Kind], pack_tokens: int = 8192, length: int | None = None
) -> Corpus:
    """The corpus `name`, made if it is not there; it draws every sample once into shards.

    With a `length` its sources are drawn by weight, from the pool alone.
    """
    home = ROOT / name
    found = Corpus(
        pool=str(home / "pool"), manifest=str(home / "manifest.json"), shards=str(home / "shards")
    )
    if not (home / ("manifest.json" if length else "shards/receipt.json")).exists():
        _make(home, kinds, pack_tokens, length, found)
    return found


def _make(
    home: Path, kinds: Sequence[Kind], pack_tokens: int, length: int | None, made: Corpus
) -> None:
    home.mkdir(parents=True, exist_ok=True)
    tokenizer = home / "tokenizer.json"
    tokenizer.write_bytes(
        train_tokenizer(["What is shown? A picture, a film, number 12345."] * 8, 300)
    )
    text = RECIPE.format(name=home.name, tokenizer=tokenizer, pack_tokens=pack_tokens)
    sources = [SOURCE.format(name=kind.name, ratio=kind.ratio) for kind in kinds]
    endless = f"length: {length}\n" if length else ""
    (home / "recipe.yaml").write_text(endless + text + "".join(sources))
    recipe = load_recipe(home / "recipe.yaml")
    pool, codec = Pool(made.pool, recipe.profile), TextCodec(tokenizer.read_bytes())
    for number, kind in enumerate(kinds):
        commit_source(pool, codec, kind.name, _scenes(kind, seed=number))
    revisions = commit_comparison(pool, [kind.name for kind in kinds])
    build_manifest(recipe, pool, revisions).write(str(home))
    if length:
        return
    manifest = load_manifest(made.manifest)
    units, _ = plan_shards(made.manifest, manifest, pool, made.shards)
    publish(Store(made.shards), manifest, dict(map(write_shard, units)))


def _scenes(kind: Kind, seed: int) -> Iterator[Scene]:
    """JPEGs of smooth shapes under noise: about as many bytes as photographs of that size."""
    rng = np.random.default_rng(seed)
    noise = [rng.normal(0, kind.grain, (512, 512, 3)) for _ in range(8)]
    for number in range(kind.count):
        side, jpegs = int(rng.choice(kind.sides)), []
        top, left, grain = rng.integers(0, 128), rng.integers(0, 128), noise[number % 8]
        ramp = np.linspace(0, 200, side)[:, None, None] * rng.random(3)
        for frame in range(kind.frames):
            moved = np.roll(grain, frame * 7, 1)[top : top + side, left : left + side]
            pixels: NDArray[np.uint8] = (ramp + 40 + moved).clip(0, 255).astype(np.uint8)
            jpegs.append(simplejpeg.encode_jpeg(pixels, 90, colorsubsampling="420"))
        question = Turn(role="user", text="What is shown?", media=((0, 0),))
        yield jpegs, [question, Turn(role="assistant", text=f"A {kind.name} number {number}.")]
