"""lmms-eval's own tasks and table over a saved model, reply by reply against `train evaluate`.

Needs a finished `make demo` and `make lmms`, which installs lmms-eval beside this environment. Two
of its tasks, egoschema_subset (multiple choice about videos) and ocrbench (about pictures), read
small copies in those sets' published layouts: readers, prompts and scorers are lmms-eval's, only
where the copies lie is named anew. Both sides run in fp32, under different versions of torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from benchmarks.frame import Bar, at_least, equal
from benchmarks.inputs.temporal_set import make
from examples.demo import OUT
from shards.errors import UserError
from train.evaluation.copies import copies
from train.evaluation.evaluate import evaluate
from train.evaluation.predictions import read_lines

PYTHON = Path(".venv-lmms/bin/python")
VIDEOS, IMAGES = "egoschema_subset", "ocrbench"
LOCAL = {
    VIDEOS: ("egoschema/egoschema_subset.yaml", "egoschema/test.parquet"),
    IMAGES: ("ocrbench/ocrbench.yaml", "ocrbench/test-00000-of-00001.parquet"),
}
"""Of each task lmms-eval's own file, and the questions here."""
EACH = 6
"""Questions of each of eight axes about videos."""
PICTURES = 48
DISTINCT = 5
"""Replies at least: a model that always says the same proves nothing."""
OPTIONS = 5
"""Of a question of EgoSchema."""


def run(console: Console) -> list[Bar]:
    model = OUT / "train2/model"
    for needed, command in ((model, "make demo"), (PYTHON, "make lmms")):
        if not needed.exists():
            raise UserError(f"{needed}: not there; run {command} first")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        egoschema(folder)
        ocrbench(folder)
        ours = ours_of(model, folder)
        theirs = theirs_of(model, folder, console)
    return [
        bar
        for task, replies in ours.items()
        for bar in (
            at_least(f"questions of {task}", len(replies), PICTURES),
            at_least(f"{task}: distinct replies", len(set(replies)), DISTINCT),
            equal(f"{task}: other replies", differing(replies, theirs[task]), 0),
        )
    ]


def differing(ours: list[str], theirs: list[str]) -> int:
    return sum(a != b for a, b in zip(ours, theirs, strict=True))


# Copies ------------------------------------------------------------------------------


def egoschema(folder: Path) -> None:
    """The temporal set in EgoSchema's layout, its videos where lmms-eval caches that set's."""
    made = make(folder / "made", EACH)
    home = folder / "egoschema"
    home.mkdir()
    (made / "videos").rename(home / "videos")
    lines = (made / "temporal.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [egoschema_row(number, json.loads(line)) for number, line in enumerate(lines)]
    pq.write_table(pa.Table.from_pylist(rows), folder / LOCAL[VIDEOS][1])


def egoschema_row(number: int, row: dict[str, Any]) -> dict[str, Any]:
    fillers = [f"none of these ({filler})" for filler in range(OPTIONS)]
    texts = (row["options"] + fillers)[:OPTIONS]
    return {
        "question_idx": str(number),
        "question": row["question"],
        "video_idx": Path(row["video"]).stem,
        "option": [
            f"{letter}. {text}" for letter, text in zip(ascii_uppercase, texts, strict=False)
        ],
        "answer": str(row["answer"]),
    }


def ocrbench(folder: Path) -> None:
    """The demo's held-out digit scans in OCRBench's layout, typed as the hub's files say."""
    scans = pq.read_table(OUT / "data/digits/test.parquet").slice(0, PICTURES).to_pylist()
    rows = []
    for scan in scans:
        asked, answered = (turn["value"] for turn in scan["conversations"])
        row = {
            "dataset": "digits",
            "question": asked.removeprefix("<image>\n"),
            "question_type": "Digit String Recognition",
            "answer": [answered],
            "image": scan["image"],
        }
        rows.append(row)
    text = {"dtype": "string", "_type": "Value"}
    features = dict.fromkeys(rows[0], text) | {"answer": [text], "image": {"_type": "Image"}}
    known = json.dumps({"info": {"features": features}})
    target = folder / LOCAL[IMAGES][1]
    target.parent.mkdir()
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"huggingface": known})
    pq.write_table(table, target)


# Both sides --------------------------------------------------------------------------


def ours_of(model: Path, folder: Path) -> dict[str, list[str]]:
    """Replies of `train evaluate`, in the order of the questions."""
    named = copies([f"egoschema={folder}/egoschema", f"ocrbench={folder}/ocrbench"])
    out = folder / "ours.json"
    evaluate(model, [], ["both"], out, Console(quiet=True), benchmarks=named, precision="fp32")
    return {
        task: [line.reply for line in read_lines(folder / f"ours.{name}.both.jsonl")]
        for task, name in ((VIDEOS, "egoschema"), (IMAGES, "ocrbench"))
    }


def theirs_of(model: Path, folder: Path, console: Console) -> dict[str, list[str]]:
    """Replies that lmms-eval logs, in the order of its documents; its table is printed."""
    tasks = folder / "tasks"
    local_tasks(tasks, folder)
    command = [
        *(str(PYTHON), "-m", "lmms_eval", "eval", "--model", "slowfast", "--batch_size", "8"),
        *("--model_args", f"pretrained={model.absolute()},precision=fp32"),
        *("--tasks", ",".join(map(local_name, LOCAL)), "--include_path", str(tasks)),
        *("--log_samples", "--output_path", str(folder / "theirs")),
    ]
    # no hub: copies lie here, and videos where the cache would hold them
    offline = {"HF_HOME": str(folder), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(
        command, env=os.environ | offline, capture_output=True, text=True, check=False
    )
    logs = {task: next((folder / "theirs").rglob(log_of(task)), None) for task in LOCAL}
    # it ends with 0 where an evaluation has failed: without a log there was none
    if done.returncode or None in logs.values():
        raise UserError(f"lmms-eval ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    # wider than a terminal may be: it is lmms-eval's own
    console.print(table_of(done.stdout), markup=False, highlight=False, soft_wrap=True)
    return {task: logged(log) for task, log in logs.items() if log is not None}


def local_name(task: str) -> str:
    """What the task is called here."""
    return f"slowfast_{task}"


def log_of(task: str) -> str:
    return f"*_samples_{local_name(task)}.jsonl"


def local_tasks(tasks: Path, folder: Path) -> None:
    """lmms-eval's two tasks over local files: where they lie, and names of their own."""
    where = "import lmms_eval.tasks as t; print(t.__path__[0])"
    done = subprocess.run([str(PYTHON), "-c", where], capture_output=True, text=True, check=True)
    theirs = Path(done.stdout.splitlines()[-1])
    tasks.mkdir()
    for task, (file, questions) in LOCAL.items():
        (tasks / f"{local_name(task)}.yaml").write_text(
            f"include: {theirs / file}\ntask: {local_name(task)}\n"
            "dataset_path: parquet\ndataset_name: null\n"
            f"dataset_kwargs:\n  data_files:\n    test: {folder / questions}\n"
        )


def table_of(printed: str) -> str:
    """The lines of lmms-eval's table."""
    return "\n".join(line for line in printed.splitlines() if line.startswith("|"))


def logged(file: Path) -> list[str]:
    """The replies of a log, in the order of the documents."""
    samples = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    samples.sort(key=lambda sample: sample["doc_id"])
    return [reply_of(sample) for sample in samples]


def reply_of(sample: dict[str, Any]) -> str:
    """The reply as it was given: it is logged apart only where a filter changed it, and lists of
    one are logged as their element."""
    reply = sample.get("resps", sample["filtered_resps"])
    while isinstance(reply, list):
        (reply,) = reply
    return str(reply)
