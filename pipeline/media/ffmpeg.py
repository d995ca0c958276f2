"""One sandboxed ffmpeg process: planned videos in, JPEG frames and the times of all frames out.

The graph of each video notes the presentation time of every frame it sees and of every frame it
keeps, in two small files, in integer units of the stream's time base. So duration, variable frame
rate and damage are judged by what came out of the decoder, not by what the header promised.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import ffmpeg
import numpy as np
import simplejpeg

from pipeline.media import frame_sampling, sandbox
from pipeline.media.decoded import Broken
from pipeline.media.probe import MAX_FPS, RGB, Stream, check_exit, guards
from shards.profile import Profile

DECODE_SECONDS = 60  # and one second more for each second of video
HDR = ("smpte2084", "arib-std-b67")
Size = tuple[int, int]  # width, height
Plane = np.ndarray[Any, np.dtype[np.uint8]]
_EXACT = "bicubic+accurate_rnd+full_chroma_int+bitexact"
_BICUBIC = {"filter": "bicubic", "param_a": 0, "param_b": 0.5}
# transfer and primaries are named alike on both sides, so that only matrix and range change
_SAME = {"color_primaries": "bt709", "color_trc": "bt709"}  # on both sides: never converted
_HARMLESS = re.compile(r"not on whitelist|Last message repeated")  # streams that are not decoded
_TIME = re.compile(rb"^frame:(\d+) +pts:(-?\d+|NOPTS)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The part of the stream to keep: [start, end) in ticks (None: all), and its length.

    Frames come from `first` on: the one that is on screen at the start is from before it.
    """

    start: int | None
    end: int | None
    seconds: Fraction
    seek: int  # µs into the file, 0 for none
    first: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to take out of one video; `stored` is the size of a frame, its sides even."""

    path: Path
    stream: Stream
    window: Window
    rule: frame_sampling.Cells
    stored: Size

    @property
    def pixels(self) -> int:
        """How many pixels the header promises: what decoding will cost."""
        width, height = self.stream.size
        return int(width * height * self.stream.fps * self.window.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """JPEGs, their times, and the times of all frames from where decoding began, in ticks."""

    jpegs: list[bytes]
    pts: list[int]
    every: list[int]


class _Source:
    """One video of a run: its open file, and where its frames and its two logs of times go."""

    def __init__(self, plan: Plan, descriptor: int, profile: Profile) -> None:
        self.plan = plan
        self.file = descriptor
        self.profile = profile
        self.jpegs: list[bytes] = []
        self.every, self.kept = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        width, height = plan.stored
        # 4:2:0: a luma plane, and two chroma planes of a quarter each
        self._size = width * height * 3 // 2
        # a cap of bytes: more frames than the cap and a second's worth is a runaway stream
        self.outlet = sandbox.Outlet(
            self._encode,
            piece_nbytes=self._size,
            max_bytes=(profile.frame_cap + 1 + MAX_FPS) * self._size,
        )

    def close(self) -> None:
        """Close its two logs and its pipe."""
        self.every.close()
        self.kept.close()
        self.outlet.close()

    def _encode(self, raw: memoryview) -> None:
        # a piece shorter than a frame is the end of a broken run: the exit status tells
        if len(raw) == self._size:
            planes = _planes(raw, *self.plan.stored)
            quality = self.profile.jpeg_quality
            self.jpegs.append(simplejpeg.encode_jpeg_yuv_planes(*planes, quality))


def extract(plans: Sequence[Plan], profile: Profile) -> list[Extracted]:
    """The frames of each video, in one process; raises Broken if anything at all went wrong."""
    with contextlib.ExitStack() as stack:
        sources = []
        for plan in plans:
            file = stack.enter_context(sandbox.opened(plan.path))
            sources.append(_Source(plan, file, profile))
            stack.callback(sources[-1].close)
        # of each source all decoded times, then the kept ones
        logs = [log.fileno() for source in sources for log in (source.every, source.kept)]
        end = sandbox.run(
            _command(sources),
            seconds=sum(DECODE_SECONDS + int(plan.stream.seconds) for plan in plans),
            outlets=[source.outlet for source in sources],
            pass_fds=logs,
            inputs=[source.file for source in sources],
        )
        # one exit for all sources: a failure is not known to be any one's
        check_exit(end, "UNDECODABLE")
        errors = [line for line in end.stderr.splitlines() if not _HARMLESS.search(line)]
        extracted = [
            Extracted(jpegs=source.jpegs, pts=_times(source.kept), every=_times(source.every))
            for source in sources
        ]
    # a complaint without a picture is a refusal of its own kind (SHORT), with its own code
    if errors and any(source.jpegs for source in sources):
        raise Broken("DAMAGED", errors[0])
    return extracted


def _planes(raw: memoryview, width: int, height: int) -> Iterator[Plane]:
    """The three planes of a 4:2:0 picture."""
    pixels = np.frombuffer(raw, np.uint8)
    for parts in (1, 2, 2):  # chroma has half of each side
        plane = pixels[: width * height // parts**2].reshape(height // parts, width // parts)
        pixels = pixels[plane.size :]
        yield plane


def _times(log: IO[bytes]) -> list[int]:
    """The times in a log; a counter that starts again means that the graph was rebuilt."""
    log.seek(0)
    # ffmpeg rebuilds the graph when the size changes mid-stream, and its metadata filter counts
    # anew
    logged = _TIME.findall(log.read())
    if [int(number) for number, _ in logged] != list(range(len(logged))):
        raise Broken("SIZE_CHANGES", "size or pixel format changes within the stream")
    if any(time == b"NOPTS" for _, time in logged):
        raise Broken("DAMAGED", "a frame without presentation time")
    return [int(time) for _, time in logged]


def _command(opened: Sequence[_Source]) -> list[str]:
    outputs = [_output(source) for source in opened]
    # -copyts: times stay those of the stream, not shifted to begin at 0
    flags = ("-nostdin", "-copyts", "-v", "error", "-filter_complex_threads", "1")
    merged = ffmpeg.merge_outputs(*outputs).global_args(*flags)
    command: list[str] = merged.compile(sandbox.tool("ffmpeg"))
    return command


def _output(source: _Source) -> Any:
    """One input, one graph, one raw output; its frames keep the stream's own times."""
    plan = source.plan
    stream = source.plan.stream
    window = source.plan.window
    # one thread: units of work run side by side on the other cores
    options = guards(plan.path.suffix.lower() == ".gif") | {"threads": 1}
    if window.seek:
        options["ss"] = f"{window.seek}us"
    name = f"file:{sandbox.input_name(source.file)}"
    # noaccurate_seek: frames before the seek point pass too, and `trim` takes what the span needs
    node = ffmpeg.input(name, noaccurate_seek=None, bitexact=None, **options)
    every = source.every.fileno()
    # the number makes the nodes of two spans of one file different: ffmpeg-python joins equal ones
    node = node[str(stream.index)].filter("metadata", "add", key="every", value=every)
    # ticks of the stream from here on, whatever time base its decoder hands on
    node = node.filter("settb", str(stream.time_base))
    if stream.interlaced:
        # yadif doubles the time base; set back
        node = node.filter("yadif", deint="interlaced").filter("settb", str(stream.time_base))
    node = _noted(node, "every", every)
    if window.start is not None:
        node = node.filter("trim", start_pts=window.first, end_pts=window.end)
    node = node.filter("select", frame_sampling.select_expression(plan.rule, window.start))
    node = _pictured(node, plan, source.profile)
    # metadata marks a frame for `print`: kept ones carry both keys
    node = node.filter("metadata", "add", key="kept", value=1)
    node = _noted(node, "kept", source.kept.fileno())
    return node.output(
        f"pipe:{source.outlet.writer}",
        format="rawvideo",
        pix_fmt="yuv420p",
        fps_mode="passthrough",
        bitexact=None,
    )


def _noted(node: Any, key: str, descriptor: int) -> Any:
    """Write the times of frames with the key to a descriptor, in ticks of the link's time base."""
    return node.filter("metadata", "print", key=key, file=f"pipe:{descriptor}")


def _pictured(node: Any, plan: Plan, profile: Profile) -> Any:
    """Scale (square pixels) and map to the colours of JPEG: full-range BT.601, 4:2:0.

    zscale scales in integers, for an eighth of what swscale takes; matrices it would apply in
    floating point, which differs between processors, so the integers of `colorspace` do that.
    """
    stream = plan.stream
    matrix = plan.stream.matrix
    # ffmpeg's words: pc is full range 0..255, tv is 16..235
    full = "pc" if stream.full_range else "tv"
    if matrix == RGB:
        matrix = "bt470bg"
        full = "pc"
        node = node.filter("scale", flags=_EXACT, out_color_matrix=matrix, out_range=full)
        node = node.filter("format", "yuv444p")
    elif any(
        side % stream.chroma_step for side in stream.size
    ):  # zscale wants whole chroma samples
        node = node.filter("scale", flags=_EXACT, in_range=full, out_range=full)
        node = node.filter("format", "yuv444p|yuv444p12")
    if _misread(plan):
        node = node.filter("zscale", w=plan.stored[0] * 3 // 4 * 2, h=plan.stored[1], **_BICUBIC)
    size = {"w": plan.stored[0], "h": plan.stored[1], **_BICUBIC}
    # PQ and HLG: to linear light, BT.709 primaries, tone curve, then the BT.709 transfer
    if stream.transfer in HDR:
        node = node.filter("zscale", **size)
        node = node.filter("zscale", transfer="linear", npl=100).filter("format", "gbrpf32le")
        node = node.filter("zscale", primaries="bt709")
        node = node.filter("tonemap", profile.tone_map, desat=0)
        node = node.filter("zscale", transfer="bt709", matrix="470bg", range="full")
        node = node.filter("format", "yuv420p")
    else:
        # the decoder may leave the matrix unset: what players assume is written before it is
        # converted
        node = node.filter("setparams", colorspace=matrix, range=full, **_SAME)
        node = node.filter("zscale", **size, chromal="center").filter("format", "yuv420p")
        node = node.filter("colorspace", all="bt709", space="bt470bg", range="pc")
    # square pixels, as `displayed` already stretched them
    node = node.filter("setsar", "1")
    return node


def _misread(plan: Plan) -> bool:
    """Whether a plane would become narrower by 2 to 31/15: it goes by way of 3/2 of its width.

    There zimg 3.0.4 takes pixels from the wrong place on processors with AVX-512. A chroma plane is
    scaled half, as much or twice as much as luma.
    """
    stream = plan.stream
    stored = plan.stored[0]
    # the planes that zimg sees: a picture to be turned by 90 degrees is turned before scaling
    width = stream.size[1] if stream.rotation % 180 else stream.size[0]
    scales = (Fraction(width * part, 2 * stored) for part in (1, 2, 4))
    return any(2 < scale <= Fraction(31, 15) for scale in scales)
