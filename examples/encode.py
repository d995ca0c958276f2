"""Frames in steps of half a second -> many small video files, with few ffmpeg processes.

One process writes all videos of one style: the clips follow each other in one raw stream, a key
frame is forced where each begins, and ffmpeg's segment muxer cuts there.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

STEPS_PER_SECOND = 2

H264 = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-bf", "0", "-sc_threshold", "0")
VP8 = ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-crf", "10", "-b:v", "1M")
EXACT = ("-fflags", "+bitexact", "-flags:v", "+bitexact", "-threads", "1")


@dataclass(frozen=True)
class Style:
    """How one kind of video file is written; `drops` leaves out held frames: a variable rate."""

    suffix: str
    muxer: str
    codec: tuple[str, ...]
    fps: int
    drops: bool = False


MP4 = Style("mp4", "mp4", H264, 8)
STYLES = {
    13: Style("mkv", "matroska", H264, 10),
    14: Style("webm", "webm", VP8, 8),
    15: Style("mp4", "mp4", H264, 8, drops=True),
}


def style_of(index: int) -> Style:
    """The style of video `index`: of every 16 videos, 13 are plain mp4."""
    return STYLES.get(index % 16, MP4)


def encode(clips: Sequence[tuple[Path, NDArray[np.uint8]]], style: Style) -> None:
    """Write each clip [steps, height, width, 3] to its path; all have the same shape."""
    if not clips:
        return
    steps, height, width, _ = clips[0][1].shape
    hold = style.fps // STEPS_PER_SECOND
    seconds = steps // STEPS_PER_SECOND
    with tempfile.TemporaryDirectory(dir=clips[0][0].parent) as folder:
        arguments = [
            *("ffmpeg", "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"),
            *("-s", f"{width}x{height}", "-framerate", str(style.fps), "-i", "pipe:0"),
            *("-vf", _filters(style, steps * hold)),
            *("-vsync", "vfr", *style.codec, *EXACT),
            *("-g", "9999", "-force_key_frames", f"expr:gte(t,n_forced*{seconds})"),
            *("-f", "segment", "-segment_format", style.muxer, "-reset_timestamps", "1"),
            *("-segment_times", ",".join(str(seconds * (i + 1)) for i in range(len(clips)))),
            *("-segment_format_options", "fflags=+bitexact"),
            f"{folder}/%06d.{style.suffix}",
        ]
        if style.muxer == "mp4":
            arguments[-2] += ":movflags=+faststart"
        with subprocess.Popen(arguments, stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            for _, frames in clips:
                process.stdin.write(np.repeat(frames, hold, axis=0).tobytes())
            process.stdin.close()
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, arguments)
        for number, (path, _) in enumerate(clips):
            (Path(folder) / f"{number:06d}.{style.suffix}").rename(path)


def _filters(style: Style, frames: int) -> str:
    """4:2:0 colours, and for a variable rate only the frames that begin a step and some others."""
    keep = f"not(mod(n,4))+not(mod(n,7))+eq(mod(n,{frames}),{frames - 1})"
    return (f"select='{keep}'," if style.drops else "") + "format=yuv420p"


def convert(source: Path, target: Path, *options: str) -> None:
    """A changed copy of one video: `options` stand between input and output."""
    command = ("ffmpeg", "-v", "error", "-y", "-i", str(source), "-an", *options, *EXACT)
    subprocess.run([*command, str(target)], check=True)
