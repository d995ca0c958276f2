"""Published annotation files -> exactly one record or refusal for each published record."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.sources import FORMATS, json_rows, text_files
from pipeline.sources.json_rows import MAX_ROW_BYTES
from pipeline.sources.records import Record, RowRefusal
from shards.errors import UserError
from shards.ids import sha256_hex
from tests.hostile.rows import parquet_bomb

HUMAN = {"from": "human", "value": "<image>\nWhat?"}
GPT = {"from": "gpt", "value": "A cat."}
ROW: dict[str, Any] = {"id": "a", "image": "x/a.jpg", "conversations": [HUMAN, GPT]}


def outcomes(form: str, path: Path) -> list[str]:
    """The id of each record, the code of each refusal."""
    found = FORMATS[form](path)
    return [item.record if isinstance(item, Record) else item.code for item in found]


def written(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


# LLaVA JSON --------------------------------------------------------------------


def test_each_element_of_a_json_list_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", json.dumps([ROW, ROW | {"id": 2}, 3, {"id": "c"}]))
    assert outcomes("llava_json", path) == ["a", "2", "ROW_NOT_OBJECT", "ROW_MISSING_FIELD"]


def test_a_bad_value_in_a_json_list_refuses_its_element_only(tmp_path: Path) -> None:
    good = json.dumps(ROW)
    text = f'[{good}, {{"id": NaN}}, {{"id": 1, "id": 2}}, {{"id": {"9" * 5000}}}, {good}]\r\n'
    path = written(tmp_path / "a.json", "\ufeff" + text)
    codes = ["a", "ROW_NOT_FINITE", "ROW_DUPLICATE_KEY", "ROW_NOT_JSON", "a"]
    assert outcomes("llava_json", path) == codes


def test_a_very_long_element_is_refused(tmp_path: Path) -> None:
    long = ROW | {"note": "x" * MAX_ROW_BYTES}
    path = written(tmp_path / "a.json", json.dumps([long, ROW]))
    assert outcomes("llava_json", path) == ["ROW_TOO_LONG", "a"]


@pytest.mark.parametrize("window", [1, 7, 64, 1000])
def test_a_list_is_read_through_a_window_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    rows = [ROW, 12, ROW | {"id": "视频"}, {"id": "c"}, 3.5, [1], "text"]
    text = json.dumps(rows, ensure_ascii=False, indent=1)
    path = written(tmp_path / "a.json", "\ufeff" + text)
    whole = outcomes("llava_json", path)
    monkeypatch.setattr(json_rows, "WINDOW", window)
    assert outcomes("llava_json", path) == whole
    assert len(whole) == len(rows)
    for broken in (text[:-1], text + "]", text.replace("12,", "12"), text.replace("3.5", "3.5,")):
        with pytest.raises(UserError, match=r"b\.json"):
            outcomes("llava_json", written(tmp_path / "b.json", broken))


def test_an_empty_json_list_holds_no_records(tmp_path: Path) -> None:
    assert outcomes("llava_json", written(tmp_path / "a.json", " [ ] ")) == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>429</html>",
        json.dumps(ROW).encode(),
        json.dumps([ROW]).encode()[:-20],
        json.dumps([ROW]).encode() + b"x",
        b"[1 2]",
        b"[" * 200_000,
        json.dumps([ROW]).encode("utf-16"),
        b"version https://git-lfs.github.com/spec/v1\n",
    ],
    ids=["empty", "html", "object", "cut", "tail", "comma", "deep", "utf-16", "pointer"],
)
def test_a_file_that_is_no_json_list_is_an_error_with_its_name(tmp_path: Path, data: bytes) -> None:
    path = written(tmp_path / "broken.json", data)
    with pytest.raises(UserError, match=r"broken\.json"):
        outcomes("llava_json", path)


def test_jsonl_is_read_line_by_line(tmp_path: Path) -> None:
    line = json.dumps(ROW).encode()
    lines = [line, b"", b"[1]", b"x" * (2 * MAX_ROW_BYTES + 5), line + b"\r", line]
    path = written(tmp_path / "a.jsonl", b"\n".join(lines))
    codes = ["a", "ROW_EMPTY", "ROW_NOT_OBJECT", "ROW_TOO_LONG", "a", "a"]
    assert outcomes("llava_json", path) == codes


def test_several_images_keep_their_order(tmp_path: Path) -> None:
    human = {"from": "human", "value": "<image><image>\nSame?"}
    row = ROW | {"image": ["./b.jpg", "a//c.jpg"], "conversations": [human, GPT]}
    (found,) = FORMATS["llava_json"](written(tmp_path / "a.json", json.dumps([row])))
    assert isinstance(found, Record)
    assert [ref.name for ref in found.media] == ["b.jpg", "a/c.jpg"]
    assert found.turns[0].media == ((0, 0), (1, 0))


# Compressed --------------------------------------------------------------------


def packed(data: bytes, kind: str) -> bytes:
    if kind == "gz":
        half = len(data) // 2
        return gzip.compress(data[:half]) + gzip.compress(data[half:])
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


@pytest.mark.parametrize("kind", ["gz", "zst"])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.ndjson"])
def test_compressed_annotations_are_read_as_if_they_were_not(
    tmp_path: Path, name: str, kind: str
) -> None:
    rows = [ROW | {"id": str(number), "image": f"{number}.jpg"} for number in range(3000)]
    text = json.dumps(rows) if name == "a.json" else "\n".join(map(json.dumps, rows))
    plain = outcomes("llava_json", written(tmp_path / name, text))
    path = written(tmp_path / f"{name}.{kind}", packed(text.encode(), kind))
    assert outcomes("llava_json", path) == plain == [row["id"] for row in rows]


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_a_compressed_file_that_is_cut_damaged_or_a_bomb_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    whole = packed("\n".join(json.dumps(ROW) for _ in range(2000)).encode(), kind)
    for data in (whole[:-9], whole[: len(whole) // 3], whole[:4] + bytes(50), b"no such file"):
        with pytest.raises(UserError, match=rf"a\.jsonl\.{kind}: cannot be unpacked: .* again"):
            outcomes("llava_json", written(tmp_path / f"a.jsonl.{kind}", data))
    monkeypatch.setattr(text_files, "SLACK", 1 << 16)
    bomb = packed(bytes(8 << 20), kind)
    with pytest.raises(UserError, match=r"unpacks to more than 100 times its bytes"):
        outcomes("llava_json", written(tmp_path / f"b.jsonl.{kind}", bomb))


# Positions and odd files -------------------------------------------------------


@pytest.mark.parametrize("window", [16, 1 << 20])
def test_positions_in_errors_are_those_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    monkeypatch.setattr(json_rows, "WINDOW", window)
    text = json.dumps([ROW] * 9)
    at = text.index('"x/a.jpg"', len(text) // 2)
    broken = text[:at] + "@" + text[at + 1 :]
    with pytest.raises(UserError, match=rf"at character {at};"):
        outcomes("llava_json", written(tmp_path / "a.json", broken))
    lines = json.dumps(ROW) + "\n" + " " + json.dumps(ROW).replace('"x/a.jpg"', "@")
    _, found = FORMATS["llava_json"](written(tmp_path / "a.jsonl", lines))
    assert isinstance(found, RowRefusal) and found.code == "ROW_NOT_JSON"
    place = lines.index("@") - lines.index("\n") - 1
    assert found.detail.endswith(f"at line 2, character {place}")


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("lines.json", lambda text: text[1:-1].replace("}, {", "}\n{")),
        ("object.json", lambda text: f'{{"a": {text[1:-1]}}}'),
        ("wrapped.json", lambda text: f'{{"data": {text}}}'),
        ("twice.json", lambda text: text + text),
    ],
)
def test_a_file_of_another_shape_is_an_error_that_says_what_to_do(
    tmp_path: Path, name: str, wrap: Callable[[str], str]
) -> None:
    path = written(tmp_path / name, wrap(json.dumps([ROW])))
    with pytest.raises(UserError, match=rf"{name}: .*(must be named \.jsonl|mend the file)"):
        outcomes("llava_json", path)


def test_rows_as_scripts_write_them(tmp_path: Path) -> None:
    """The case "rows" of the curation inputs: read, or refused with a code that says why."""
    rows = [
        (ROW | {"id": "nan", "score": float("nan")}, "nan"),
        (ROW | {"id": 1}, "1"),
        ({key: value for key, value in ROW.items() if key != "id"}, "#2"),
        (ROW | {"id": "role", "conversations": [HUMAN, GPT | {"from": "chatgpt"}]}, "role"),
        (ROW | {"id": "bot", "conversations": [HUMAN, GPT | {"from": "bot"}]}, "bot"),
        (ROW | {"id": "both", "video": ""}, "both"),
        (ROW | {"id": "dot", "image": "./x/a.jpg"}, "dot"),
        ({"id": "blank", "image": "", "conversations": [HUMAN | {"value": "Yes?"}, GPT]}, "blank"),
        ({"id": "none", "image": [], "conversations": [HUMAN | {"value": "Yes?"}, GPT]}, "none"),
        (
            {"id": "html", "conversations": [HUMAN | {"value": "What is <video>?"}, GPT]},
            "TEXT_SPECIAL_TOKEN",
        ),
        (ROW | {"id": "abs", "image": "/m/5.jpg"}, "MEDIA_PATH_REFUSED"),
        (ROW | {"id": "span", "span": ["0.5", "2"]}, "SPAN_WRONG_TYPE"),
    ]
    path = written(tmp_path / "a.json", json.dumps([row for row, _ in rows]))
    assert outcomes("llava_json", path) == [expected for _, expected in rows]


# Parquet -----------------------------------------------------------------------

TURNS = [HUMAN, GPT]
IMAGE = {"bytes": b"\x89PNG", "path": "a.png"}


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    return path


def onevision(name: str, image: dict[str, Any] | None, *turns: dict[str, str]) -> dict[str, Any]:
    talk = list(turns) or TURNS
    return {"id": name, "image": image, "conversations": talk, "data_source": "x"}


def test_onevision_rows_carry_their_bytes_and_an_address(tmp_path: Path) -> None:
    text = {"from": "human", "value": "Hi?"}
    rows = [onevision("a", IMAGE), onevision("b", None, text, GPT), onevision("c", IMAGE)]
    path = parquet(tmp_path / "a.parquet", rows)
    found = list(FORMATS["parquet_images"](path))
    assert all(isinstance(item, Record) for item in found)
    records = [item for item in found if isinstance(item, Record)]
    assert [len(record.media) for record in records] == [1, 0, 1]
    ref = records[2].media[0]
    assert ref.data == b"\x89PNG" and ref.address == f"parquet:{path}#000000002/0/image"


def test_onevision_images_without_bytes(tmp_path: Path) -> None:
    rows = [
        onevision("a", IMAGE | {"bytes": None}),
        onevision("b", IMAGE | {"bytes": b""}),
        onevision("c", {"bytes": None, "path": None}),
        onevision("d", {"bytes": None, "path": "/etc/passwd"}),
    ]
    path = parquet(tmp_path / "a.parquet", rows)
    codes = ["a", "MEDIA_EMPTY", "MEDIA_EMPTY", "MEDIA_PATH_REFUSED"]
    assert outcomes("parquet_images", path) == codes


@pytest.mark.parametrize("order", [("user", "assistant"), ("assistant", "user")])
def test_cauldron_rows_put_every_image_before_the_first_question(
    tmp_path: Path, order: tuple[str, str]
) -> None:
    said = {"user": "<image>\nHow many?", "assistant": "Two."}
    text = {name: said[name] for name in order}
    rows = [
        {"images": [IMAGE, IMAGE], "texts": [text, text]},
        {"images": [], "texts": [text]},
        {"images": [IMAGE], "texts": []},
    ]
    path = parquet(tmp_path / "part.parquet", rows)
    found = list(FORMATS["parquet_images"](path))
    first = found[0]
    assert isinstance(first, Record) and first.record == "part#0"
    assert [turn.text for turn in first.turns] == ["How many?", "Two."] * 2
    assert first.turns[0].media == ((0, 0), (1, 0)) and first.turns[2].media == ()
    assert [ref.address for ref in first.media] == [
        f"parquet:{path}#000000000/{i}/images" for i in (0, 1)
    ]
    assert outcomes("parquet_images", path) == ["part#0", "part#1", "TURNS_EMPTY"]


def test_what_nobody_reads_of_a_parquet_file_is_told_and_never_refuses(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": ["a", "b"],
            "image": [IMAGE, IMAGE],
            "conversations": [TURNS, TURNS],
            "when": pa.array([10**15, 0], pa.timestamp("ms")),
            "extra": pa.array([b"\\xff", None], pa.binary()),
            "audio": pa.array([None, {"bytes": b"RIFF"}]),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    first, second = FORMATS["parquet_images"](tmp_path / "a.parquet")
    assert isinstance(first, Record)
    assert first.unread["extra"] == "(bytes, not read)" and first.unread["when"] == "(not readable)"
    assert isinstance(second, RowRefusal) and second.code == "ROW_FIELD_UNREAD"


def test_a_folder_of_parquet_files_is_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("p2", "p10", "p1", "a3"):
        parquet(tmp_path / f"{name}.parquet", [onevision(name, IMAGE)])
    assert outcomes("parquet_images", tmp_path) == ["a3", "p1", "p2", "p10"]


def bytes_in(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_file_that_is_no_such_parquet_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not readable as Parquet.*again"):
        outcomes("parquet_images", written(tmp_path / "a.parquet", "PAR1 no"))
    named = parquet(tmp_path / "c.parquet", [onevision("a", IMAGE)]).read_bytes()
    for at in range(len(named)):  # a name of a column that is no text, wherever it stands
        if named[at : at + 5] == b"image":
            named = named[:at] + b"\xff" + named[at + 1 :]
    with pytest.raises(UserError, match=r"not readable as Parquet.*again"):
        outcomes("parquet_images", bytes_in(tmp_path / "d.parquet", named))
    with pytest.raises(UserError, match=r"b\.parquet: columns \['question'\]"):
        outcomes("parquet_images", parquet(tmp_path / "b.parquet", [{"question": "x"}]))


# NExT-QA -----------------------------------------------------------------------

MC = "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4"
MC_ROW = (
    "4010069381,369,640,480,how do the two man play the instrument,0,6,CH,"
    "roll the handle,tap their feet,strum the string,hit with sticks,pat with hand"
)


def test_a_multiple_choice_row_asks_for_a_letter(tmp_path: Path) -> None:
    path = written(tmp_path / "val.csv", f"{MC}\n{MC_ROW}\n")
    (found,) = FORMATS["nextqa_csv"](path)
    assert isinstance(found, Record)
    assert found.record == "4010069381/6" and found.media[0].name == "4010069381.mp4"
    lines = found.turns[0].text.splitlines()
    assert lines[0] == "how do the two man play the instrument"
    assert lines[1:6:4] == ["A. roll the handle", "E. pat with hand"] and "letter" in lines[6]
    assert found.turns[0].media == ((0, 0),) and found.turns[1].text == "A"


def test_an_open_ended_row_keeps_its_text(tmp_path: Path) -> None:
    header = MC.removesuffix(",a0,a1,a2,a3,a4")
    path = written(tmp_path / "oe.csv", f"{header}\n12,1,1,1,who waves,a man,3,DO\n")
    (found,) = FORMATS["nextqa_csv"](path)
    assert isinstance(found, Record)
    assert [turn.text for turn in found.turns] == ["who waves", "a man"]


def test_bad_csv_rows_are_refused_one_by_one(tmp_path: Path) -> None:
    cells = MC_ROW.split(",")
    rows = {
        "quoted": [*cells[:4], "two\nlines", *cells[5:]],
        "answer 5": [*cells[:5], "5", *cells[6:]],
        "answer -1": [*cells[:5], "-1", *cells[6:]],
        "answer text": [*cells[:5], "a man", *cells[6:]],
        "short": cells[:-1],
        "no video": ["", *cells[1:]],
        "climbs": ["../../x", *cells[1:]],
        "forged": [*cells[:4], "<|im_end|>", *cells[5:]],
        "long": [*cells[:4], "x" * 140_000, *cells[5:]],
        "good": cells,
    }
    path = tmp_path / "val.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([MC.split(","), *rows.values()])
    codes = dict(zip(rows, outcomes("nextqa_csv", path), strict=True))
    assert codes == {
        "quoted": "4010069381/6",
        "answer 5": "ROW_BAD_ANSWER",
        "answer -1": "ROW_BAD_ANSWER",
        "answer text": "ROW_BAD_ANSWER",
        "short": "ROW_MISSING_FIELD",
        "no video": "ROW_EMPTY_ID",
        "climbs": "MEDIA_PATH_REFUSED",
        "forged": "TEXT_SPECIAL_TOKEN",
        "long": "ROW_TOO_LONG",
        "good": "4010069381/6",
    }


def test_bytes_that_are_not_utf8_refuse_their_csv_row(tmp_path: Path) -> None:
    bad = MC_ROW.encode().replace(b"string", b"str\xefng")
    path = written(tmp_path / "val.csv", b"\n".join([MC.encode(), bad, MC_ROW.encode()]))
    assert outcomes("nextqa_csv", path) == ["ROW_NOT_UTF8", "4010069381/6"]


@pytest.mark.parametrize("text", ["", "<html></html>", "video,question\n1,2"])
def test_a_csv_without_the_header_is_an_error_with_its_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"val\.csv: the header needs video, question"):
        outcomes("nextqa_csv", written(tmp_path / "val.csv", text))


@pytest.mark.parametrize("repeated", [True, False])
def test_a_table_that_unpacks_without_end_is_an_error(tmp_path: Path, repeated: bool) -> None:
    path = parquet_bomb(tmp_path / "a.parquet", repeated=repeated)
    assert path.stat().st_size < 10_000
    with pytest.raises(UserError, match=r"a\.parquet: its \d+ bytes unpack to more than 100 times"):
        list(FORMATS["parquet_images"](path))


# All ---------------------------------------------------------------------------


def test_refusals_name_their_record_or_its_number(tmp_path: Path) -> None:
    rows = [ROW | {"id": None, "image": "/x"}, ROW | {"image": "/x"}]
    found = list(FORMATS["llava_json"](written(tmp_path / "a.json", json.dumps(rows))))
    assert [item.record for item in found if isinstance(item, RowRefusal)] == ["#0", "a"]


def test_the_same_file_reads_the_same_twice(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", [onevision("a", IMAGE)])
    digests = [
        sha256_hex(item.media[0].data or b"")
        for _ in range(2)
        for item in FORMATS["parquet_images"](path)
        if isinstance(item, Record)
    ]
    assert digests[0] == digests[1]
