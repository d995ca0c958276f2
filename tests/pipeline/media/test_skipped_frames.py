"""H.264 and HEVC without the frames that nobody refers to: what is kept, and what is said of it."""

from __future__ import annotations

import subprocess
from contextlib import nullcontext
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.media import decode, frame_sampling, probe, sandbox, video
from pipeline.media.decoded import Decoded, MediaRefusal
from pipeline.stages import decode_media
from pipeline.stages.media_rows import MediaRow
from shards.pool import Pool
from shards.profile import Profile
from tests.hostile.videos import VIDEOS, encode, plain

PROFILE = Profile()
EVERY = Profile(fps=60, frame_cap=65_536)  # of which all frames are kept
# an object that moves, so that frames differ and B-frames pay
MOVING = ("-f", "lavfi", "-i", "testsrc2=size=128x96:rate=25:duration=4", "-pix_fmt", "yuv420p")
X264 = "-c:v libx264 -x264-params scenecut=0:b-adapt=0:"
X265 = "-c:v libx265 -x265-params log-level=error:scenecut=0:b-adapt=0:"
STREAMS = {  # what is encoded how, into which container, and how often it is decoded then
    "pyramid": (X264 + "bframes=3", "mp4", 1),
    "pyramid, mkv": (X264 + "bframes=3", "mkv", 1),
    "pyramid, ts": (X264 + "bframes=3 -output_ts_offset 9", "ts", 1),
    "one B-frame": (X264 + "bframes=1", "mp4", 1),
    "all are referred to": (X264 + "bframes=0", "mp4", 1),
    "no pyramid": (X264 + "bframes=3:b-pyramid=none", "mp4", 2),
    "8 B-frames": (X264 + "bframes=8", "mp4", 2),
    "8 B-frames, no pyramid": (X264 + "bframes=8:b-pyramid=none", "mp4", 2),
    "open groups": (X264 + "bframes=3:open-gop=1:keyint=20", "mp4", 1),
    "no times": (X264 + "bframes=3", "avi", 1),
    "interlaced": (X264 + "bframes=3:tff=1 -flags +ilme+ildct", "mp4", 1),
    "hevc": (X265 + "bframes=3", "mp4", 1),
    "hevc, no pyramid": (X265 + "bframes=3:b-pyramid=0", "mp4", 2),
    "hevc, two in a row": (X265 + "bframes=4", "mp4", 1),
    "hevc, 8 B-frames": (X265 + "bframes=8", "mkv", 2),
    "hevc, open groups": (X265 + "bframes=3:open-gop=1:keyint=20", "mkv", 1),
    "hevc, temporal layers": (X265 + "bframes=3:temporal-layers=1", "mp4", 1),
}

HOSTILE = (
    "V06 bit rot in mdat|V12 zero frame delta|V18 one frame|V30 key frames dropped|"
    "V32 size changes|V33 times from 25 h|V59 extradata overwritten|samples in another file|"
    "fragmented|doubled times|decreasing times|H.264 in FLV"
).split("|")


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "WORTH", 0)


def opened(path: Path, profile: Profile = PROFILE) -> Decoded | MediaRefusal:
    return decode.decode(path, "video", profile)


def in_full(path: Path, profile: Profile = PROFILE) -> Decoded | MediaRefusal:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video, "WORTH", 1 << 60)
        return opened(path, profile)


def stands_for_the_whole(path: Path) -> Decoded:
    """What is said of it is what a full decode says; each frame is the rule's, or next to it."""
    found, full, every = opened(path), in_full(path), in_full(path, EVERY)
    assert isinstance(found, Decoded), found
    assert isinstance(full, Decoded) and isinstance(every, Decoded)
    passed_on = {"frames": full.frames, "pts": full.pts, "passes": 1}
    assert replace(found, **passed_on) == full
    place = {time: number for number, time in enumerate(every.pts)}
    pairs = zip(found.pts, full.pts, strict=True)
    assert all(abs(place[ours] - place[rules]) <= 1 for ours, rules in pairs)
    # the very frames of a full decode, by their times
    pictures = dict(zip(every.pts, every.frames, strict=True))
    assert [pictures[time] for time in found.pts] == list(found.frames)
    return found


@pytest.mark.parametrize("name", STREAMS)
def test_what_is_kept_is_the_rules_or_a_neighbour(name: str, tmp_path: Path) -> None:
    coded, suffix, passes = STREAMS[name]
    path = encode(tmp_path / f"x.{suffix}", *MOVING, *coded.split())
    found = stands_for_the_whole(path)
    assert found.passes == passes
    if passes == 2:
        assert replace(found, passes=1) == in_full(path)


def test_a_pyramid_is_decoded_without_its_top(tmp_path: Path) -> None:
    coded, _, _ = STREAMS["pyramid"]
    path = encode(tmp_path / "x.mp4", *MOVING, *coded.split())
    found, full = opened(path), in_full(path)
    assert isinstance(found, Decoded) and isinstance(full, Decoded)
    assert found.pts != full.pts  # else nothing was left out, and the tests above show nothing


def test_edit_lists_rotation_and_variable_rates(tmp_path: Path) -> None:
    coded = f"{X264}bframes=3".split()
    whole = encode(tmp_path / "w.mp4", *MOVING, *coded)
    rotated = ("-i", str(whole), "-c", "copy", "-metadata:s:v:0", "rotate=90")
    assert stands_for_the_whole(encode(tmp_path / "r.mp4", *rotated)).rotation in (90, 270)
    cut = ("-ss", "0.35", "-i", str(whole), "-c", "copy")
    assert stands_for_the_whole(encode(tmp_path / "c.mp4", *cut)).pts[0] == 0
    drops = ("-vf", "select='lt(mod(n,29),9)+eq(mod(n,11),0)'", "-fps_mode", "passthrough")
    assert stands_for_the_whole(encode(tmp_path / "v.mp4", *MOVING, *drops, *coded)).is_vfr
    sparse = ("-vf", "select='not(mod(n,20))'", "-fps_mode", "passthrough")
    assert stands_for_the_whole(encode(tmp_path / "s.mkv", *MOVING, *sparse, *coded)).passes == 2


def packets(path: Path) -> list[tuple[int, int]]:
    """Where each packet lies in its file, and its size, in the order in which they are decoded."""
    ask = ["ffprobe", "-v", "error", "-show_entries", "packet=pos,size", "-of", "csv=p=0"]
    said = subprocess.run([*ask, str(path)], capture_output=True, check=True, text=True).stdout
    return [(int(at), int(size)) for size, at, *_ in (row.split(",") for row in said.split())]


@pytest.mark.parametrize(("number", "is_skipped"), [(43, True), (41, False), (42, False)])
def test_damage_is_found_in_what_is_decoded(number: int, is_skipped: bool, tmp_path: Path) -> None:
    """After the key frame come, by fours: a P-frame, a B-frame that is referred to, two others."""
    path = encode(tmp_path / "x.mp4", *MOVING, *f"{X264}bframes=3".split())
    at, size = packets(path)[number]
    whole = bytearray(path.read_bytes())
    whole[at + 8 : at + size] = bytes(255 - byte for byte in whole[at + 8 : at + size])
    path.write_bytes(whole)
    full = in_full(path)
    assert isinstance(full, MediaRefusal)
    found = opened(path)
    assert isinstance(found, Decoded) if is_skipped else found == full


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_told_the_same(name: str, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    path = VIDEOS[name].make(plain(tmp_path), tmp_path / "made")
    found = opened(path)
    if isinstance(found, Decoded):
        stands_for_the_whole(path)
        assert VIDEOS[name].expected == "kept"
    else:
        assert found == in_full(path) and found.code == VIDEOS[name].expected


def test_what_misses_is_stopped_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "x.mp4", *MOVING, *f"{X264}bframes=8".split())
    runs, taken = [], []

    def noted_run(command: list[str], **more: Any) -> sandbox.Exit:
        runs.append(command)
        return run(command, **more)

    def noted_take(chooser: frame_sampling.Chooser, time: int, frame: memoryview) -> None:
        taken.append(time)
        take(chooser, time, frame)

    run, take = sandbox.run, frame_sampling.Chooser.take
    monkeypatch.setattr(sandbox, "run", noted_run)
    monkeypatch.setattr(frame_sampling.Chooser, "take", noted_take)
    found = opened(path)
    assert isinstance(found, Decoded) and found.passes == 2
    decoding = [command for command in runs if "-filter_complex" in command]
    assert ["noref" in command for command in decoding] == [True, False]
    assert 0 < len(taken) < len(found.pts)


def test_without_times_of_packets_all_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode(tmp_path / "x.mp4", *MOVING, *f"{X264}bframes=3".split())
    monkeypatch.setattr(probe, "MAX_PACKET_BYTES", 40)
    assert opened(path) == in_full(path)


def test_receipts_count_what_was_decoded_again(tmp_path: Path) -> None:
    rows = []
    for name in ("pyramid", "no pyramid", "8 B-frames"):
        path = encode(tmp_path / f"{name}.mp4", *MOVING, *STREAMS[name][0].split())
        digest = f"{len(rows):064}"
        rows.append(
            MediaRow(
                clip_id=digest[:32],
                media_digest=digest,
                kind="video",
                address=f"file:{path}",
                span=None,
            )
        )
    Pool(str(tmp_path / "pool"), PROFILE)
    unit = decode_media.MediaUnit(pool=str(tmp_path / "pool"), stage="decode", rows=tuple(rows))
    receipt = decode_media.decode(unit)
    assert (receipt.counts["refused"], receipt.counts["decoded_again"]) == (0, 2)


times = st.lists(st.integers(-5000, 5000), min_size=1, max_size=60, unique=True).map(sorted)


@given(times, st.data(), st.integers(1, 3000))
def test_a_frame_is_stood_for_by_its_neighbours_only(
    shown: list[int], data: st.DataObject, size: int
) -> None:
    rule = frame_sampling.cells(Fraction(size), Fraction(1), capped=True)
    decoded = {*data.draw(st.lists(st.sampled_from(shown), min_size=len(shown) // 2))}
    expected: list[int] = []
    fits = True
    for choice in frame_sampling.choices(shown, rule):
        neighbours = (choice.best, choice.after, choice.before)
        # a frame stands for one other only
        left = [time for time in neighbours if time in decoded and time not in expected]
        fits = fits and bool(left)
        expected += left[:1]
    frames: list[bytes] = []
    chooser = frame_sampling.Chooser(shown, rule, lambda frame: frames.append(bytes(frame)))
    with nullcontext() if fits else pytest.raises(frame_sampling.Missed):
        for time in sorted(decoded):
            chooser.take(time, memoryview(b"%d" % time))
        chooser.end()
    if fits:
        assert chooser.pts == expected == [int(frame) for frame in frames]


@pytest.mark.parametrize(
    "decoded", [[], [10, 40], [0, 20], [0, 15, 40], [0, 20, 10, 40], [0, 10, 20, 30, 40, 50]]
)
def test_what_was_decoded_must_lie_in_what_is_shown(decoded: list[int]) -> None:
    with pytest.raises(frame_sampling.Missed):
        frame_sampling.check_decoded(decoded, (0, 10, 20, 30, 40))
    frame_sampling.check_decoded([0, 20, 30], (0, 10, 20, 30, 40))
