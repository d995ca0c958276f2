"""A saved model asked the questions of a copy: predictions, scores, missing media, going on."""

from __future__ import annotations

import gc
import io
import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from pipeline.sources.benchmarks import BENCHMARKS
from pipeline.sources.benchmarks.item import BenchmarkItem
from pipeline.sources.records import RowRefusal
from shards.errors import UserError
from tests.support.ranks import launch
from tests.support.tiny_pool import tiny_manifest
from tests.support.tiny_run import TINY
from tests.train.evaluation.test_evaluation import png, video
from train.data.user_media import Seen
from train.evaluation import benchmark
from train.evaluation.answerer import Answerer, VisualQuestion, placed
from train.evaluation.copies import Copy, copies, json_subtitles, on_screen, srt
from train.evaluation.evaluate import check_asked, check_pathways, evaluate
from train.evaluation.predictions import Prediction, read_lines
from train.evaluation.rules import prompts
from train.evaluation.scores import scores
from train.evaluation.watched import see_references
from train.loop import run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    manifest = tiny_manifest(folder)
    run(TINY, manifest, str(folder / "pool"), folder / "out")
    return folder / "out" / "model"


def egoschema(folder: Path, videos: int = 3) -> Path:
    """Two questions a video, of which one has a public answer; the last video is not there."""
    rows = []
    for number in range(videos):
        for i in range(2):
            row = {
                "question_idx": f"{2 * number + i}",
                "question": "What is shown?",
                "video_idx": f"v{number}",
                "option": ["A. red", "B. blue"],
                "answer": "0" if i == 0 else None,
            }
            rows.append(row)
    (folder / "videos").mkdir(parents=True)
    made = video(folder / "made.mp4")
    for number in range(videos - 1):
        os.link(made, folder / "videos" / f"v{number}.mp4")
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
    return folder


def score(trained: Path, folder: Path, out: Path, **more: Any) -> dict[str, Any]:
    said = io.StringIO()
    found = evaluate(
        trained,
        [],
        more.pop("conditions", ["both"]),
        out,
        Console(file=said, width=160),
        benchmarks=copies([f"{more.pop('name', 'egoschema')}={folder}"]),
        **more,
    )
    work = next(iter(found["work"].values()))
    return {**found["benchmarks"], "work": work, "printed": said.getvalue()}


def test_predictions_are_kept_and_what_is_missing_is_counted(trained: Path, tmp_path: Path) -> None:
    result = score(trained, egoschema(tmp_path / "copy"), tmp_path / "s.json")
    found = result["egoschema"]["both"]
    assert (found["questions"], found["scored"], found["without_public_answer"]) == (6, 2, 2)
    assert (found["complete"], found["missing"]) == (False, {"MISSING": 2})
    assert "v2.mp4" in found["missing_examples"][0]["missing"]
    assert found["score"]["videos"] == 2
    assert found["majority"] == {"answer": "A", "mean": 1.0}
    head, *lines = (tmp_path / "s.egoschema.both.jsonl").read_text().splitlines()
    assert json.loads(head)["prompts"] == 1
    rows = [json.loads(line) for line in lines]
    assert [row["id"] for row in rows] == [f"{i}:v{i // 2}" for i in range(6)]
    assert "A. red\nB. blue" in rows[0]["prompt"]
    assert "INCOMPLETE" in result["printed"]
    assert json.loads((tmp_path / "s.json").read_text())["benchmarks"]["egoschema"]["both"] == found


def test_a_killed_run_goes_on_behind_its_last_line(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = egoschema(tmp_path / "copy")
    whole = score(trained, copy, tmp_path / "a.json")["egoschema"]["both"]
    file = tmp_path / "b.egoschema.both.jsonl"
    lines = (tmp_path / "a.egoschema.both.jsonl").read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:3]) + lines[3][:20])
    seen: list[str] = []
    asked = see_references

    def watched(answerer: Any, one: Any, wanted: Any) -> Any:
        seen.extend(ref.name for ref in wanted)
        return asked(answerer, one, wanted)

    monkeypatch.setattr(benchmark, "see_references", watched)
    assert score(trained, copy, tmp_path / "b.json")["egoschema"]["both"] == whole
    assert file.read_text() == "".join(lines)
    assert set(seen) == {"v1.mp4", "v2.mp4"}  # v0 was answered


def test_what_was_missing_is_asked_once_the_copy_is_mended(trained: Path, tmp_path: Path) -> None:
    copy = egoschema(tmp_path / "copy")
    (copy / "videos" / "v1.mp4").unlink()
    (copy / "videos" / "v1.mp4").write_bytes(b"no video")
    lost = score(trained, copy, tmp_path / "s.json", conditions=["both", "none"])
    assert sum(lost["egoschema"]["both"]["missing"].values()) == 4
    for name in ("v1", "v2"):
        (copy / "videos" / f"{name}.mp4").unlink(missing_ok=True)
        os.link(copy / "made.mp4", copy / "videos" / f"{name}.mp4")
    found = score(trained, copy, tmp_path / "s.json", conditions=["both", "none"])
    assert [found["egoschema"][shown]["complete"] for shown in ("both", "none")] == [True, True]
    assert (found["egoschema"]["both"]["scored"], found["work"]["asked"]) == (3, 8)
    assert "INCOMPLETE" not in found["printed"]


@pytest.mark.parametrize(
    ("answer", "videos", "said", "counted"),
    [
        (None, True, "no public answers", "MISSING 2"),  # a hidden split, a video missing
        ("0", False, "nothing scored", "MISSING 6"),
        ("9", True, "nothing scored", "ROW_BAD_ANSWER 6"),
    ],
    ids=["hidden", "no media", "bad keys"],
)
def test_what_is_missing_is_shown_where_nothing_is_scored(
    trained: Path, tmp_path: Path, answer: str | None, videos: bool, said: str, counted: str
) -> None:
    copy = egoschema(tmp_path / "copy")
    rows = [row | {"answer": answer} for row in pq.read_table(copy / "a.parquet").to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows), copy / "a.parquet")
    if not videos:
        (copy / "videos").rename(copy / "elsewhere")
    result = score(trained, copy, tmp_path / "s.json")
    found = result["egoschema"]["both"]
    assert not found["complete"]
    assert (found["score"]["mean"], found["majority"]["mean"]) == (None, None)
    assert said in result["printed"]
    assert f"both, not asked: {counted}" in result["printed"]


def test_a_set_without_rows_is_not_complete(trained: Path, tmp_path: Path) -> None:
    copy = egoschema(tmp_path / "copy")
    pq.write_table(pq.read_table(copy / "a.parquet").slice(0, 0), copy / "a.parquet")
    result = score(trained, copy, tmp_path / "s.json")
    assert not result["egoschema"]["both"]["complete"]
    assert "no rows" in result["printed"]


def test_another_runs_predictions_are_not_gone_on_from(trained: Path, tmp_path: Path) -> None:
    copy = egoschema(tmp_path / "copy", videos=2)
    score(trained, copy, tmp_path / "a.json")
    file = tmp_path / "a.egoschema.both.jsonl"
    file.write_text(file.read_text().replace('"prompts": 1', '"prompts": 2'))
    with pytest.raises(UserError, match=r"another run \(prompts: 2, now 1\)"):
        score(trained, copy, tmp_path / "a.json")


def test_batches_and_windows_do_not_change_replies(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = egoschema(tmp_path / "copy", videos=4)
    one = score(trained, copy, tmp_path / "a.json")["egoschema"]["both"]
    monkeypatch.setattr(benchmark, "VIDEOS_AT_A_TIME", 1)
    assert score(trained, copy, tmp_path / "b.json", batch=1)["egoschema"]["both"] == one


def test_without_pictures_nothing_is_decoded(trained: Path, tmp_path: Path) -> None:
    found = score(trained, egoschema(tmp_path / "copy"), tmp_path / "s.json", conditions=["none"])[
        "egoschema"
    ]["none"]
    # and what is not there is counted all the same
    assert (found["complete"], found["scored"], found["missing"]) == (False, 2, {"MISSING": 2})


def test_a_floor_without_pictures_is_of_the_questions_that_the_score_is_of(
    trained: Path, tmp_path: Path
) -> None:
    copy = egoschema(tmp_path / "copy", videos=4)
    # one is not there, one is no video, two are whole
    (copy / "videos" / "v2.mp4").unlink()
    (copy / "videos" / "v2.mp4").write_bytes(b"no video")
    both = ["both", "none"]
    found = score(trained, copy, tmp_path / "a.json", conditions=both)["egoschema"]
    for condition in both:
        assert (found[condition]["complete"], found[condition]["scored"]) == (False, 2)
        assert sum(found[condition]["missing"].values()) == 4
    assert found["none"]["missing"] == found["both"]["missing"]
    kept = read_lines(tmp_path / "a.egoschema.none.jsonl")
    assert [bool(row.missing) for row in kept] == [False] * 4 + [True] * 4
    # asked alone it decodes nothing, and learns of the broken video when the score is taken
    alone = score(trained, copy, tmp_path / "b.json", conditions=["none"])["egoschema"]["none"]
    assert (alone["scored"], alone["missing"]) == (3, {"MISSING": 2})
    assert score(trained, copy, tmp_path / "b.json", conditions=both)["egoschema"] == found


def test_images_that_come_with_their_question(trained: Path, tmp_path: Path) -> None:
    row = {"question": "Which?", "options": ["red", "blue"], "answer": "1"}
    rows = [
        row | {"image": {"bytes": png("red"), "path": "a.png"}},
        row | {"image": {"bytes": b"<html>", "path": "b.png"}},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "test-0.parquet")
    found = score(trained, tmp_path, tmp_path / "s.json", name="ai2d")["ai2d"]["both"]
    assert (found["scored"], sum(found["missing"].values())) == (1, 1)


def test_rows_of_several_files_are_all_asked(trained: Path, tmp_path: Path) -> None:
    """These sets have no ids, and rows are counted from 0 in every file."""
    row = {"question": "Which?", "options": ["red", "blue"], "answer": "1"}
    for name in ("test-0", "test-1"):
        rows = [row | {"image": {"bytes": png("red"), "path": "a.png"}}]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    found = score(trained, tmp_path, tmp_path / "s.json", name="ai2d")["ai2d"]["both"]
    assert (found["questions"], found["scored"], found["with_subtitles"]) == (2, 2, 0)
    lines = (tmp_path / "s.ai2d.both.jsonl").read_text().splitlines()[1:]
    assert [json.loads(line)["id"] for line in lines] == ["test-0.parquet:0:", "test-1.parquet:0:"]


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("video_nme=x", "'video_nme' is none of video_mme"),
        ("video_mme", "no such folder; write video_mme=FOLDER"),
        ("video_mme=/no/such/folder", "no such folder"),
    ],
)
def test_a_copy_that_is_not_there_is_named(named: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        copies([named])


def test_subtitles_of_both_forms_are_those_on_screen() -> None:
    text = (
        "1\n00:00:01,000 --> 00:00:02,500\n"
        '<font color="white" size=".72c">Hello &amp; hi</font>\n\nnot a cue\n\n'
        "2\n00:01:00,000 --> 00:01:02,000\nlater\n"
    )
    assert srt(text) == [(1.0, 2.5, "Hello & hi"), (60.0, 62.0, "later")]
    rows = [
        {"timestamp": [0.5, 1.5], "text": "one"},
        {"start": "00:00:02.000", "end": "00:00:03", "line": "two"},
        {"timestamp": [None, 4.0], "text": "never"},
        {"timestamp": [40.0, None], "text": "to the end"},
    ]
    cues = json_subtitles(json.dumps(rows))
    assert [words for _, _, words in cues] == ["one", "two", "to the end"]
    assert on_screen(cues, [39.0, 1e6]) == "to the end"
    assert on_screen(cues, [1.0, 1.2, 9.0]) == "one"
    assert (json_subtitles("{"), json_subtitles("[" * 100_000), srt("")) == ([], [], [])


def test_subtitles_of_a_cut_are_on_its_own_clock(tmp_path: Path) -> None:
    (tmp_path / "subtitles").mkdir()
    cues = [{"timestamp": [61.0, 62.0], "text": "one"}]
    (tmp_path / "subtitles" / "a.json").write_text(json.dumps(cues))
    row = {
        "id": "a",
        "video_path": "a.mp4",
        "question": "q",
        "candidates": ["x", "y"],
        "correct_choice": 0,
        "subtitle_path": "a.json",
    }
    rows = [row | {"starting_timestamp_for_subtitles": at} for at in (60, "60")]
    (tmp_path / "lvb_val.json").write_text(json.dumps(rows))
    copy = Copy(benchmark=BENCHMARKS["longvideobench"], folder=tmp_path)
    item, bad = copy.items()
    assert isinstance(item, BenchmarkItem)
    assert isinstance(bad, RowRefusal)
    assert copy.subtitles(item) == [(1.0, 2.0, "one")]


def test_media_stand_where_the_text_names_them() -> None:
    first, second, third = (object(), object(), object())
    asked = VisualQuestion(text="Is <image 3> like <image 1>?", seen=(first, second, third))  # type: ignore[arg-type]
    turn, seen = placed(asked)
    assert turn.text == "Is  like ?"
    assert seen == (second, third, first)
    assert turn.media == ((0, 0), (1, 3), (2, 9))


# Ranks, parts and bounds -----------------------------------------------------------


SHOWN = ("both", "none", "shuffled_frames")


def check_the_same(alone: dict[str, Any], folder: Path) -> None:
    """b.json and its predictions are those of a.json, and each video was encoded once a view."""
    for shown in SHOWN:
        one, other = (folder / f"{name}.egoschema.{shown}.jsonl" for name in "ab")
        assert one.read_bytes() == other.read_bytes()
    shared = json.loads((folder / "b.json").read_text())
    assert tuple(alone["egoschema"]) == SHOWN
    assert shared["benchmarks"]["egoschema"] == alone["egoschema"]
    assert shared["work"]["egoschema"] == {"asked": 24, "decoded": 4, "encoded": 8}
    assert not list(folder.glob("*.part"))


class Ranks:
    """Ranks of one launch as threads of this process."""

    def __init__(self, world: int, patch: pytest.MonkeyPatch) -> None:
        self.world, self.own = world, threading.local()
        self.barrier = threading.Barrier(world, timeout=60)
        self.told: list[Any] = [None] * world
        lock = threading.Lock()

        def loaded(*given: Any, **named: Any) -> Answerer:
            with lock:  # transformers loads one model at a time
                return Answerer(*given, **named)

        patch.setattr("train.evaluation.evaluate.Answerer", loaded)
        patch.setattr("train.ranks.rank", lambda: self.own.rank)
        patch.setattr("train.ranks.world_size", lambda: world)
        patch.setattr("train.ranks.by_each", self.by_each)
        patch.setattr("train.ranks.by_first", self.by_first)

    def by_each(self, work: Callable[[], Any]) -> list[Any]:
        self.told[self.own.rank] = work()
        self.barrier.wait()
        told = list(self.told)
        self.barrier.wait()
        return told

    def by_first(self, work: Callable[[], Any]) -> Any:
        return self.by_each(lambda: work() if self.own.rank == 0 else None)[0]

    def run(self, work: Callable[[], Any]) -> None:
        def one(rank: int) -> None:
            self.own.rank = rank
            try:
                work()
            except BaseException:
                self.barrier.abort()
                raise

        with ThreadPoolExecutor(self.world) as threads:
            list(threads.map(one, range(self.world)))


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_the_videos_and_leave_the_file_of_one(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: int
) -> None:
    copy = egoschema(tmp_path / "copy", videos=5)
    alone = score(trained, copy, tmp_path / "a.json", conditions=[])
    with monkeypatch.context() as patch:
        ranks = Ranks(world, patch)
        ranks.run(lambda: score(trained, copy, tmp_path / "b.json", conditions=[]))
    check_the_same(alone, tmp_path)


@pytest.mark.faults
@pytest.mark.parametrize("world", [2, 3])
def test_processes_of_a_launch_do_so(trained: Path, tmp_path: Path, world: int) -> None:
    copy = egoschema(tmp_path / "copy", videos=5)
    alone = score(trained, copy, tmp_path / "a.json", conditions=[])
    words = f"--model {trained} --benchmark egoschema={copy} --out {tmp_path}/b.json"
    launch(["train", "evaluate", *words.split()], 300, world)
    check_the_same(alone, tmp_path)


def test_questions_that_another_rank_wrote_elsewhere_are_not_taken_for_none(
    trained: Path, tmp_path: Path
) -> None:
    (copy,) = copies([f"egoschema={egoschema(tmp_path / 'copy')}"])
    score(trained, copy.folder, tmp_path / "a.json", conditions=["none"])
    file = tmp_path / "a.egoschema.none.jsonl"
    check_asked(copy, read_lines(file), file)
    with pytest.raises(UserError, match=r"1 of 6 questions have no prediction .*processes share"):
        check_asked(copy, read_lines(file)[:-1], file)


def test_pictures_are_not_shuffled(trained: Path, tmp_path: Path) -> None:
    copy = Copy(benchmark=BENCHMARKS["textvqa_val"], folder=tmp_path)
    with pytest.raises(UserError, match="textvqa_val shows pictures, which have no order"):
        evaluate(
            trained, [], ["shuffled_frames"], tmp_path / "a.json", Console(), benchmarks=[copy]
        )


def test_a_pathway_that_the_model_was_never_shown_is_refused() -> None:
    check_pathways("both", ["slow", "fast", "none"])
    check_pathways("slow", ["slow", "none", "shuffled_frames"])
    with pytest.raises(UserError, match="--pathways fast: the model was trained on slow alone"):
        check_pathways("slow", ["slow", "fast"])


def test_replies_that_were_cut_are_counted_where_nobody_scores_them() -> None:
    summary = Prediction(
        id="a",
        published="a",
        place=0,
        video="v",
        question="what happens?",
        groups={"task": ["summary"]},
        answers=["much"],
        options=0,
        reply="a",
        cut=True,
    )
    assert scores([summary], prompts("mlvu"))["cut"] == 1
    assert prompts("mlvu").max_new_tokens == 256


def test_groups_are_dealt_whole_and_all_of_them() -> None:
    groups = [[i] for i in range(7)]
    for world in (1, 2, 3):
        shard_of_rank = [
            list(benchmark.shard_of_rank(groups, rank, world)) for rank in range(world)
        ]  # type: ignore[arg-type]
        assert sorted(one for each in shard_of_rank for one in each) == groups


def test_questions_on_a_video_are_asked_together_wherever_they_stand(
    trained: Path, tmp_path: Path
) -> None:
    copy = egoschema(tmp_path / "copy", videos=4)
    rows = pq.read_table(copy / "a.parquet").to_pylist()
    # first the first question of every video, then the second
    pq.write_table(pa.Table.from_pylist(rows[::2] + rows[1::2]), copy / "a.parquet")
    found = score(trained, copy, tmp_path / "s.json")
    assert found["work"] == {"asked": 6, "decoded": 3, "encoded": 3}
    lines = (tmp_path / "s.egoschema.both.jsonl").read_text().splitlines()[1:]
    assert [json.loads(line)["place"] for line in lines] == list(range(8))


def seen_alive() -> int:
    """How many decoded media are held by anything."""
    gc.collect()
    return sum(type(one) is Seen for one in gc.get_objects())


@pytest.mark.parametrize("limit", [1, 1 << 30])
def test_media_are_held_within_a_bound(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    copy = egoschema(tmp_path / "copy", videos=5)
    windows: list[int] = []
    before = seen_alive()
    see = see_references

    def watched(answerer: Any, one: Any, wanted: Any) -> Any:
        # the window before is gone before this one is decoded
        assert seen_alive() == before
        windows.append(len(set(wanted)))
        return see(answerer, one, wanted)

    monkeypatch.setattr(benchmark, "see_references", watched)
    score(trained, copy, tmp_path / "s.json", media_memory=limit)
    assert windows == ([1] * 5 if limit == 1 else [1, 4])


def test_what_a_killed_rank_left_is_gathered_and_not_asked_again(
    trained: Path, tmp_path: Path
) -> None:
    copy = egoschema(tmp_path / "copy", videos=3)
    whole = score(trained, copy, tmp_path / "a.json")
    head, *lines = (tmp_path / "a.egoschema.both.jsonl").read_text().splitlines(keepends=True)
    file = tmp_path / "b.egoschema.both.jsonl"
    # two ranks were killed: one in the middle of its second line, one before it wrote its head
    (tmp_path / f"{file.name}.0.part").write_text(head + lines[3] + lines[4][:30])
    (tmp_path / f"{file.name}.1.part").write_text(head[:10])
    again = score(trained, copy, tmp_path / "b.json")
    assert again["egoschema"] == whole["egoschema"]
    assert file.read_text() == "".join([head, *lines])
    assert again["work"]["asked"] == whole["work"]["asked"] - 1


@pytest.mark.parametrize(
    ("text", "message"),
    [("[]\n", "another run"), ("x\n", "damaged"), ("[" * 100_000 + "\n", "damaged")],
    ids=["list", "text", "deep"],
)
def test_a_file_that_holds_no_predictions_is_named(
    trained: Path, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "a.egoschema.both.jsonl").write_text(text)
    with pytest.raises(UserError, match=message):
        score(trained, egoschema(tmp_path / "copy", videos=1), tmp_path / "a.json")
