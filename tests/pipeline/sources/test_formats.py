"""Each published format: one small real file in its shape, and the codes of its bad rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.sources import FORMATS, records
from pipeline.sources.media_lookup import folder_table
from pipeline.sources.questions import BRIEFLY, BY_LETTER, DESCRIBE
from pipeline.sources.records import MediaRef, Record, RowRefusal, once_each
from pipeline.untrusted import Problem
from shards.errors import UserError

TALK = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]


def written(path: Path, value: Any) -> Path:
    lines = path.suffix == ".jsonl"
    path.write_text("".join(json.dumps(v) + "\n" for v in value) if lines else json.dumps(value))
    return path


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def read(form: str, *paths: Path) -> list[Record | RowRefusal]:
    return list(FORMATS[form](*paths))


def one(form: str, *paths: Path) -> Record:
    (found,) = read(form, *paths)
    assert isinstance(found, Record), found
    return found


def codes(form: str, *paths: Path) -> list[str]:
    return ["" if isinstance(item, Record) else item.code for item in read(form, *paths)]


def said(record: Record) -> list[str]:
    return [turn.text for turn in record.turns]


# ActivityNet-QA --------------------------------------------------------------------

Q = {"video_name": "okC18bPTils", "question": "are all the people men", "question_id": "v_ok_3"}
A = {"answer": "no", "type": 3, "question_id": "v_ok_3"}


def test_activitynet_questions_are_joined_to_their_answers(tmp_path: Path) -> None:
    questions = written(tmp_path / "q.json", [Q])
    found = one("activitynet_qa", questions, written(tmp_path / "a.json", [A]))
    assert said(found) == [f"are all the people men?\n{BRIEFLY}", "no"]
    ref = found.media[0]
    assert (ref.name, ref.also) == (
        "v_okC18bPTils.mp4",
        ("v_okC18bPTils.mkv", "v_okC18bPTils.webm"),
    )
    assert [
        item.record for item in records("activitynet_qa", [questions, tmp_path / "a.json"])
    ] == ["v_ok_3"]


def test_a_question_without_one_answer_is_refused(tmp_path: Path) -> None:
    questions = [Q, Q | {"question_id": "v_x_1"}, {"question": "?"}, Q | {"question_id": "v_y"}]
    answers = [A, A | {"question_id": "v_y"}, A | {"question_id": "v_y"}]
    paths = written(tmp_path / "q.json", questions), written(tmp_path / "a.json", answers)
    assert codes("activitynet_qa", *paths) == ["", *["ROW_MISSING_FIELD"] * 3]
    with pytest.raises(UserError, match="two files"):
        read("activitynet_qa", paths[0])
    with pytest.raises(UserError, match="is this the file of answers"):
        read("activitynet_qa", paths[0], written(tmp_path / "n.json", [{"x": 1}]))


# Perception Test -------------------------------------------------------------------

MC = {"id": 0, "question": "Which?", "options": ["a", "b", "c"], "answer_id": 2, "area": "memory"}


def perception(tmp_path: Path, **metadata: Any) -> Path:
    entry = {"metadata": {"frame_rate": 29.97} | metadata, "mc_question": [MC]}
    return written(tmp_path / "all_train.json", {"video_1": entry})


def test_perception_test_asks_for_a_letter(tmp_path: Path) -> None:
    found = one("perception_test", perception(tmp_path))
    assert found.record == "video_1/0" and found.media[0].span is None
    assert said(found) == [f"Which?\nA. a\nB. b\nC. c\n{BY_LETTER}", "C"]


def test_a_cup_game_is_cut_before_its_end(tmp_path: Path) -> None:
    cuts = written(tmp_path / "cuts.json", {"video_1": 300})
    annotations = perception(tmp_path, is_cup_game=1)
    found = one("perception_test", annotations, cuts)
    assert found.media[0].span == (0, round(300 / 29.97 * 1_000_000))
    assert codes("perception_test", annotations) == ["SPAN_INVALID"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"answer_id": 3}, "ROW_BAD_ANSWER"),
        ({"answer_id": -1}, "ROW_BAD_ANSWER"),
        ({"answer_id": "2"}, "ROW_WRONG_TYPE"),
        ({"options": ["a", "", "c"]}, "ROW_MISSING_FIELD"),
        ({"options": [1, 2, 3]}, "ROW_WRONG_TYPE"),
        ({"question": " "}, "TURN_EMPTY"),
    ],
)
def test_bad_questions_of_perception_test(
    tmp_path: Path, change: dict[str, Any], code: str
) -> None:
    value = {"v": {"mc_question": [MC | change, MC]}, "w": {}, "x": []}
    path = written(tmp_path / "a.json", value)
    assert codes("perception_test", path) == [code, "", "ROW_MISSING_FIELD", "ROW_MISSING_FIELD"]


# VideoChat2-IT ---------------------------------------------------------------------


def test_videochat2_rows_become_conversations(tmp_path: Path) -> None:
    pairs = [{"i": "Look.", "q": "Who?", "a": "He."}, {"i": "Look.", "q": "Why?", "a": "So."}]
    row = {"video": "a/b.mp4", "QA": pairs, "start": 1, "end": 2.5}
    found = one("videochat2_it", written(tmp_path / "a.json", [row]))
    assert said(found) == ["Look.\nWho?", "He.", "Why?", "So."]
    assert found.media[0].span == (1_000_000, 2_500_000)
    assert found.turns[0].media == ((0, 0),) and found.turns[2].media == ()


def test_videochat2_captions_have_an_instruction_only(tmp_path: Path) -> None:
    rows = [
        {"image": "a.jpg", "QA": [{"i": "Describe it.", "q": "", "a": "A cat."}]},
        {"video": "a.gif", "QA": [{"q": "Who?", "a": "He."}]},
        {"image": "b.jpg", "QA": [{"i": "", "q": "", "a": "A cat."}]},
        {"image": "b.jpg", "QA": [{"q": "Who?"}]},
        {"image": "b.jpg", "QA": "Who?"},
        {"image": "b.jpg"},
    ]
    path = written(tmp_path / "a.json", rows)
    assert codes("videochat2_it", path) == [
        "",
        "",
        "TURN_EMPTY",
        "ROW_WRONG_TYPE",
        "ROW_WRONG_TYPE",
        "ROW_MISSING_FIELD",
    ]


# ShareGPT4Video, VideoInstruct -----------------------------------------------------


def test_sharegpt4video_uses_the_whole_caption(tmp_path: Path) -> None:
    captions = [{"idx": "0", "content": "part"}, {"idx": "-1", "content": "The whole."}]
    row = {"video_id": "v", "video_path": "panda/v.mp4", "zip_folder": "x.zip"}
    rows = [
        row | {"captions": captions},
        row | {"captions": captions[:1]},
        row | {"captions": [{"idx": -1, "content": "a number"}]},
        row | {"captions": None},
        row,
    ]
    path = written(tmp_path / "a.jsonl", rows)
    first = read("sharegpt4video", path)[0]
    assert isinstance(first, Record) and said(first) == [DESCRIBE, "The whole."]
    missing = "ROW_MISSING_FIELD"
    assert codes("sharegpt4video", path) == ["", missing, missing, "ROW_WRONG_TYPE", missing]


def test_videoinstruct_rows_lose_their_makers_label(tmp_path: Path) -> None:
    row = {"video_id": "v_abc", "q": "QA_GT_caption_based_noisy Who?", "a": "He."}
    path = written(tmp_path / "a.json", [row, row | {"a": None}, {"q": "Who?"}])
    first = read("video_instruct", path)[0]
    assert isinstance(first, Record) and said(first) == ["Who?", "He."]
    assert first.media[0].name == "v_abc.mp4" and first.record == "v_abc#0"
    assert codes("video_instruct", path) == ["", "ROW_WRONG_TYPE", "ROW_MISSING_FIELD"]


# LLaVA-Hound, Oryx -----------------------------------------------------------------


def test_hound_videos_are_folders_of_pictures(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "video": "v_one", "conversations": TALK},
        {"id": "b", "video": "x/v_two.mp4", "conversations": TALK},
        {
            "id": "c",
            "video": "v",
            "conversations": TALK[:1],
            "chosen": TALK[1],
            "rejected": TALK[1],
        },
    ]
    path = written(tmp_path / "a.jsonl", rows)
    first, second, third = read("llava_hound", path)
    assert isinstance(first, Record) and isinstance(second, Record)
    assert first.media[0] == MediaRef(kind="video", name="v_one", fps=2)
    assert second.media[0].also == ("x/v_two",)
    assert isinstance(third, RowRefusal) and third.code == "ROW_PREFERENCE"


def test_oryx_rows_name_pieces_of_a_file(tmp_path: Path) -> None:
    spot = {"patch": "patch_000000", "start_num": 26, "size": [56, 89]}
    rows = [
        {"id": "v", "video": spot, "conversations": TALK},
        {"id": "i", "image": spot | {"size": 56}, "conversations": TALK},
        {"id": "j", "image": spot, "conversations": TALK},
        {"id": "k", "video": spot | {"size": [-1]}, "conversations": TALK},
        {"id": "l", "video": spot | {"size": []}, "conversations": TALK},
        {"id": "m", "video": spot | {"start_num": "26"}, "conversations": TALK},
        {"id": "n", "video": {"patch": "p"}, "conversations": TALK},
        {"id": "o", "video": spot | {"patch": "/etc/passwd"}, "conversations": TALK},
    ]
    path = written(tmp_path / "a.json", rows)
    first = read("oryx_patches", path)[0]
    assert isinstance(first, Record)
    assert first.media[0] == MediaRef(
        kind="video", name="patch_000000", start=26, sizes=(56, 89), fps=1
    )
    wrong = "ROW_WRONG_TYPE"
    missing = "ROW_MISSING_FIELD"
    assert codes("oryx_patches", path) == [
        "", "", wrong, wrong, wrong, wrong, missing, "MEDIA_PATH_REFUSED",
    ]  # fmt: skip


# Parquet ---------------------------------------------------------------------------


def test_finevideo_rows_hold_their_video(tmp_path: Path) -> None:
    about = {"description": "A cook."}
    rows = [
        {"mp4": b"....ftypmp42", "json": {"qAndA": [{"question": "Who?", "answer": "A cook."}],
                                          "content_metadata": about}},
        {"mp4": b"....ftypmp42", "json": {"qAndA": [], "content_metadata": about}},
        {"mp4": b"", "json": {"qAndA": [], "content_metadata": about}},
        {"mp4": None, "json": {"qAndA": [], "content_metadata": about}},
        {"mp4": b"x", "json": {"qAndA": [], "content_metadata": {"description": None}}},
    ]  # fmt: skip
    path = table(tmp_path / "a.parquet", rows)
    found = read("finevideo", path)
    assert isinstance(found[0], Record) and said(found[0]) == ["Who?", "A cook."]
    assert isinstance(found[1], Record) and said(found[1]) == [DESCRIBE, "A cook."]
    assert found[1].media[0].address == f"parquet:{path}#000000001/0"
    wrong = "ROW_WRONG_TYPE"
    assert codes("finevideo", path) == ["", "", "MEDIA_EMPTY", wrong, wrong]


def test_pixmo_rows_name_an_address(tmp_path: Path) -> None:
    url = "https://example.org/a.jpg"
    captions = [{"image_url": url, "caption": "A cat."}, {"image_url": None, "caption": "A cat."}]
    path = table(tmp_path / "c.parquet", captions)
    first = read("image_urls", path)[0]
    assert isinstance(first, Record) and first.media[0].url == url
    assert codes("image_urls", path) == ["", "ROW_WRONG_TYPE"]
    asked = table(
        tmp_path / "q.parquet", [{"image_url": url, "question": "Who?", "answer": "A cat."}]
    )
    assert said(one("image_urls", asked)) == ["Who?", "A cat."]
    counts = [
        {"label": label, "count": 3, "points": [{"x": 1.5, "y": 2.0}]} for label in ("cup", "")
    ]
    counted = table(tmp_path / "n.parquet", [row | {"image_url": url} for row in counts])
    found = read("image_urls", counted)[0]
    assert isinstance(found, Record) and found.turns[0].text.startswith('How many of "cup" are')
    assert said(found)[1] == "3"
    assert codes("image_urls", counted) == ["", "ROW_WRONG_TYPE"]


def test_an_address_that_is_not_public_is_refused_when_it_is_looked_up() -> None:
    for url in ("http://example.org/a.jpg", "https://127.0.0.1/a.jpg", "file:///etc/passwd"):
        found = folder_table(None).find(MediaRef(kind="image", url=url))
        assert isinstance(found, Problem) and found.code == "FETCH_ADDRESS_REFUSED"


def test_cinepile_rows_are_used_where_the_video_is_there(tmp_path: Path) -> None:
    row = {
        "yt_clip_link": "https://www.youtube.com/watch?v=abc",
        "question": "Who?",
        "choices": ["a", "b", "c", "d", "e"],
        "answer_key_position": 1,
    }
    path = table(tmp_path / "a.parquet", [row, row | {"yt_clip_link": "https://x.org/"}])
    first = read("cinepile", path)[0]
    assert isinstance(first, Record) and said(first)[1] == "B"
    assert codes("cinepile", path) == ["", "ROW_WRONG_TYPE"]
    missing = folder_table(tmp_path).find(first.media[0])
    assert isinstance(missing, Problem) and missing.code == "MEDIA_LINK_ONLY"
    (tmp_path / "abc.webm").write_bytes(b"film")
    assert not isinstance(folder_table(tmp_path).find(first.media[0]), Problem)


@pytest.mark.parametrize("form", ["finevideo", "image_urls", "cinepile"])
def test_a_parquet_of_other_columns_is_an_error_with_its_name(tmp_path: Path, form: str) -> None:
    with pytest.raises(UserError, match=r"other\.parquet: columns \['x'\]"):
        read(form, table(tmp_path / "other.parquet", [{"x": 1}]))


# ShareGPT messages -----------------------------------------------------------------


def test_messages_place_images_and_videos_in_the_order_they_are_named(tmp_path: Path) -> None:
    row = {
        "messages": [
            {"role": "user", "content": "<video>Like <image>?"},
            {"role": "assistant", "content": "Yes."},
        ],
        "images": ["a.jpg"],
        "videos": ["b.mp4"],
    }
    found = one("sharegpt_messages", written(tmp_path / "a.json", [row]))
    assert [ref.name for ref in found.media] == ["b.mp4", "a.jpg"]
    assert found.turns[0].text == "Like ?" and found.turns[0].media == ((0, 0), (1, 5))
    more = row | {"images": ["a.jpg", "c.jpg"]}
    fewer = row | {"images": []}
    path = written(tmp_path / "b.jsonl", [more, fewer, {"images": []}])
    assert codes("sharegpt_messages", path) == [
        "MEDIA_PLACEHOLDER_COUNT",
        "TEXT_SPECIAL_TOKEN",
        "ROW_MISSING_FIELD",
    ]


# Variants of the LLaVA form --------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"video": "a.mp4", "duration": 200.7, "src": [12], "tgt": [36], "task": "slc"}, ""),
        ({"image": ["a.jpg"]}, ""),
        ({"image": "a.jpg", "source": "coco", "model": ""}, ""),
        ({"image": "a.jpg", "license": "CC-BY-4.0"}, ""),
        ({"video": "a.mp4", "chosen": {"from": "gpt", "value": "x"}}, "ROW_PREFERENCE"),
        ({"image": None, "video": None}, "TEXT_SPECIAL_TOKEN"),
        ({"image": "", "img": "a.jpg"}, "ROW_MISSING_FIELD"),
        ({"image_file": "a.jpg"}, "ROW_MISSING_FIELD"),
    ],
)
def test_variants_of_llava_rows(tmp_path: Path, row: dict[str, Any], code: str) -> None:
    path = written(tmp_path / "a.json", [{"id": 0, "conversations": TALK} | row])
    assert codes("llava_json", path) == [code]
    if "license" in row:
        assert one("llava_json", path).licence == "CC-BY-4.0"


def test_files_that_count_from_zero_do_not_clash(tmp_path: Path) -> None:
    row = {"id": 0, "image": "a.jpg", "conversations": TALK}
    other = row | {"image": "b.jpg"}
    for folder, value in (("x", row), ("y", other)):
        (tmp_path / folder).mkdir()
        written(tmp_path / folder / "train.json", [value])
    paths = [tmp_path / "x/train.json", tmp_path / "y/train.json"]
    found = list(once_each(records("llava_json", paths)))
    assert [item.record for item in found] == ["train#0:0", "train#1:0"]
    assert all(isinstance(item, Record) for item in found)


def test_ids_that_repeat_are_numbered_where_the_publisher_lets_them(tmp_path: Path) -> None:
    row = {"id": "a", "conversations": TALK}
    rows = [row | {"image": name} for name in ("1.jpg", "2.jpg", "1.jpg", "3.jpg")]
    path = written(tmp_path / "a.json", rows)
    found = list(once_each(FORMATS["llava_json"](path), ids_repeat=True))
    assert [getattr(item, "code", item.record) for item in found] == [
        "a",
        "a#2",
        "ROW_DUPLICATE",
        "a#4",
    ]
