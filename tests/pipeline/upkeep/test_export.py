"""`pool export`: a dataset that `datasets` streams back as it was, with licences, in parts."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import yaml
from datasets import Image, List, disable_progress_bars, load_dataset

from benchmarks.inputs import made_source
from benchmarks.inputs.made_source import Scene, commit_comparison, commit_source
from mixtures.manifest.files import load_manifest
from mixtures.plan.build_manifest import build_manifest
from mixtures.recipe.load import load_recipe
from mixtures.tokens.text import TextCodec
from pipeline.upkeep import export as exports
from pipeline.upkeep.card import _cell
from pipeline.upkeep.export import export
from shards.errors import UserError
from shards.pool import Pool
from shards.reader import AsAdmitted, PoolReader
from shards.sample import Turn, turns_to_json
from tests.support.made_pool import TOKENIZER, write_recipe
from tests.support.tiny_pool import tiny_manifest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    disable_progress_bars()


def exported(folder: Path, monkeypatch: pytest.MonkeyPatch, **tiny: Any) -> Path:
    """A tiny pool's manifest as a dataset of several parts."""
    manifest = tiny_manifest(folder / "tiny", talk=True, **tiny)
    monkeypatch.setattr(exports, "PART_BYTES", 60_000)
    monkeypatch.setattr(exports, "_GROUP_BYTES", 20_000)
    found = export(Pool(str(folder / "tiny/pool")), load_manifest(manifest), str(folder / "out"))
    assert found.parts == len(list((folder / "out/data").iterdir())) > 3
    return folder / "out"


def streamed(out: Path) -> list[dict[str, Any]]:
    """Every sample, as a user reads it, but with frames as they are stored."""
    samples = load_dataset(str(out), split="train", streaming=True)
    return list(samples.cast_column("images", List(Image(decode=False))))


@pytest.mark.parametrize("join", ["", "max_turns: 4, max_tokens: 200"])
def test_what_is_streamed_back_is_what_the_manifest_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, join: str
) -> None:
    found = streamed(exported(tmp_path, monkeypatch, join=join))
    manifest = load_manifest(tmp_path / "tiny/build/manifest.json")
    keys = [
        (name, member)
        for name, table in zip(manifest.names, manifest.tables, strict=True)
        for key in table["key"]
        for member in manifest.members_of(name, key.tobytes().hex())
    ]
    assert sorted((one["source"], one["key"]) for one in found) == sorted(keys)
    reader = PoolReader(Pool(str(tmp_path / "tiny/pool")), made=AsAdmitted())
    for one in found:
        stored = reader.read(one["source"], one["key"])
        said = json.loads(json.dumps([asdict(clip) for clip in stored.sample.clips]))
        assert one["turns"] == turns_to_json(stored.sample.turns)
        assert one["clips"] == said
        assert {name: one[name] for name in asdict(stored.sample.origin)} == asdict(
            stored.sample.origin
        )
        frames = [bytes(frame) for clip in stored.frames for frame in clip]
        assert [image["bytes"] for image in one["images"]] == frames


def test_images_are_opened_by_those_who_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = exported(tmp_path, monkeypatch)
    one = next(iter(load_dataset(str(out), split="train", streaming=True)))
    assert one["images"][0].size == (one["clips"][0]["width"], one["clips"][0]["height"])


def test_the_card_names_licences_and_is_read_by_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (exported(tmp_path, monkeypatch) / "README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["license"] == "mit" and head["size_categories"] == ["n<1K"]
    for title in ("Composition", "Licences", "Collection", "Preprocessing", "Uses"):
        assert f"## {title}\n" in text
    assert "| clips | mit | 18 |" in text and "| clips | d | `r` | 18 | 0 | 0 | 18 |" in text
    # names of strangers are no markup
    assert _cell("a|b\n[c](d) <e>") == r"a\|b \[c\](d) \<e\>"


def test_an_export_that_was_killed_goes_on_and_nothing_else_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = exported(tmp_path, monkeypatch)
    whole = {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    gone = [*sorted((out / "data").iterdir())[1:], out / "README.md"]
    for path in gone:
        path.unlink()
    pool, manifest = Pool(str(tmp_path / "tiny/pool")), tmp_path / "tiny/build/manifest.json"
    export(pool, load_manifest(manifest), str(out))
    assert {path: path.read_bytes() for path in whole} == whole
    other = tiny_manifest(tmp_path / "tiny", talk=True, seed=4)
    with pytest.raises(UserError, match="holds something else; give an --out that is empty"):
        export(pool, load_manifest(other), str(out))


EXPORT = """
import sys
from benchmarks.size.memory import peak_bytes
from mixtures.manifest.files import load_manifest
from pipeline.upkeep.export import export
from shards.pool import Pool
found = export(Pool(sys.argv[1]), load_manifest(sys.argv[2]), sys.argv[3])
print(found.nbytes, peak_bytes())
"""


SMALL = "layout: {slow_frames: 2, timestamps: none, image_token_budget: 8}"


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_memory_does_not_grow_with_what_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve hundred MB of frames pass through less than one GB, the interpreter included."""
    monkeypatch.setattr(made_source, "CLIPS_PER_PART", 16)
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8)
    jpeg = simplejpeg.encode_jpeg(noise, 100)
    path = write_recipe(tmp_path, {"big": "weight: 1"}, "length: 64", SMALL)
    path.write_text(path.read_text().replace("licence: MIT", "licence: mit"))
    recipe = load_recipe(path)
    pool = Pool(str(tmp_path / "pool"), recipe.profile)
    count = (1200 << 20) // len(jpeg) + 1
    commit_source(pool, TextCodec(TOKENIZER), "big", (scene(jpeg, n) for n in range(count)))
    revisions = commit_comparison(pool, ["big"])
    build_manifest(recipe, pool, revisions).write(str(tmp_path / "build"))
    words = [str(tmp_path / name) for name in ("pool", "build", "out")]
    done = subprocess.run(
        [sys.executable, "-c", EXPORT, *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    nbytes, peak = map(int, done.stdout.split())
    assert nbytes > 1200 << 20 and peak < 1 << 30


def scene(jpeg: bytes, number: int) -> Scene:
    """A picture that is its own by the bytes behind its end, and a question about it."""
    asked = Turn(role="user", text="which digit is this?", media=((0, 0),))
    return [jpeg + number.to_bytes(8)], [asked, Turn(role="assistant", text=f"nine {number}")]
