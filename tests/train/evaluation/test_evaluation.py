from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from shards.errors import UserError
from tests.support.tiny_pool import COLOURS, QUESTIONS, tiny_manifest
from tests.support.tiny_run import TINY
from train.evaluation.answers import normalise_answer
from train.evaluation.evaluate import evaluate
from train.evaluation.scoring import score, score_types, wilson
from train.evaluation.tasks import read_tasks
from train.loop import run


def pair(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def write_json(path: Path, rows: Any) -> Path:
    path.write_text(json.dumps(rows))
    return path


def test_answers_are_compared_without_case_points_and_spaces() -> None:
    assert normalise_answer(" The  RED, one. ") == "the red one"
    assert score(["Red.", "blue"], ["red", "Green"]).accuracy == 0.5


def test_the_interval_is_wilsons() -> None:
    assert wilson(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert wilson(0, 10)[0] == 0.0
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_majority_is_that_of_the_task_file_itself() -> None:
    scores = score_types(["a", "b", "a", "a"], ["x", "1", "y", "z"], ["x", "1", "x", "z"])
    assert (scores["a"].majority, scores["a"].majority_accuracy) == ("x", pytest.approx(2 / 3))
    assert (scores["a"].right, scores["a"].count, scores["a"].answers) == (2, 3, 2)
    assert scores["b"].accuracy == 1.0


def test_llava_rows_become_questions_with_types_and_media(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "v.mp4").write_bytes(b"v")
    turns = pair("<video>\nHow many?", "2") + pair("Which way?", "left")
    row = {"id": 7, "video": "v.mp4", "type": ["count", "motion"], "conversations": turns}
    first, second = read_tasks(write_json(tmp_path / "test.json", [row]))
    assert (first.text, first.answer, first.type, first.record) == ("How many?", "2", "count", "7")
    assert (second.text, second.type) == ("Which way?", "motion")
    assert first.medium == second.medium


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video": "missing.mp4"}, "neither beside the file nor in videos/"),
        ({"video": "../test.json"}, "neither beside"),
        ({"image": "v.mp4"}, "one image or one video"),
        ({"conversations": pair("q", "a")[:1]}, "pairs"),
        ({"conversations": pair("<video>\n", "a")}, "the human turn says nothing"),
        ({"conversations": pair("q", " ")}, "the gpt turn says nothing"),
        ({"conversations": list(reversed(pair("q", "a")))}, "expected a turn from 'human'"),
        ({"type": ["a", "b"]}, "one word, or one for each of 1"),
    ],
)
def test_a_bad_task_row_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    (tmp_path / "v.mp4").write_bytes(b"v")
    row = {"id": "r1", "video": "v.mp4", "conversations": pair("q", "a")} | change
    path = write_json(tmp_path / "test.json", [row])
    with pytest.raises(UserError, match=message) as raised:
        read_tasks(path)
    assert str(path) in str(raised.value) and "r1" in str(raised.value)


DEEP = "[" * 100_000
LONG = f"[{'9' * 5_000}]"  # more digits than Python reads


@pytest.mark.parametrize(
    "text",
    ["{", "{}", "[]", "[1]", DEEP, DEEP + "]" * 100_000, LONG],
    ids=["cut", "object", "empty", "number", "deep and cut", "deep", "long"],
)
def test_a_file_that_is_no_list_of_rows_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "test.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"test.json"):
        read_tasks(path)


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (80, 70), COLOURS[colour]).save(buffer, "PNG")
    return buffer.getvalue()


def picture_tasks(path: Path, count: int = 6) -> Path:
    names = list(COLOURS)
    rows = [
        {
            "id": f"p{i}",
            "image": {"bytes": png(names[i % 3]), "path": None},
            "conversations": pair(f"<image>\n{QUESTIONS[0]}", names[i % 3]),
        }
        for i in range(count)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def video(path: Path) -> Path:
    frames = np.full((24, 64, 64, 3), COLOURS["red"], np.uint8)
    command = "ffmpeg -v error -f rawvideo -pix_fmt rgb24 -s 64x64 -r 8 -i - -pix_fmt yuv420p -y"
    subprocess.run([*command.split(), str(path)], input=frames.tobytes(), check=True)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    manifest = tiny_manifest(folder)
    run(TINY, manifest, str(folder / "pool"), folder / "out")
    return folder / "out" / "model"


def test_scores_name_masked_pathways_and_count_every_question(
    trained: Path, tmp_path: Path
) -> None:
    video(tmp_path / "red.mp4")
    row = {
        "id": "v0",
        "video": "red.mp4",
        "type": "colour",
        "conversations": pair(f"<video>\n{QUESTIONS[0]}", "red") + pair(QUESTIONS[1], "red"),
    }
    tasks = [
        picture_tasks(tmp_path / "pictures.parquet"),
        write_json(tmp_path / "videos.json", [row]),
    ]
    said = io.StringIO()
    out = tmp_path / "scores" / "scores.json"
    evaluate(trained, tasks, ["both", "none", "slow", "fast"], out, Console(file=said, width=160))
    result = json.loads(out.read_text())
    assert {name: each["masked"] for name, each in result["pathways"].items()} == {
        "both": False,
        "none": True,
        "slow": True,
        "fast": True,
    }
    pictures = result["pathways"]["both"]["tasks"][f"{tmp_path.name}/pictures"]
    assert pictures["all"]["count"] == pictures["types"]["pictures"]["count"] == 6
    assert pictures["majority_per_type"] == pytest.approx(1 / 3)
    assert (
        result["pathways"]["fast"]["tasks"][f"{tmp_path.name}/videos"]["types"]["colour"]["count"]
        == 2
    )
    assert "none (masked)" in said.getvalue()


def test_the_default_pathways_are_those_of_training_and_answers_repeat(
    trained: Path, tmp_path: Path
) -> None:
    tasks = [picture_tasks(tmp_path / "pictures.parquet", 3)]
    quiet = Console(file=io.StringIO())
    first = evaluate(trained, tasks, [], tmp_path / "a.json", quiet)
    again = evaluate(trained, tasks, [], tmp_path / "b.json", quiet)
    assert list(first["pathways"]) == ["both"] and first == again
