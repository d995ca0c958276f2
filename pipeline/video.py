"""Videos: one ffprobe and one ffmpeg process per file, both caged, nothing decoded twice.

The graph notes the presentation time of every frame it sees and of every frame it keeps, in two
small files, in integer units of the stream's time base. So duration, variable frame rate and
damage are judged by what came out of the decoder, not by what the header promised.
"""

from __future__ import annotations

import functools
import re
import subprocess
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import ffmpeg
import numpy as np
import simplejpeg

from pipeline import cage, frames
from pipeline.decoded import Broken, Decoded, placed
from pipeline.probe import Stream, check_exit, guards, probe, stream_of
from shards.profile import Profile

MULTIPLE = 64  # sides of stored frames: the model pools 16-pixel patches 2 x 2 and 4 x 4
MAX_ASPECT_STORED = 3
DECODE_SECONDS = 60  # and one second more for each second of video
COVERED = (Fraction(8, 10), Fraction(12, 10))  # of the promised duration; outside: SHORT, LONG
SEEK_FROM = 10_000_000  # µs; before that, decoding from the start is as quick as seeking
SEEK_MARGIN = 1_000_000  # µs; edit lists and B-frames put a seek a little late
_SEEKABLE = ("mov", "matroska")
_HDR = ("smpte2084", "arib-std-b67")
_HARMLESS = re.compile(r"not on whitelist|Last message repeated")  # streams that are not decoded
_TIME = re.compile(rb"^frame:(\d+) +pts:(-?\d+|NOPTS)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The part of the stream to keep: [start, end) in ticks (None: all), and its length."""

    start: int | None
    end: int | None
    seconds: Fraction
    seek: int  # µs into the file, 0 for none


def decode_video(path: Path, profile: Profile, span: tuple[int, int] | None) -> Decoded:
    """The kept frames of the first video stream that is no cover art; raises Broken."""
    stream = stream_of(probe(path), path.suffix.lower() == ".gif")
    window = _window(stream, span)
    between = frames.interval(window.seconds, profile.fps, profile.frame_cap)
    capped = between > Fraction(1, profile.fps)
    rule = frames.cells(between, stream.time_base, capped=capped)
    jpegs, pts, every = _extract(path, stream, window, rule, profile)
    _check_times(stream, window, pts, every, rule, len(jpegs))
    origin = every[0] if window.start is None else window.start
    length = frames.frame_ticks(every, round(1 / (stream.fps * stream.time_base)))
    end = every[-1] + length if window.end is None else min(every[-1] + length, window.end)
    duration = (end - origin) * stream.time_base
    (width, height), _ = _placed(stream, profile)
    return Decoded(
        kind="video",
        frames=tuple(jpegs),
        pts=tuple(time - origin for time in pts),
        time_base=stream.time_base.as_integer_ratio(),
        duration=duration.as_integer_ratio(),
        width=width,
        height=height,
        rotation=stream.rotation,
        is_vfr=frames.is_vfr(every),
        source_fps=stream.fps.as_integer_ratio(),
        colour=_colour(stream, profile),
        codec=stream.codec,
        container=stream.container,
        source_size=stream.displayed,
    )


def _window(stream: Stream, span: tuple[int, int] | None) -> Window:
    """The span in ticks, counted from the stream's first frame; raises Broken outside of it."""
    if span is None:
        return Window(start=None, end=None, seconds=stream.seconds, seek=0)
    start, end = (Fraction(at, 1_000_000) for at in span)
    if start >= stream.seconds or end <= start:
        found = f"{float(start):g} s to {float(end):g} s"
        raise Broken("SPAN_OUTSIDE", f"{found} of {float(stream.seconds):g} s")
    first, last = (stream.start + round(at / stream.time_base) for at in (start, end))
    seek = span[0] - SEEK_MARGIN if span[0] > SEEK_FROM and stream.container in _SEEKABLE else 0
    return Window(start=first, end=last, seconds=min(end, stream.seconds) - start, seek=seek)


def _placed(stream: Stream, profile: Profile) -> tuple[tuple[int, int], tuple[int, int]]:
    return placed(
        *stream.displayed,
        area=profile.video_area,
        multiple=MULTIPLE,
        max_aspect=MAX_ASPECT_STORED,
    )


def _extract(
    path: Path, stream: Stream, window: Window, rule: frames.Cells, profile: Profile
) -> tuple[list[bytes], list[int], list[int]]:
    """(JPEGs, their times, the times of all frames of the window) from one ffmpeg process."""
    (width, height), _ = _placed(stream, profile)
    jpegs: list[bytes] = []

    def encode(raw: bytes) -> None:
        if len(raw) == width * height * 3:
            pixels = np.frombuffer(raw, np.uint8).reshape(height, width, 3)
            jpegs.append(encode_jpeg(pixels, profile.jpeg_quality, "420"))

    with tempfile.TemporaryFile() as every, tempfile.TemporaryFile() as kept:
        command = _command(path, stream, window, rule, profile, every.fileno(), kept.fileno())
        end = cage.run(
            command,
            seconds=DECODE_SECONDS + int(stream.seconds),
            piece=width * height * 3,
            max_bytes=(profile.frame_cap + 1) * width * height * 3,
            sink=encode,
            pass_fds=(every.fileno(), kept.fileno()),
        )
        check_exit(end, "UNDECODABLE")
        errors = [line for line in end.stderr.splitlines() if not _HARMLESS.search(line)]
        times = _times(kept), _times(every)
    if errors and jpegs:
        raise Broken("DAMAGED", errors[0])
    return jpegs, *times


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


def _command(
    path: Path,
    stream: Stream,
    window: Window,
    rule: frames.Cells,
    profile: Profile,
    every: int,
    kept: int,
) -> list[str]:
    options = guards(path.suffix.lower() == ".gif") | {"threads": 1}
    if window.seek:
        options["ss"] = f"{window.seek}us"
    source = ffmpeg.input(f"file:{path}", noaccurate_seek=None, bitexact=None, **options)
    node = source[str(stream.index)].filter("settb", str(stream.time_base))
    if stream.interlaced:
        node = node.filter("yadif", deint="interlaced").filter("settb", str(stream.time_base))
    if window.start is not None:
        node = node.filter("trim", start_pts=window.start, end_pts=window.end)
    node = _noted(node, "every", every)
    node = node.filter("select", frames.select_expression(rule))
    node = _noted(_pictured(node, stream, profile), "kept", kept)
    output = node.output(
        "pipe:1", format="rawvideo", pix_fmt="rgb24", fps_mode="passthrough", bitexact=None
    )
    flags = ("-nostdin", "-copyts", "-v", "error", "-filter_complex_threads", "1")
    command: list[str] = output.global_args(*flags).compile(cage.tool("ffmpeg"))
    return command


def _noted(node: Any, key: str, descriptor: int) -> Any:
    """Write the time of every passing frame to a descriptor, in ticks of the link's time base."""
    node = node.filter("metadata", "add", key=key, value=1)
    return node.filter("metadata", "print", key=key, file=f"pipe:{descriptor}")


def _pictured(node: Any, stream: Stream, profile: Profile) -> Any:
    """Scale (square pixels), map HDR to BT.709, centre on zeros: RGB of the stored size."""
    stored, inner = _placed(stream, profile)
    flags = "bicubic+accurate_rnd+full_chroma_int+bitexact"
    if stream.transfer in _HDR:
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
        node = node.filter("format", "rgb24")
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


def _check_times(
    stream: Stream, window: Window, pts: list[int], every: list[int], rule: frames.Cells, jpegs: int
) -> None:
    """Compare what came out with what was promised; raises Broken."""
    if not every:
        raise Broken("SHORT", f"no frame came out of {float(window.seconds):g} s")
    if pts != frames.kept(every, rule) or jpegs != len(pts):
        raise AssertionError(f"ffmpeg kept {pts[:9]}, the rule says {frames.kept(every, rule)[:9]}")
    first = every[0] if window.start is None else window.start
    length = frames.frame_ticks(every, round(1 / (stream.fps * stream.time_base)))
    covered = (max(every) + length - first) * stream.time_base
    slack = 1 / Fraction(stream.fps)
    if covered + slack < COVERED[0] * window.seconds:
        raise Broken("SHORT", f"{float(covered):g} s came out of {float(window.seconds):g} s")
    if covered - slack > COVERED[1] * window.seconds:
        raise Broken("LONG", f"{float(covered):g} s came out of {float(window.seconds):g} s")


def _colour(stream: Stream, profile: Profile) -> str:
    if stream.transfer in _HDR:
        return f"{stream.matrix}/{stream.transfer} tone-mapped {profile.tone_map}"
    return stream.matrix
