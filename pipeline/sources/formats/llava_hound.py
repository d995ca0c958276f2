"""LLaVA-Hound (ShareGPTVideo): LLaVA rows whose videos are folders of JPEGs, two a second.

`video` names the folder; its pictures, `c01_0001.jpeg` and so on, follow in order of their names.
Rows with chosen and rejected answers are for preference training and are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from pipeline.sources.fields import Row
from pipeline.sources.formats.llava_json import READS, Media, named_media, record
from pipeline.sources.json_rows import records
from pipeline.sources.records import Record, RowRefusal
from pipeline.untrusted import Problem

FPS = 2


def read(annotations: Path) -> Iterator[Record | RowRefusal]:
    """Records of the JSONL of instructions."""
    return records(annotations, partial(record, read_media=_folders), READS, "id")


def _folders(row: Row) -> Media:
    media = named_media(row)
    if isinstance(media, Problem):
        return media
    return tuple(
        replace(ref, fps=FPS, also=_without_ending(ref.name)) if ref.kind == "video" else ref
        for ref in media
    )


def _without_ending(name: str) -> tuple[str, ...]:
    """Some rows name the video file that the folder was made from."""
    return (str(PurePosixPath(name).with_suffix("")),) if PurePosixPath(name).suffix else ()
