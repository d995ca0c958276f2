"""Hostile and odd videos, each made on the spot, with what the media door must say of it.

`VIDEOS` maps a name to a case; `Case.make(ok, folder)` writes the file into an empty folder, from
`ok`, a plain two-second H.264 file, and returns its path. Nothing is ever downloaded.
"""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

TESTSRC = ("-f", "lavfi", "-i", "testsrc=size=128x96:rate=10:duration=2")
H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")
KEPT = "kept"


@dataclass(frozen=True, slots=True)
class Case:
    """What the door must say ("kept" or a code), and how the file is made."""

    expected: str
    make: Callable[[Path, Path], Path]


def encode(path: Path, *arguments: str) -> Path:
    """Write `path` with one ffmpeg command."""
    command = ["ffmpeg", "-v", "error", "-y", "-threads", "1", *arguments, f"file:{path}"]
    subprocess.run(command, check=True, env={**os.environ, "SVT_LOG": "1"})
    return path


def plain(folder: Path) -> Path:
    """The file that most cases start from."""
    return encode(folder / "ok.mp4", *TESTSRC, *H264)


def _bytes(change: Callable[[bytes], bytes], expected: str) -> Case:
    def make(ok: Path, folder: Path) -> Path:
        (folder / "x.mp4").write_bytes(change(ok.read_bytes()))
        return folder / "x.mp4"

    return Case(expected, make)


def _made(arguments: str, expected: str, suffix: str = "mp4", source: tuple[str, ...] = ()) -> Case:
    def make(_: Path, folder: Path) -> Path:
        return encode(folder / f"x.{suffix}", *source, *arguments.split())

    return Case(expected, make)


def _shown(arguments: str, expected: str, suffix: str = "mp4") -> Case:
    """The test picture, encoded with these arguments."""
    return _made(arguments, expected, suffix, TESTSRC)


def _copied(arguments: str, expected: str, suffix: str = "mp4") -> Case:
    """The streams of `ok`, copied with these arguments."""

    def make(ok: Path, folder: Path) -> Path:
        return encode(
            folder / f"x.{suffix}", "-i", str(ok), "-map", "0", "-c", "copy", *arguments.split()
        )

    return Case(expected, make)


def _named(name: str, expected: str) -> Case:
    def make(ok: Path, folder: Path) -> Path:
        (folder / name).write_bytes(ok.read_bytes())
        return folder / name

    return Case(expected, make)


def _linked(target: str) -> Case:
    def make(_: Path, folder: Path) -> Path:
        (folder / "x.mp4").symlink_to(target)
        return folder / "x.mp4"

    return Case("MEDIA_NOT_A_FILE", make)


def patched(data: bytes, box: bytes, at: int, new: bytes, *, last: bool = False) -> bytes:
    """Overwrite bytes at `at` after the name of a box."""
    place = (data.rindex(box) if last else data.index(box)) + at
    return data[:place] + new + data[place + len(new) :]


def flipped(data: bytes) -> bytes:
    """200 bytes of the pictures turned over."""
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    damaged = bytearray(data)
    for place in np.random.default_rng(0).integers(start, end, 200):
        damaged[place] ^= 0xFF
    return bytes(damaged)


def _zeroed(data: bytes) -> bytes:
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    return data[:start] + bytes(end - start) + data[end:]


def _nested(data: bytes) -> bytes:
    boxes = b""
    for _ in range(20_000):
        boxes = struct.pack(">I4s", (len(boxes) + 8) & 0xFFFFFFFF, b"moov") + boxes
    return data[:32] + boxes


def _annex_b(data: bytes) -> bytes:
    """Lengths of the coded pieces replaced by start codes."""
    changed, at, end = bytearray(data), data.index(b"mdat") + 4, data.index(b"moov") - 4
    while at < end:
        (length,) = struct.unpack_from(">I", data, at)
        changed[at : at + 4] = b"\0\0\0\1"
        at += 4 + length
    return bytes(changed)


def _elsewhere(data: bytes) -> bytes:
    """The samples are said to lie in another file: the `url ` box names a path."""
    name = b"/etc/passwd\0"
    changed = bytearray(data)
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref", b"url "):
        at = data.index(box, data.index(b"moov")) - 4
        (size,) = struct.unpack_from(">I", data, at)
        struct.pack_into(">I", changed, at, size + len(name))
    at = data.index(b"url ", data.index(b"moov"))
    changed[at + 4 : at + 8] = bytes(4)  # flags: not in this file
    return bytes(changed[: at + 8]) + name + bytes(changed[at + 8 :])


def _two_moov(data: bytes) -> bytes:
    return data + data[data.index(b"moov") - 4 :]


def _empty_track(data: bytes) -> bytes:
    return patched(data, b"trak", -4, struct.pack(">I", 8))


def _noise(size: int) -> bytes:
    return np.random.default_rng(0).integers(0, 256, size, np.uint8).tobytes()


def _faststart_half(ok: Path, folder: Path) -> Path:
    whole = encode(folder / "w.mp4", "-i", str(ok), "-c", "copy", "-movflags", "+faststart")
    (folder / "x.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    return folder / "x.mp4"


def _mid_group(_: Path, folder: Path) -> Path:
    whole = encode(folder / "w.ts", *TESTSRC, *H264)
    (folder / "x.ts").write_bytes(whole.read_bytes()[188 * 30 :])
    return folder / "x.ts"


def _two_sizes(_: Path, folder: Path) -> Path:
    small = encode(folder / "a.ts", *TESTSRC, *H264)
    big = ("-f", "lavfi", "-i", "testsrc=size=320x240:rate=10:duration=2")
    large = encode(folder / "b.ts", *big, *H264)
    (folder / "x.ts").write_bytes(small.read_bytes() + large.read_bytes())
    return folder / "x.ts"


def _twice(_: Path, folder: Path) -> Path:
    once = encode(folder / "a.ts", *TESTSRC, *H264).read_bytes()
    (folder / "x.ts").write_bytes(once + once)
    return folder / "x.ts"


def _cover_art(_: Path, folder: Path) -> Path:
    picture = ("-f", "lavfi", "-i", "testsrc=size=128x96:rate=1:duration=1", "-map", "0", "-map")
    cover = ("1", "-c:v", "mjpeg", "-disposition:v:0", "attached_pic")
    return encode(folder / "x.mp4", "-f", "lavfi", "-i", "sine=d=2", *picture, *cover)


def _subtitle(_: Path, folder: Path) -> Path:
    (folder / "s.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nwords\n")
    return encode(folder / "x.mp4", "-i", str(folder / "s.srt"), "-c:s", "mov_text")


def _metadata(ok: Path, folder: Path) -> Path:
    (folder / "m.txt").write_text(";FFMETADATA1\ncomment=" + "a" * 10_000_000 + "\n")
    return encode(
        *(folder / "x.mp4", "-i", str(ok), "-i", str(folder / "m.txt")),
        *("-map", "0", "-map_metadata", "1", "-c", "copy"),
    )


def _attachment(ok: Path, folder: Path) -> Path:
    (folder / "f.ttf").write_bytes(_noise(1000))
    attach = ("-attach", str(folder / "f.ttf"), "-metadata:s:t", "mimetype=font/ttf")
    return encode(folder / "x.mkv", "-i", str(ok), "-c", "copy", *attach)


def _renamed_gif(_: Path, folder: Path) -> Path:
    return encode(folder / "x.gif", *TESTSRC).rename(folder / "x.mp4")


def _sibling(ok: Path, folder: Path) -> Path:
    """A list of the good file beside it, which a decoder that follows it would show."""
    (folder / "ok.mp4").write_bytes(ok.read_bytes())
    (folder / "x.mp4").write_bytes(b"ffconcat version 1.0\nfile ok.mp4\n")
    return folder / "x.mp4"


def _text_as_pictures(_: Path, folder: Path) -> Path:
    (folder / "sec.nfo").write_text("secret\n")
    (folder / "x.mp4").write_bytes(b"ffconcat version 1.0\nfile sec.nfo\n")
    return folder / "x.mp4"


def _sparse(ok: Path, folder: Path) -> Path:
    with (folder / "x.mp4").open("wb") as file:
        file.write(ok.read_bytes()[:32])
        file.truncate(20 << 30)
    return folder / "x.mp4"


def _fifo(_: Path, folder: Path) -> Path:
    os.mkfifo(folder / "x.mp4")
    return folder / "x.mp4"


def _folder(_: Path, folder: Path) -> Path:
    (folder / "x.mp4").mkdir()
    return folder / "x.mp4"


_HLS = b"#EXTM3U\n#EXTINF:2.0,\n%s\n#EXT-X-ENDLIST\n"
_BLACK = "-f lavfi -i color=black:s={} -c:v libx264 -pix_fmt yuv420p {}"

VIDEOS = {
    "V01 empty": _bytes(lambda _: b"", "MEDIA_EMPTY"),
    "V02 one byte": _bytes(lambda _: b"\0", "MEDIA_UNREADABLE"),
    "V03 ftyp only": _bytes(lambda b: b[:32], "MEDIA_UNREADABLE"),
    "V04 moov missing": _bytes(lambda b: b[: b.index(b"moov") - 4], "MEDIA_UNREADABLE"),
    "V05 second half missing": Case("MEDIA_UNDECODABLE", _faststart_half),
    "V06 bit rot in mdat": _bytes(flipped, "MEDIA_DAMAGED"),
    "V07 mdat all zero": _bytes(_zeroed, "MEDIA_UNDECODABLE"),
    "V08 duration of 24.8 days": _bytes(
        lambda b: patched(b, b"mvhd", 20, b"\x7f\xff\xff\xff"), "MEDIA_BAD_DURATION"
    ),
    "V09 65535 x 65535": _bytes(
        lambda b: patched(b, b"avc1", 28, b"\xff\xff\xff\xff", last=True), "MEDIA_DAMAGED"
    ),
    "V10 4 G time entries": _bytes(
        lambda b: patched(b, b"stts", 8, b"\xff\xff\xff\xff"), "MEDIA_UNREADABLE"
    ),
    "V11 2 G samples": _bytes(
        lambda b: patched(b, b"stsz", 12, b"\x7f\xff\xff\xff"), "MEDIA_UNREADABLE"
    ),
    "V12 zero frame delta": _bytes(lambda b: patched(b, b"stts", 16, bytes(4)), "MEDIA_SHORT"),
    "V13 chunk past the end": _bytes(
        lambda b: patched(b, b"stco", 12, b"\xff\xff\xff\xf0"), "MEDIA_UNDECODABLE"
    ),
    "V14 nested boxes": _bytes(_nested, "MEDIA_UNREADABLE"),
    "V15 pixel bomb": _made(
        _BLACK.format("8192x8192:r=1:d=2", "-preset ultrafast -crf 51"), "MEDIA_TOO_MANY_PIXELS"
    ),
    "V16 10 hours": _made(_BLACK.format("16x16:r=1/10:d=36000", ""), "MEDIA_BAD_DURATION"),
    "V17 1000 fps": _made(_BLACK.format("16x16:r=1000:d=3", ""), "MEDIA_BAD_FPS"),
    "V18 one frame": _shown("-c:v libx264 -pix_fmt yuv420p -frames:v 1", KEPT),
    "V19 audio only": _made("-f lavfi -i sine=d=2", "MEDIA_NO_VIDEO"),
    "V20 cover art only": Case("MEDIA_NO_VIDEO", _cover_art),
    "V21 subtitle only": Case("MEDIA_NO_VIDEO", _subtitle),
    "V22 4:4:4 10 bit": _shown("-c:v libx264 -pix_fmt yuv444p10le", KEPT),
    "V23 2 x 2": _shown("-vf scale=2:2 -c:v libx264 -pix_fmt yuv420p", "MEDIA_TOO_SMALL"),
    "V24 odd size": _shown("-vf scale=127:95 -c:v libx264 -pix_fmt yuv444p", KEPT),
    "V25 aspect 256:1": _made(_BLACK.format("4096x16:r=10:d=1", ""), "MEDIA_BAD_ASPECT"),
    "V26 rotation metadata": _copied("-metadata:s:v:0 rotate=90", KEPT),
    "V27 variable rate": _shown(
        "-vf select='not(mod(n\\,7))+lt(n\\,3)' -vsync vfr -c:v libx264 -pix_fmt yuv420p", KEPT
    ),
    "V28 two video streams": _made(
        "-map 0 -map 1 -c:v libx264 -pix_fmt yuv420p", KEPT, source=TESTSRC * 2
    ),
    "V29 noise in every packet": _copied("-bsf:v noise=amount=40", "MEDIA_UNDECODABLE"),
    "V30 key frames dropped": _copied("-bsf:v noise=drop=not(mod(n\\,3))", "MEDIA_SHORT"),
    "V31 starts within a group": Case("MEDIA_NO_KEYFRAME", _mid_group),
    "V32 size changes": Case("MEDIA_SIZE_CHANGES", _two_sizes),
    "V33 times from 25 h": _copied("-output_ts_offset 90000", KEPT),
    "V34 GIF named mp4": Case("MEDIA_FORMAT_REFUSED", _renamed_gif),
    "V35 HLS": _bytes(lambda _: _HLS % b"file:///etc/passwd", "MEDIA_FORMAT_REFUSED"),
    "V36 HLS to the metadata address": _bytes(
        lambda _: _HLS % b"http://169.254.169.254/x.ts", "MEDIA_FORMAT_REFUSED"
    ),
    "V37 ffconcat": Case("MEDIA_FORMAT_REFUSED", _sibling),
    "V38 ffconcat of a text": Case("MEDIA_FORMAT_REFUSED", _text_as_pictures),
    "V39 SVG": _bytes(
        lambda _: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///a"/></svg>',
        "MEDIA_UNREADABLE",
    ),
    "V40 HTML": _bytes(lambda _: b"<html><body>404 Not Found</body></html>", "MEDIA_UNREADABLE"),
    "V41 JSON": _bytes(lambda _: b'{"error": "not found"}', "MEDIA_UNREADABLE"),
    "V42 zeros": _bytes(lambda _: bytes(1 << 20), "MEDIA_UNREADABLE"),
    "V43 random": _bytes(lambda _: _noise(1 << 20), "MEDIA_UNREADABLE"),
    "V44 mp4 and zip": _bytes(lambda b: b + b"PK\3\4" + bytes(100), KEPT),
    "V45 git-lfs pointer": _bytes(
        lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
        "MEDIA_LFS_POINTER",
    ),
    "V46 sparse, 20 GB": Case("MEDIA_TOO_BIG", _sparse),
    "V47 encrypted": _copied(
        "-encryption_scheme cenc-aes-ctr -encryption_key 00000000000000000000000000000001 "
        "-encryption_kid 00000000000000000000000000000002",
        "MEDIA_UNDECODABLE",
    ),
    "V48 black": _made(_BLACK.format("64x64:d=2", ""), KEPT),
    "V50 raw video": _shown("-c:v rawvideo -pix_fmt yuv420p", "MEDIA_CODEC_REFUSED", "avi"),
    "V51 FFV1": _shown("-c:v ffv1", "MEDIA_CODEC_REFUSED", "mkv"),
    "V52 pipe": Case("MEDIA_NOT_A_FILE", _fifo),
    "V53 folder": Case("MEDIA_NOT_A_FILE", _folder),
    "V54 link to itself": _linked("x.mp4"),
    "V55 link to a file": _linked("/etc/passwd"),
    "V56 link to a device": _linked("/dev/zero"),
    "V57 name with a pattern": _named("v%03d", KEPT),
    "V58 name with colon and newline": _named("a:b|c\nd", KEPT),
    "V58 name of an option": _named("-version", KEPT),
    "V59 extradata overwritten": _bytes(
        lambda b: patched(b, b"avcC", 4, b"\xff" * 16, last=True), "MEDIA_UNDECODABLE"
    ),
    "V60 60 sound tracks": _made(
        "-f lavfi -i anullsrc=d=2 -map 0:v " + "-map 1:a " * 60 + "-c:v libx264",
        "MEDIA_TOO_MANY_STREAMS",
        source=TESTSRC,
    ),
    "interlaced": _shown(
        "-vf tinterlace=interleave_top,setfield=tff -flags +ilme+ildct "
        "-c:v libx264 -pix_fmt yuv420p",
        KEPT,
    ),
    "HDR10": _shown(
        "-c:v libx264 -pix_fmt yuv420p10le -color_primaries bt2020 -color_trc smpte2084 "
        "-colorspace bt2020nc",
        KEPT,
    ),
    "HLG": _shown(
        "-c:v libx264 -pix_fmt yuv420p10le -color_primaries bt2020 -color_trc arib-std-b67 "
        "-colorspace bt2020nc",
        KEPT,
    ),
    "edit list, negative start": Case(
        KEPT,
        lambda ok, folder: encode(folder / "x.mp4", "-ss", "0.35", "-i", str(ok), "-c", "copy"),
    ),
    "open group, B-frames": _shown(
        "-c:v libx264 -pix_fmt yuv420p -x264-params open-gop=1:keyint=5:bframes=3", KEPT
    ),
    "AV1 with film grain": _shown(
        "-frames:v 6 -c:v libaom-av1 -cpu-used 8 -denoise-noise-level 25", KEPT
    ),
    "alpha": _shown("-c:v libvpx-vp9 -cpu-used 8 -pix_fmt yuva420p", KEPT, "webm"),
    "10 MB of metadata": Case(KEPT, _metadata),
    "attachment": Case(KEPT, _attachment),
    "samples in another file": _bytes(_elsewhere, KEPT),
    "track of no length": _bytes(_empty_track, "MEDIA_UNREADABLE"),
    "two moov": _bytes(_two_moov, KEPT),
    "fragmented": _shown(
        "-c:v libx264 -pix_fmt yuv420p -movflags frag_keyframe+empty_moov+skip_trailer", KEPT
    ),
    "doubled times": _copied(r"-bsf:v setts=pts=PTS-mod(PTS\,4096)", KEPT),
    "decreasing times": Case("MEDIA_LONG", _twice),
    "Annex B in mp4": _bytes(_annex_b, "MEDIA_DAMAGED"),
    "HEVC": _shown("-c:v libx265 -x265-params log-level=none", KEPT),
    "MPEG-4 in AVI": _shown("-c:v mpeg4", KEPT, "avi"),
    "Motion JPEG in AVI": _shown("-c:v mjpeg", KEPT, "avi"),
    "GIF": _made("-f lavfi -i testsrc=size=96x96:rate=5:duration=2", KEPT, "gif"),
    "H.264 in MPEG-TS": _shown("-c:v libx264 -pix_fmt yuv420p", KEPT, "ts"),
    "H.264 in FLV": _shown("-c:v libx264 -pix_fmt yuv420p", KEPT, "flv"),
    "VP8": _shown("-c:v libvpx", KEPT, "webm"),
}
