"""Tables, WebDataset tars and turns with a weight: built for real, from rows to labels."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mixtures.tokens.text import TextCodec, train_tokenizer
from shards.reader import open_data
from tests.pipeline.sources.test_webdataset import tar
from tests.support.small_world import SHOWN, books_of, picture

ROOT = Path(__file__).resolve().parents[2]
RECIPE = (
    SHOWN
    + """\
name: fields
seed: 5
pack_window: 32
sources:
  - {{name: csv, dataset: a, licence: CC0-1.0, format: table, annotations: {root}/a.csv, media: {root}/media, columns: {{question: ask, answer: say, image: file}}, repeat: 1}}
  - {{name: cells, dataset: b, licence: CC0-1.0, format: table, annotations: {root}/b.parquet, columns: {{answer: caption, images: pictures, id: key}}, repeat: 1}}
  - {{name: shards, dataset: c, licence: CC0-1.0, format: webdataset, annotations: {root}/c-*.tar, repeat: 1}}
  - {{name: turns, dataset: d, licence: CC0-1.0, format: sharegpt_messages, annotations: {root}/d.jsonl.gz, media: {root}/media, unread_fields: refuse, ids_repeat: true, repeat: 1}}
"""  # noqa: E501
)


def make(root: Path) -> Path:
    (root / "media").mkdir()
    data = []
    for n in range(16):
        picture(root / f"media/{n}.jpg", 70 + n)
        data.append((root / f"media/{n}.jpg").read_bytes())
    lines = [f'"Which, {n}?",number {n},{n}.jpg,web' for n in range(4)]
    (root / "a.csv").write_text("\n".join(["ask,say,file,source", *lines, '"No media?",none,,']))
    cells = [{"bytes": each, "path": None} for each in data[4:8]]
    rows = [
        {"key": f"k{n}", "caption": f"number {n}", "pictures": [cell]}
        for n, cell in enumerate(cells)
    ]
    pq.write_table(pa.Table.from_pylist(rows), root / "b.parquet", row_group_size=4)
    for half in range(2):
        members = {}
        for n in (8 + half, 10 + half):
            members |= {f"{n}.jpg": data[n], f"{n}.txt": f"number {n}".encode()}
        tar(root / f"c-{half}.tar", members)
    said = [
        {"role": "system", "content": "be short"},
        {"role": "user", "content": "<image>Which?"},
        {"role": "assistant", "content": "no film", "weight": 0},
        {"role": "user", "content": "Which number?"},
        {"role": "assistant", "content": "number one", "weight": 1},
    ]
    talks = [{"id": "t", "messages": said, "images": [f"{n}.jpg"]} for n in (12, 13)]
    talks += [talks[0] | {"images": ["14.jpg"], "audios": ["a.wav"]}, talks[0] | {"note": "x"}]
    text = "\n".join(json.dumps(talk) for talk in talks)
    (root / "d.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    words = ["Which number is it? be short, no film, number one, describe this image in detail"]
    (root / "tokenizer.json").write_bytes(train_tokenizer(words * 4, 320))
    (root / "recipe.yaml").write_text(RECIPE.format(root=root))
    return root / "recipe.yaml"


def test_fields_are_read_refused_or_counted_and_losses_reach_the_labels(tmp_path: Path) -> None:
    recipe = make(tmp_path)
    command = [
        sys.executable,
        "-m",
        "pipeline",
        "build",
        str(recipe),
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    books = books_of(tmp_path / "out")
    counts = {name: (one["records"], one["chosen"]) for name, one in books.items()}
    assert counts == {"csv": (5, 5), "cells": (4, 4), "shards": (4, 4), "turns": (4, 2)}
    assert books["csv"]["unread"] == {"source": 4} and books["turns"]["unread"] == {}
    assert "csv: fields that nobody reads: source (4, as web)" in done.stderr
    refused = pq.read_table(tmp_path / "out/refused.parquet").to_pylist()
    assert [(one["record"], one["code"], one["detail"]) for one in refused] == [
        ("t", "ROW_FIELD_UNREAD", "audios changes the meaning, and is not read"),
        ("t", "ROW_FIELD_UNREAD", "holds note"),
    ]
    codec = TextCodec((tmp_path / "tokenizer.json").read_bytes())
    data = open_data(str(tmp_path / "out/shards"))
    keys = pq.read_table(tmp_path / "out/shards/index.parquet").to_pylist()
    samples = [data.read(row["source"], row["key"]).sample for row in keys]
    assert len(samples) == 15
    for sample in samples:
        if sample.source != "turns":
            continue
        assert [turn.loss for turn in sample.turns] == [0, 0, 0, 0, 1]
        rendered = codec.render([replace(turn, media=()) for turn in sample.turns], [])
        learned = rendered.ids[np.flatnonzero(rendered.supervised)].tolist()
        assert codec.decode(learned) == "number one"
    assert {one.origin.record for one in samples if one.source == "turns"} == {"t", "t#2"}
