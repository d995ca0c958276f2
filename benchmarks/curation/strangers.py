"""Rows and archives of strangers as sources of a build, and what must become of each record.

Tables R and A of tests/hostile; each archive is a source of its own, for a damaged one speaks for
all that its source misses. A recipe wants something of every source: text, where all else is bad.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow.parquet as pq

from tests.hostile import archives, rows
from tests.support import small_world

KEPT = "kept"
Outcome = Mapping[str, Counter[str]]
"""Source -> how many of its records were kept, and refused with which code."""

_SOURCE = (
    "  - {{name: {name}, dataset: small/{name}, format: llava_json, licence: CC0-1.0, repeat: 1, "
    "max_refused: 1, annotations: {at}, {media}}}\n"
)


def sources(root: Path, film: Path) -> tuple[str, Outcome]:
    """(the recipe's lines, what must become of their records); the files are made under `root`."""
    root.mkdir()
    found = [_rows(root, film)]
    for number, (name, (answers, make)) in enumerate(archives.ARCHIVES.items()):
        found.append(_archive(root, f"archive-{number}", answers, make, name))
    return "".join(line for line, _, _ in found), {name: wanted for _, name, wanted in found}


def _rows(root: Path, film: Path) -> tuple[str, str, Counter[str]]:
    """Table R, one row a line, the last one without an end of line."""
    (root / "x").mkdir()
    (root / "x/a.mp4").write_bytes(film.read_bytes())
    lines = [*rows.REFUSED.values(), *rows.ACROSS]
    (root / "rows.jsonl").write_bytes(b"\n".join(line.rstrip(b"\r\n") for _, line in lines))
    line = _line("rows", root / "rows.jsonl", f"media: {root}")
    return line, "rows", Counter(code for code, _ in lines)


def _archive(
    root: Path, name: str, answers: Mapping[str, str], make: Callable[[], bytes], what: str
) -> tuple[str, str, Counter[str]]:
    """One archive of table A and a question about each of its members."""
    data = make()
    suffix = "tar.gz" if data.startswith(b"\x1f\x8b") else "zip" if data[:2] == b"PK" else "tar"
    path = root / f"{name}.{suffix}"
    path.write_bytes(data)
    asked = [
        small_world.row(member, "image", member, f"{what}: what is {member}?", "this")
        for member in answers
    ]
    said = [{"from": "human", "value": f"{what}: what else?"}, {"from": "gpt", "value": "Words."}]
    asked.append({"id": "text", "conversations": said})
    (root / f"{name}.json").write_text(json.dumps(asked))
    line = _line(name, root / f"{name}.json", f'archives: ["{path}"]')
    return line, name, Counter([*answers.values(), KEPT])


def _line(name: str, at: Path, media: str) -> str:
    return _SOURCE.format(name=name, at=at, media=media)


def outcome(out: Path) -> Outcome:
    """What became of each source's records, as the build wrote it down."""
    found: dict[str, Counter[str]] = {}
    for books in json.loads((out / "books.json").read_text())["sources"]:
        found[books["source"]] = Counter({KEPT: books["chosen"]})
    for row in pq.read_table(out / "refused.parquet").to_pylist():
        found[row["source"]][row["code"]] += 1
    return found
