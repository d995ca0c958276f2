"""The published configs with heads of 8, and start weights and a pool that fit them.

Depth, numbers of heads, their grouping and the tied or untied head are the published ones, and so
is all that a config says of parts, precision, recomputation, rates and guard.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from benchmarks.inputs.made_source import Scene, commit_comparison, commit_source
from mixtures.plan.build_manifest import build_manifest
from mixtures.recipe.load import load_recipe
from mixtures.recipe.strict_yaml import load_yaml
from mixtures.tokens.text import TextCodec, train_tokenizer
from shards.pool import Pool
from shards.sample import Turn
from tests.support.published.made_weights import oryx_file, qwen_folder
from tests.support.tiny_pool import COLOURS, talk_scene
from train.sizing.published_sizes import TEXT
from train.weights.published import TowerSizes

ROOT = Path(__file__).parents[3]
HEAD, ROWS = 8, 2048
"""Width of a head, and rows of the table of word vectors."""
TOWER = TowerSizes(width=16 * HEAD, layers=27, mlp=478, side=128, patch=16)
RECIPE = """
name: narrow
seed: 5
profile: {{fps: 2, frame_cap: 48, video_area: 16384, image_area: 65536}}
frames: {{fps: 2, cap: 40, area: 4096, min_area: 4096, selection: uniform}}
layout: {layout}
text: {{tokenizer: {tokenizer}}}
pack_tokens: 1024
pack_patches: 4096
pack_window: 64
length: 40
sources:
  - {{name: pictures, dataset: d, format: llava_json, annotations: a, licence: mit, weight: 4}}
  - {{name: clips, dataset: d, format: llava_json, annotations: a, licence: mit, weight: 3}}
  - {{name: talk, dataset: d, format: llava_json, annotations: a, licence: mit, weight: 2}}
"""


def made_world(folder: Path, size: str) -> Path:
    """`pool`, `build/manifest.json` (which is returned), `tower`, and the `decoder` of a size."""
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_bytes(train_tokenizer([*COLOURS, "Colours?", "user\n", "assistant\n"] * 4, 280))
    path = folder / "recipe.yaml"
    layout = json.dumps(load_yaml(ROOT / "train/configs/stage1_1b.yaml")["layout"])
    path.write_text(RECIPE.format(layout=layout, tokenizer=tokenizer))
    recipe = load_recipe(path)
    pool, codec = Pool(str(folder / "pool"), recipe.profile), TextCodec(tokenizer.read_bytes())
    sides = [(192, 160), (96, 256), (64, 64), (144, 240)]
    commit_source(pool, codec, "pictures", [_scene(i, 1, sides[i % 4]) for i in range(12)])
    commit_source(pool, codec, "clips", [_scene(i, 12 + 9 * i, (64, 64)) for i in range(4)])
    commit_source(pool, codec, "talk", [talk_scene(i, 30 + 40 * (i % 3)) for i in range(6)])
    revisions = commit_comparison(pool, [source.name for source in recipe.sources])
    build_manifest(recipe, pool, revisions).write(str(folder / "build"))
    oryx_file(folder / "tower/oryx_vit.pth", sizes=TOWER)
    qwen_folder(folder / "decoder", tokenizer.read_bytes(), **narrow_text(size))
    return folder / "build/manifest.json"


def narrow_text(size: str) -> dict[str, Any]:
    """The decoder of a size as its config.json has it, with narrow heads."""
    values = {name: value for name, value in TEXT[size].items() if name != "rope_parameters"}
    width = values["num_attention_heads"] * HEAD
    mlp = round(values["intermediate_size"] / values["hidden_size"] * width)
    sizes = {"hidden_size": width, "intermediate_size": mlp, "vocab_size": ROWS}
    return values | sizes | {"bos_token_id": 0, "eos_token_id": 1}


def narrow_config(folder: Path, size: str, stage: int, start: Path | None) -> dict[str, Any]:
    """The config of a size and stage for the world in `folder`; stage two starts from a model and
    trains the tower on a quarter of the frames, as the head of its file says."""
    value: dict[str, Any] = load_yaml(ROOT / f"train/configs/stage{stage}_{size}.yaml")
    text = narrow_text(size)
    value["vision"] |= {"hidden_size": TOWER.width, "intermediate_size": TOWER.mlp}
    value["text"] |= {name: text[name] for name in ("hidden_size", "intermediate_size")}
    parts = value["parts"]
    parts["tower"]["init"] = str(start or folder / "tower")
    parts["decoder"]["init"] = str(start or folder / "decoder")
    if start is not None:
        parts["projector"]["init"] = str(start)
        parts["tower"] |= {"train": True, "lr": 2e-6, "weight_decay": 0, "checkpoint": True}
        value["stochastic"] = {"keep": "1/4"}
    return value | {"tower_chunk": 1024, "workers": 1, "cache_mib": 64}


def _scene(number: int, frames: int, size: tuple[int, int]) -> Scene:
    """A clip whose colour moves through all of them, and a question about its end."""
    names = list(COLOURS)
    rng = np.random.default_rng([number, frames])
    jpegs, shown = [], ""
    for at in range(frames):
        shown = names[(number + at * 3 // frames) % 3]
        pixels = np.clip(np.array(COLOURS[shown]) + rng.normal(0, 20, (*size[::-1], 3)), 0, 255)
        jpegs.append(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels.astype(np.uint8)), 90))
    question = Turn(role="user", text="Colours?", media=((0, 0),))
    return jpegs, [question, Turn(role="assistant", text=shown)]
