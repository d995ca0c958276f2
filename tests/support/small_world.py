"""A few real media in published formats, and a recipe over them, for tests that build for real."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mixtures.tokens.text import train_tokenizer
from shards.outcome import read_books
from shards.store import Store

SHOWN = """\
frames: {{fps: 2, cap: 8, area: 16384, min_area: 4096}}
layout: {{slow_frames: 2, image_token_budget: 64}}
text: {{tokenizer: {root}/tokenizer.json}}
pack_tokens: 512
pack_patches: 4096
"""
RECIPE = (
    SHOWN
    + """\
name: small
seed: 5
length: 60
pack_window: 32
max_shard_bytes: 10000000
sources:
  - {{name: pictures, dataset: small/pictures, format: llava_json, annotations: {root}/pictures.json, media: {root}/pictures, licence: CC0-1.0, weight: {pictures}}}
  - {{name: films, dataset: small/films, format: llava_json, annotations: {root}/films.json, media: {root}/films, licence: CC0-1.0, weight: 1}}
held_out:
  - {{name: exam, format: llava_json, annotations: {root}/exam.json, media: {root}/exam}}
"""  # noqa: E501
)


def row(name: str, kind: str, media: str, question: str, answer: str) -> dict[str, object]:
    turns = [("human", f"<{kind}>\n{question}"), ("gpt", answer)]
    said = [{"from": who, "value": text} for who, text in turns]
    return {"id": name, kind: media, "conversations": said}


def picture(path: Path, seed: int) -> None:
    """A smooth picture of its own: noise of few frequencies, so that no two look alike."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    small.resize((128, 96), Image.Resampling.BICUBIC).save(path, quality=95)


def film(path: Path, seed: int, seconds: int = 3) -> None:
    source = f"mandelbrot=s=128x96:r=10:start_scale={0.3 + seed / 9}:start_x={-0.7 + seed / 20}"
    command = ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", source, "-t", str(seconds)]
    subprocess.run([*command, "-pix_fmt", "yuv420p", str(path)], check=True)


def make(root: Path, pictures: int = 14, films: int = 5) -> Path:
    """The data and the recipe under `root`; returns the recipe's path.

    Trouble in `pictures`: p-missing (no such file), p-html (a page named .jpg), p-empty, p-copy (a
    recompressed copy with the same question: a duplicate), p-other (the copy, another question:
    kept), p-leak (a recompressed copy of a held-out picture). In `films`: f-cut (truncated).
    """
    for folder in ("pictures", "films", "exam"):
        (root / folder).mkdir(parents=True)
    rows = []
    for number in range(pictures):
        picture(root / f"pictures/{number}.jpg", number)
        rows.append(
            row(f"p{number}", "image", f"{number}.jpg", f"Which {number}?", f"number {number}")
        )
    picture(root / "exam/held.jpg", 999)
    exam = [row("e0", "image", "held.jpg", "What is held out?", "this")]
    Image.open(root / "pictures/0.jpg").save(root / "pictures/copy.jpg", quality=60)
    Image.open(root / "exam/held.jpg").save(root / "pictures/leak.jpg", quality=60)
    (root / "pictures/page.jpg").write_text("<!DOCTYPE html><title>404</title>")
    (root / "pictures/empty.jpg").write_bytes(b"")
    rows += [
        row("p-missing", "image", "nowhere.jpg", "Where?", "nowhere"),
        row("p-html", "image", "page.jpg", "What page?", "404"),
        row("p-empty", "image", "empty.jpg", "What?", "nothing"),
        row("p-copy", "image", "copy.jpg", "Which 0?", "number 0"),
        row("p-other", "image", "copy.jpg", "Another question?", "yes"),
        row("p-leak", "image", "leak.jpg", "What is this?", "a leak"),
    ]
    scenes = []
    for number in range(films):
        film(root / f"films/{number}.mp4", number)
        scenes.append(
            row(f"f{number}", "video", f"{number}.mp4", f"Film {number}?", f"film {number}")
        )
    whole = (root / "films/0.mp4").read_bytes()
    (root / "films/cut.mp4").write_bytes(whole[: whole.index(b"moov") - 4])
    scenes.append(row("f-cut", "video", "cut.mp4", "What is cut?", "this"))
    texts = ["Which number is it?", "Film number, another question, yes, nothing, a leak"]
    (root / "tokenizer.json").write_bytes(train_tokenizer(texts * 4, 320))
    for name, value in (("pictures", rows), ("films", scenes), ("exam", exam)):
        (root / f"{name}.json").write_text(json.dumps(value))
    return recipe(root)


def recipe(root: Path, name: str = "recipe.yaml", pictures: int = 3) -> Path:
    """A recipe over the data, with a weight to play with."""
    path = root / name
    path.write_text(RECIPE.format(root=root, pictures=pictures))
    return path


EXPECTED = {
    ("pictures", "p-missing"): "MEDIA_MISSING",
    ("pictures", "p-html"): "MEDIA_UNREADABLE",
    ("pictures", "p-empty"): "MEDIA_EMPTY",
    ("pictures", "p-copy"): "DUPLICATE_SAMPLE",
    ("pictures", "p-leak"): "LEAK_MEDIA",
    ("films", "f-cut"): "MEDIA_UNREADABLE",
}
"""The refusals of this world; of p0 and p-copy the one with the greater key is refused."""


def books_of(out: Path) -> dict[str, dict[str, Any]]:
    """The accounts in a folder that a build wrote, by source."""
    return {books.source: asdict(books) for books in read_books(Store(out))[0]}
