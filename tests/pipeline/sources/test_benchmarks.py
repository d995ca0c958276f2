"""Each published layout, written by hand with its quirks, read by its benchmark's reader."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.sources import FORMATS, records
from pipeline.sources.benchmarks import BENCHMARKS
from pipeline.sources.benchmarks.item import (
    BadRow,
    BenchmarkItem,
    bare_options,
    free_answers,
    split_options,
)
from pipeline.sources.records import Record, RowRefusal
from shards.errors import UserError


def parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def jsons(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def picture() -> dict[str, Any]:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(data, "PNG")
    return {"bytes": data.getvalue(), "path": "a.png"}


def items(name: str, copy: Path) -> list[BenchmarkItem | RowRefusal]:
    benchmark = BENCHMARKS[name]
    return [item for path in benchmark.files(copy) for item in benchmark.items(path)]


def only(name: str, copy: Path) -> BenchmarkItem:
    (item,) = items(name, copy)
    assert isinstance(item, BenchmarkItem), item
    return item


def names(item: BenchmarkItem) -> list[str]:
    (ref,) = item.media
    return [ref.name, *ref.also]


VIDEO_MME: dict[str, Any] = {
    "videoID": "fFjv93ACGo8",
    "question_id": "001-1",
    "question": "How many cups?",
    "options": ["A. One.", "B. Two.", "C. Three.", "D. Four."],
    "answer": "C",
    "duration": "short",
    "domain": "Knowledge",
    "sub_category": "Law",
    "task_type": "Counting Problem",
}


def test_video_mme_has_lettered_options_durations_and_subtitles(tmp_path: Path) -> None:
    parquet(tmp_path / "videomme" / "test-00000-of-00001.parquet", [VIDEO_MME])
    item = only("video_mme", tmp_path)
    assert item.options == ("One.", "Two.", "Three.", "Four.")
    assert item.answers == ("C",)
    assert item.groups["duration"] == ("short",)
    assert item.subtitles == "fFjv93ACGo8.srt"
    assert names(item) == ["fFjv93ACGo8.mp4", "fFjv93ACGo8.mkv", "fFjv93ACGo8.webm"]


def test_a_row_that_cannot_be_read_is_a_refusal_that_names_it(tmp_path: Path) -> None:
    bad = [{"answer": "E"}, {"question": " "}, {"options": ["A. a", " "]}, {"videoID": ""}]
    parquet(tmp_path / "a.parquet", [VIDEO_MME | change for change in bad])
    found = items("video_mme", tmp_path)
    assert [one.code for one in found if isinstance(one, RowRefusal)] == [
        *("ROW_BAD_ANSWER", "TURN_EMPTY", "ROW_MISSING_FIELD", "ROW_WRONG_TYPE")
    ]
    assert all(isinstance(one, RowRefusal) and one.record.endswith("001-1") for one in found)


def test_longvideobench_in_both_forms_and_without_answers(tmp_path: Path) -> None:
    row = {
        "id": "86CxyhFV9MI_0",
        "video_path": "86CxyhFV9MI.mp4",
        "subtitle_path": "86CxyhFV9MI_en.json",
        "question": "What is on the table?",
        "correct_choice": 1,
        "duration_group": 15,
        "question_category": "S2E",
    }
    options = {f"option{i}": text for i, text in enumerate(["cup", "pen", "hat", "N/A", "N/A"])}
    parquet(tmp_path / "p" / "validation-00000-of-00001.parquet", [row | options])
    jsons(tmp_path / "j" / "lvb_val.json", [row | {"candidates": ["cup", "pen", "hat"]}])
    for copy in ("p", "j"):
        item = only("longvideobench", tmp_path / copy)
        assert (item.options, item.answers) == (("cup", "pen", "hat"), ("B",))
        assert item.groups == {"duration": ("15",), "task": ("S2E",)}
        assert names(item) == ["86CxyhFV9MI.mp4"]
        assert item.subtitles == "86CxyhFV9MI_en.json"
    jsons(tmp_path / "t" / "lvb_val.json", [row | options | {"correct_choice": -1}])
    assert only("longvideobench", tmp_path / "t").answers == ()


def test_mlvu_from_the_authors_files_and_from_the_parquet_copy(tmp_path: Path) -> None:
    row = {
        "video": "movie101_66.mp4",
        "duration": 246.0,
        "question": "What colour is the coat?",
        "candidates": ["Yellow", "Red", "Green", "Blue"],
        "answer": "Green",
        "question_type": "plotQA",
    }
    summary = {"video": "217.mp4", "question": "Sum up.", "answer": "A film.", "duration": 1.0}
    jsons(tmp_path / "a" / "json" / "1_plotQA.json", [row])
    jsons(tmp_path / "a" / "json" / "9_summary.json", [summary | {"question_type": "summary"}])
    choice, text = items("mlvu", tmp_path / "a")
    assert isinstance(choice, BenchmarkItem)
    assert isinstance(text, BenchmarkItem)
    assert (choice.answers, choice.groups) == (("C",), {"task": ("plotQA",)})
    assert (text.options, text.answers) == ((), ("A film.",))
    lines = "What colour is the coat?\n(A) Yellow\n(B) Red\n(C) Green\n(D) Blue"
    copy = {"video_name": "a.mp4", "question": lines, "answer": "C", "task_type": "PQA"}
    parquet(tmp_path / "b" / "test-00000-of-00001.parquet", [copy])
    item = only("mlvu", tmp_path / "b")
    assert (item.question, item.options[2]) == ("What colour is the coat?", "Green")
    assert (item.answers, item.groups) == (("C",), {"task": ("PQA",)})


def test_lvbench_has_several_abilities_and_options_in_the_question(tmp_path: Path) -> None:
    qa = {
        "uid": "0",
        "question": "What year?\n(A) 1636\n(B) 1366\n(C) 1363\n(D) 1633",
        "answer": "D",
        "question_type": ["key information retrieval", "event understanding"],
        "time_reference": "00:15-00:19",
    }
    line = json.dumps({"key": "Cm73ma6Ibcs", "type": "cartoon", "qa": [qa, "x"]})
    (tmp_path / "video_info.meta.jsonl").write_text(f"{line}\n" + '{"key": "none"}\n')
    item, *bad = items("lvbench", tmp_path)
    assert isinstance(item, BenchmarkItem)
    assert (item.question, item.options[0], item.answers) == ("What year?", "1636", ("D",))
    assert item.groups["task"] == ("key information retrieval", "event understanding")
    assert names(item)[0] == "Cm73ma6Ibcs.mp4"
    assert [one.code for one in bad if isinstance(one, RowRefusal)] == [
        *("ROW_WRONG_TYPE", "ROW_MISSING_FIELD")
    ]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_nextqa_counts_answers_from_0_and_names_videos_by_number(tmp_path: Path, form: str) -> None:
    row = {
        "video": 4010069381,
        "question": "why did the baby stop",
        "answer": 4,
        "qid": 6,
        "type": "CW",
        **{f"a{i}": text for i, text in enumerate(["a", "b", "c", "d", "e"])},
    }
    if form == "csv":
        with (tmp_path / "test.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            writer.writeheader()
            writer.writerow(row)
    else:
        parquet(tmp_path / "MC" / "test-00000-of-00001.parquet", [row])
    item = only("nextqa_mc", tmp_path)
    assert (item.answers, item.groups["kind"]) == (("E",), ("causal",))
    assert names(item)[0] == "4010069381.mp4"


def test_perception_test_from_the_authors_json_and_from_parquet(tmp_path: Path) -> None:
    asked = {
        "id": 2,
        "question": "Where is the cup?",
        "options": ["left", "right", "nowhere"],
        "answer_id": 1,
        "area": "physics",
        "reasoning": "descriptive",
        "tag": ["motion"],
    }
    jsons(tmp_path / "j" / "mc_question_valid.json", {"video_10": {"mc_question": [asked]}})
    row = {"video_name": "video_10", "question_id": "2", **asked} | {"answer_id": "1"}
    parquet(tmp_path / "p" / "test.parquet", [row])
    for copy in ("j", "p"):
        item = only("perception_test_mc", tmp_path / copy)
        assert (item.answers, item.groups["area"]) == (("B",), ("physics",))
        assert names(item)[0] == "video_10.mp4"


def test_activitynet_names_videos_by_v_and_asks_with_one_mark(tmp_path: Path) -> None:
    row = {
        "video_name": "1QIUV7WYKXg",
        "question_id": "v_1QIUV7WYKXg_3",
        "question": "is the athlete wearing trousers",
        "answer": "yes",
        "type": "3",
    }
    parquet(tmp_path / "data" / "test-0.parquet", [row])
    item = only("activitynet_qa_test", tmp_path)
    assert item.question.endswith("trousers?")
    assert (item.answers, names(item)[0]) == (("yes",), "v_1QIUV7WYKXg.mp4")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(None, ()), ([], ()), (["", " "], None), ("", None), (["", "x "], ("x",)), (3, ("3",))],
)
def test_a_blank_text_is_no_free_answer(answer: object, expected: tuple[str, ...] | None) -> None:
    if expected is None:
        with pytest.raises(BadRow, match="blank"):
            free_answers(answer)
    else:
        assert free_answers(answer) == expected


def test_mvbench_takes_task_folders_spans_and_frames(tmp_path: Path) -> None:
    row = {"video": "ZS9XR.mp4", "question": "What?", "candidates": ["x", "y"], "answer": "y"}
    jsons(tmp_path / "json" / "action_sequence.json", [row | {"start": 1.5, "end": 4.0}])
    frames = row | {"video": "friends_s03e09", "start": 0.0, "end": 2.0}
    jsons(tmp_path / "json" / "episodic_reasoning.json", [frames])
    jsons(tmp_path / "json" / "object_shuffle.json", [row | {"answer": "z"}])
    span, folder, bad = items("mvbench", tmp_path)
    assert isinstance(span, BenchmarkItem)
    assert isinstance(folder, BenchmarkItem)
    assert names(span) == ["star/Charades_v1_480/ZS9XR.mp4"]
    assert span.media[0].span == (1_500_000, 4_000_000)
    assert (folder.media[0].fps, folder.groups["task"]) == (3, ("episodic_reasoning",))
    assert isinstance(bad, RowRefusal)
    assert bad.code == "ROW_BAD_ANSWER"


def test_tempcompass_has_choices_yes_or_no_and_captions(tmp_path: Path) -> None:
    base = {"video_id": "1021488277", "dim": "action"}
    choice = {"question": "What is he doing?\nA. running\nB. eating", "answer": "B. eating"}
    yes = {"question": "Is he running?", "answer": "no"}
    match = {
        "question": "Which caption matches?\nCaption A: He runs.\nCaption B: He eats.",
        "answer": "Caption B: He eats.",
    }
    parquet(tmp_path / "multi-choice" / "test-0.parquet", [base | choice])
    parquet(tmp_path / "yes_no" / "test-0.parquet", [base | yes])
    parquet(tmp_path / "caption_matching" / "test-0.parquet", [base | match])
    # what a judge would score is not read, whether it has a column of answers or none
    parquet(tmp_path / "captioning" / "test-0.parquet", [base | {"question": "Describe it."}])
    found = [one for one in items("tempcompass", tmp_path) if isinstance(one, BenchmarkItem)]
    by_task = {one.groups["task"][0]: one for one in found}
    assert by_task["multi-choice"].answers == ("B",)
    assert (by_task["yes_no"].options, by_task["yes_no"].answers) == ((), ("no",))
    assert by_task["caption_matching"].options == ("He runs.", "He eats.")
    assert by_task["caption_matching"].answers == ("B",)


def test_egoschema_hides_most_answers(tmp_path: Path) -> None:
    row = {
        "question_idx": "1",
        "question": "What for?",
        "video_idx": "001934bb",
        "option": [f"{letter}. thing {letter}" for letter in "ABCDE"],
    }
    parquet(tmp_path / "Subset" / "test-0.parquet", [row | {"answer": "3"}, row | {"answer": None}])
    known, hidden = items("egoschema", tmp_path)
    assert isinstance(known, BenchmarkItem)
    assert isinstance(hidden, BenchmarkItem)
    assert (known.options[0], known.answers, hidden.answers) == ("thing A", ("D",), ())


def test_mmmu_takes_the_images_that_its_text_names(tmp_path: Path) -> None:
    row = {
        "id": "validation_Art_Theory_3",
        "question": "<image 1> Which one is it?",
        "options": "['<image 3>', 'none of them']",
        "answer": "A",
        "question_type": "multiple-choice",
        "image_1": picture(),
        "image_2": picture(),
        "image_3": picture(),
    }
    opened = row | {"question_type": "open", "options": "[]", "answer": "['3', 'three']"}
    parquet(tmp_path / "Art_Theory" / "validation-0.parquet", [row, opened])
    choice, text = items("mmmu_val", tmp_path)
    assert isinstance(choice, BenchmarkItem)
    assert isinstance(text, BenchmarkItem)
    first, third = choice.media
    assert ("image_1" in first.address, "image_3" in third.address) == (True, True)
    assert choice.groups["domain"] == ("Art and Design",)
    assert choice.groups["subject"] == ("Art_Theory",)
    assert (len(text.media), text.answers) == (1, ("3", "three"))


def test_mathvista_says_unit_and_kind_of_number(tmp_path: Path) -> None:
    row = {
        "pid": "7",
        "question": "How long?",
        "choices": None,
        "unit": "cm",
        "precision": 1.0,
        "answer": "1.5",
        "question_type": "free_form",
        "answer_type": "float",
        "decoded_image": picture(),
        "metadata": {"task": "geometry problem solving", "skills": ["arithmetic", "algebra"]},
    }
    chosen = row | {"choices": ["1", "1.5"], "question_type": "multi_choice", "unit": ""}
    parquet(tmp_path / "data" / "testmini-0.parquet", [row, chosen])
    number, choice = items("mathvista", tmp_path)
    assert isinstance(number, BenchmarkItem)
    assert isinstance(choice, BenchmarkItem)
    assert (number.question, number.number, number.precision) == (
        *("How long? (Unit: cm)", "float", 1),
    )
    assert number.groups["skills"] == ("arithmetic", "algebra")
    assert (choice.answers, choice.number) == (("B",), "")


def test_the_other_image_sets(tmp_path: Path) -> None:
    ai2d = {"question": "Which?", "options": ["a", "b"], "answer": "1", "image": picture()}
    parquet(tmp_path / "ai2d" / "data" / "test-0.parquet", [ai2d])
    assert only("ai2d", tmp_path / "ai2d").answers == ("B",)
    science = ai2d | {"choices": ["a", "b"], "answer": 0, "hint": "Look.", "grade": "grade4"}
    parquet(tmp_path / "sqa" / "ScienceQA-IMG" / "test-0.parquet", [science])
    item = only("scienceqa_img", tmp_path / "sqa")
    assert (item.question, item.answers) == ("Context: Look.\nWhich?", ("A",))
    asks = "Please answer directly with only the letter of the correct option and nothing else."
    world = {"question": f"Where?\nA. left\nB. right\n{asks}", "answer": "B", "image": picture()}
    short = {
        "question": "How many?\nPlease answer directly with a single word or number.",
        "answer": "3",
        "image": picture(),
    }
    parquet(tmp_path / "rw" / "data" / "test-0.parquet", [world, short])
    choice, text = items("realworldqa", tmp_path / "rw")
    assert isinstance(choice, BenchmarkItem)
    assert isinstance(text, BenchmarkItem)
    assert (choice.question, choice.options, choice.answers) == (
        "Where?",
        ("left", "right"),
        ("B",),
    )
    assert (text.question, text.options, text.answers) == ("How many?", (), ("3",))
    ocr = {
        "dataset": "IIIT5K",
        "question": "what is written?",
        "question_type": "Regular Text Recognition",
        "answer": ["CENTRE"],
        "image": picture(),
    }
    parquet(tmp_path / "ocr" / "data" / "test-0.parquet", [ocr])
    assert only("ocrbench", tmp_path / "ocr").answers == ("CENTRE",)
    vqa = {"question_id": 3, "question": "what brand?", "answers": ["nokia"] * 10}
    parquet(tmp_path / "vqa" / "data" / "validation-0.parquet", [vqa | {"image": picture()}])
    assert only("textvqa_val", tmp_path / "vqa").question == "What brand?"


def test_every_set_is_a_format_of_held_out_data(tmp_path: Path) -> None:
    assert set(BENCHMARKS) <= set(FORMATS)
    path = tmp_path / "a.parquet"
    parquet(path, [VIDEO_MME, VIDEO_MME | {"question_id": "001-2", "answer": None}])
    found = list(records("video_mme", [path]))
    assert [type(one) for one in found] == [Record, Record]
    (kept, _) = found
    assert isinstance(kept, Record)
    assert kept.turns[0].text.startswith("How many cups?\nA. One.\nB. Two.")
    assert kept.turns[0].media == ((0, 0),)
    assert kept.turns[1].text == "C"


def test_a_copy_without_annotations_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no lvb_val.json or .* of longvideobench"):
        items("longvideobench", tmp_path)


def test_options_are_found_only_where_all_bear_their_letters() -> None:
    assert split_options("Why?\nA. a\nB. b") == ("Why?", ("a", "b"))
    assert split_options("Why?\nA. a\nC. b") == ("Why?\nA. a\nC. b", ())
    assert split_options("A. is a letter\nB. too\nWhy?") == ("A. is a letter\nB. too\nWhy?", ())
    assert bare_options(["(A) x", "(B) y"]) == ("x", "y")
    assert bare_options(["Apple", "Banana"]) == ()
