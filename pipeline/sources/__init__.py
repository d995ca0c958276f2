"""A line belongs here if it turns a published file into records or refusals: `FORMATS` by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from pipeline.names import printable
from pipeline.sources.benchmarks import BENCHMARKS
from pipeline.sources.formats import (
    activitynet_qa,
    benchmark_questions,
    cinepile,
    finevideo,
    image_urls,
    llava_hound,
    llava_json,
    nextqa_csv,
    oryx_patches,
    parquet_images,
    perceptiontest,
    sharegpt4video,
    table,
    video_instruct,
    videochat2_it,
    webdataset,
)
from pipeline.sources.records import Columns, Record, RowRefusal

Adapter = Callable[..., Iterator[Record | RowRefusal]]
"""Takes annotation files and yields exactly one item per published record. It never raises for a
bad row; a file that is not of the format raises UserError."""

FORMATS: dict[str, Adapter] = {
    "llava_json": llava_json.read,
    "parquet_images": parquet_images.read,
    "nextqa_csv": nextqa_csv.read,
    "activitynet_qa": activitynet_qa.read,
    "benchmark_questions": benchmark_questions.read,
    "cinepile": cinepile.read,
    "finevideo": finevideo.read,
    "image_urls": image_urls.read,
    "llava_hound": llava_hound.read,
    "oryx_patches": oryx_patches.read,
    "perception_test": perceptiontest.read,
    "sharegpt4video": sharegpt4video.read,
    "table": table.read,
    "sharegpt_messages": llava_json.read,
    "video_instruct": video_instruct.read,
    "videochat2_it": videochat2_it.read,
    "webdataset": webdataset.read,
    **{name: benchmark.records for name, benchmark in BENCHMARKS.items()},
}
MAPPED = ("table", "webdataset")
"""Formats that are told by the recipe's `columns` what their columns mean."""
JOINED = ("activitynet_qa", "perception_test")
"""Formats of several files that make up one table; of all others, files follow one another."""


def records(
    form: str, paths: Sequence[Path], columns: Columns = ()
) -> Iterator[Record | RowRefusal]:
    """The records of a source; with several files, each is named `<file>#<number>:<record>`.

    Publishers count from 0 in every file, so an id alone would stand for several records.
    """
    read = partial(FORMATS[form], columns=columns) if form in MAPPED else FORMATS[form]
    names = file_names(form, paths)
    if not names:
        yield from read(*paths)
        return
    # files of one source repeat ids from 0: the file's name keeps them apart
    for path, name in zip(paths, names, strict=True):
        for item in read(path):
            yield replace(item, record=f"{name}:{item.record}")


def file_names(form: str, paths: Sequence[Path]) -> list[str]:
    """What stands before the ids of the records of each file; empty where nothing does."""
    if form in JOINED or len(paths) == 1:
        return []
    return [f"{printable(path.stem)}#{number}" for number, path in enumerate(paths)]
