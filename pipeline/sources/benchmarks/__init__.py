"""A line belongs here if it reads one published evaluation set into questions: `BENCHMARKS`."""

from __future__ import annotations

from pipeline.sources.benchmarks import (
    activitynet,
    egoschema,
    image_choices,
    image_texts,
    longvideobench,
    lvbench,
    mathvista,
    mlvu,
    mmmu,
    mvbench,
    nextqa,
    perception_test,
    tempcompass,
    temporal,
    video_mme,
)
from pipeline.sources.benchmarks.item import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        video_mme.BENCHMARK,
        longvideobench.BENCHMARK,
        mlvu.BENCHMARK,
        lvbench.BENCHMARK,
        nextqa.BENCHMARK,
        perception_test.BENCHMARK,
        activitynet.BENCHMARK,
        mvbench.BENCHMARK,
        tempcompass.BENCHMARK,
        egoschema.BENCHMARK,
        image_choices.REALWORLDQA,
        image_choices.AI2D,
        image_choices.SCIENCEQA,
        mmmu.BENCHMARK,
        mathvista.BENCHMARK,
        image_texts.OCRBENCH,
        image_texts.TEXTVQA,
        temporal.BENCHMARK,
    )
}
"""The evaluation sets of the paper, and those of time that it does not score, by name."""
