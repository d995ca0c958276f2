"""Video-MME: three questions a video, four options, scored by duration; subtitles as SRT files.

`{videoID, question_id, question, options, answer, duration, domain, sub_category, task_type}`: the
options bear their letters. Videos are `data/<videoID>.{mp4,mkv}`, subtitles
`subtitle/<videoID>.srt`.
"""

from __future__ import annotations

from pipeline.sources.benchmarks.item import (
    Benchmark,
    BenchmarkItem,
    axes,
    bare_options,
    letter_given,
    stem_video,
    text_of,
    texts_of,
)
from pipeline.sources.fields import Row


def item_of(name: str, row: Row) -> BenchmarkItem:
    """One question."""
    options = texts_of(row["options"], "options")
    return BenchmarkItem(
        id=name,
        media=(stem_video(row["videoID"]),),
        question=text_of(row, "question"),
        options=bare_options(options) or options,
        answers=letter_given(row["answer"], len(options)),
        groups=axes(
            duration=row["duration"],
            domain=row["domain"],
            sub_category=row["sub_category"],
            task=row["task_type"],
        ),
        subtitles=f"{row['videoID']}.srt",
    )


BENCHMARK = Benchmark(
    name="video_mme",
    annotations=("videomme/*.parquet", "*.parquet"),
    columns=(
        *("videoID", "question_id", "question", "options", "answer"),
        *("duration", "domain", "sub_category", "task_type"),
    ),
    item_of=item_of,
    media=("data", "videos", ""),
    subtitles="subtitle",
    layout="EvolvingLMMs-Lab/lmms-eval 0696573, lmms_eval/tasks/videomme/utils.py",
)
