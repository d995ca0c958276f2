"""One caged ffmpeg process: planned videos in, JPEG frames and the times of all frames out.

The graph of each video notes the presentation time of every frame it sees and of every frame it
keeps, in two small files, in integer units of the stream's time base. So duration, variable frame
rate and damage are judged by what came out of the decoder, not by what the header promised.
"""

from __future__ import annotations

import contextlib
import functools
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import ffmpeg
import numpy as np
import simplejpeg

from pipeline import cage, frames
from pipeline.decoded import Broken
from pipeline.probe import Stream, check_exit, guards
from shards.profile import Profile

DECODE_SECONDS = 60  # and one second more for each second of video
HDR = ("smpte2084", "arib-std-b67")
_HARMLESS = re.compile(r"not on whitelist|Last message repeated")  # streams that are not decoded
_TIME = re.compile(rb"^frame:(\d+) +pts:(-?\d+|NOPTS)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The part of the stream to keep: [start, end) in ticks (None: all), and its length."""

    start: int | None
    end: int | None
    seconds: Fraction
    seek: int  # µs into the file, 0 for none


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to take out of one video; `stored` is the size of a frame, `inner` of its picture."""

    path: Path
    stream: Stream
    window: Window
    rule: frames.Cells
    stored: tuple[int, int]
    inner: tuple[int, int]

    @property
    def pixels(self) -> int:
        """How many pixels the header promises: what decoding will cost."""
        width, height = self.stream.size
        return int(width * height * self.stream.fps * self.window.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """JPEGs, their times, and the times of all frames of the window, in ticks."""

    jpegs: list[bytes]
    pts: list[int]
    every: list[int]


class _Source:
    """One video of a run: where its frames and its two logs of times go."""

    def __init__(self, plan: Plan, profile: Profile) -> None:
        self.plan, self.profile = plan, profile
        self.jpegs: list[bytes] = []
        self.every, self.kept = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        width, height = plan.stored
        size = width * height * 3
        self.outlet = cage.Outlet(
            self._encode, piece=size, max_bytes=(profile.frame_cap + 1) * size
        )

    def close(self) -> None:
        self.every.close()
        self.kept.close()
        self.outlet.close()

    def _encode(self, raw: memoryview) -> None:
        width, height = self.plan.stored
        if len(raw) == width * height * 3:
            pixels = np.frombuffer(raw, np.uint8).reshape(height, width, 3)
            self.jpegs.append(encode_jpeg(pixels, self.profile.jpeg_quality, "420"))


def extract(plans: Sequence[Plan], profile: Profile) -> list[Extracted]:
    """The frames of each video, in one process; raises Broken if anything at all went wrong."""
    with contextlib.ExitStack() as stack:
        sources = [_Source(plan, profile) for plan in plans]
        for source in sources:
            stack.callback(source.close)
        logs = [log.fileno() for source in sources for log in (source.every, source.kept)]
        end = cage.run(
            _command(sources),
            seconds=sum(DECODE_SECONDS + int(plan.stream.seconds) for plan in plans),
            outlets=[source.outlet for source in sources],
            pass_fds=logs,
        )
        check_exit(end, "UNDECODABLE")
        errors = [line for line in end.stderr.splitlines() if not _HARMLESS.search(line)]
        found = [
            Extracted(jpegs=source.jpegs, pts=_times(source.kept), every=_times(source.every))
            for source in sources
        ]
    if errors and any(source.jpegs for source in sources):
        raise Broken("DAMAGED", errors[0])
    return found


def encode_jpeg(pixels: np.ndarray[Any, np.dtype[np.uint8]], quality: int, chroma: str) -> bytes:
    """JPEG bytes of RGB uint8[height, width, 3]; `chroma` is "420" or "444"."""
    data: bytes = simplejpeg.encode_jpeg(pixels, quality, "RGB", chroma)
    return data


def _times(log: IO[bytes]) -> list[int]:
    """The times in a log; a counter that starts again means that the graph was rebuilt."""
    log.seek(0)
    found = _TIME.findall(log.read())
    if [int(number) for number, _ in found] != list(range(len(found))):
        raise Broken("SIZE_CHANGES", "size or pixel format changes within the stream")
    if any(time == b"NOPTS" for _, time in found):
        raise Broken("DAMAGED", "a frame without presentation time")
    return [int(time) for _, time in found]


def _command(sources: Sequence[_Source]) -> list[str]:
    outputs = [_output(source) for source in sources]
    flags = ("-nostdin", "-copyts", "-v", "error", "-filter_complex_threads", "1")
    merged = ffmpeg.merge_outputs(*outputs).global_args(*flags)
    command: list[str] = merged.compile(cage.tool("ffmpeg"))
    return command


def _output(source: _Source) -> Any:
    """One input, one graph, one raw output; its frames keep the stream's own times."""
    plan, stream, window = source.plan, source.plan.stream, source.plan.window
    options = guards(plan.path.suffix.lower() == ".gif") | {"threads": 1}
    if window.seek:
        options["ss"] = f"{window.seek}us"
    node = ffmpeg.input(f"file:{plan.path}", noaccurate_seek=None, bitexact=None, **options)
    every = source.every.fileno()
    # the number makes the nodes of two spans of one file different: ffmpeg-python joins equal ones
    node = node[str(stream.index)].filter("metadata", "add", key="every", value=every)
    node = node.filter("settb", str(stream.time_base))
    if stream.interlaced:
        node = node.filter("yadif", deint="interlaced").filter("settb", str(stream.time_base))
    if window.start is not None:
        node = node.filter("trim", start_pts=window.start, end_pts=window.end)
    node = _noted(node, "every", every)
    node = node.filter("select", frames.select_expression(plan.rule))
    node = _pictured(node, plan, source.profile)
    node = node.filter("metadata", "add", key="kept", value=1)
    node = _noted(node, "kept", source.kept.fileno())
    return node.output(
        f"pipe:{source.outlet.writer}",
        format="rawvideo",
        pix_fmt="rgb24",
        fps_mode="passthrough",
        bitexact=None,
    )


def _noted(node: Any, key: str, descriptor: int) -> Any:
    """Write the times of frames with the key to a descriptor, in ticks of the link's time base."""
    return node.filter("metadata", "print", key=key, file=f"pipe:{descriptor}")


def _pictured(node: Any, plan: Plan, profile: Profile) -> Any:
    """Scale (square pixels), map HDR to BT.709, centre on zeros: RGB of the stored size."""
    stream, stored, inner = plan.stream, plan.stored, plan.inner
    flags = "bicubic+accurate_rnd+full_chroma_int+bitexact"
    if stream.transfer in HDR:
        if not has_zscale():
            raise Broken("COLOUR_REFUSED", f"{stream.transfer}: this ffmpeg has no zscale filter")
        node = node.filter("scale", *inner, flags=flags)
        node = node.filter("zscale", transfer="linear", npl=100).filter("format", "gbrpf32le")
        node = node.filter("zscale", primaries="bt709")
        node = node.filter("tonemap", profile.tone_map, desat=0)
        node = node.filter("zscale", transfer="bt709", matrix="bt709", range="full")
        node = node.filter("format", "rgb24")
    else:
        node = node.filter("scale", *inner, flags=flags, in_color_matrix=stream.matrix)
        # the same bytes as rgb24 at once, for a quarter of the time: planes have a SIMD path
        node = node.filter("format", "gbrp").filter("format", "rgb24")
    node = node.filter("setsar", "1")
    if inner != stored:
        node = node.filter("pad", *stored, "(ow-iw)/2", "(oh-ih)/2", "black")
    return node


@functools.cache
def has_zscale() -> bool:
    """Whether this ffmpeg can map HDR; asked once per process."""
    said = subprocess.run(
        [cage.tool("ffmpeg"), "-hide_banner", "-v", "error", "-filters"],
        capture_output=True,
        check=False,
    )
    return b" zscale " in said.stdout
