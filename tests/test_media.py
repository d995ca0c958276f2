"""The media door on videos: table V of hostile files, true times, spans, the cage."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from pipeline import cage, media, video
from pipeline.decoded import Decoded, MediaRefusal, placed
from shards.errors import UserError
from shards.profile import Profile

PROFILE = Profile()
TESTSRC = ("-f", "lavfi", "-i", "testsrc=size=128x96:rate=10:duration=2")
H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")


def make(path: Path, *arguments: str) -> Path:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *arguments, str(path)], check=True)
    return path


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    make(folder / "ok.mp4", *TESTSRC, *H264)
    return folder


def door(path: Path, span: tuple[int, int] | None = None) -> Decoded:
    found = media.decode(path, "video", PROFILE, span)
    assert isinstance(found, Decoded), found
    return found


def seconds(found: Decoded) -> list[Fraction]:
    return [time * Fraction(*found.time_base) for time in found.pts]


def patched(data: bytes, box: bytes, at: int, new: bytes, *, last: bool = False) -> bytes:
    """Overwrite bytes at `at` after the name of a box."""
    place = (data.rindex(box) if last else data.index(box)) + at
    return data[:place] + new + data[place + len(new) :]


def _flip(data: bytes) -> bytes:
    start, size = data.index(b"mdat") + 4, data.index(b"moov") - 4
    damaged = bytearray(data)
    for place in np.random.default_rng(0).integers(start, size, 200):
        damaged[place] ^= 0xFF
    return bytes(damaged)


def _zeroed(data: bytes) -> bytes:
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    return data[:start] + bytes(end - start) + data[end:]


def _nested(data: bytes) -> bytes:
    boxes = b""
    for _ in range(20_000 // 100):
        boxes = struct.pack(">I4s", len(boxes) + 8, b"moov") + boxes
    return data[:32] + boxes


BYTES = {
    "V01 empty": (lambda b: b"", "MEDIA_EMPTY"),
    "V02 one byte": (lambda b: b"\0", "MEDIA_UNREADABLE"),
    "V03 ftyp only": (lambda b: b[:32], "MEDIA_UNREADABLE"),
    "V04 moov missing": (lambda b: b[: b.index(b"moov") - 4], "MEDIA_UNREADABLE"),
    "V06 bit rot in mdat": (_flip, "MEDIA_DAMAGED"),
    "V07 mdat all zero": (_zeroed, "MEDIA_UNDECODABLE"),
    "V08 duration of 24.8 days": (
        lambda b: patched(b, b"mvhd", 20, b"\x7f\xff\xff\xff"),
        "MEDIA_BAD_DURATION",
    ),
    "V09 65535 x 65535": (
        lambda b: patched(b, b"avc1", 28, b"\xff\xff\xff\xff", last=True),
        "MEDIA_DAMAGED",
    ),
    "V10 4 G time entries": (
        lambda b: patched(b, b"stts", 8, b"\xff\xff\xff\xff"),
        "MEDIA_UNREADABLE",
    ),
    "V11 2 G samples": (lambda b: patched(b, b"stsz", 12, b"\x7f\xff\xff\xff"), "MEDIA_UNREADABLE"),
    "V12 zero frame delta": (lambda b: patched(b, b"stts", 16, bytes(4)), "MEDIA_SHORT"),
    "V13 chunk past the end": (
        lambda b: patched(b, b"stco", 12, b"\xff\xff\xff\xf0"),
        "MEDIA_UNDECODABLE",
    ),
    "V14 nested boxes": (_nested, "MEDIA_UNREADABLE"),
    "V35 HLS": (
        lambda b: b"#EXTM3U\n#EXTINF:2.0,\nfile:///tmp/ok.mp4\n#EXT-X-ENDLIST\n",
        "MEDIA_FORMAT_REFUSED",
    ),
    "V36 HLS to the metadata address": (
        lambda b: b"#EXTM3U\n#EXTINF:2.0,\nhttp://169.254.169.254/x.ts\n#EXT-X-ENDLIST\n",
        "MEDIA_FORMAT_REFUSED",
    ),
    "V37 ffconcat": (lambda b: b"ffconcat version 1.0\nfile ok.mp4\n", "MEDIA_FORMAT_REFUSED"),
    "V39 SVG": (
        lambda b: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///a"/></svg>',
        "MEDIA_UNREADABLE",
    ),
    "V40 HTML": (lambda b: b"<html><body>404 Not Found</body></html>", "MEDIA_UNREADABLE"),
    "V41 JSON": (lambda b: b'{"error": "not found"}', "MEDIA_UNREADABLE"),
    "V42 zeros": (lambda b: bytes(1 << 20), "MEDIA_UNREADABLE"),
    "V43 random": (
        lambda b: np.random.default_rng(0).integers(0, 256, 1 << 20, np.uint8).tobytes(),
        "MEDIA_UNREADABLE",
    ),
    "V44 mp4 and zip": (lambda b: b + b"PK\3\4" + bytes(100), "kept"),
    "V45 git-lfs pointer": (
        lambda b: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
        "MEDIA_LFS_POINTER",
    ),
    "V59 extradata overwritten": (
        lambda b: patched(b, b"avcC", 4, b"\xff" * 16, last=True),
        "MEDIA_UNDECODABLE",
    ),
}


@pytest.mark.parametrize("row", BYTES)
def test_table_v_of_damaged_bytes(row: str, room: Path, tmp_path: Path) -> None:
    change, expected = BYTES[row]
    path = tmp_path / "x.mp4"
    path.write_bytes(change((room / "ok.mp4").read_bytes()))
    found = media.decode(path, "video", PROFILE)
    assert (found.code if isinstance(found, MediaRefusal) else "kept") == expected, found


MADE = {
    "V15 pixel bomb": (
        (*"-f lavfi -i color=black:s=4096x4096:r=1:d=2 -preset ultrafast -crf 51".split(), *H264),
        "mp4",
        "MEDIA_TOO_MANY_PIXELS",
    ),
    "V16 10 hours": (
        (*"-f lavfi -i color=black:s=16x16:r=1/20:d=36000".split(), *H264),
        "mp4",
        "MEDIA_BAD_DURATION",
    ),
    "V17 1000 fps": (
        (*"-f lavfi -i color=black:s=16x16:r=1000:d=1".split(), *H264),
        "mp4",
        "MEDIA_BAD_FPS",
    ),
    "V18 one frame": ((*TESTSRC, *H264, "-frames:v", "1"), "mp4", "kept"),
    "V19 audio only": (("-f", "lavfi", "-i", "sine=d=2"), "mp4", "MEDIA_NO_VIDEO"),
    "V22 4:4:4 10 bit": ((*TESTSRC, "-c:v", "libx264", "-pix_fmt", "yuv444p10le"), "mp4", "kept"),
    "V23 2 x 2": ((*TESTSRC, "-vf", "scale=2:2", *H264), "mp4", "MEDIA_TOO_SMALL"),
    "V24 odd size": (
        (*TESTSRC, "-vf", "scale=127:95", "-c:v", "libx264", "-pix_fmt", "yuv444p"),
        "mp4",
        "kept",
    ),
    "V25 aspect 256:1": (
        (*"-f lavfi -i testsrc=size=4096x16:rate=10:duration=1".split(), *H264),
        "mp4",
        "MEDIA_BAD_ASPECT",
    ),
    "V28 two video streams": (
        (*TESTSRC, *TESTSRC, "-map", "0", "-map", "1", *H264),
        "mp4",
        "kept",
    ),
    "V48 black": ((*"-f lavfi -i color=black:s=64x64:d=2".split(), *H264), "mp4", "kept"),
    "V50 rawvideo": ((*TESTSRC, "-c:v", "rawvideo", "-pix_fmt", "yuv420p"), "avi", "MEDIA_CODEC_REFUSED"),
    "V51 ffv1": ((*TESTSRC, "-c:v", "ffv1"), "mkv", "MEDIA_CODEC_REFUSED"),
    "V60 60 sound tracks": (
        (*TESTSRC, *"-f lavfi -i anullsrc=d=2 -map 0:v".split(), *("-map", "1:a") * 40, *H264),
        "mp4",
        "MEDIA_TOO_MANY_STREAMS",
    ),
    "interlaced": (
        (*TESTSRC, "-vf", "tinterlace=interleave_top,setfield=tff", "-flags", "+ilme+ildct", *H264),
        "mp4",
        "kept",
    ),
    "open group, B-frames": (
        (*TESTSRC, *H264, "-x264-params", "open-gop=1:keyint=5:bframes=3"),
        "mp4",
        "kept",
    ),
    "fragmented": (
        (*TESTSRC, *H264, "-movflags", "frag_keyframe+empty_moov+skip_trailer"),
        "mp4",
        "kept",
    ),
    "alpha": ((*TESTSRC, "-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p"), "webm", "kept"),
    "HEVC": ((*TESTSRC, "-c:v", "libx265", "-x265-params", "log-level=none"), "mp4", "kept"),
    "MPEG-4 in AVI": ((*TESTSRC, "-c:v", "mpeg4"), "avi", "kept"),
    "Motion JPEG in AVI": ((*TESTSRC, "-c:v", "mjpeg"), "avi", "kept"),
    "GIF": (TESTSRC, "gif", "kept"),
    "H.264 in MPEG-TS": ((*TESTSRC, *H264), "ts", "kept"),
    "H.264 in FLV": ((*TESTSRC, *H264), "flv", "kept"),
    "VP8": ((*TESTSRC, "-c:v", "libvpx"), "webm", "kept"),
    "HDR10": (
        (*TESTSRC, "-c:v", "libx264", "-pix_fmt", "yuv420p10le", "-color_primaries", "bt2020")
        + ("-color_trc", "smpte2084", "-colorspace", "bt2020nc"),
        "mp4",
        "kept",
    ),
}


@pytest.mark.parametrize("row", MADE)
def test_table_v_of_odd_but_whole_files(row: str, tmp_path: Path) -> None:
    arguments, suffix, expected = MADE[row]
    path = make(tmp_path / f"x.{suffix}", *arguments)
    found = media.decode(path, "video", PROFILE)
    assert (found.code if isinstance(found, MediaRefusal) else "kept") == expected, found


COPIED = {
    "V29 noise in every packet": (("-bsf:v", "noise=amount=40"), "mp4", "MEDIA_UNDECODABLE"),
    "V30 key frames dropped": (("-bsf:v", "noise=drop=not(mod(n\\,3))"), "mp4", "MEDIA_SHORT"),
    "V33 times from 25 h": (("-output_ts_offset", "90000"), "mp4", "kept"),
    "V47 encrypted": (
        ("-encryption_scheme", "cenc-aes-ctr", "-encryption_key", "0" * 31 + "1")
        + ("-encryption_kid", "0" * 31 + "2"),
        "mp4",
        "MEDIA_UNDECODABLE",
    ),
    "doubled times": (("-bsf:v", r"setts=pts=PTS-mod(PTS\,4096)"), "mp4", "kept"),
}


@pytest.mark.parametrize("row", COPIED)
def test_table_v_of_rewritten_streams(row: str, room: Path, tmp_path: Path) -> None:
    arguments, suffix, expected = COPIED[row]
    path = make(tmp_path / f"x.{suffix}", "-i", str(room / "ok.mp4"), "-c", "copy", *arguments)
    found = media.decode(path, "video", PROFILE)
    assert (found.code if isinstance(found, MediaRefusal) else "kept") == expected, found
