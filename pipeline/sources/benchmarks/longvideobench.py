"""LongVideoBench: up to five options, scored by duration group; subtitles as JSON files.

As Parquet (`option0..option4`, `N/A` where there are fewer) or as `lvb_val.json` (`candidates`).
Cues count from `starting_timestamp_for_subtitles` of a longer video.
The test split has no `correct_choice`: it is answered, and not scored.
"""

from __future__ import annotations

from math import isfinite

from pipeline.sources.benchmarks.item import (
    BadRow,
    Benchmark,
    BenchmarkItem,
    axes,
    letter_of,
    named_video,
    text_of,
    texts_of,
)
from pipeline.sources.fields import Row

_OPTIONS = tuple(f"option{number}" for number in range(5))
_NONE = "N/A"


def item_of(name: str, row: Row) -> BenchmarkItem:
    """One question; a `correct_choice` of -1, as the test split has, is none."""
    listed = row.get("candidates") or [
        row[key] for key in _OPTIONS if row.get(key) not in (None, _NONE)
    ]
    options = texts_of(listed, "options")
    right = row.get("correct_choice")
    return BenchmarkItem(
        id=name,
        media=(named_video(row["video_path"]),),
        question=text_of(row, "question"),
        options=options,
        answers=() if right == -1 else letter_of(right, len(options)),
        groups=axes(duration=row.get("duration_group"), task=row.get("question_category")),
        subtitles=row.get("subtitle_path") or "",
        subtitles_from=_seconds(row.get("starting_timestamp_for_subtitles")),
    )


def _seconds(value: object) -> float:
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        raise BadRow("ROW_WRONG_TYPE", "starting_timestamp_for_subtitles is no number of seconds")
    return float(value)


BENCHMARK = Benchmark(
    name="longvideobench",
    annotations=("lvb_val.json", "validation-*.parquet"),
    columns=("id", "video_path", "question"),
    item_of=item_of,
    id_columns=("id",),
    subtitles="subtitles",
    layout="EvolvingLMMs-Lab/lmms-eval 03a5823, lmms_eval/tasks/longvideobench/utils.py",
)
