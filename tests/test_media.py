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

from pipeline import cage, extract, media
from pipeline.decoded import Decoded, MediaRefusal, placed
from shards.errors import UserError
from shards.profile import Profile

PROFILE = Profile()
TESTSRC = ("-f", "lavfi", "-i", "testsrc=size=128x96:rate=10:duration=2")
H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")


def make(path: Path, *arguments: str) -> Path:
    subprocess.run(
        ["ffmpeg", "-v", "error", "-y", "-threads", "1", *arguments, str(path)], check=True
    )
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
    "V01 empty": (lambda _: b"", "MEDIA_EMPTY"),
    "V02 one byte": (lambda _: b"\0", "MEDIA_UNREADABLE"),
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
        lambda _: b"#EXTM3U\n#EXTINF:2.0,\nfile:///tmp/ok.mp4\n#EXT-X-ENDLIST\n",
        "MEDIA_FORMAT_REFUSED",
    ),
    "V36 HLS to the metadata address": (
        lambda _: b"#EXTM3U\n#EXTINF:2.0,\nhttp://169.254.169.254/x.ts\n#EXT-X-ENDLIST\n",
        "MEDIA_FORMAT_REFUSED",
    ),
    "V37 ffconcat": (lambda _: b"ffconcat version 1.0\nfile ok.mp4\n", "MEDIA_FORMAT_REFUSED"),
    "V39 SVG": (
        lambda _: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///a"/></svg>',
        "MEDIA_UNREADABLE",
    ),
    "V40 HTML": (lambda _: b"<html><body>404 Not Found</body></html>", "MEDIA_UNREADABLE"),
    "V41 JSON": (lambda _: b'{"error": "not found"}', "MEDIA_UNREADABLE"),
    "V42 zeros": (lambda _: bytes(1 << 20), "MEDIA_UNREADABLE"),
    "V43 random": (
        lambda _: np.random.default_rng(0).integers(0, 256, 1 << 20, np.uint8).tobytes(),
        "MEDIA_UNREADABLE",
    ),
    "V44 mp4 and zip": (lambda b: b + b"PK\3\4" + bytes(100), "kept"),
    "V45 git-lfs pointer": (
        lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
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
    "V50 rawvideo": (
        (*TESTSRC, "-c:v", "rawvideo", "-pix_fmt", "yuv420p"),
        "avi",
        "MEDIA_CODEC_REFUSED",
    ),
    "V51 ffv1": ((*TESTSRC, "-c:v", "ffv1"), "mkv", "MEDIA_CODEC_REFUSED"),
    "V60 60 sound tracks": (
        (*TESTSRC, *"-f lavfi -i anullsrc=d=2 -map 0:v".split(), *("-map", "1:a") * 40, *H264),
        "mp4",
        "MEDIA_TOO_MANY_STREAMS",
    ),
    "interlaced": (
        (*TESTSRC, *"-vf tinterlace=interleave_top,setfield=tff -flags +ilme+ildct".split(), *H264),
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
        (
            *(*TESTSRC, "-c:v", "libx264", "-pix_fmt", "yuv420p10le", "-color_primaries", "bt2020"),
            *("-color_trc", "smpte2084", "-colorspace", "bt2020nc"),
        ),
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
        (
            *("-encryption_scheme", "cenc-aes-ctr", "-encryption_key", "0" * 31 + "1"),
            *("-encryption_kid", "0" * 31 + "2"),
        ),
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


def test_a_faststart_file_cut_in_half_is_refused(tmp_path: Path) -> None:
    whole = make(tmp_path / "w.mp4", *TESTSRC, *H264, "-movflags", "+faststart").read_bytes()
    (tmp_path / "x.mp4").write_bytes(whole[: len(whole) // 2])
    found = media.decode(tmp_path / "x.mp4", "video", PROFILE)
    assert isinstance(found, MediaRefusal) and found.code == "MEDIA_UNDECODABLE"


def test_a_stream_that_starts_within_a_group_has_no_key_frame(tmp_path: Path) -> None:
    whole = make(tmp_path / "w.ts", *TESTSRC, *H264).read_bytes()
    (tmp_path / "x.ts").write_bytes(whole[188 * 30 :])
    found = media.decode(tmp_path / "x.ts", "video", PROFILE)
    assert isinstance(found, MediaRefusal) and found.code == "MEDIA_NO_KEYFRAME", found


def test_a_stream_whose_size_changes_is_refused(tmp_path: Path) -> None:
    big = ("-f", "lavfi", "-i", "testsrc=size=320x240:rate=10:duration=2")
    small = make(tmp_path / "a.ts", *TESTSRC, *H264).read_bytes()
    (tmp_path / "x.ts").write_bytes(small + make(tmp_path / "b.ts", *big, *H264).read_bytes())
    found = media.decode(tmp_path / "x.ts", "video", PROFILE)
    assert isinstance(found, MediaRefusal) and found.code == "MEDIA_SIZE_CHANGES", found


def test_only_regular_files_within_the_size_bound_pass(room: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(room / "ok.mp4")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("fifo", "folder", "link", "loop"):
        found = media.decode(tmp_path / name, "video", PROFILE)
        assert isinstance(found, MediaRefusal) and found.code == "MEDIA_NOT_A_FILE"
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(20 << 30)
    found = media.decode(tmp_path / "sparse", "video", PROFILE)
    assert isinstance(found, MediaRefusal) and found.code == "MEDIA_TOO_BIG"
    found = media.decode(tmp_path / "nothing", "video", PROFILE)
    assert isinstance(found, MediaRefusal) and found.code == "MEDIA_MISSING"


def test_odd_file_names_are_read_and_a_gif_under_another_name_is_not(
    room: Path, tmp_path: Path
) -> None:
    for name in ("v%03d", "a:b|c\nd", "-version"):
        (tmp_path / name).write_bytes((room / "ok.mp4").read_bytes())
        assert len(door(tmp_path / name).frames) == 4
    make(tmp_path / "x.gif", *TESTSRC).rename(tmp_path / "x.mp4")
    found = media.decode(tmp_path / "x.mp4", "video", PROFILE)
    assert isinstance(found, MediaRefusal) and found.code == "MEDIA_FORMAT_REFUSED"


def test_times_of_a_plain_file(room: Path) -> None:
    found = door(room / "ok.mp4")
    assert seconds(found) == [0, Fraction(1, 2), 1, Fraction(3, 2)]
    assert (found.duration, found.source_fps, found.is_vfr) == ((2, 1), (10, 1), False)
    assert (found.width, found.height, found.source_size) == (128, 64, (128, 96))
    assert simplejpeg.decode_jpeg(found.frames[0]).shape == (64, 128, 3)
    assert door(room / "ok.mp4") == found  # the same file gives the same bytes


def grey_ramp(path: Path, times: str, *arguments: str) -> Path:
    """Five seconds whose brightness tells the time: luma is 40 per second."""
    source = "color=black:s=64x64:r=20:d=5,format=gray,geq=lum='40*T'"
    chosen = ("-f", "lavfi", "-i", f"{source},select='{times}',format=yuv420p")
    return make(path, *chosen, "-fps_mode", "passthrough", "-crf", "10", *arguments)


def shown_seconds(found: Decoded) -> list[float]:
    """The time that each frame's brightness tells (limited range, so 219 / 255 of full scale)."""
    lumas = [simplejpeg.decode_jpeg(frame, "GRAY").mean() for frame in found.frames]
    return [float(luma) / 40 for luma in lumas]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_every_kept_frame_of_a_variable_rate_file_has_its_own_time(
    suffix: str, tmp_path: Path
) -> None:
    path = grey_ramp(tmp_path / f"x.{suffix}", "lt(mod(n,29),3)+eq(mod(n,11),0)")
    found = door(path)
    assert found.is_vfr
    cells = [int(s * 2 + Fraction(1, 1000)) for s in seconds(found)]
    assert cells == sorted(set(cells))  # one frame of every half second that has any
    assert len(set(np.diff([float(s) for s in seconds(found)]).round(3))) > 1
    shown = np.array(shown_seconds(found))
    assert abs(shown - shown[0] - [float(s) for s in seconds(found)]).max() < 0.05


def test_edit_lists_and_late_starts_do_not_move_times(tmp_path: Path) -> None:
    path = grey_ramp(tmp_path / "w.mp4", "1")
    cut = make(tmp_path / "x.mp4", "-ss", "0.35", "-i", str(path), "-c", "copy")
    late = make(tmp_path / "y.mp4", "-i", str(path), "-c", "copy", "-output_ts_offset", "7")
    for file in (cut, late):
        found = door(file)
        shown = np.array(shown_seconds(found))
        assert found.pts[0] == 0
        assert abs(shown - shown[0] - [float(s) for s in seconds(found)]).max() < 0.05


@pytest.mark.parametrize("span", [(1_200_000, 3_700_000), (2_000_000, 99_000_000)])
def test_a_span_is_cut_and_timed_from_its_start(span: tuple[int, int], tmp_path: Path) -> None:
    path = grey_ramp(tmp_path / "x.mp4", "1")
    found = door(path, span)
    start, end = span[0] / 1e6, min(5.0, span[1] / 1e6)
    assert float(Fraction(*found.duration)) == pytest.approx(end - start, abs=0.001)
    expected = [start + float(s) for s in seconds(found)]
    assert expected[0] == pytest.approx(start, abs=0.05)
    assert max(abs(a - b) for a, b in zip(shown_seconds(found), expected, strict=True)) < 0.12


def test_a_late_span_of_a_long_file_is_found_by_seeking(tmp_path: Path) -> None:
    source = "color=black:s=64x64:r=5:d=60,format=gray,geq=lum='4*T',format=yuv420p"
    path = make(tmp_path / "x.mp4", "-f", "lavfi", "-i", source, "-g", "40", "-crf", "10")
    found = door(path, (31_000_000, 35_000_000))
    assert found.pts[0] == 0 and len(found.pts) == 8
    first = simplejpeg.decode_jpeg(found.frames[0], "GRAY").mean() / 4
    assert first == pytest.approx(31, abs=0.5)


def test_a_span_outside_the_video_is_refused(room: Path) -> None:
    found = media.decode(room / "ok.mp4", "video", PROFILE, (5_000_000, 6_000_000))
    assert isinstance(found, MediaRefusal) and found.code == "SPAN_OUTSIDE"


def test_the_frame_cap_spreads_frames_over_the_whole_video(room: Path) -> None:
    found = media.decode(room / "ok.mp4", "video", Profile(frame_cap=3))
    assert isinstance(found, Decoded)
    assert seconds(found) == [0, Fraction(7, 10), Fraction(14, 10)]


def test_what_comes_of_a_file_does_not_depend_on_its_neighbours(room: Path, tmp_path: Path) -> None:
    whole = (room / "ok.mp4").read_bytes()
    (tmp_path / "damaged.mp4").write_bytes(_flip(whole))
    (tmp_path / "page.mp4").write_bytes(b"<html><body>404 Not Found</body></html>")
    small = [grey_ramp(tmp_path / f"{n}.mkv", f"lt(mod(n,{n}),3)") for n in range(4, 13)]
    big = make(tmp_path / "big.mp4", *"-f lavfi -i testsrc=size=1280x720:r=25:d=4".split(), *H264)
    paths = [room / "ok.mp4", big, *small, tmp_path / "page.mp4"]
    clean = [(path, "video", None) for path in paths]
    clean += [(small[0], "video", (1_200_000, 3_700_000)), (tmp_path / "none", "video", None)]
    for items in (clean, [*clean, (tmp_path / "damaged.mp4", "video", None)]):
        alone = [media.decode(path, kind, PROFILE, span) for path, kind, span in items]
        assert media.decode_all(items, PROFILE) == alone
        kept = sum(isinstance(found, Decoded) for found in alone)
        assert kept == 12


def test_rotation_is_applied_once_and_the_displayed_size_decides(
    room: Path, tmp_path: Path
) -> None:
    arguments = ("-i", str(room / "ok.mp4"), "-c", "copy", "-metadata:s:v:0", "rotate=90")
    found = door(make(tmp_path / "x.mp4", *arguments))
    assert found.source_size == (96, 128) and found.rotation in (90, 270)
    assert (found.width, found.height) == (64, 128)


def test_pixels_that_are_not_square_are_made_square(tmp_path: Path) -> None:
    path = make(tmp_path / "x.mp4", *TESTSRC, "-vf", "setsar=2", *H264)
    assert door(path).source_size == (256, 96)


def test_a_long_or_small_picture_is_centred_on_zeros(tmp_path: Path) -> None:
    white = ("-f", "lavfi", "-i", "color=white:s=640x128:r=4:d=1")
    found = door(make(tmp_path / "x.mp4", *white, *H264))
    assert (found.width, found.height) == (640, 192)
    shown = simplejpeg.decode_jpeg(found.frames[0], "GRAY")[..., 0]
    assert shown[:20].max() < 10 and shown[60:130].min() > 240
    assert placed(30, 20, area=480 * 480, multiple=64, max_aspect=3) == ((64, 64), (30, 20))
    assert placed(2000, 100, area=480 * 480, multiple=64, max_aspect=3)[0] == (768, 256)


def test_hdr_is_mapped_or_refused_but_never_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path / "x.mp4", *MADE["HDR10"][0])
    assert "tone-mapped" in door(path).colour
    monkeypatch.setattr(extract, "has_zscale", lambda: False)
    found = media.decode(path, "video", PROFILE)
    assert isinstance(found, MediaRefusal) and found.code == "MEDIA_COLOUR_REFUSED"


def test_the_cage_has_no_network_no_environment_and_no_input() -> None:
    said = bytearray()
    script = "import os,sys;print(dict(os.environ),sys.stdin.read(),open('/proc/net/dev').read())"
    end = cage.run(
        [sys.executable, "-I", "-c", script],
        seconds=20,
        outlets=[cage.Outlet(said.extend, piece=1 << 16, max_bytes=1 << 20)],
    )
    assert end.status == 0, end.stderr
    assert b"SECRET" not in said and b"HOME" not in said
    if "unshare" in cage.layers():
        assert b"eth" not in said


def nothing_from() -> cage.Outlet:
    return cage.Outlet(lambda _: None, piece=1 << 16, max_bytes=1 << 20)


def test_the_cage_stops_what_runs_too_long_or_says_too_much() -> None:
    started = time.monotonic()
    slow = cage.run(["/bin/sleep", "60"], seconds=1, outlets=[nothing_from()])
    assert slow.out_of_time and time.monotonic() - started < 5
    loud = cage.run(["/usr/bin/yes"], seconds=20, outlets=[nothing_from()])
    assert loud.stopped == "output"


def test_a_caged_child_dies_with_its_parent(tmp_path: Path) -> None:
    if "setpriv" not in cage.layers():
        pytest.skip("setpriv does not work here")
    script = (
        "from pipeline import cage\n"
        f"said = open({str(tmp_path / 'pid')!r}, 'ab', buffering=0)\n"
        "pid = cage.Outlet(said.write, piece=1, max_bytes=99)\n"
        "cage.run(['/bin/sh', '-c', 'echo $$; exec sleep 60'], seconds=60, outlets=[pid])\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[1])
    deadline = time.monotonic() + 20
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().endswith("\n"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child = int((tmp_path / "pid").read_text())
    parent.kill()
    parent.wait()
    while _alive(child):
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.05)


def _alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_missing_tools_are_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert media.check_tools().startswith("ffmpeg ")
    monkeypatch.setattr(cage, "layers", dict)
    with pytest.raises(UserError, match="uncaged"):
        media.check_tools()
    assert "cage: none" in media.check_tools(uncaged=True)
    cage.tool.cache_clear()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="apt-get install ffmpeg"):
        media.check_tools()
    cage.tool.cache_clear()
