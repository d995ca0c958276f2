"""Admission of 10^6 rows in one file: memory and CPU, for lists, lines and Parquet.

CPU is told by that of a plain loop over the same lines (json.loads, sha256), so that a slower
machine changes little. Each file is made twice: once of conversations over a few pictures that are
there, all kept, and once so that nearly every row names a picture that is missing. One process
admits one file. Besides: a list with a syntax error near its beginning, and one Parquet row group
of embedded pictures that is larger than a worker's memory may be.
"""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from rich.console import Console

from benchmarks.frame import Bar, at_most, equal
from benchmarks.size.memory import peak_bytes
from pipeline.sources import records
from pipeline.stages.admit_records import SourceUnit, admit
from shards.errors import UserError
from shards.pool import Pool
from shards.profile import Profile

FOLDER = Path("runs/benchmarks/admission")
ROWS = 1_000_000
PICTURES = 10
MEMORY_MB, EMBEDDED_MB = 600, 1_000
BEFORE = {"kept": 65, "missing": 59}
"""CPU of the version that held all rows in memory, by that of a plain loop."""
MORE = 1.15
GROUP_BYTES = 3 << 29
WORDS = "what is shown here and why does it move so fast over the street by night".split()


def run(console: Console) -> list[Bar]:
    made(FOLDER)
    bars = []
    for what, before in BEFORE.items():
        plain = measured("plain", f"{what}.jsonl")["cpu"]
        for form in ("json", "jsonl", "parquet"):
            said = measured("admit", f"{what}.{form}")
            console.print(f"{what}.{form}: {said}", highlight=False)
            bars.append(at_most(f"MB, {ROWS:.0e} rows {what}, {form}", said["mb"], MEMORY_MB))
            if form != "parquet":
                times, most = said["cpu"] / plain, round(before * MORE, 1)
                bars.append(at_most(f"CPU by a plain loop's, {what}, {form}", times, most))
            refused = ROWS - PICTURES if what == "missing" else 0
            bars.append(equal(f"rows refused, {what}, {form}", said["refused"], refused))
    broken = measured("read", "broken.json")
    bars.append(at_most("MB, a list broken at its third row", broken["mb"], MEMORY_MB))
    bars.append(equal("lists that were found broken", broken["refused"], 1))
    embedded = measured("admit", "embedded.parquet")
    bars.append(
        at_most(f"MB, {GROUP_BYTES >> 20} MB in one row group", embedded["mb"], EMBEDDED_MB)
    )
    return bars


def made(folder: Path, count: int = ROWS) -> None:
    """The files, written once."""
    (folder / "media").mkdir(parents=True, exist_ok=True)
    for number in range(PICTURES):
        Image.new("RGB", (64, 64), (number * 20, 90, 90)).save(folder / f"media/{number}.png")
    for what in BEFORE:
        if not (folder / f"{what}.parquet").exists():
            rows = (_row(number, what) for number in range(count))
            with (folder / f"{what}.jsonl").open("w") as lines:
                lines.writelines(json.dumps(row) + "\n" for row in rows)
            _list(folder / f"{what}.jsonl", folder / f"{what}.json")
            _table(folder / f"{what}.jsonl", folder / f"{what}.parquet")
    _break(folder / "kept.json", folder / "broken.json")
    _embed(folder / "embedded.parquet")


def _row(number: int, what: str) -> dict[str, Any]:
    draw = random.Random(number)
    said = [" ".join(draw.choices(WORDS, k=6)) for _ in range(4)]
    at = number % PICTURES if what == "kept" or number < PICTURES else number
    turns = [{"from": "human", "value": f"<image>\n{said[0]} {number}?"}]
    turns += [{"from": "gpt", "value": said[1]}, {"from": "human", "value": f"{said[2]}?"}]
    turns += [{"from": "gpt", "value": said[3]}]
    return {"id": f"row-{number}", "image": f"{at}.png", "conversations": turns}


def _list(lines: Path, path: Path) -> None:
    with lines.open() as rows, path.open("w") as whole:
        whole.write("[")
        for number, row in enumerate(rows):
            whole.write(("," if number else "") + row.rstrip("\n"))
        whole.write("]")


def _table(lines: Path, path: Path) -> None:
    with lines.open() as rows:
        first = pa.Table.from_pylist([json.loads(next(rows))])
        with pq.ParquetWriter(path, first.schema) as writer:
            writer.write_table(first)
            while some := [json.loads(row) for row in itertools.islice(rows, 1 << 16)]:
                writer.write_table(pa.Table.from_pylist(some, first.schema))


def _break(whole: Path, path: Path) -> None:
    """The same list, but for a key without a value in its third row."""
    if not path.exists():
        with whole.open() as before, path.open("w") as after:
            beginning = before.read(4096)
            at = beginning.index('"row-2"')
            after.write(beginning[:at] + "," + beginning[at:])
            while piece := before.read(1 << 20):
                after.write(piece)


def _embed(path: Path) -> None:
    """Pictures of a megabyte each in one row group; they need not open."""
    if path.exists():
        return
    draw = random.Random(1)
    few = [{"bytes": draw.randbytes(1 << 20), "path": f"{n}.png"} for n in range(256)]
    talks = [_row(number, "kept")["conversations"] for number in range(GROUP_BYTES >> 20)]
    images = [few[number % len(few)] for number in range(len(talks))]
    table = pa.table({"image": images, "conversations": talks})
    # a page is closed after a batch of values: without one it would hold a thousand pictures
    how = {"compression": "none", "use_dictionary": False, "write_batch_size": 8}
    pq.write_table(table, path, row_group_size=1 << 20, **how)


def measured(what: str, name: str) -> dict[str, float]:
    """CPU seconds, peak memory and refusals of a process that admits, or only reads, a file."""
    command = [sys.executable, "-m", "benchmarks.size.admission", what, name]
    said = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    answer: dict[str, float] = json.loads(said)
    return answer


def admitted(name: str, pool: str) -> int:
    """How many records of a file are refused."""
    Pool(pool, Profile())
    unit = SourceUnit(
        pool=pool,
        name="s",
        dataset="d",
        format="parquet_images" if name.endswith("parquet") else "llava_json",
        annotations=(str((FOLDER / name).absolute()),),
        media=str((FOLDER / "media").absolute()),
        licence="MIT",
    )
    counts = admit(unit).counts
    return counts["records_refused"] + counts["samples_refused"]


def plain(name: str, _: str) -> int:
    """The least that anybody does with a row."""
    with (FOLDER / name).open("rb") as lines:
        for line in lines:
            json.loads(line)
            sha256(line).digest()
    return 0


def read(name: str, pool: str) -> int:
    """1 where the file cannot be read to its end; nothing is admitted to the pool."""
    del pool
    try:
        for _ in records("llava_json", [FOLDER / name]):
            pass
    except UserError:
        return 1
    return 0


STEPS: dict[str, Callable[[str, str], int]] = {"admit": admitted, "plain": plain, "read": read}


if __name__ == "__main__":
    import tempfile

    began = time.process_time()
    with tempfile.TemporaryDirectory(dir=FOLDER) as pool:
        refused = STEPS[sys.argv[1]](sys.argv[2], pool)
    mb = peak_bytes() / (1 << 20)
    cpu = time.process_time() - began
    sys.stdout.write(json.dumps({"cpu": cpu, "mb": mb, "refused": refused}))
