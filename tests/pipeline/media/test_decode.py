"""The media door on videos: table V of hostile files, true times, spans, the sandbox."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from pipeline.media import canary, confinement, decode, probe, sandbox
from pipeline.media.decoded import Decoded, MediaRefusal
from pipeline.stages import decode_media
from pipeline.stages.media_rows import MediaRow
from shards.errors import UserError
from shards.pool import Pool
from shards.profile import Profile
from tests.hostile.videos import H264, TESTSRC, VIDEOS, encode, flipped, plain

PROFILE = Profile()


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    plain(folder)
    return folder


def door(path: Path, span: tuple[int, int] | None = None) -> Decoded:
    found = decode.decode(path, "video", PROFILE, span)
    assert isinstance(found, Decoded), found
    return found


def seconds(found: Decoded) -> list[Fraction]:
    return [time * Fraction(*found.time_base) for time in found.pts]


@pytest.mark.parametrize("name", VIDEOS)
def test_table_v(name: str, room: Path, tmp_path: Path) -> None:
    case = VIDEOS[name]
    found = decode.decode(case.make(room / "ok.mp4", tmp_path), "video", PROFILE)
    assert (found.code if isinstance(found, MediaRefusal) else "kept") == case.expected, found


def test_a_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    found = decode.decode(tmp_path / "nothing", "video", PROFILE)
    assert isinstance(found, MediaRefusal) and found.code == "MEDIA_MISSING"


def test_times_of_a_plain_file(room: Path) -> None:
    found = door(room / "ok.mp4")
    assert seconds(found) == [0, Fraction(1, 2), 1, Fraction(3, 2)]
    assert (found.duration, found.source_fps, found.is_vfr) == ((2, 1), (10, 1), False)
    assert (found.width, found.height, found.source_size) == (128, 96, (128, 96))
    assert simplejpeg.decode_jpeg(found.frames[0]).shape == (96, 128, 3)
    assert door(room / "ok.mp4") == found  # the same file gives the same bytes


def grey_ramp(path: Path, times: str, *arguments: str) -> Path:
    """Five seconds whose brightness tells the time: luma is 40 per second."""
    source = "color=black:s=64x64:r=20:d=5,format=gray,geq=lum='40*T'"
    chosen = ("-f", "lavfi", "-i", f"{source},select='{times}',format=yuv420p")
    return encode(path, *chosen, "-fps_mode", "passthrough", "-crf", "10", *arguments)


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
    cut = encode(tmp_path / "x.mp4", "-ss", "0.35", "-i", str(path), "-c", "copy")
    late = encode(tmp_path / "y.mp4", "-i", str(path), "-c", "copy", "-output_ts_offset", "7")
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


SPARSE = "eq(mod(n,30),0)"  # pictures at 0, 1.5, 3 and 4.5 seconds


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize(
    ("span", "shown", "times"),
    [
        ((2_000_000, 4_000_000), [1.5, 3.0], [0, 1.0]),  # half a second old
        ((2_800_000, 4_700_000), [1.5, 4.5], [0, 1.7]),  # older than is looked back for at first
        ((1_500_000, 3_000_000), [1.5], [0]),
        ((1_600_000, 2_900_000), [1.5], [0]),  # nothing begins in it
        ((0, 1_000_000), [0], [0]),
    ],
)
def test_a_span_begins_with_what_is_on_screen_then(
    span: tuple[int, int], shown: list[float], times: list[float], suffix: str, tmp_path: Path
) -> None:
    found = door(grey_ramp(tmp_path / f"x.{suffix}", SPARSE), span)
    assert [float(time) for time in seconds(found)] == pytest.approx(times, abs=0.001)
    black = shown_seconds(door(tmp_path / f"x.{suffix}"))[0]
    assert [s - black for s in shown_seconds(found)] == pytest.approx(shown, abs=0.06)
    assert float(Fraction(*found.duration)) == pytest.approx((span[1] - span[0]) / 1e6, abs=0.001)


def test_a_late_span_begins_with_what_is_on_screen_then(tmp_path: Path) -> None:
    source = "color=black:s=64x64:r=5:d=60,format=gray,geq=lum='4*T',format=yuv420p"
    rare = ("-vf", "select='lt(n,120)+eq(n,200)'", "-fps_mode", "passthrough", "-crf", "10")
    path = encode(tmp_path / "x.mkv", "-f", "lavfi", "-i", source, "-g", "40", *rare)
    found = door(path, (31_000_000, 45_000_000))  # a picture stays from 23.8 to 40 seconds
    assert seconds(found) == [0, 9]
    lumas = [simplejpeg.decode_jpeg(frame, "GRAY").mean() / 4 for frame in found.frames]
    assert lumas == pytest.approx([23.8, 40], abs=0.5)


@pytest.mark.parametrize("suffix", ["mkv", "webm", "mp4", "ts"])
def test_a_file_that_starts_late_is_whole(suffix: str, room: Path, tmp_path: Path) -> None:
    codec = ("-c:v", "libvpx") if suffix == "webm" else ("-c", "copy")
    late = ("-i", str(room / "ok.mp4"), *codec, "-output_ts_offset", "30")
    found = door(encode(tmp_path / f"x.{suffix}", *late))
    assert float(Fraction(*found.duration)) == pytest.approx(2, abs=0.01) and found.pts[0] == 0
    assert len(found.pts) == 4
    refused = decode.decode(tmp_path / f"x.{suffix}", "video", PROFILE, (2_500_000, 3_000_000))
    assert isinstance(refused, MediaRefusal) and refused.code == "SPAN_OUTSIDE"


def recorded(path: Path, seconds: float, *, nameless: bool = True) -> Path:
    """A WebM as browsers record it: no duration, no rate, uneven times."""
    source = f"testsrc=s=128x96:r=30:d={seconds},select='lt(mod(n,7),4)'"
    live = ("-c:v", "libvpx", "-fps_mode", "passthrough", "-f", "webm", "-live", "1")
    encode(path, "-f", "lavfi", "-i", source, *live)
    data = path.read_bytes()
    at = data.index(b"\x23\xe3\x83\x84")  # DefaultDuration becomes a Void of its size
    path.write_bytes(data[:at] + b"\xec\x86" + data[at + 2 :])
    return path


def test_a_webm_without_duration_is_as_long_as_its_packets(tmp_path: Path) -> None:
    found = door(recorded(tmp_path / "x.webm", 4))
    assert found.is_vfr and float(Fraction(*found.duration)) == pytest.approx(3.9, abs=0.15)
    assert [round(float(s) * 2) for s in seconds(found)] == list(range(8))
    assert 15 < Fraction(*found.source_fps) < 20
    spanned = door(tmp_path / "x.webm", (1_000_000, 2_000_000))
    assert seconds(spanned)[0] == 0 and len(spanned.pts) == 2


def test_packets_keep_the_bounds_of_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recorded(tmp_path / "x.webm", 4)
    for name, bound, code in (
        ("MAX_SECONDS", 3, "MEDIA_BAD_DURATION"),
        ("MAX_FPS", 10, "MEDIA_BAD_FPS"),
        ("MAX_PACKET_BYTES", 40, "MEDIA_LONG"),  # as of frames: more than the bounds allow
    ):
        with monkeypatch.context() as patch:
            patch.setattr(probe, name, bound)
            found = decode.decode(path, "video", PROFILE)
            assert isinstance(found, MediaRefusal) and found.code == code
    empty = path.read_bytes()
    (tmp_path / "y.webm").write_bytes(empty[: empty.index(b"\x1f\x43\xb6\x75")])  # no cluster
    found = decode.decode(tmp_path / "y.webm", "video", PROFILE)
    assert isinstance(found, MediaRefusal)


@pytest.mark.parametrize("suffix", ["webm", "mkv", "avi"])
def test_vp8_has_one_matrix_whatever_its_container_says(suffix: str, tmp_path: Path) -> None:
    graph = "color=red:s=1280x720:r=2:d=1,format=gbrp,scale=out_color_matrix=smpte170m,"
    coded = ("-f", "lavfi", "-i", f"{graph}format=yuv420p", "-c:v", "libvpx", "-b:v", "2M")
    found = door(encode(tmp_path / f"x.{suffix}", *coded, "-colorspace", "bt709"))
    red, green, blue = simplejpeg.decode_jpeg(found.frames[0])[20:-20, 20:-20].mean((0, 1))
    assert found.colour == "smpte170m" and red > 245 and green < 8 and blue < 8


def test_a_late_span_of_a_long_file_is_found_by_seeking(tmp_path: Path) -> None:
    source = "color=black:s=64x64:r=5:d=60,format=gray,geq=lum='4*T',format=yuv420p"
    path = encode(tmp_path / "x.mp4", "-f", "lavfi", "-i", source, "-g", "40", "-crf", "10")
    found = door(path, (31_000_000, 35_000_000))
    assert found.pts[0] == 0 and len(found.pts) == 8
    first = simplejpeg.decode_jpeg(found.frames[0], "GRAY").mean() / 4
    assert first == pytest.approx(31, abs=0.5)


def test_a_span_outside_the_video_is_refused(room: Path) -> None:
    found = decode.decode(room / "ok.mp4", "video", PROFILE, (5_000_000, 6_000_000))
    assert isinstance(found, MediaRefusal) and found.code == "SPAN_OUTSIDE"


def test_the_frame_cap_spreads_frames_over_the_whole_video(room: Path) -> None:
    found = decode.decode(room / "ok.mp4", "video", Profile(frame_cap=3))
    assert isinstance(found, Decoded)
    assert seconds(found) == [0, Fraction(7, 10), Fraction(14, 10)]


def test_what_comes_of_a_file_does_not_depend_on_its_neighbours(room: Path, tmp_path: Path) -> None:
    whole = (room / "ok.mp4").read_bytes()
    (tmp_path / "damaged.mp4").write_bytes(flipped(whole))
    (tmp_path / "page.mp4").write_bytes(b"<html><body>404 Not Found</body></html>")
    small = [grey_ramp(tmp_path / f"{n}.mkv", f"lt(mod(n,{n}),3)") for n in range(4, 13)]
    big = encode(tmp_path / "big.mp4", *"-f lavfi -i testsrc=size=1280x720:r=25:d=4".split(), *H264)
    paths = [room / "ok.mp4", big, *small, tmp_path / "page.mp4"]
    clean = [(path, "video", None) for path in paths]
    spans = [(1_200_000, 3_700_000), (1_200_000, 3_700_000), (2_200_000, 4_900_000)]
    clean += [(small[-1], "video", span) for span in spans] + [(tmp_path / "none", "video", None)]
    for items in (clean, [*clean, (tmp_path / "damaged.mp4", "video", None)]):
        alone = [decode.decode(path, kind, PROFILE, span) for path, kind, span in items]
        assert decode.decode_all(items, PROFILE) == alone
        kept = sum(isinstance(found, Decoded) for found in alone)
        assert kept == 14


def test_rotation_is_applied_once_and_the_displayed_size_decides(
    room: Path, tmp_path: Path
) -> None:
    arguments = ("-i", str(room / "ok.mp4"), "-c", "copy", "-metadata:s:v:0", "rotate=90")
    found = door(encode(tmp_path / "x.mp4", *arguments))
    assert found.source_size == (96, 128) and found.rotation in (90, 270)
    assert (found.width, found.height) == (96, 128)


def test_pixels_that_are_not_square_are_made_square(tmp_path: Path) -> None:
    path = encode(tmp_path / "x.mp4", *TESTSRC, "-vf", "setsar=2", *H264)
    found = door(path)
    assert (found.width, found.height) == found.source_size == (256, 96)


@pytest.mark.parametrize(
    ("source", "stored"),
    [
        ((1280, 720), (640, 360)),
        ((320, 180), (320, 180)),  # was 320 x 128
        ((640, 128), (640, 128)),  # was centred on 640 x 192
        ((32, 18), (32, 18)),
        ((1300, 66), (1300, 66)),
        ((213, 107), (212, 106)),
        ((1013, 569), (638, 358)),
    ],
)
def test_a_stored_picture_is_the_picture(
    source: tuple[int, int], stored: tuple[int, int], tmp_path: Path
) -> None:
    """White to its last row and column: no bars, no multiples, never enlarged."""
    white = ("-f", "lavfi", "-i", f"color=white:s={source[0]}x{source[1]}:r=4:d=1,format=yuv444p")
    found = door(encode(tmp_path / "x.webm", *white, *"-c:v libvpx-vp9 -crf 4 -b:v 0".split()))
    assert (found.width, found.height) == stored and found.source_size == source
    shown = simplejpeg.decode_jpeg(found.frames[0], "GRAY")[..., 0]
    assert shown.shape == stored[::-1] and shown.min() > 240


X264, X265, VP9 = "libx264 -crf 1", "libx265 -crf 1", "libvpx-vp9 -crf 4 -b:v 0"
CODED = {  # how a picture of known colours is coded, and what the file says of it
    "709": (X264, "yuv420p", "bt709", "tv", "256x128"),
    "601": (X264, "yuv420p", "smpte170m", "tv", "256x128"),
    "240m": (X264, "yuv420p", "smpte240m", "tv", "256x128"),
    "fcc, 422": (X264, "yuv422p", "fcc", "tv", "256x128"),
    "full range": (X264, "yuvj420p", "bt709", "pc", "256x128"),
    "full range, 444": (X264, "yuvj444p", "smpte170m", "pc", "256x128"),
    "10 bits": (X265, "yuv420p10le", "bt2020nc", "tv", "256x128"),
    "12 bits, odd": (X265, "yuv444p12le", "bt709", "tv", "213x107"),
    "odd": (VP9, "yuv420p", "bt709", "tv", "213x107"),
    "a little more than halved": (X264, "yuv420p", "bt709", "tv", "1300x736"),
    "motion jpeg, odd": ("mjpeg -q:v 1", "yuvj422p", "bt470bg", "pc", "213x107"),
    "rgb": ("libx264rgb -crf 1", "rgb24", "", "pc", "256x128"),
    "rgb, odd": (VP9, "gbrp", "", "pc", "213x107"),
}


@pytest.mark.parametrize("case", CODED)
def test_colours_are_those_that_were_coded(case: str, tmp_path: Path) -> None:
    codec, pixels, matrix, span, size = CODED[case]
    smooth = "geq=r=255*X/W:g=255*Y/H:b=255*(1-X/W)*(1-Y/H)"
    convert = f"scale=out_color_matrix={matrix}:out_range={span}," if matrix else ""
    graph = f"color=s={size}:r=2:d=1,format=gbrp,{smooth},{convert}format={pixels}"
    named = ("-colorspace", matrix, "-color_range", span) if matrix else ()
    coded = ("-f", "lavfi", "-i", graph, *named, "-c:v", *codec.split())
    found = door(encode(tmp_path / "x.mkv", *coded))
    width, height = (int(side) for side in size.split("x"))
    x, y = np.meshgrid(np.arange(width) / width, np.arange(height) / height)
    picture = (255 * np.stack([x, y, (1 - x) * (1 - y)], -1)).round().astype(np.uint8)
    sides = found.width, found.height
    expected = np.asarray(Image.fromarray(picture).resize(sides, Image.Resampling.BICUBIC))
    off = abs(simplejpeg.decode_jpeg(found.frames[0]).astype(int) - expected)[:, :-4]
    assert off.mean() < 1.1 and off.max() <= 9  # ffmpeg writes the last odd column too dark
    assert (found.colour == "rgb") == (matrix == "")


def test_four_pixels_that_share_their_chroma_need_not_fill_the_width(tmp_path: Path) -> None:
    y, x = np.mgrid[0:128, 0:254]
    picture = np.stack([x, 2 * y, 255 - x], -1).astype(np.uint8)
    jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(picture), 95, "RGB", "411")
    (tmp_path / "x.mjpeg").write_bytes(4 * jpeg)
    still = ("-f", "mjpeg", "-framerate", "2", "-i", str(tmp_path / "x.mjpeg"), "-c", "copy")
    found = door(encode(tmp_path / "x.mkv", *still))
    sides = found.width, found.height
    expected = np.asarray(Image.fromarray(picture).resize(sides, Image.Resampling.BICUBIC))
    off = abs(simplejpeg.decode_jpeg(found.frames[0]).astype(int) - expected)[:, 4:-4]
    assert off.mean() < 1.5


def test_hdr_is_mapped(tmp_path: Path) -> None:
    assert "tone-mapped" in door(VIDEOS["HDR10"].make(tmp_path, tmp_path)).colour


@pytest.fixture(params=["namespaces", "landlock"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The two ways to confine, each where this machine has it."""
    found = str(request.param)
    if found == "namespaces" and confinement.why_no_namespaces():
        pytest.skip(confinement.why_no_namespaces())
    monkeypatch.setattr(confinement, "kind", lambda: found)
    return found


def test_the_sandbox_has_no_environment_and_no_input(kind: str) -> None:
    said = bytearray()
    script = "import os,sys;print(dict(os.environ),sys.stdin.read(),os.getcwd())"
    end = sandbox.run(
        [sys.executable, "-I", "-c", script],
        seconds=20,
        outlets=[sandbox.Outlet(said.extend, piece_nbytes=1 << 16, max_bytes=1 << 20)],
    )
    assert end.status == 0, end.stderr
    assert said.endswith(b"}  /\n") and b"SECRET" not in said and b"HOME" not in said


def nothing_from() -> sandbox.Outlet:
    return sandbox.Outlet(lambda _: None, piece_nbytes=1 << 16, max_bytes=1 << 20)


def test_the_sandbox_stops_what_runs_too_long_or_says_too_much(kind: str) -> None:
    started = time.monotonic()
    slow = sandbox.run(["/usr/bin/sleep", "60"], seconds=1, outlets=[nothing_from()])
    assert slow.out_of_time and time.monotonic() - started < 5
    loud = sandbox.run(["/usr/bin/yes"], seconds=20, outlets=[nothing_from()])
    assert loud.stopped == "output"


def test_a_sandboxed_child_dies_with_its_parent(kind: str, tmp_path: Path) -> None:
    seconds = str(7_000_000 + os.getpid())  # nobody else sleeps so long
    script = (
        "from pipeline.media import confinement, sandbox\n"
        f"confinement.kind = lambda: {kind!r}\n"
        "said = sandbox.Outlet(bytearray().extend, piece_nbytes=1, max_bytes=99)\n"
        f"sandbox.run(['/usr/bin/sleep', {seconds!r}], seconds=60, outlets=[said])\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[3])
    deadline = time.monotonic() + 30
    while not (sleeping := _processes(f"/usr/bin/sleep\0{seconds}\0".encode())):
        assert time.monotonic() < deadline and parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    while any(map(_alive, sleeping)):
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.05)


def _processes(command: bytes) -> list[int]:
    """The ids of the processes with this very command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += [int(path.parent.name)] if path.read_bytes() == command else []
    return found


def _alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone before the file was opened, or read
        return False


OPEN = canary.Found(kind="landlock", open=("network",))


def test_missing_tools_are_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decode.check_tools().startswith("ffmpeg ")
    monkeypatch.setattr(canary, "found", lambda: OPEN)
    with pytest.raises(UserError, match=r"open: network\b.*--no-sandbox"):
        decode.check_tools()
    assert "open: network" in decode.check_tools(no_sandbox=True)
    sandbox.tool.cache_clear()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="apt-get install ffmpeg"):
        decode.check_tools()
    sandbox.tool.cache_clear()


def test_an_ffmpeg_without_the_filters_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, script in {
        "ffmpeg": "echo 'ffmpeg version 7.1'; echo ' T. colorspace  V->V  Convert'",
        "ffprobe": "exit 0",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    asked = (sandbox.tool, decode._version, decode._filters)
    for answer in asked:
        answer.cache_clear()
    with pytest.raises(UserError, match="built without the filters zscale; install one"):
        decode.check_tools()
    for answer in asked:
        answer.cache_clear()


def test_a_worker_without_a_sandbox_refuses_unless_told(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Pool(str(tmp_path / "pool"), PROFILE)
    row = MediaRow(
        clip_id="0" * 32,
        media_digest="0" * 64,
        kind="video",
        address=f"file:{room / 'ok.mp4'}",
        span=None,
    )
    unit = decode_media.MediaUnit(pool=str(tmp_path / "pool"), stage="decode", rows=(row,))
    monkeypatch.setattr(canary, "found", lambda: OPEN)
    with pytest.raises(UserError, match="--no-sandbox"):
        decode_media.decode(unit)
    receipt = decode_media.decode(replace(unit, no_sandbox=True))
    assert receipt.tools.endswith("open: network")
    assert (receipt.counts["media"], receipt.counts["refused"]) == (1, 0)
