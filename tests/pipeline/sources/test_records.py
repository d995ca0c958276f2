"""Annotation rows: what is kept, and the code of what is not (hazards, table R)."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources import records
from pipeline.sources.formats import llava_json
from pipeline.sources.json_rows import parse_row, row_record
from pipeline.sources.records import MediaRef, Record, RowRefusal, check, once_each
from pipeline.sources.turns import read_talk
from shards.outcome import CODES
from shards.sample import Turn
from tests.hostile.rows import BASE, KEPT, REFUSED, changed, turn


def outcome(line: bytes) -> Record | RowRefusal:
    return row_record(parse_row(line), 0, llava_json.record, llava_json.READS, "id")


@pytest.mark.parametrize("line", KEPT.values(), ids=KEPT.keys())
def test_a_good_row_is_kept(line: bytes) -> None:
    found = outcome(line)
    assert isinstance(found, Record), found
    assert found.media[0].name == "x/a.mp4"
    assert found.turns == (
        Turn(role="user", text="What?", media=((0, 0),)),
        Turn(role="assistant", text="A cat."),
    )


@pytest.mark.parametrize(("code", "line"), REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_row_is_refused_with_its_code(code: str, line: bytes) -> None:
    found = outcome(line)
    assert isinstance(found, RowRefusal), found
    assert found.code == code in CODES
    assert found.record.isprintable() and found.record.encode() and len(found.record) < 1000


@pytest.mark.parametrize("placeholder", ["<image>\n", "<video>\n"])
def test_a_medium_in_a_field_that_nobody_reads_is_refused_by_that_field(placeholder: str) -> None:
    talk = [turn("human", placeholder + "What?"), turn("gpt", "A cat.")]
    found = row_record(
        {"id": "r1", "picture_path": "x/a.jpg", "conversations": talk},
        0,
        llava_json.record,
        llava_json.READS,
        "id",
    )
    assert isinstance(found, RowRefusal) and found.code == "ROW_MISSING_FIELD"
    assert found.detail.endswith("names no medium in a field that is read; not read: picture_path")
    # the same words beside a medium that is read are what they are
    spelled = outcome(
        changed(conversations=[turn("human", "<video>\n<|im_start|>"), talk[1]], more=1)
    )
    assert isinstance(spelled, RowRefusal) and spelled.code == "TEXT_SPECIAL_TOKEN"


def test_spans_become_microseconds() -> None:
    found = outcome(changed(span=[0.1, 2.5]))
    assert isinstance(found, Record) and found.media[0].span == (100_000, 2_500_000)


def placed(question: str, *kinds: str) -> tuple[Turn, ...]:
    media = [MediaRef(kind=kind, name="a") for kind in kinds]
    said = read_talk([turn("human", question), turn("gpt", "Yes.")], media)
    assert isinstance(said, tuple), said
    return said[0]


@pytest.mark.parametrize(
    ("question", "kinds", "text", "media"),
    [
        ("What hangs there?\n<image>", ["image"], "What hangs there?", ((0, 17),)),
        ("What is it?", ["image"], "What is it?", ((0, 0),)),
        ("<image>\n<image>\nSame?", ["image"] * 2, "Same?", ((0, 0), (1, 0))),
        ("Is <image> like <image>?", ["image"] * 2, "Is  like ?", ((0, 3), (1, 9))),
        ("QA_GT_caption_based_noisy <video> Who?", ["video"], "Who?", ((0, 0),)),
    ],
)
def test_placeholders_become_places(
    question: str, kinds: list[str], text: str, media: tuple[tuple[int, int], ...]
) -> None:
    assert placed(question, *kinds)[0] == Turn(role="user", text=text, media=media)


def test_role_and_content_are_read_and_a_system_turn_may_come_first() -> None:
    row = BASE | {
        "conversations": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "<video>What?"},
            {"role": "assistant", "content": "A cat."},
        ]
    }
    found = llava_json.record(str(row["id"]), row)
    assert isinstance(found, Record)
    assert [t.role for t in found.turns] == ["system", "user", "assistant"]


IMAGE, TEXT = {"type": "image", "image": "0.jpg"}, {"type": "text", "text": "What?"}
VIDEO = {"type": "video", "video": "a.mp4", "video_start": 1, "video_end": 3}
ANSWER = {"role": "assistant", "content": "A cat."}


def parts(*content: dict[str, object], **fields: object) -> Record | RowRefusal:
    row = {"messages": [{"role": "user", "content": content}, ANSWER]} | fields
    return outcome(json.dumps(row).encode())


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (IMAGE | {"text": "What?"}, "text and image in one part of type 'image'"),
        ({"image": "0.jpg", "text": "What?"}, "text and image in one part"),
        (TEXT | {"image": "1.jpg"}, "text and image in one part of type 'text'"),
        ({"image": "0.jpg", "video": "a.mp4"}, "image and video in one part"),
        (IMAGE | {"url": "1.jpg"}, "image and url in one part"),
        ({"type": "text", "image": "0.jpg"}, "image in one part of type 'text'"),
        (VIDEO | {"audio": "a.wav"}, "messages[].content[].audio changes"),
        (TEXT | {"images": ["0.jpg"]}, "messages[].content[].images changes"),
        (IMAGE | {"weight": 0.5}, "messages[].content[].weight changes"),
    ],
)
def test_a_part_that_says_two_things_is_refused(part: dict[str, object], said: str) -> None:
    found = parts(IMAGE, TEXT, part)
    assert isinstance(found, RowRefusal) and said in found.detail


def test_what_is_not_read_of_parts_and_media_is_counted() -> None:
    found = parts(IMAGE | {"crop": [1], "text": None}, VIDEO | {"fps": 2}, TEXT | {"index": None})
    assert isinstance(found, Record) and len(found.media) == 2
    assert found.unread == {"messages[].content[].crop": [1], "messages[].content[].fps": 2}
    for field, value in (("image", {"path": "0.jpg", "alt": "x"}), ("images", [{"path": "0.jpg"}])):
        found = parts({"type": "image"}, TEXT, **{field: value})
        assert isinstance(found, Record)
        assert found.unread == ({"image.alt": "x"} if field == "image" else {})
    found = parts({"type": "image"}, TEXT, images=[{"path": "0.jpg", "audio": "a.wav"}])
    assert isinstance(found, RowRefusal) and found.detail.startswith("images[].audio changes")


@pytest.mark.parametrize("talk", ["messages", "conversations"])
@pytest.mark.parametrize("field", ["image", "images", "video", "videos", "image_url"])
def test_media_that_a_turn_names_refuse_the_row(talk: str, field: str, tmp_path: Path) -> None:
    named = ["0.jpg"] if field.endswith("s") else "0.jpg"
    turns = [{"role": "user", "content": "Which?", field: named}, ANSWER]
    found = outcome(json.dumps({talk: turns}).encode())
    assert isinstance(found, RowRefusal)
    assert (found.code, found.detail.split()[0]) == ("ROW_FIELD_UNREAD", f"{talk}[].{field}")
    # so does a table whose cells hold turns as JSON
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["talk"], [json.dumps(turns)]])
    (found,) = records("table", [path], (("messages", ("talk",)),))
    assert isinstance(found, RowRefusal) and found.detail.startswith(f"talk[].{field} changes")


def test_nan_refuses_only_where_it_is_read() -> None:
    nan = float("nan")
    kept = [
        parts(IMAGE | {"score": nan}, TEXT),
        parts({"type": "image"}, TEXT, image={"path": "0.jpg", "score": float("inf")}),
        outcome(
            changed(conversations=[turn("human", "<video>Why?"), turn("gpt", "So.") | {"p": nan}])
        ),
    ]
    assert all(isinstance(each, Record) for each in kept)
    refused = [
        parts(VIDEO | {"video_end": nan}, TEXT),
        parts({"type": "image"}, TEXT, image={"path": nan}),
        outcome(
            changed(
                conversations=[turn("human", "<video>Why?"), turn("gpt", "So.") | {"loss": nan}]
            )
        ),
    ]
    assert {each.code for each in refused if isinstance(each, RowRefusal)} == {"ROW_NOT_FINITE"}


def test_a_row_without_media_is_text_only() -> None:
    row = {"id": "t", "model": "", "conversations": [turn("human", "Hi?"), turn("gpt", "Hi.")]}
    found = llava_json.record(str(row["id"]), row)
    assert isinstance(found, Record) and found.media == ()


def test_media_that_no_turn_names_are_refused() -> None:
    turns = (Turn(role="user", text="Hi?"), Turn(role="assistant", text="Hi."))
    found = check(Record(record="a", turns=turns, media=(MediaRef(kind="image", name="a"),)))
    assert isinstance(found, RowRefusal) and found.code == "MEDIA_PLACEHOLDER_COUNT"


@given(st.text(alphabet="ab \n", max_size=20), st.integers(0, 20), st.integers(1, 3))
def test_places_stay_inside_the_text(text: str, at: int, count: int) -> None:
    question = text[:at] + "<image>" * count + "?" + text[at:]
    first = placed(question, *["image"] * count)[0]
    assert [clip for clip, _ in first.media] == list(range(count))
    assert all(0 <= offset <= len(first.text) for _, offset in first.media)
    assert first.text == question.replace("<image>", "").strip()


def record(name: str, answer: str, data: bytes | None = None) -> Record:
    turns = (Turn(role="user", text="Q", media=((0, 0),)), Turn(role="assistant", text=answer))
    media = MediaRef(kind="image", name="" if data else "a.jpg", data=data)
    return Record(record=name, turns=turns, media=(media,))


def codes_of(*items: Record | RowRefusal) -> list[str]:
    return [item.code if isinstance(item, RowRefusal) else "" for item in once_each(items)]


@pytest.mark.parametrize(
    ("items", "codes"),
    [
        ([record("a", "x"), record("a", "y")], ["", "ROW_ID_CONFLICT"]),
        ([record("a", "x"), record("a", "x")], ["", "ROW_DUPLICATE"]),
        ([record("a", "x"), record("b", "x")], ["", "ROW_DUPLICATE"]),
        ([record("a", "x"), record("b", "y")], ["", ""]),
        ([record("a", "x", b"1"), record("b", "x", b"2")], ["", ""]),
        ([record("a", "x"), record("a", "y"), record("b", "y")], ["", "ROW_ID_CONFLICT", ""]),
    ],
)
def test_repeated_rows_are_refused(items: list[Record], codes: list[str]) -> None:
    assert codes_of(*items) == codes


def test_ids_are_compared_in_unicode_form_c() -> None:
    rows: list[Callable[[], bytes]] = [
        lambda: changed(id="caf\u00e9"),
        lambda: changed(id="cafe\u0301", video="b.mp4"),
    ]
    assert codes_of(*(outcome(row()) for row in rows)) == ["", "ROW_ID_CONFLICT"]
