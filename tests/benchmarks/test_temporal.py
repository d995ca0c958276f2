"""The synthetic temporal set: what it asks is in its frames, and none of it was trained on."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks.inputs.made_model import made_model
from benchmarks.inputs.temporal_set import (
    AXES,
    BACK,
    SEED,
    VIDEOS,
    Frames,
    held_out_scans,
    make,
)
from benchmarks.training.temporal import is_learnt, measured, table
from examples import digits, make_data
from examples.digits import split_digits
from examples.make_data import FULL, KINDS
from examples.scenes import FLASH, board_image, single_image, spot_image
from pipeline.sources.benchmarks import BENCHMARKS
from pipeline.sources.benchmarks.item import BenchmarkItem
from shards.ids import sha256_hex

SOME = 40


def is_flash(frame: Frames) -> bool:
    return bool(np.abs(frame.astype(int) - FLASH.astype(int)).max() < 2)


def place_of(frame: Frames) -> tuple[float, float]:
    """Where the ink is: rows and columns, weighed by how much a pixel stands out."""
    ink = np.abs(frame.astype(int) - np.median(frame, axis=(0, 1))).sum(2)
    total = max(ink.sum(), 1)
    rows, columns = ink.sum(1), ink.sum(0)
    return float(rows @ np.arange(64) / total), float(columns @ np.arange(64) / total)


@pytest.mark.parametrize("kind", VIDEOS)
def test_what_is_asked_is_so_in_the_frames(kind: str) -> None:
    scans = held_out_scans()
    pictures = {
        label: [scans.scans[i] for i in np.flatnonzero(scans.labels == label)]
        for label in range(10)
    }

    def shown(frame: Frames) -> int:
        """The digit that fills a frame: the label of the scan that it is drawn from."""
        small = frame[::8, ::8].astype(float).sum(2)
        small = (small - small.min()) / max(np.ptp(small), 1)
        distances = {
            label: min(float(np.abs(scan - small).sum()) for scan in of_label)
            for label, of_label in pictures.items()
        }
        return min(distances, key=distances.__getitem__)

    for index in range(SOME):
        frames, questions = VIDEOS[kind](scans, index)
        right = {question.axis: question.options[0] for question in questions}
        assert all(len(set(question.options)) == len(question.options) for question in questions)
        blank = [np.ptp(frame, axis=(0, 1)).max() == 0 for frame in frames]
        if kind == "flashes":
            assert sum(map(is_flash, frames)) == int(right["counting"])
            assert sorted(questions[1].options) == ["1", "3", "5", "7"]
        elif kind == "directions":
            (y0, x0), (y1, x1) = place_of(frames[0]), place_of(frames[-1])
            moved = {"right": x1 - x0, "left": x0 - x1, "down": y1 - y0, "up": y0 - y1}
            assert max(moved, key=moved.__getitem__) == right["direction"]
            assert questions[0].options[1] == BACK[right["direction"]]
        elif kind == "motions":
            assert (right["motion"] == "yes") == bool((frames[0] != frames[-1]).any())
        elif kind == "needles":
            (seen,) = {shown(f) for f, empty in zip(frames, blank, strict=True) if not empty}
            assert str(seen) == right["needle"]
        else:
            assert [str(shown(frames[0])), str(shown(frames[-1]))] == [*questions[0].options]
            assert blank[0] == blank[-1] == False  # noqa: E712
            if "interval" in right:
                assert sum(blank) / 2 == int(right["interval"])
            else:
                assert sum(blank) == len(frames) - 8


def test_no_scan_clip_or_seed_of_it_was_trained_on() -> None:
    split = split_digits(FULL.digits, FULL.digits_test)
    digests = [{sha256_hex(scan.tobytes()) for scan in side.scans}
               for side in (split.train_scans, held_out_scans())]  # fmt: skip
    assert not digests[0] & digests[1]
    assert not {SEED, SEED + 1} & {digits.SEED, digits.SEED + 1, make_data.SEED}
    # every frame that the demo draws for training, against every frame of the set that has a digit
    trained = {sha256_hex(digit.pixels.tobytes()) for digit in split.train}
    kinds = [(board_image, FULL.boards), (spot_image, FULL.spots)]
    kinds += [(kind, FULL.clips // len(KINDS)) for kind in KINDS]
    for kind, count in kinds:
        for index in range(count):
            scene = kind(split.train_scans, digits.SEED, index)
            trained |= {sha256_hex(frame.tobytes()) for frame in scene.frames}
    for made in VIDEOS.values():
        for index in range(SOME):
            frames, _ = made(held_out_scans(), index)
            drawn = [f for f in frames if np.ptp(f, axis=(0, 1)).max()]
            assert drawn
            assert not trained & {sha256_hex(frame.tobytes()) for frame in drawn}
    assert sha256_hex(single_image(split.train_scans, digits.SEED, 0).frames[0].tobytes())


def test_the_set_is_read_by_its_reader_and_measured(tmp_path: Path) -> None:
    copy = make(tmp_path / "copy", 2)
    rows = [json.loads(line) for line in (copy / "temporal.jsonl").read_text().splitlines()]
    items = list(BENCHMARKS["temporal"].items(copy / "temporal.jsonl"))
    assert all(isinstance(item, BenchmarkItem) for item in items)
    assert Counter(row["axis"] for row in rows) == dict.fromkeys(AXES, 2)
    assert len(list((copy / "videos").iterdir())) == 2 * len(VIDEOS)
    again = make(tmp_path / "again", 2)
    for path in (copy / "videos").iterdir():
        assert path.read_bytes() == (again / "videos" / path.name).read_bytes()
    said = io.StringIO()
    model = made_model(tmp_path / "model", frames=16)
    bars = {b.what: b for b in measured(Console(file=said, width=160), model, copy, tmp_path)}
    assert bars["axes"].value == 8
    assert bars["questions that could not be asked"].value == 0
    assert "needle" in said.getvalue()


def test_an_axis_counts_ten_points_above_its_floor() -> None:
    def of(mean: float, majority: float) -> dict[str, object]:
        return {"tables": {"task": {axis: {"mean": mean, "majority": majority} for axis in AXES}}}

    found = {"both": of(0.7, 0.6), **{name: of(0.5, 0.5) for name in ("none", "slow", "fast")}}
    found["shuffled_frames"] = of(0.6, 0.5)
    assert is_learnt(found, "order")
    found["none"] = of(0.61, 0.5)
    assert not is_learnt(found, "order")
    said = io.StringIO()
    Console(file=said, width=160).print(table(found))
    assert said.getvalue().count("not learnt") == len(AXES)
