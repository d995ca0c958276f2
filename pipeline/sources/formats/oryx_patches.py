"""Oryx-SFT-Data: LLaVA rows whose media are byte ranges in large patch files.

`video: {patch, start_num, size: [bytes of each JPEG]}`, one frame a second; an image row has one
whole number as `size`. The frames of its LLaVA-Hound part are out of order, says its authors'
issue tracker, and cannot be put right: prefer the originals.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.sources.fields import Row
from pipeline.sources.formats import llava_json
from pipeline.sources.formats.llava_json import Media, named_media, record
from pipeline.sources.json_rows import records
from pipeline.sources.records import MediaRef, Record, RowRefusal, read_name
from pipeline.sources.turns import MEDIUM_FIELDS
from pipeline.untrusted import Problem

PATCH_FIELDS = ("patch", "start_num", "size")
READS = llava_json.READS | dict.fromkeys(("image", "video"), (*PATCH_FIELDS, *MEDIUM_FIELDS))
FPS = 1
MAX_PICTURES = 65_536


def read(annotations: Path) -> Iterator[Record | RowRefusal]:
    """Records of a list of Oryx rows."""
    return records(annotations, partial(record, read_media=_pieces), READS, "id")


def _pieces(row: Row) -> Media:
    patches = [(kind, row[kind]) for kind in ("image", "video") if isinstance(row.get(kind), dict)]
    if len(patches) != 1:
        return named_media(row)
    kind, value = patches[0]
    if not set(PATCH_FIELDS) <= set(value):
        return Problem("ROW_MISSING_FIELD", f"{kind} has no patch, start_num and size")
    sizes = value["size"] if isinstance(value["size"], list) else [value["size"]]
    name = read_name(value["patch"])
    if isinstance(name, Problem):
        return name
    if not _are_sizes(
        [value["start_num"] + 1 if type(value["start_num"]) is int else None, *sizes]
    ):
        return Problem("ROW_WRONG_TYPE", "start_num and size must be numbers of bytes")
    if kind == "image" and len(sizes) != 1:
        return Problem("ROW_WRONG_TYPE", f"an image of {len(sizes)} pieces")
    fps = FPS if kind == "video" else None
    return (MediaRef(kind=kind, name=name, start=value["start_num"], sizes=tuple(sizes), fps=fps),)


def _are_sizes(sizes: list[Any]) -> bool:
    return 1 < len(sizes) <= MAX_PICTURES and all(
        type(value) is int and 0 < value < 1 << 48 for value in sizes
    )
