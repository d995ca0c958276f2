"""A pool of noisy pictures and films, its manifest and shards, made once under runs/bench/."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from mixtures.manifest import Manifest
from mixtures.plan import build_manifest
from mixtures.recipe import load_recipe
from mixtures.text import TextCodec, train_tokenizer
from pipeline.pack import plan_shards, publish, write_shard
from shards.ids import short_hash
from shards.index import CLIPS, LEAKS, LENGTHS, MEDIA, PAIRS, REFUSED, SAMPLES, table_of
from shards.pool import Pool
from shards.sample import Clip, Turn, digest_turns, key_of, turns_to_json
from shards.store import Store
from shards.writer import clip_members, tar_bytes

ROOT = Path("runs/bench")
CLIPS_PER_PART = 256
RECIPE = """
name: {name}
seed: 11
profile: {{fps: 2, frame_cap: 64}}
frames: {{fps: 2, cap: 64, area: 147456, selection: uniform}}
layout: {{slow_frames: 8}}
text: {{tokenizer: {tokenizer}}}
pack_tokens: {pack_tokens}
pack_patches: 32768
pack_window: 64
sources:
"""
SOURCE = """\
  - {{name: {name}, dataset: d, format: llava_json, annotations: a, licence: mit, repeat: 1}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """`count` clips of `frames` frames; sides in pixels are drawn from `sides`; `grain`: noise."""

    name: str
    count: int
    frames: int
    sides: Sequence[int]
    grain: int = 8


PICTURES = Kind(name="pictures", count=4000, frames=1, sides=(128, 192, 256, 320, 384))
FILMS = Kind(name="films", count=240, frames=16, sides=(384,))
DENSE = Kind(name="dense", count=1500, frames=1, sides=(256,), grain=60)
"""Many bytes for few pixels, where the link is to be the limit and not the decoder."""
STILLS = Kind(name="stills", count=240, frames=1, sides=(384,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Where a made pool, its manifest and its shards lie."""

    pool: str
    manifest: str
    shards: str


def corpus(name: str, kinds: Sequence[Kind], pack_tokens: int = 8192) -> Corpus:
    """The corpus `name`, made if it is not there; its manifest draws every sample once."""
    home = ROOT / name
    found = Corpus(
        pool=str(home / "pool"), manifest=str(home / "manifest.json"), shards=str(home / "shards")
    )
    if not (home / "shards/receipt.json").exists():
        _make(home, kinds, pack_tokens, found)
    return found


def _make(home: Path, kinds: Sequence[Kind], pack_tokens: int, made: Corpus) -> None:
    home.mkdir(parents=True, exist_ok=True)
    tokenizer = home / "tokenizer.json"
    tokenizer.write_bytes(
        train_tokenizer(["What is shown? A picture, a film, number 12345."] * 8, 300)
    )
    text = RECIPE.format(name=home.name, tokenizer=tokenizer, pack_tokens=pack_tokens)
    (home / "recipe.yaml").write_text(
        text + "".join(SOURCE.format(name=kind.name) for kind in kinds)
    )
    recipe = load_recipe(home / "recipe.yaml")
    pool = Pool(made.pool, recipe.profile)
    for number, kind in enumerate(kinds):
        _commit(pool, TextCodec(tokenizer.read_bytes()), kind, seed=number)
    revisions = {kind.name: "r" for kind in kinds}
    facts = {"clusters": PAIRS.empty_table(), "leaks": LEAKS.empty_table()}
    pool.commit("compare", "1", {"sources": revisions, "held_out": {}}, [], facts)
    build_manifest(recipe, pool, revisions).write(str(home))
    manifest = Manifest.load(made.manifest)
    units, _ = plan_shards(made.manifest, manifest, pool, made.shards)
    publish(Store(made.shards), manifest, [write_shard(unit) for unit in units])


def _pictures(kind: Kind, seed: int) -> Iterator[list[bytes]]:
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
        yield jpegs


def _clip(kind: Kind, number: int, jpegs: list[bytes], profile_id: str) -> Clip:
    height, width = simplejpeg.decode_jpeg_header(jpegs[0])[:2]
    return Clip(
        clip_id=short_hash([kind.name, number, profile_id]),
        kind="image" if kind.frames == 1 else "video",
        pts=tuple(range(0, 500 * kind.frames, 500)),
        time_base=(1, 1000),
        duration=(kind.frames, 2),
        width=width,
        height=height,
        nbytes=tuple(map(len, jpegs)),
        rotation=0,
        is_vfr=False,
        source_fps=(2, 1),
        colour="bt709",
    )


def _commit(pool: Pool, codec: TextCodec, kind: Kind, seed: int) -> None:
    samples, lengths, group = [], [], []
    for number, jpegs in enumerate(_pictures(kind, seed)):
        clip = _clip(kind, number, jpegs, pool.profile.profile_id)
        turns = [
            Turn(role="user", text="What is shown?", media=((0, 0),)),
            Turn(role="assistant", text=f"A {kind.name} number {number}."),
        ]
        key = key_of(turns, [clip.clip_id])
        samples.append(_sample_row(kind, number, key, turns, clip))
        lengths.append({"source": kind.name, "key": key, "tokens": codec.count_turns(turns)})
        group.append((clip, jpegs))
        if len(group) == CLIPS_PER_PART or number == kind.count - 1:
            _commit_part(pool, kind, number, group)
            group = []
    counts = {"records": kind.count, "records_refused": 0}
    admitted = pool.commit(
        "admit",
        "1",
        {"source": kind.name, "dataset": "d", "revision": "r", "format": "llava_json"},
        [kind.name],
        {
            "index/samples": table_of(SAMPLES, samples),
            "index/media": MEDIA.empty_table(),
            "refused": REFUSED.empty_table(),
        },
        counts=counts | {"samples": kind.count, "samples_refused": 0},
    )
    folder = f"lengths/{codec.profile_id}"
    pool.commit(
        "lengths",
        "1",
        {"text_profile": codec.profile_id},
        admitted.outputs["index/samples"],
        {folder: table_of(LENGTHS, lengths)},
    )


def _commit_part(
    pool: Pool, kind: Kind, number: int, group: Sequence[tuple[Clip, list[bytes]]]
) -> None:
    tar, extents = tar_bytes(
        clip_members(clip, json.dumps(asdict(clip)).encode(), jpegs) for clip, jpegs in group
    )
    receipt = pool.commit("part", "1", {}, [kind.name, str(number)], {}, {"clips": tar})
    rows = [
        asdict(clip)
        | asdict(extent)
        | {
            "media_digest": clip.clip_id,
            "codec": "mjpeg",
            "container": "tar",
            "source_size": [clip.width, clip.height],
            "differences": [0] * len(clip.pts),
            "part": receipt.outputs["clips"][0],
        }
        for (clip, _), extent in zip(group, extents, strict=True)
    ]
    table = table_of(CLIPS, rows)
    pool.commit("decode", "1", {}, [kind.name, str(number)], {"index/clips": table})


def _sample_row(
    kind: Kind, number: int, key: str, turns: list[Turn], clip: Clip
) -> dict[str, object]:
    return {
        "source": kind.name,
        "revision": "r",
        "key": key,
        "record": f"{kind.name}-{number}",
        "turns": json.dumps(turns_to_json(turns)),
        "turns_digest": digest_turns(turns),
        "clip_ids": [clip.clip_id],
        "dataset": "d",
        "licence": "mit",
        "num_turns": len(turns),
        "num_chars": sum(len(turn.text) for turn in turns),
    }
