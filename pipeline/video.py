"""Videos: one ffprobe and one ffmpeg process per file, both caged, nothing decoded twice.

The graph notes the presentation time of every frame it sees and of every frame it keeps, in two
small files, in integer units of the stream's time base. So duration, variable frame rate and
damage are judged by what came out of the decoder, not by what the header promised.
"""

from __future__ import annotations

import functools
import json
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
from shards.errors import UserError
from shards.profile import Profile

DEMUXERS = ("mov", "matroska", "avi", "mpegts", "flv")
CODECS = {"h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg", "gif"}
DECODERS = (
    "h264 hevc vp8 vp9 libvpx libvpx-vp9 av1 libdav1d mpeg4 mjpeg gif aac mp3float opus".split()
)
MULTIPLE = 64  # sides of stored frames: the model pools 16-pixel patches 2 x 2 and 4 x 4
MAX_ASPECT_STORED = 3

MAX_STREAMS = 32
MIN_SIDE = 16
MAX_PIXELS = 9_437_184  # 4096 x 2304
MAX_ASPECT = 20
MAX_SECONDS = 4 * 3600
MAX_FPS = 240
PROBE_SECONDS = 15
DECODE_SECONDS = 60  # and one second more for each second of video
COVERED = (Fraction(8, 10), Fraction(12, 10))  # of the promised duration; outside: SHORT, LONG
SEEK_FROM = 10_000_000  # µs; before that, decoding from the start is as quick as seeking
SEEK_MARGIN = 1_000_000  # µs; edit lists and B-frames put a seek a little late

_SEEKABLE = ("mov", "matroska")
_LISTS = (b"#EXTM3U", b"ffconcat ")
_HDR = ("smpte2084", "arib-std-b67")
_MATRICES = {"bt709", "fcc", "bt470bg", "smpte170m", "smpte240m", "bt2020nc", "bt2020c"}
_INTERLACED = ("tt", "bb", "tb", "bt")
_ENTRIES = (
    "format=format_name,nb_streams,start_time,duration:"
    "stream=index,codec_type,codec_name,width,height,pix_fmt,sample_aspect_ratio,time_base,"
    "start_pts,duration,avg_frame_rate,r_frame_rate,field_order,"
    "color_range,color_space,color_transfer,color_primaries:"
    "stream_disposition=attached_pic:stream_tags=rotate,DURATION:stream_side_data=rotation"
)
_HARMLESS = re.compile(r"not on whitelist|Last message repeated")  # streams that are not decoded
_TIME = re.compile(rb"^frame:(\d+) +pts:(-?\d+|NOPTS)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What the header says of the video stream, already within the bounds."""

    index: int
    size: tuple[int, int]
    displayed: tuple[int, int]
    rotation: int
    time_base: Fraction
    start: int
    seconds: Fraction
    fps: Fraction
    interlaced: bool
    transfer: str
    matrix: str
    codec: str
    container: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The part of the stream to keep: [start, end) in ticks (None: all), and its length."""

    start: int | None
    end: int | None
    seconds: Fraction
    seek: int  # µs into the file, 0 for none


def decode_video(path: Path, profile: Profile, span: tuple[int, int] | None) -> Decoded:
    """The kept frames of the first video stream that is no cover art; raises Broken."""
    stream = _stream_of(_probe(path), path.suffix.lower() == ".gif")
    window = _window(stream, span)
    between = frames.interval(window.seconds, profile.fps, profile.frame_cap)
    capped = between > Fraction(1, profile.fps)
    ticks = frames.ticks_apart(between, stream.time_base, capped=capped)
    jpegs, pts, every = _extract(path, stream, window, ticks, profile)
    _check_times(stream, window, pts, every, ticks, len(jpegs))
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


def _guards(gif: bool) -> dict[str, Any]:
    return {
        "protocol_whitelist": "file",
        "format_whitelist": ",".join([*DEMUXERS, "gif"] if gif else DEMUXERS),
        "codec_whitelist": ",".join(DECODERS),
        "probesize": 5_000_000,
        "analyzeduration": 5_000_000,
        "max_pixels": MAX_PIXELS,
    }


def _probe(path: Path) -> dict[str, Any]:
    options = [
        w for k, v in _guards(path.suffix.lower() == ".gif").items() for w in (f"-{k}", str(v))
    ]
    command = [cage.tool("ffprobe"), "-v", "error", *options]
    command += ["-show_entries", _ENTRIES, "-of", "json", "-i", f"file:{path}"]
    said = bytearray()
    end = cage.run(
        command, seconds=PROBE_SECONDS, piece=1 << 16, max_bytes=1 << 20, sink=said.extend
    )
    with path.open("rb") as file:
        if file.read(9).startswith(_LISTS):
            raise Broken("FORMAT_REFUSED", "a playlist, which names other files")
    _check_exit(end, "UNREADABLE")
    found: dict[str, Any] = json.loads(said)
    return found


def _check_exit(end: cage.Exit, failed: str) -> None:
    """Raise for an exit that is not clean; `failed` is the code of a plain failure."""
    last = end.stderr.splitlines()[-1] if end.stderr else f"exit status {end.status}"
    if end.out_of_memory and failed != "UNREADABLE":  # a header may ask for any number of entries
        raise Broken("TOO_MUCH_MEMORY", last)
    if end.stopped == "output":
        raise Broken("LONG", "more frames than the duration promises")
    if end.out_of_time:
        raise Broken("TOO_SLOW", "the time limit was reached")
    if "Permission denied" in end.stderr:
        raise UserError(f"{last}; make the file readable for the user who runs the build")
    if "Format not on whitelist" in end.stderr:
        raise Broken("FORMAT_REFUSED", last)
    if "exceeds specified max pixel count" in end.stderr:
        raise Broken("TOO_MANY_PIXELS", f"more than {MAX_PIXELS} pixels")
    if "Codec (" in end.stderr and end.status != 0:
        raise Broken("CODEC_REFUSED", last)
    if end.status != 0:
        raise Broken(failed, last)


def _stream_of(found: dict[str, Any], gif: bool) -> Stream:
    """The video stream of a probe's answer, checked against every bound; raises Broken."""
    streams = found.get("streams", [])
    if len(streams) > MAX_STREAMS:
        raise Broken("TOO_MANY_STREAMS", f"{len(streams)} streams, at most {MAX_STREAMS}")
    videos = [s for s in streams if s.get("codec_type") == "video"]
    videos = [s for s in videos if not s.get("disposition", {}).get("attached_pic")]
    if not videos:
        raise Broken("NO_VIDEO", f"{len(streams)} streams, none of them a video")
    raw = videos[0]
    codec = raw.get("codec_name", "unknown")
    if codec not in CODECS or (codec == "gif") != gif:
        raise Broken("CODEC_REFUSED", f"codec {codec}")
    width, height = raw.get("width", 0), raw.get("height", 0)
    if not width or not height:
        raise Broken("NO_KEYFRAME", "no key frame in the first 5 seconds")
    rotation = _rotation(raw)
    displayed = _displayed(width, height, raw.get("sample_aspect_ratio", ""), rotation)
    _check_size(width, height, displayed)
    fps = _fraction(raw.get("avg_frame_rate")) or _fraction(raw.get("r_frame_rate"))
    if not 0 < fps <= MAX_FPS:
        raise Broken("BAD_FPS", f"{float(fps):g} frames per second, at most {MAX_FPS}")
    return Stream(
        index=raw["index"],
        size=(width, height),
        displayed=displayed,
        rotation=rotation,
        time_base=_fraction(raw["time_base"]),
        start=raw.get("start_pts", 0),
        seconds=_seconds(raw, found["format"]),
        fps=fps,
        interlaced=raw.get("field_order") in _INTERLACED,
        transfer=raw.get("color_transfer", "unknown"),
        matrix=_matrix(raw.get("color_space", "unknown"), height),
        codec=codec,
        container=found["format"]["format_name"].split(",")[0],
    )


def _rotation(raw: dict[str, Any]) -> int:
    """Degrees clockwise that ffmpeg turns the picture for display."""
    sides = [s["rotation"] for s in raw.get("side_data_list", []) if "rotation" in s]
    return round(-sides[0]) % 360 if sides else 0


def _displayed(width: int, height: int, ratio: str, rotation: int) -> tuple[int, int]:
    """The size as shown: pixels made square by stretching the width, then turned."""
    aspect = _fraction(ratio.replace(":", "/")) or Fraction(1)
    shown = max(1, round(width * aspect)), height
    return (shown[1], shown[0]) if rotation % 180 == 90 else shown


def _check_size(width: int, height: int, displayed: tuple[int, int]) -> None:
    if min(width, height) < MIN_SIDE:
        raise Broken("TOO_SMALL", f"{width} x {height} pixels, each side at least {MIN_SIDE}")
    if width * height > MAX_PIXELS:
        raise Broken("TOO_MANY_PIXELS", f"{width} x {height} pixels, at most {MAX_PIXELS}")
    if max(displayed) > MAX_ASPECT * min(displayed):
        raise Broken(
            "BAD_ASPECT", f"shown as {displayed[0]} x {displayed[1]}, at most {MAX_ASPECT}:1"
        )


def _seconds(raw: dict[str, Any], container: dict[str, Any]) -> Fraction:
    """The promised duration: the stream's own, else the container's; both must be believable."""
    late = _fraction(container.get("start_time"))
    whole = _fraction(container.get("duration"))
    own = _fraction(raw.get("duration")) or _clock(raw.get("tags", {}).get("DURATION", ""))
    if whole - max(Fraction(0), late) > MAX_SECONDS or own > MAX_SECONDS:
        raise Broken("BAD_DURATION", f"{float(max(whole, own)):g} seconds, at most {MAX_SECONDS}")
    seconds = own or whole
    if seconds <= 0:
        raise Broken("BAD_DURATION", "no duration in the header")
    return seconds


def _clock(text: str) -> Fraction:
    """Seconds of Matroska's "hh:mm:ss.nnnnnnnnn", 0 if it is none."""
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", text)
    if match is None:
        return Fraction(0)
    hours, minutes, seconds = (Fraction(part) for part in match.groups())
    return (hours * 60 + minutes) * 60 + seconds


def _fraction(text: str | None) -> Fraction:
    try:
        return Fraction(text or "0")
    except (ValueError, ZeroDivisionError):
        return Fraction(0)


def _matrix(named: str, height: int) -> str:
    """The YUV matrix; where the file names none, what players assume: BT.709 from 720 lines on."""
    if named in _MATRICES:
        return named
    return "bt709" if height >= 720 else "smpte170m"


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
    path: Path, stream: Stream, window: Window, ticks: int, profile: Profile
) -> tuple[list[bytes], list[int], list[int]]:
    """(JPEGs, their times, the times of all frames of the window) from one ffmpeg process."""
    (width, height), _ = _placed(stream, profile)
    jpegs: list[bytes] = []

    def encode(raw: bytes) -> None:
        if len(raw) == width * height * 3:
            pixels = np.frombuffer(raw, np.uint8).reshape(height, width, 3)
            jpegs.append(encode_jpeg(pixels, profile.jpeg_quality, "420"))

    with tempfile.TemporaryFile() as every, tempfile.TemporaryFile() as kept:
        command = _command(path, stream, window, ticks, profile, every.fileno(), kept.fileno())
        end = cage.run(
            command,
            seconds=DECODE_SECONDS + int(stream.seconds),
            piece=width * height * 3,
            max_bytes=(profile.frame_cap + 1) * width * height * 3,
            sink=encode,
            pass_fds=(every.fileno(), kept.fileno()),
        )
        _check_exit(end, "UNDECODABLE")
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
    path: Path, stream: Stream, window: Window, ticks: int, profile: Profile, every: int, kept: int
) -> list[str]:
    options = _guards(path.suffix.lower() == ".gif") | {"threads": 1}
    if window.seek:
        options["ss"] = f"{window.seek}us"
    source = ffmpeg.input(f"file:{path}", noaccurate_seek=None, bitexact=None, **options)
    node = source[str(stream.index)].filter("settb", str(stream.time_base))
    if stream.interlaced:
        node = node.filter("yadif", deint="interlaced").filter("settb", str(stream.time_base))
    if window.start is not None:
        node = node.filter("trim", start_pts=window.start, end_pts=window.end)
    node = _noted(node, "every", every)
    node = node.filter("select", frames.select_expression(ticks))
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
    stream: Stream, window: Window, pts: list[int], every: list[int], ticks: int, jpegs: int
) -> None:
    """Compare what came out with what was promised; raises Broken."""
    if not every:
        raise Broken("SHORT", f"no frame came out of {float(window.seconds):g} s")
    if pts != frames.kept(every, ticks) or jpegs != len(pts):
        raise AssertionError(
            f"ffmpeg kept {pts[:9]}, the rule says {frames.kept(every, ticks)[:9]}"
        )
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
