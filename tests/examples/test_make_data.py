"""The demo's data: published formats that the adapters read, and trouble that is written down."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.clips import CLIPS
from examples.digits import split_digits
from examples.encode import MP4, STYLES, encode, style_of
from examples.make_data import TRAINING, Scale, make
from examples.photos import PHOTOS
from pipeline.sources import FORMATS
from pipeline.sources.media_lookup import folder_table
from pipeline.sources.records import Record, RowRefusal, once_each
from pipeline.untrusted import Problem
from shards.ids import sha256_file
from shards.outcome import CODES

SMALL = Scale(digits=400, digits_test=90, boards=8, clips=16, clips_test=4)
MEDIA = {"digits": None, "clips_mc": "clips/videos", "scenes": "scenes/videos"}
MEDIA |= {"clips": "clips/videos", "photos": "photos/images", "digit_scenes": "digit_scenes/images"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    assert make(out, SMALL)
    return out


def admitted(data: Path, form: str, path: str) -> tuple[list[Record], list[tuple[str, str]]]:
    """Records with all their media, and (record, code) of the others."""
    media = MEDIA[path.split("/")[0]]
    table = folder_table(data / media if media else None)
    kept, refused = [], []
    for item in once_each(FORMATS[form](data / path)):
        if isinstance(item, RowRefusal):
            refused.append((item.record, item.code))
            continue
        places = [table.find(ref) for ref in item.media]
        gone = [place.code for place in places if isinstance(place, Problem)]
        if gone:
            refused.append((item.record, gone[0]))
        else:
            kept.append(item)
    return kept, refused


def test_every_refusal_of_a_row_is_planted_and_every_planted_one_is_found(data: Path) -> None:
    planted = json.loads((data / "planted.json").read_text())
    decoded = {"DUPLICATE_SAMPLE", "LEAK_MEDIA", "MEDIA_UNREADABLE", "MEDIA_TRUNCATED"}
    decoded |= {"kept", "MEDIA_LFS_POINTER"}
    for form, path in TRAINING:
        source = path.split("/")[0]
        kept, refused = admitted(data, form, path)
        expected = [p for p in planted if p["source"] == source]
        early = {(p["record"], p["expected"]) for p in expected if p["expected"] not in decoded}
        early.discard(("empty", "MEDIA_EMPTY"))  # an empty file is seen when it is opened
        assert set(refused) == early and len(refused) == len(early)
        names = {record.record for record in kept}
        assert {p["record"] for p in expected if p["expected"] in decoded} <= names
        assert {p["twin"] for p in expected if p["twin"]} <= names


def test_planted_outcomes_are_codes_and_cover_what_a_build_must_find(data: Path) -> None:
    planted = json.loads((data / "planted.json").read_text())
    counts = Counter(p["expected"] for p in planted)
    assert set(counts) - {"kept"} <= set(CODES)
    assert counts["DUPLICATE_SAMPLE"] >= 12 and counts["kept"] >= 5 and counts["LEAK_MEDIA"] == 2
    assert all(p["why"] and p["source"] for p in planted)


def test_held_out_records_are_clean_and_carry_their_question_type(data: Path) -> None:
    kept, refused = admitted(data, "llava_json", "scenes/test.json")
    assert not refused and all(len(record.turns) == 2 for record in kept)
    rows: list[dict[str, Any]] = json.loads((data / "scenes/test.json").read_text())
    kinds = Counter(row["type"] for row in rows)
    assert set(kinds) == {"first", "flashes", "motion", "seconds", "detail"}
    assert min(kinds.values()) == SMALL.clips_test and len(kept) == len(rows)
    kept, refused = admitted(data, "parquet_images", "digits/test.parquet")
    assert not refused and len(kept) == SMALL.digits_test
    assert {record.turns[1].text for record in kept} <= set("0123456789")


def test_scenes_of_both_sides_share_no_file(data: Path) -> None:
    train = {row["video"] for row in json.loads((data / "scenes/train.json").read_text())}
    test = {row["video"] for row in json.loads((data / "scenes/test.json").read_text())}
    assert not train & test and len(test) == 3 * SMALL.clips_test


def test_digits_are_split_by_content() -> None:
    split = split_digits(120, 24)
    names = [digit.name for digit in (*split.train, *split.test)]
    assert len(set(names)) == 120 and len(split.test) == 24
    assert len(split.train_scans.labels) == 96
    assert [d.label for d in split.test] == split.test_scans.labels.tolist()


def test_a_second_run_changes_nothing(data: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    assert not make(data, SMALL)
    assert before == {path: path.stat().st_mtime_ns for path in data.rglob("*")}


def test_the_tokenizer_is_a_small_one_with_the_control_tokens(data: Path) -> None:
    tokenizer = json.loads((data / "tokenizer.json").read_text())
    assert len(tokenizer["model"]["vocab"]) <= 512
    assert "<|im_start|>" in {token["content"] for token in tokenizer["added_tokens"]}


def test_the_card_names_every_file_and_its_origin(data: Path) -> None:
    card = (data / "DATA_CARD.md").read_text()
    for file, origin in [(p.path().name, p.origin) for p in PHOTOS] + [
        (c.file, c.origin) for c in CLIPS
    ]:
        assert f"`{file}`: {origin}" in card


def times(path: Path) -> list[Fraction]:
    """Presentation times of a video's frames in seconds."""
    command = ["ffprobe", "-v", "error", "-show_entries", "frame=pts_time", "-of", "csv=p=0"]
    lines = subprocess.run([*command, str(path)], check=True, capture_output=True, text=True)
    return [Fraction(line.strip(",")) for line in lines.stdout.split()]


@pytest.mark.parametrize(
    "style", [MP4, *STYLES.values()], ids=lambda s: f"{s.suffix}{s.fps}{s.drops}"
)
def test_videos_of_one_process_are_cut_at_their_beginnings(tmp_path: Path, style: Any) -> None:
    shades = (np.arange(2 * 16) * 7).astype(np.uint8).reshape(2, 16, 1, 1, 1)
    frames = np.broadcast_to(shades, (2, 16, 64, 64, 3))
    paths = [tmp_path / f"{i}.{style.suffix}" for i in range(2)]
    encode(list(zip(paths, frames, strict=True)), style)
    again = tmp_path / f"again.{style.suffix}"
    encode([(again, frames[0]), (tmp_path / f"x.{style.suffix}", frames[1])], style)
    assert sha256_file(again) == sha256_file(paths[0])
    for path in paths:
        found = times(path)
        assert found[0] == 0 and {Fraction(i, 2) for i in range(16)} <= set(found)
        assert found[-1] < 8 and len(found) == len(set(found))
        steps = {b - a for a, b in pairwise(found)}
        assert (len(steps) > 1) == style.drops


def test_a_few_of_every_sixteen_videos_are_in_other_formats() -> None:
    assert Counter(style_of(i).suffix for i in range(16)) == {"mp4": 14, "mkv": 1, "webm": 1}


def test_questions_have_one_answer_among_their_options() -> None:
    for clip in CLIPS:
        for _, options, answer, _ in clip.choices:
            assert len(set(options)) == 5 and 0 <= answer < 5
