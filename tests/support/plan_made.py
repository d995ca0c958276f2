"""python -m tests.support.plan_made FOLDER: plan a made pool there, print the digests of its files.

Run by other Python versions too, so it needs what `mixtures` needs and nothing else.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mixtures.manifest.files import write_manifest
from mixtures.plan.build_manifest import build_manifest
from mixtures.recipe.load import load_recipe
from shards.ids import canonical_json, sha256_hex
from tests.support.made_pool import MadePool, MadeSample, many, write_recipe

RATIOS = {
    "a": "weight: 3, max_repeats: 9",
    "b": "weight: 1, filters: {num_turns: {min: 2}}",
    "c": "weight: 1",
}
MORE = (
    "length: 200",
    "stages: [{start: 80, weights: {b: 4}}]",
    "layout: {slow_frames: 2, timestamps: per_frame_text}",
    "join_by_clip: {max_turns: 6, max_tokens: 200}",
)


def written(folder: Path) -> dict[str, str]:
    """File -> sha256 of its bytes; of the manifest without the version of the tool."""
    asked = [MadeSample(f"which {i}", [f"video-c{i // 4}"]) for i in range(40)]
    sources = {"a": many("a", 60), "b": many("video-b", 30), "c": asked}
    recipe = load_recipe(write_recipe(folder, RATIOS, *MORE))
    plan = build_manifest(recipe, MadePool(sources=sources).make(folder / "pool"))
    write_manifest(plan.manifest, str(folder / "out"))
    paths = sorted(path for path in (folder / "out").rglob("*") if path.is_file())
    found = {}
    for path in paths:
        data = path.read_bytes()
        if path.name == "manifest.json":
            value = json.loads(data)
            assert canonical_json(value) == data
            data = canonical_json({name: v for name, v in value.items() if name != "tool"})
        found[str(path.relative_to(folder / "out"))] = sha256_hex(data)
    return found


if __name__ == "__main__":
    sys.stdout.write(f"{json.dumps(written(Path(sys.argv[1])), indent=1)}\n")
