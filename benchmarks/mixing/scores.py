"""`score` over Ray beside a bare process pool: every frame of 10,000 clips decoded, and its mean.

The peer reads the same parts, decodes the same JPEGs and takes the same means; it verifies nothing,
writes nothing, and could not go on where it was. Both sides are warm when their clocks start.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from rich.console import Console

from benchmarks.frame import Bar, at_least, equal
from benchmarks.inputs.made_source import Scene, commit_source
from mixtures.tokens.text import TextCodec, train_tokenizer
from pipeline.jobs.job import Job
from pipeline.jobs.progress import steps
from pipeline.jobs.ray_executor import connect
from pipeline.jobs.score_pool import score_pool
from pipeline.jobs.workers import Workers
from shards.index import SCORES
from shards.pool import Pool
from shards.profile import Profile
from shards.receipts import receipt_name
from shards.sample import Turn

CLIPS, FRAMES, SIDE = 10_000, 8, 224
ROUNDS = 3


def run(console: Console) -> list[Bar]:
    with tempfile.TemporaryDirectory(prefix="scores-") as folder, connect(None) as workers:
        pool = made_pool(folder)
        list(workers.map(warm, range(2 * (os.cpu_count() or 1))))
        ratios = []
        for number in range(ROUNDS):
            sides = {bare: bare(pool), ours: ours(pool, workers)}
            (peer, theirs), (seconds, found) = sides[bare], sides[ours]
            console.print(f"round {number + 1}: process pool {peer:.1f} s, score {seconds:.1f} s")
            ratios.append(peer / seconds)
        return [
            equal("frames scored otherwise than by the peer", differing(theirs, found), 0),
            at_least("throughput: score / process pool, median", statistics.median(ratios), 0.85),
        ]


def made_pool(folder: str) -> Pool:
    """Clips of smooth noise, in parts of 256."""
    pool = Pool(folder, Profile())
    codec = TextCodec(train_tokenizer(["what is this"] * 4, 280))
    commit_source(pool, codec, "films", (scene(number) for number in range(CLIPS)))
    return pool


def scene(number: int) -> Scene:
    rng = np.random.default_rng(number)
    small = rng.integers(0, 256, (FRAMES, SIDE // 16, SIDE // 16, 3), np.uint8)
    frames = np.repeat(np.repeat(small, 16, 1), 16, 2)
    jpegs = [simplejpeg.encode_jpeg(np.ascontiguousarray(frame), 90) for frame in frames]
    said = [Turn(role="user", text="what?", media=((0, 0),)), Turn(role="assistant", text="this")]
    return jpegs, said


def means(frames: list[Any]) -> list[int]:
    """The scorer of both sides."""
    return [int(frame.mean()) for frame in frames]


def ours(pool: Pool, workers: Workers) -> tuple[float, dict[str, list[int]]]:
    """Seconds of `score`, and what it found; its receipts are removed again."""
    with steps() as bars:
        started = time.perf_counter()
        score_pool(
            "benchmarks.mixing.scores:means", "frame", Job(pool=pool, workers=workers, bars=bars)
        )
        seconds = time.perf_counter() - started
    receipts = pool.receipts("score")
    rows = pool.table(receipts, "scores", SCORES).to_pylist()
    for one in receipts:
        pool.store.remove(receipt_name(one.work_id))
    return seconds, {row["of"]: row["values"] for row in rows}


def bare(pool: Pool) -> tuple[float, dict[str, list[int]]]:
    """The same of a process pool, table by table."""
    names = pool.files(pool.receipts("decode"), "index/clips")
    tables = [
        (
            str(Path(pool.store.root, "clips")),
            pool.read(f"index/clips/{name}").select(["clip_id", "part", "offset", "nbytes"]),
        )
        for name in names
    ]
    count = os.cpu_count() or 1
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as processes:
        list(processes.map(warm, range(2 * count)))
        started = time.perf_counter()
        found = [pair for some in processes.map(read_and_score, tables) for pair in some]
        return time.perf_counter() - started, dict(found)


def read_and_score(table: tuple[str, Any]) -> list[tuple[str, list[int]]]:
    """The clips of a table: their frames lie back to back in the second member of each."""
    folder, rows = table
    found = []
    for row in rows.to_pylist():
        with Path(folder, row["part"]).open("rb") as file:
            file.seek(row["offset"])
            # a header, the description padded to blocks of 512, a header, the frames
            size = int(file.read(512)[124:135], 8)
            file.seek(-size % 512 + size + 512, 1)
            jpegs = [file.read(nbytes) for nbytes in row["nbytes"]]
        found.append((row["clip_id"], means([simplejpeg.decode_jpeg(jpeg) for jpeg in jpegs])))
    return found


def differing(theirs: dict[str, list[int]], found: dict[str, list[int]]) -> int:
    return sum(theirs[name] != found.get(name) for name in theirs) + len(
        found.keys() ^ theirs.keys()
    )


def warm(_: int) -> str:
    """Have a worker import what it needs; long enough that every worker gets one."""
    import pipeline.stages.scoring.score_table

    time.sleep(0.5)
    return pipeline.stages.scoring.score_table.SCORE_VERSION
