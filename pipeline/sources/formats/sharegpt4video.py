"""ShareGPT4Video captions: JSONL of `{video_id, video_path, captions: [{idx, content}]}`.

The caption of the whole video is the one whose `idx` is the text "-1"; it can be absent. (Its SFT
mix, `..._mix181k_vqa-153k_share-cap-28k.json`, is of the format llava_json.)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.sources.fields import Row
from pipeline.sources.json_rows import records
from pipeline.sources.questions import DESCRIBE, asked
from pipeline.sources.records import MediaRef, Record, RowRefusal, field_problem, read_name, refusal
from pipeline.untrusted import Problem

WHOLE = "-1"
READS = {"video_id": (), "video_path": (), "captions": ("idx", "content")}


def read(annotations: Path) -> Iterator[Record | RowRefusal]:
    """One record per video: its whole caption."""
    return records(annotations, _record, READS, "video_id")


def _record(name: str, row: Row) -> Record | RowRefusal:
    if problem := field_problem(row, ["video_id", "video_path", "captions"]):
        return refusal(name, problem)
    captions = row["captions"]
    if not isinstance(captions, list):
        return refusal(name, Problem("ROW_WRONG_TYPE", "captions is not a list"))
    whole = [
        caption for caption in captions if isinstance(caption, dict) and caption.get("idx") == WHOLE
    ]
    if len(whole) != 1:
        found = f"{len(whole)} captions of the whole video"
        return refusal(name, Problem("ROW_MISSING_FIELD", found))
    path = read_name(row["video_path"])
    media = path if isinstance(path, Problem) else MediaRef(kind="video", name=path)
    return asked(name, media, DESCRIBE, whole[0].get("content"))
