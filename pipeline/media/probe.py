"""What a video file says of itself: one sandboxed ffprobe, its answer held to every bound."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from pipeline.media import sandbox
from pipeline.media.decoded import Broken
from pipeline.media.frame_sampling import frame_ticks

DEMUXERS = ("mov", "matroska", "avi", "mpegts", "flv")
CODECS = {"h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg", "gif"}
DECODERS = (  # of every stream that a file may hold: ffprobe opens them all
    "h264 hevc vp8 vp9 libvpx libvpx-vp9 av1 libdav1d mpeg4 mjpeg gif png "
    "aac aac_latm ac3 eac3 mp2 mp2float mp3 mp3float opus libopus vorbis libvorbis flac alac "
    "amrnb amrwb adpcm_ima_wav adpcm_ms pcm_u8 pcm_s16le pcm_s16be pcm_s24le pcm_s32le "
    "mov_text subrip ass ssa webvtt"
).split()

MAX_STREAMS = 32
MIN_SIDE = 16
MAX_PIXELS = 9_437_184  # 4096 x 2304
MAX_ASPECT = 20
MAX_SECONDS = 4 * 3600
MAX_FPS = 240
PROBE_SECONDS = 15
PACKET_SECONDS = 60
MAX_PACKET_BYTES = 64 << 20  # of text: 4 hours at 240 packets a second

# GBR and RGB pixel formats are converted to YUV before they are scaled
RGB = "rgb"  # the matrix of a stream that has none
_LISTS = (b"#EXTM3U", b"ffconcat ")
_MATRICES = {"bt709", "fcc", "bt470bg", "smpte170m", "smpte240m", "bt2020nc", "bt2020c"}
_INTERLACED = ("tt", "bb", "tb", "bt")
# as ffmpeg begins a line: what a file says of itself stands behind such a beginning
_BEGIN = r"^(?:\[[^]\n]*\] ){1,2}"
_FORMAT = re.compile(_BEGIN + r"Format not on whitelist '", re.MULTILINE)
_PIXELS = re.compile(_BEGIN + r"Picture size \d+x\d+ exceeds specified max pixel", re.MULTILINE)
_CODEC = re.compile(_BEGIN + r"Codec \(\w+\) not on whitelist '", re.MULTILINE)
_ENTRIES = (
    "format=format_name,nb_streams,start_time,duration:"
    "stream=index,codec_type,codec_name,width,height,pix_fmt,sample_aspect_ratio,time_base,"
    "start_pts,duration,avg_frame_rate,r_frame_rate,field_order,"
    "color_range,color_space,color_transfer,color_primaries:"
    "stream_disposition=attached_pic:stream_tags=rotate,DURATION:stream_side_data=rotation"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What the header says of the video stream, already within the bounds.

    `start` is the presentation time of its first frame, in ticks. `chroma_step` is how many pixels
    share a chroma sample, at most, along a side. `seconds` is the stream's own duration; `longest`
    is the file's where that is longer, as in variable-rate files whose own duration counts decoding
    steps.
    """

    index: int
    size: tuple[int, int]
    displayed: tuple[int, int]
    rotation: int
    time_base: Fraction
    start: int
    seconds: Fraction
    longest: Fraction
    fps: Fraction
    interlaced: bool
    transfer: str
    matrix: str
    full_range: bool
    chroma_step: int
    codec: str
    container: str


def guards(gif: bool) -> dict[str, Any]:
    """The options that stand before every input, for ffprobe and ffmpeg alike."""
    # ffmpeg opens what a playlist names: only files, only these containers, only these decoders
    return {
        "protocol_whitelist": "file",
        "format_whitelist": ",".join([*DEMUXERS, "gif"] if gif else DEMUXERS),
        "codec_whitelist": ",".join(DECODERS),
        "probesize": 5_000_000,
        "analyzeduration": 5_000_000,
        "max_pixels": MAX_PIXELS,
    }


def probe(path: Path) -> dict[str, Any]:
    """ffprobe's JSON on a file, with "packets" where the header knows no duration; raises Broken.

    What browsers record as WebM is such a file.
    """
    with sandbox.opened(path) as descriptor:
        # HLS and concat playlists, told by their first bytes: ffprobe would go on to what they name
        if os.pread(descriptor, 9, 0).startswith(_LISTS):
            raise Broken("FORMAT_REFUSED", "a playlist, which names other files")
    said, end = _ask(path, ["-show_entries", _ENTRIES, "-of", "json"], PROBE_SECONDS, 1 << 20)
    check_exit(end, "UNREADABLE")
    probed: dict[str, Any] = json.loads(said)
    video = _video_of(probed)
    # Matroska written by a live recorder has no duration: its packets are counted instead
    if video is not None and not _promised(video, probed["format"]):
        probed["packets"] = _packets(path, video["index"])
    return probed


def _ask(
    path: Path, question: list[str], seconds: int, max_bytes: int
) -> tuple[bytearray, sandbox.Exit]:
    """What ffprobe answers, and how it ended."""
    limits = guards(path.suffix.lower() == ".gif").items()
    # guards stand before -i: ffmpeg applies options to the input that follows
    options = [word for key, value in limits for word in (f"-{key}", str(value))]
    said = bytearray()
    answer = sandbox.Outlet(said.extend, piece_nbytes=1 << 16, max_bytes=max_bytes)
    command = [sandbox.tool("ffprobe"), "-v", "error", *options, *question]
    with sandbox.opened(path) as descriptor:
        command += ["-i", f"file:{sandbox.input_name(descriptor)}"]
        return said, sandbox.run(command, seconds=seconds, outlets=[answer], inputs=[descriptor])


def _packets(path: Path, index: int) -> list[int]:
    """The presentation times of a stream's packets in ticks, ascending."""
    question = ["-select_streams", str(index), "-show_entries", "packet=pts"]
    said, end = _ask(path, [*question, "-of", "csv=p=0"], PACKET_SECONDS, MAX_PACKET_BYTES)
    check_exit(end, "UNREADABLE")
    return sorted(int(time) for time in re.findall(rb"^-?\d+", said, re.MULTILINE))


def check_exit(end: sandbox.Exit, code: str) -> None:
    """Raise for an exit that is not clean; `code` is the code of a plain failure."""
    # the last line is the reason; those before it are warnings of the demuxer
    last = end.stderr.splitlines()[-1] if end.stderr else f"exit status {end.status}"
    if end.out_of_memory and code != "UNREADABLE":  # a header may ask for any number of entries
        raise Broken("TOO_MUCH_MEMORY", last)
    if end.stopped == "output":
        raise Broken("LONG", "more frames than the duration promises")
    if end.out_of_time:
        raise Broken("TOO_SLOW", "the time limit was reached")
    if _FORMAT.search(end.stderr):
        raise Broken("FORMAT_REFUSED", "the container is not on the list")
    if _PIXELS.search(end.stderr):
        # ffmpeg goes on without the other streams of a file: an exit status tells whether ours is
        # meant
        raise Broken("TOO_MANY_PIXELS", f"more than {MAX_PIXELS} pixels")
    if _CODEC.search(end.stderr) and end.status != 0:
        raise Broken("CODEC_REFUSED", "a codec is not on the list")
    if end.status != 0:
        raise Broken(code, last)


def stream_of(probed: dict[str, Any], gif: bool) -> Stream:
    """The video stream of a probe's answer, checked against every bound; raises Broken."""
    streams = probed.get("streams", [])
    if len(streams) > MAX_STREAMS:
        raise Broken("TOO_MANY_STREAMS", f"{len(streams)} streams, at most {MAX_STREAMS}")
    # cover art of a music file is a video stream of one picture
    raw = _video_of(probed)
    if raw is None:
        raise Broken("NO_VIDEO", f"{len(streams)} streams, none of them a video")
    codec = raw.get("codec_name", "unknown")
    if codec not in CODECS or (codec == "gif") != gif:
        raise Broken("CODEC_REFUSED", f"codec {codec}")
    width, height = raw.get("width", 0), raw.get("height", 0)
    # ffprobe finds the size in the first key frame; a stream cut before one has none
    if not width or not height:
        raise Broken("NO_KEYFRAME", "no key frame in the first 5 seconds")
    rotation = _rotation(raw)
    displayed = _displayed(width, height, raw.get("sample_aspect_ratio", ""), rotation)
    _check_size(width, height, displayed)
    seconds, longest, fps = _timing(raw, probed)
    if not 0 < fps <= MAX_FPS:
        raise Broken("BAD_FPS", f"{float(fps):g} frames per second, at most {MAX_FPS}")
    return Stream(
        index=raw["index"],
        size=(width, height),
        displayed=displayed,
        rotation=rotation,
        time_base=_fraction(raw["time_base"]),
        start=raw.get("start_pts", 0),
        seconds=seconds,
        longest=longest,
        fps=fps,
        interlaced=raw.get("field_order") in _INTERLACED,
        transfer=raw.get("color_transfer", "unknown"),
        matrix=_matrix(raw, height),
        full_range=_full_range(raw),
        # 4:1:1 and 4:1:0 share a chroma sample between 4 pixels, 4:2:0 and 4:2:2 between 2
        chroma_step=4 if re.match(r"yuvj?41", raw.get("pix_fmt", "")) else 2,
        codec=codec,
        container=probed["format"]["format_name"].split(",")[0],
    )


def _video_of(probed: dict[str, Any]) -> dict[str, Any] | None:
    """The first video stream that is no cover art."""
    videos = (s for s in probed.get("streams", []) if s.get("codec_type") == "video")
    return next((s for s in videos if not s.get("disposition", {}).get("attached_pic")), None)


def _rotation(raw: dict[str, Any]) -> int:
    """Degrees clockwise that ffmpeg turns the picture for display."""
    # a display matrix turns counter-clockwise, as MP4 and ffprobe write it
    sides = [s["rotation"] for s in raw.get("side_data_list", []) if "rotation" in s]
    return round(-sides[0]) % 360 if sides else 0


def _displayed(width: int, height: int, ratio: str, rotation: int) -> tuple[int, int]:
    """The size as shown: pixels made square by stretching the width, then turned."""
    # sample aspect ratio (SAR); 0:1 and N/A mean that nothing is said: square
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


def _timing(raw: dict[str, Any], probed: dict[str, Any]) -> tuple[Fraction, Fraction, Fraction]:
    """(the stream's duration, the longest that the file speaks of, frames per second)."""
    # the average; r_frame_rate is the least rate that represents all time stamps, a guess
    fps = _fraction(raw.get("avg_frame_rate")) or _fraction(raw.get("r_frame_rate"))
    if packets := probed.get("packets"):
        # the last frame is on screen for a median step
        ticks = packets[-1] - packets[0] + frame_ticks(packets, 0)
        seconds = longest = ticks * _fraction(raw["time_base"])
        fps = len(packets) / seconds
    else:
        seconds, longest = _seconds(raw, probed["format"])
    if seconds > MAX_SECONDS:
        raise Broken("BAD_DURATION", f"{float(seconds):g} seconds, at most {MAX_SECONDS}")
    if seconds <= 0:
        raise Broken("BAD_DURATION", "no duration in the header, and none in the packets")
    return seconds, longest, fps


def _promised(raw: dict[str, Any], container: dict[str, Any]) -> Fraction:
    """The stream's own duration, else Matroska's tag, else the container's; 0 if there is none."""
    named = _fraction(raw.get("duration")) or _clock(raw.get("tags", {}).get("DURATION", ""))
    return named or _fraction(container.get("duration"))


def _seconds(raw: dict[str, Any], container: dict[str, Any]) -> tuple[Fraction, Fraction]:
    """(how long the stream is by its header, the longest that the header allows).

    What Matroska names is the time at which the stream ends; some of its writers mean the length.
    """
    # a container whose streams start late counts its duration from 0
    late = max(Fraction(0), _fraction(container.get("start_time")))
    whole = _fraction(container.get("duration")) - late
    promised = _promised(raw, container)
    if whole > MAX_SECONDS:
        raise Broken("BAD_DURATION", f"{float(whole):g} seconds, at most {MAX_SECONDS}")
    start = raw.get("start_pts", 0) * _fraction(raw["time_base"])
    # Matroska's DURATION tag is the end of its last frame: less the start, it is a length
    is_end = not raw.get("duration") and "matroska" in container["format_name"]
    seconds = promised - start if is_end and 0 < start < promised else promised
    return seconds, max(promised, whole)


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


def _matrix(raw: dict[str, Any], height: int) -> str:
    """The YUV matrix; where the file names none, what players assume: BT.709 from 720 lines on.

    VP8 has one matrix only, and every player uses it, whatever the container says.
    """
    # BT.601, the only matrix of the format (RFC 6386, 9.2)
    if raw.get("codec_name") == "vp8":
        return "smpte170m"
    if re.match(r"rgb|bgr|gbr|[a0]rgb|[a0]bgr|pal8", raw.get("pix_fmt", "")):
        return RGB
    named = raw.get("color_space", "unknown")
    # H.273 names; those left out are constant-luminance or XYZ, which swscale does not convert
    if named in _MATRICES:
        return str(named)
    return "bt709" if height >= 720 else "smpte170m"


def _full_range(raw: dict[str, Any]) -> bool:
    """Whether black is 0; where the file does not say, ffmpeg writes only grey ones so."""
    # J formats are ffmpeg's old names for full range
    if raw.get("color_range") in ("pc", "tv"):
        return bool(raw["color_range"] == "pc")
    return re.match(r"gray|yuvj", raw.get("pix_fmt", "")) is not None
