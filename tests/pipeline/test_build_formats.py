"""Five published formats of two hundred samples each: built, killed, resumed, reported."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixtures.tokens.text import train_tokenizer
from shards.index import SHARD_INDEX, read_table
from shards.verify import damage
from tests.support.archives import tarred
from tests.support.small_world import SHOWN, books_of, film, picture, row

ROOT = Path(__file__).resolve().parents[2]
EACH, FILMS, FOLDERS = 200, 20, 10
NAMES = ("pictures", "embedded", "choices", "answers", "folders")
RECIPE = (
    SHOWN
    + """\
name: five
seed: 5
max_shard_bytes: 100000000
sources:
  - {{name: pictures, dataset: a, licence: CC0-1.0, format: llava_json, annotations: {root}/pictures.json, archives: ["{root}/pictures.tar.gz"], repeat: 1}}
  - {{name: embedded, dataset: b, licence: CC0-1.0, format: parquet_images, annotations: {root}/embedded.parquet, repeat: 1}}
  - {{name: choices, dataset: c, licence: CC0-1.0, format: nextqa_csv, annotations: {root}/choices.csv, media: {root}/films, repeat: 1}}
  - {{name: answers, dataset: d, licence: CC0-1.0, format: activitynet_qa, annotations: [{root}/questions.json, {root}/answers.json], media: {root}/films, repeat: 1}}
  - {{name: folders, dataset: e, licence: CC0-1.0, format: llava_hound, annotations: {root}/folders.jsonl, media: {root}/folders, repeat: 1}}
"""  # noqa: E501
)


def jpegs(root: Path, seed: int, count: int) -> list[bytes]:
    found = []
    for number in range(count):
        picture(root / "x.jpg", seed + number)
        found.append((root / "x.jpg").read_bytes())
    return found


def make(root: Path) -> Path:
    """The five sources under `root`, 31 of their samples with trouble; the recipe's path.

    Not in the archive: 10 pictures. Not a picture: 10 embedded. No answer: 10 of the questions.
    Without its folder: 1 of the folders' samples.
    """
    files = {f"{n}.jpg": data for n, data in enumerate(jpegs(root, 0, EACH - 10))}
    tarred(root / "pictures.tar.gz", files)
    rows = [row(f"p{n}", "image", f"{n}.jpg", f"Which {n}?", f"number {n}") for n in range(EACH)]
    (root / "pictures.json").write_text(json.dumps(rows))
    embed(root)
    ask_of_films(root)
    ask_of_folders(root)
    words = ["Which number is it? a film, a folder of pictures, the first of five"]
    (root / "tokenizer.json").write_bytes(train_tokenizer(words * 4, 320))
    (root / "recipe.yaml").write_text(RECIPE.format(root=root))
    return root / "recipe.yaml"


def embed(root: Path) -> None:
    data = [*jpegs(root, 1000, EACH - 10), *([b"<!DOCTYPE html>"] * 10)]
    said = [
        [
            {"from": "human", "value": f"<image>\nWhich {n}?"},
            {"from": "gpt", "value": f"number {n}"},
        ]
        for n in range(EACH)
    ]
    rows = [
        {"id": f"e{n}", "image": {"bytes": data[n], "path": f"{n}.jpg"}, "conversations": said[n]}
        for n in range(EACH)
    ]
    pq.write_table(pa.Table.from_pylist(rows), root / "embedded.parquet")


def ask_of_films(root: Path) -> None:
    (root / "films").mkdir()
    for number in range(FILMS):
        film(root / f"films/{number}.mp4", number, seconds=2)
        (root / f"films/v_{number}.mp4").hardlink_to(root / f"films/{number}.mp4")
    with (root / "choices.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow("video question answer qid type a0 a1 a2 a3 a4".split())
        for n in range(EACH):
            options = [f"film {n + i}" for i in range(5)]
            table.writerow([n % FILMS, f"which of five is {n}", n % 5, n, "CH", *options])
    names = [f"v_{n % FILMS}_{n}" for n in range(EACH)]
    asked = [
        {"video_name": str(n % FILMS), "question": f"is it {n}", "question_id": names[n]}
        for n in range(EACH)
    ]
    told = [{"answer": f"no {n}", "type": 3, "question_id": names[n]} for n in range(EACH - 10)]
    (root / "questions.json").write_text(json.dumps(asked))
    (root / "answers.json").write_text(json.dumps(told))


def ask_of_folders(root: Path) -> None:
    for number in range(FOLDERS):
        (root / f"folders/s{number}").mkdir(parents=True)
        for shown, data in enumerate(jpegs(root, 5000 + 10 * number, 4)):
            (root / f"folders/s{number}/{shown:03d}.jpg").write_bytes(data)
    rows = [
        row(f"h{n}", "video", f"s{n % FOLDERS}", f"Folder {n}?", f"folder {n}")
        for n in range(EACH - 1)
    ]
    rows.append(row("h-none", "video", "nowhere", "Folder?", "none"))
    (root / "folders.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in rows))


def command(recipe: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "pipeline", "build", str(recipe), "--out", str(out)]


def kill_after(recipe: Path, out: Path, receipts: int) -> None:
    """Start the build, SIGKILL its driver when so many receipts are there."""
    quiet = subprocess.DEVNULL
    driver = subprocess.Popen(command(recipe, out), cwd=ROOT, stdout=quiet, stderr=quiet)
    while driver.poll() is None and len([*out.glob("pool/receipts/*.json")]) < receipts:
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    assert driver.wait() == -signal.SIGKILL


@pytest.mark.faults
def test_five_formats_are_built_killed_resumed_and_reported(tmp_path: Path) -> None:
    recipe = make(tmp_path)
    outs = tmp_path / "calm", tmp_path / "killed"
    for receipts in (1, 5, 9, 14):
        kill_after(recipe, outs[1], receipts)
    for out in outs:
        subprocess.run(command(recipe, out), cwd=ROOT, env=os.environ, check=True)
    calm, killed = (json.loads((out / "shards/receipt.json").read_text()) for out in outs)
    assert calm == killed and not list(damage(str(outs[1] / "shards")))
    books = books_of(outs[1])
    assert [books[name]["records"] for name in NAMES] == [EACH] * 5
    assert [books[name]["chosen"] for name in NAMES] == [190, 190, 200, 190, 199]
    refused = pq.read_table(outs[1] / "refused.parquet").to_pylist()
    assert Counter((one["source"], one["code"]) for one in refused) == {
        ("pictures", "MEDIA_MISSING"): 10,
        ("embedded", "MEDIA_UNREADABLE"): 10,
        ("answers", "ROW_MISSING_FIELD"): 10,
        ("folders", "MEDIA_MISSING"): 1,
    }
    index = read_table((outs[1] / "shards/index.parquet").read_bytes(), "index")
    assert index.schema.names == SHARD_INDEX.names
    drawn = Counter(zip(index["source"].to_pylist(), index["key"].to_pylist(), strict=True))
    assert len(drawn) == 969 and set(drawn.values()) == {1}
    page = (outs[1] / "report.html").read_text()
    assert all(name in page for name in NAMES) and "do not balance" not in page
