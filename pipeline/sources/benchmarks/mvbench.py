"""MVBench: twenty tasks of 200 questions, a JSON file a task; the score is their mean.

`{video, question, candidates, answer}`, the answer is an option's text; some tasks name a span in
seconds (`start`, `end`). One task's videos are folders of frames, three a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.sources.benchmarks.item import (
    BadRow,
    Benchmark,
    BenchmarkItem,
    axes,
    letter_of_text,
    named_video,
    rows_of,
    sound,
    text_of,
    texts_of,
)
from pipeline.sources.fields import Row
from pipeline.sources.records import MediaRef, read_span
from pipeline.untrusted import Problem

FOLDERS = {
    "action_sequence": "star/Charades_v1_480",
    "action_prediction": "star/Charades_v1_480",
    "action_antonym": "ssv2_video",
    "fine_grained_action": "Moments_in_Time_Raw/videos",
    "unexpected_action": "FunQA_test/test",
    "object_existence": "clevrer/video_validation",
    "object_interaction": "star/Charades_v1_480",
    "object_shuffle": "perception/videos",
    "moving_direction": "clevrer/video_validation",
    "action_localization": "sta/sta_video",
    "scene_transition": "scene_qa/video",
    "action_count": "perception/videos",
    "moving_count": "clevrer/video_validation",
    "moving_attribute": "clevrer/video_validation",
    "state_change": "perception/videos",
    "fine_grained_pose": "nturgbd",
    "character_order": "perception/videos",
    "egocentric_navigation": "vlnqa",
    "episodic_reasoning": "tvqa/frames_fps3_hq",
    "counterfactual_inference": "clevrer/video_validation",
}
"""Where each task's videos lie; spans are named by start and end, not cut out."""
_FRAMES = {"episodic_reasoning": 3}


def rows(path: Path) -> Iterator[Row | Problem]:
    """The rows of a task, which its file's name tells."""
    for row in rows_of(path, ("video", "question", "candidates", "answer")):
        yield row if isinstance(row, Problem) else row | {"task": path.stem}


def item_of(name: str, row: Row) -> BenchmarkItem:
    """One question."""
    options = texts_of(row["candidates"], "candidates")
    if row["task"] not in FOLDERS:
        raise BadRow("ROW_BAD_ANSWER", f"{row['task'][:40]!r} is no task of MVBench")
    return BenchmarkItem(
        id=f"{row['task']}:{name}",
        media=(_video(row),),
        question=text_of(row, "question"),
        options=options,
        answers=letter_of_text(row["answer"], options),
        groups=axes(task=row["task"]),
    )


def _video(row: Row) -> MediaRef:
    video = named_video(f"{FOLDERS[row['task']]}/{row['video']}", fps=_FRAMES.get(row["task"]))
    bounds = row.get("start"), row.get("end")
    return video if None in bounds else replace(video, span=sound(read_span(list(bounds))))


BENCHMARK = Benchmark(
    name="mvbench",
    annotations=("json/*.json",),
    columns=("video", "question", "candidates", "answer"),
    item_of=item_of,
    rows=rows,
    media=("video", ""),
    layout="OpenGVLab/Ask-Anything, video_chat2/mvbench.ipynb, by its public copies; "
    "EvolvingLMMs-Lab/lmms-eval 1ab9504, lmms_eval/tasks/mvbench/utils.py",
)
