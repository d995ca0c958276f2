"""The demo files of trainers that our users come from, rebuilt by hand from their documentation.

Every row is kept, or refused with a code that says to its user what to do. Shapes are those of
LLaMA-Factory (`data/README.md` and the demo files beside it), ms-swift ("Custom dataset"), Qwen's
VL models (README, "Inference", and `qwen-vl-finetune`) and TRL ("Dataset formats and types").
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.sources import FORMATS, records
from pipeline.sources.records import Record, RowRefusal
from pipeline.sources.turns import LOSSES


def read(path: Path, form: str, **columns: str | list[str]) -> list[Record | RowRefusal]:
    named = {k: (v,) if isinstance(v, str) else tuple(v) for k, v in columns.items()}
    return list(records(form, [path], tuple(sorted(named.items()))))


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    lines = path.suffix == ".jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows))
    return path


def outcome(item: Record | RowRefusal) -> tuple[Any, ...] | str:
    """(role, text, loss) of each turn and the media's names, or the code of the refusal."""
    if isinstance(item, RowRefusal):
        return item.code
    turns = [(turn.role, turn.text, turn.loss) for turn in item.turns]
    return (*turns, *(ref.name for ref in item.media))


def said(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


USER, ANSWER = ("user", "Who are they?", 0), ("assistant", "Kane and Gretzka.", 1)

LLAMA_FACTORY: dict[str, tuple[dict[str, Any], Any]] = {
    "mllm_demo.json": (
        {
            "messages": [
                said("user", "<image>Who are they?"),
                said("assistant", "Kane and Gretzka."),
                said("user", "What are they doing?<image>"),
                said("assistant", "They celebrate."),
            ],
            "images": ["mllm_demo_data/1.jpg", "mllm_demo_data/1b.jpg"],
        },
        (
            USER,
            ANSWER,
            ("user", "What are they doing?", 0),
            ("assistant", "They celebrate.", 1),
            "mllm_demo_data/1.jpg",
            "mllm_demo_data/1b.jpg",
        ),
    ),
    "mllm_video_demo.json": (
        {
            "messages": [
                said("user", "<video>Who are they?"),
                said("assistant", "Kane and Gretzka."),
            ],
            "videos": ["mllm_demo_data/1.mp4"],
        },
        (USER, ANSWER, "mllm_demo_data/1.mp4"),
    ),
    "mllm_audio_demo.json": (
        {
            "messages": [said("user", "<audio>What is it?"), said("assistant", "Glass breaks.")],
            "audios": ["mllm_demo_data/1.mp3"],
        },
        "ROW_FIELD_UNREAD",
    ),
    "glaive_toolcall_en_demo.json": (
        {
            "conversations": [
                {"from": "human", "value": "Calculate the BMI."},
                {"from": "function_call", "value": '{"name": "bmi"}'},
                {"from": "observation", "value": '{"bmi": 22}'},
                {"from": "gpt", "value": "It is 22."},
            ],
            "tools": '[{"name": "bmi"}]',
        },
        "ROW_FIELD_UNREAD",
    ),
    "dpo_en_demo.json": (
        {
            "conversations": [{"from": "human", "value": "Who are they?"}],
            "chosen": {"from": "gpt", "value": "Kane and Gretzka."},
            "rejected": {"from": "gpt", "value": "No idea."},
        },
        "ROW_PREFERENCE",
    ),
    "kto_en_demo.json, good": (
        {
            "messages": [said("user", "Who are they?"), said("assistant", "Kane and Gretzka.")],
            "label": True,
        },
        (USER, ANSWER),
    ),
    "kto_en_demo.json, bad": (
        {
            "messages": [said("user", "Who are they?"), said("assistant", "No idea.")],
            "label": False,
        },
        "ROW_PREFERENCE",
    ),
    "sharegpt with system": (
        {
            "conversations": [
                {"from": "human", "value": "Who are they?"},
                {"from": "gpt", "value": "Kane and Gretzka."},
            ],
            "system": "You are a fan.",
            "tools": "",
        },
        (("system", "You are a fan.", 0), USER, ANSWER),
    ),
}

SWIFT: dict[str, tuple[dict[str, Any], Any]] = {
    "sft": (
        {
            "messages": [
                said("system", "You are a fan."),
                said("user", "Who are they?"),
                said("assistant", "Kane and Gretzka."),
            ]
        },
        (("system", "You are a fan.", 0), USER, ANSWER),
    ),
    "loss of a turn": (
        {
            "messages": [
                said("user", "Who are they?"),
                said("assistant", "No idea.") | {"loss": False},
                said("user", "Who are they?"),
                said("assistant", "Kane and Gretzka.") | {"loss": True},
            ]
        },
        (USER, ("assistant", "No idea.", 0), USER, ANSWER),
    ),
    "images": (
        {
            "messages": [
                said("user", "<image><image>Who are they?"),
                said("assistant", "Kane and Gretzka."),
            ],
            "images": ["x.jpg", "y.jpg"],
        },
        (USER, ANSWER, "x.jpg", "y.jpg"),
    ),
    "images without tags": (
        {
            "messages": [said("user", "Who are they?"), said("assistant", "Kane and Gretzka.")],
            "images": ["x.jpg", "y.jpg"],
        },
        (USER, ANSWER, "x.jpg", "y.jpg"),
    ),
    "absolute paths": (
        {
            "messages": [said("user", "<image>Who are they?"), said("assistant", "Kane.")],
            "images": ["/xxx/x.jpg"],
        },
        "MEDIA_PATH_REFUSED",
    ),
    "addresses": (
        {
            "messages": [said("user", "<image>Who are they?"), said("assistant", "Kane.")],
            "images": ["https://example.org/x.jpg"],
        },
        "MEDIA_PATH_REFUSED",
    ),
    "grounding": (
        {
            "messages": [
                said("user", "<image>Where is the <ref-object>?"),
                said("assistant", "<bbox><bbox>"),
            ],
            "images": ["x.jpg"],
            "objects": {"ref": ["sheep"], "bbox": [[331, 266, 420, 314]]},
        },
        "TEXT_SPECIAL_TOKEN",
    ),
    "rlhf": (
        {
            "messages": [said("user", "Who are they?"), said("assistant", "Kane and Gretzka.")],
            "rejected_response": "No idea.",
        },
        "ROW_PREFERENCE",
    ),
    "agent": (
        {
            "tools": '[{"type": "function", "function": {"name": "weather"}}]',
            "messages": [said("user", "How is it?"), said("assistant", "Hot.")],
        },
        "ROW_FIELD_UNREAD",
    ),
    "pretraining": ({"messages": [said("assistant", "I love music.")]}, "TURNS_OUT_OF_ORDER"),
    "query and response of old": (
        {"query": "Who?", "response": "Kane.", "history": [["Hi?", "Hi."]]},
        "ROW_FIELD_UNREAD",
    ),
}

QWEN: dict[str, tuple[dict[str, Any], Any]] = {
    "messages of the README": (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "image": "demo.jpeg", "min_pixels": 50176},
                        {"type": "text", "text": "Who are they?"},
                    ],
                },
                {
                    "role": "assistant",
                    "content": [{"type": "text", "text": "Kane and Gretzka."}],
                },
            ]
        },
        (USER, ANSWER, "demo.jpeg"),
    ),
    "a video with its span": (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "video", "video": "a.mp4", "video_start": 1.5, "video_end": 3},
                        {"type": "text", "text": "Who are they?"},
                    ],
                },
                said("assistant", "Kane and Gretzka."),
            ]
        },
        (USER, ANSWER, "a.mp4"),
    ),
    "a video of frames": (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "video", "video": ["file:///1.jpg", "file:///2.jpg"]},
                        {"type": "text", "text": "Who?"},
                    ],
                },
                said("assistant", "Kane."),
            ]
        },
        "ROW_WRONG_TYPE",
    ),
    "a file address": (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "image": "file:///path/to/1.jpg"},
                        {"type": "text", "text": "Who?"},
                    ],
                },
                said("assistant", "Kane."),
            ]
        },
        "MEDIA_PATH_REFUSED",
    ),
    "qwen-vl-finetune, single_images.json": (
        {
            "image": "demo/COCO_train2014_000000580957.jpg",
            "conversations": [
                {"from": "human", "value": "Who are they?\n<image>"},
                {"from": "gpt", "value": "Kane and Gretzka."},
            ],
        },
        (USER, ANSWER, "demo/COCO_train2014_000000580957.jpg"),
    ),
    "qwen-vl-finetune, video.json": (
        {
            "video": "videos/v1.mp4",
            "conversations": [
                {"from": "human", "value": "<video>\nWho are they?"},
                {"from": "gpt", "value": "Kane and Gretzka."},
            ],
        },
        (USER, ANSWER, "videos/v1.mp4"),
    ),
    "qwen-vl-finetune, several images": (
        {
            "images": ["a/001.jpg", "a/002.jpg"],
            "conversations": [
                {"from": "human", "value": "<image>\n<image>\nWho are they?"},
                {"from": "gpt", "value": "Kane and Gretzka."},
            ],
        },
        (USER, ANSWER, "a/001.jpg", "a/002.jpg"),
    ),
}

TRL: dict[str, tuple[dict[str, Any], Any]] = {
    "conversational": (
        {"messages": [said("user", "Who are they?"), said("assistant", "Kane and Gretzka.")]},
        (USER, ANSWER),
    ),
    "prompt and completion": (
        {"prompt": "Who are they?", "completion": "Kane and Gretzka."},
        (USER, ANSWER),
    ),
    "conversational prompt and completion": (
        {
            "prompt": [
                said("user", "Hi?"),
                said("assistant", "Hi."),
                said("user", "Who are they?"),
            ],
            "completion": [said("assistant", "Kane and Gretzka.")],
        },
        (("user", "Hi?", 0), ("assistant", "Hi.", 0), USER, ANSWER),
    ),
    "language modelling": ({"text": "The sky is blue."}, "ROW_MISSING_FIELD"),
    "prompt only": ({"prompt": "The sky is"}, "ROW_MISSING_FIELD"),
    "preference": ({"prompt": "Who?", "chosen": "Kane.", "rejected": "No."}, "ROW_PREFERENCE"),
    "unpaired preference": (
        {"prompt": "Who?", "completion": "No.", "label": False},
        "ROW_PREFERENCE",
    ),
    "tool calling": (
        {
            "messages": [
                said("user", "Turn on the lights."),
                {
                    "role": "assistant",
                    "tool_calls": [{"type": "function", "function": {"name": "lights"}}],
                },
                {"role": "tool", "name": "lights", "content": "on"},
                said("assistant", "Done."),
            ]
        },
        "ROW_FIELD_UNREAD",
    ),
    "vision": (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "text": None, "index": 1},
                        {"type": "text", "text": "Who are they?", "index": None},
                        {"type": "image", "text": None, "index": 0},
                    ],
                },
                {"role": "assistant", "content": [{"type": "text", "text": "Kane and Gretzka."}]},
            ],
            "images": [{"path": "a.jpg", "bytes": None}, {"path": "b.jpg", "bytes": None}],
        },
        (USER, ANSWER, "b.jpg", "a.jpg"),
    ),
}
TABLES = {"LLaMA-Factory": LLAMA_FACTORY, "ms-swift": SWIFT, "Qwen": QWEN, "TRL": TRL}
CASES = [
    (f"{maker}: {name}", *case) for maker, table in TABLES.items() for name, case in table.items()
]


@pytest.mark.parametrize(("row", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
@pytest.mark.parametrize("form", ["llava_json", "sharegpt_messages"])
def test_a_row_of_a_demo_file_is_kept_or_refused_by_name(
    tmp_path: Path, form: str, row: dict[str, Any], expected: Any
) -> None:
    (found,) = read(written(tmp_path / "demo.json", [row]), form)
    assert outcome(found) == expected, found


@pytest.mark.parametrize(
    "name", ["conversational prompt and completion", "vision", "conversational"]
)
def test_trls_rows_are_read_from_parquet_as_well(tmp_path: Path, name: str) -> None:
    row, expected = TRL[name]
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    (found,) = read(tmp_path / "a.parquet", "parquet_images")
    assert outcome(found) == expected


def test_the_span_of_a_part_is_its_videos(tmp_path: Path) -> None:
    (found,) = read(written(tmp_path / "a.json", [QWEN["a video with its span"][0]]), "llava_json")
    assert isinstance(found, Record) and found.media[0].span == (1_500_000, 3_000_000)


def test_every_name_of_a_turns_weight_is_read(tmp_path: Path) -> None:
    for name, on in LOSSES.items():
        turns = [said("user", "A?"), said("assistant", "a") | {name: 1 - on}]
        turns += [said("user", "B?"), said("assistant", "b") | {name: on}]
        (found,) = read(written(tmp_path / "a.json", [{"messages": turns}]), "llava_json")
        assert isinstance(found, Record) and [turn.loss for turn in found.turns] == [0, 0, 0, 1]


# Tables ------------------------------------------------------------------------

ALPACA = {
    "instruction": "Who are they?",
    "input": "Look closely.",
    "output": "Kane and Gretzka.",
    "system": "You are a fan.",
    "history": [],
}


def test_alpaca_rows_are_a_table(tmp_path: Path) -> None:
    # LLaMA-Factory's alpaca_en_demo.json, with its columns as data/README.md maps them
    path = written(tmp_path / "a.json", [ALPACA, ALPACA | {"input": ""}])
    first, second = read(
        path, "table", question=["instruction", "input"], answer="output", system="system"
    )
    system = ("system", "You are a fan.", 0)
    assert outcome(first) == (system, ("user", "Who are they?\nLook closely.", 0), ANSWER)
    assert outcome(second) == (system, USER, ANSWER)
    assert isinstance(first, Record) and not first.unread
    told = {"history": [["Hi?", "Hi."]], "input": "Look.", "system": "Be brief."}
    for field, value in told.items():
        row = {"instruction": "Who?", "output": "Kane."} | {field: value}
        (found,) = read(
            written(tmp_path / "b.json", [row]), "table", question="instruction", answer="output"
        )
        assert isinstance(found, RowRefusal) and found.code == "ROW_FIELD_UNREAD"
        assert field in found.detail


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "tsv", "parquet"])
def test_a_table_reads_the_same_from_every_kind_of_file(tmp_path: Path, kind: str) -> None:
    rows = [
        {"key": "a", "q": "Who?", "a": "Kane, he is.", "clip": "a.mp4", "from": "1.5", "to": "2"},
        {"key": "b", "q": "What?", "a": 'A "ball".', "clip": "", "from": "", "to": ""},
    ]
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind in ("csv", "tsv"):
        mark = "," if kind == "csv" else "\t"
        quoted = [['"' + v.replace('"', '""') + '"' for v in row.values()] for row in rows]
        path.write_text("\n".join(mark.join(line) for line in [list(rows[0]), *quoted]))
    else:
        written(path, rows)
    first, second = read(
        path, "table", question="q", answer="a", video="clip", id="key", span=["from", "to"]
    )
    assert isinstance(first, Record) and isinstance(second, Record), (first, second)
    assert (first.record, second.record) == ("a", "b")
    assert first.media[0].name == "a.mp4" and first.media[0].span == (1_500_000, 2_000_000)
    assert second.media == () and second.turns[1].text == 'A "ball".'


@pytest.mark.parametrize(
    ("options", "answer", "expected"),
    [
        (["red", "green"], "green", "B"),
        (["red", "green"], "B", "B"),
        (["red", "green"], "(B)", "B"),
        (["red", "green"], 1, "B"),
        ('["red", "green"]', "1", "B"),
        ({"B": "green", "A": "red"}, "B", "B"),
        (["red", "green", None, ""], "green", "B"),
        (["red", "green"], "blue", "ROW_BAD_ANSWER"),
        (["red", "green"], "C", "ROW_BAD_ANSWER"),
        (["B", "A"], "A", "ROW_BAD_ANSWER"),
        (["1", "0"], "1", "ROW_BAD_ANSWER"),
        (["red", "red"], "red", "ROW_BAD_ANSWER"),
        (["red", 3], "red", "ROW_WRONG_TYPE"),
        ("red", "red", "ROW_WRONG_TYPE"),
        ('["red"', "red", "ROW_NOT_JSON"),
    ],
)
def test_an_answer_among_options_is_one_option_or_none(
    tmp_path: Path, options: Any, answer: Any, expected: str
) -> None:
    path = written(tmp_path / "a.json", [{"q": "Which?", "o": options, "a": answer}])
    (found,) = read(path, "table", question="q", answer="a", options="o")
    got = found.code if isinstance(found, RowRefusal) else found.turns[1].text
    assert got == expected


def test_options_may_lie_in_columns_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("q,answer,a0,a1,a2,image\nWhich?,1,red,green,,a.jpg\n")
    (found,) = read(
        path, "table", question="q", answer="answer", options=["a0", "a1", "a2"], image="image"
    )
    assert isinstance(found, Record) and found.turns[1].text == "B"
    assert found.turns[0].media == ((0, 0),) and "B. green" in found.turns[0].text


def test_an_answer_without_a_question_describes_its_medium(tmp_path: Path) -> None:
    rows = [{"c": "A cat.", "v": "a.mp4"}, {"c": "A cat.", "v": None}]
    found = read(written(tmp_path / "a.json", rows), "table", answer="c", video="v")
    assert isinstance(found[0], Record) and found[0].turns[0].text.startswith("Describe this video")
    assert isinstance(found[1], RowRefusal) and found[1].code == "TURN_EMPTY"


def test_embedded_images_of_a_table_have_an_address(tmp_path: Path) -> None:
    rows = [
        {
            "q": "Who?",
            "a": "He.",
            "pictures": [{"bytes": b"\x89PNG", "path": None}] * 2,
            "audio": b"",
        },
        {"q": "Who?", "a": "He.", "pictures": None, "audio": b"RIFF"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    path = tmp_path / "a.parquet"
    first, second = read(path, "table", question="q", answer="a", images="pictures")
    assert isinstance(first, Record), first
    assert [ref.address for ref in first.media] == [
        f"parquet:{path}#000000000/{i}/pictures" for i in (0, 1)
    ]
    assert isinstance(second, RowRefusal) and second.code == "ROW_FIELD_UNREAD"


def test_a_medium_that_the_recipe_does_not_name_is_no_text_row(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", [{"q": "Who?", "a": "He.", "image": "a.jpg"}])
    (found,) = read(path, "table", question="q", answer="a")
    assert isinstance(found, RowRefusal) and found.code == "ROW_FIELD_UNREAD"


def test_every_format_names_what_it_leaves_behind(tmp_path: Path) -> None:
    row = {"id": "a", "conversations": [{"from": "human", "value": "A?"},
                                        {"from": "gpt", "value": "a", "name": "x"}],
           "source": "web", "score": float("nan"), "note": ""}  # fmt: skip
    (found,) = FORMATS["llava_json"](written(tmp_path / "a.json", [row]))
    assert isinstance(found, Record)
    assert found.unread == {"source": "web", "conversations[].name": "x"}
