"""Videos: one ffprobe process per file, then one ffmpeg process for a file or for several small
ones; all sandboxed, nothing decoded twice.

Starting ffmpeg costs more than decoding a few seconds of small pictures, so small videos share a
process. A process that is not clean in every respect proves nothing about any of its files: each
of them is then decoded alone, and the verdict is that of the lone run.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from pipeline.media import frame_sampling
from pipeline.media.decoded import Broken, Decoded, MediaRefusal, stored_size
from pipeline.media.ffmpeg import HDR, Extracted, Plan, Window, extract
from pipeline.media.probe import Stream, probe, stream_of
from shards.profile import Profile

COVERED = (Fraction(8, 10), Fraction(12, 10))  # of the promised duration; outside: SHORT, LONG
RESTART = 1  # seconds back in time: another stream begins, appended to the first
SEEK_FROM = 10_000_000  # µs; before that, decoding from the start is as quick as seeking
LOOK_BACK = (2, Fraction(1))  # frames or seconds before a span: there is what its start shows
SEEK_MARGIN = 1_000_000  # µs; edit lists and B-frames put a seek a little late
SMALL = 1 << 26  # pixels of a video that costs about as much to decode as a process to start
TOGETHER = 8  # small videos per process: each needs four of its 64 open files
_SEEKABLE = ("mov", "matroska")

Span = tuple[int, int] | None


def decode_videos(
    items: Sequence[tuple[Path, Span]], profile: Profile
) -> list[Decoded | MediaRefusal]:
    """The kept frames of each file's first video stream that is no cover art, or a refusal."""
    outcomes: dict[int, Decoded | MediaRefusal] = {}
    plans: dict[int, Plan] = {}
    for number, (path, span) in enumerate(items):
        try:
            plans[number] = plan_video(path, profile, span)
        except Broken as broken:
            outcomes[number] = broken.refusal
    for group in _groups(plans):
        results = _decode_group([plans[number] for number in group], profile)
        outcomes |= zip(group, results, strict=True)
    return [outcomes[number] for number in range(len(items))]


def _groups(plans: dict[int, Plan]) -> Iterator[list[int]]:
    """The numbers of the plans: small videos up to TOGETHER, every other one alone."""
    # cost by the header's pixels: what takes longer than starting a process has one of its own
    small = [number for number, plan in plans.items() if plan.pixels <= SMALL]
    yield from (small[at : at + TOGETHER] for at in range(0, len(small), TOGETHER))
    yield from ([number] for number, plan in plans.items() if plan.pixels > SMALL)


def _decode_group(plans: Sequence[Plan], profile: Profile) -> list[Decoded | MediaRefusal]:
    try:
        every = extract(plans, profile)
        return [
            _settled(plan, extracted, profile) for plan, extracted in zip(plans, every, strict=True)
        ]
    except Broken as broken:
        # nothing is known about any of several: each alone
        if len(plans) == 1:
            return [broken.refusal]
    return [outcome for plan in plans for outcome in _decode_group([plan], profile)]


def plan_video(path: Path, profile: Profile, span: Span) -> Plan:
    """What to take out of the file, by its header; raises Broken."""
    stream = stream_of(probe(path), path.suffix.lower() == ".gif")
    window = _window(stream, span)
    # frames are spread over the whole window where a frame a cell would exceed the cap
    between = frame_sampling.interval(window.seconds, profile.fps, profile.frame_cap)
    capped = between > Fraction(1, profile.fps)
    return Plan(
        path=path,
        stream=stream,
        window=window,
        rule=frame_sampling.cells(between, stream.time_base, capped=capped),
        stored=stored_size(*stream.displayed, profile.video_area),
    )


def _settled(plan: Plan, extracted: Extracted, profile: Profile) -> Decoded | MediaRefusal:
    """What came out; decoded again where a span's first picture is older than was looked for."""
    window = _wider(plan.window, extracted.every)
    if window is not None:
        return _decode_group([replace(plan, window=window)], profile)[0]
    return _decoded(plan, extracted, profile)


def _wider(window: Window, every: Sequence[int]) -> Window | None:
    """Where to decode from so that the picture on screen at the start is there; None: it is."""
    # the frame on screen at the start of a span may be older than LOOK_BACK: a slide that stays
    # long
    if window.start is None or window.first is None:
        return None
    before = [time for time in every if time <= window.start]
    if not before:  # the seek was late
        return replace(window, seek=0) if window.seek else None
    return replace(window, first=max(before)) if max(before) < window.first else None


def _decoded(plan: Plan, extracted: Extracted, profile: Profile) -> Decoded:
    """What came out, checked against what was promised; raises Broken."""
    stream = plan.stream
    window = plan.window
    # of what was decoded, what `trim` let through
    every = _within(window, extracted.every)
    _check_times(plan, extracted, every)
    origin = every[0] if window.start is None else window.start
    duration = (_end(plan, extracted.every, every) - origin) * stream.time_base
    # frames up to the start are candidates for what is on screen then; the last of them is
    early = max(sum(time <= origin for time in extracted.pts) - 1, 0)  # only the last is on screen
    return Decoded(
        kind="video",
        frames=tuple(extracted.jpegs[early:]),
        pts=tuple(max(time - origin, 0) for time in extracted.pts[early:]),
        time_base=stream.time_base.as_integer_ratio(),
        duration=duration.as_integer_ratio(),
        width=plan.stored[0],
        height=plan.stored[1],
        rotation=stream.rotation,
        is_vfr=frame_sampling.is_vfr(every),
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
        asked_for = f"{float(start):g} s to {float(end):g} s"
        raise Broken("SPAN_OUTSIDE", f"{asked_for} of {float(stream.seconds):g} s")
    # spans are told in seconds of the video as players count them: from the first frame
    first, last = (stream.start + round(at / stream.time_base) for at in (start, end))
    # seeking goes to a key frame before the span, and SEEK_MARGIN earlier still
    seek = span[0] - SEEK_MARGIN if span[0] > SEEK_FROM and stream.container in _SEEKABLE else 0
    back = min(LOOK_BACK[0] / stream.fps, LOOK_BACK[1])
    return Window(
        start=first,
        end=last,
        seconds=min(end, stream.seconds) - start,
        seek=seek,
        first=first - round(back / stream.time_base),
    )


def _within(window: Window, every: Sequence[int]) -> list[int]:
    """The times of the frames that the window lets through, of all that were decoded."""
    if window.first is None or window.end is None:
        return list(every)
    until = itertools.takewhile(window.end.__gt__, every)
    return [time for time in until if time >= window.first]


def _end(plan: Plan, decoded: Sequence[int], every: Sequence[int]) -> int:
    """When the last frame leaves the screen, or the window ends."""
    stream = plan.stream
    end = plan.window.end
    if end is not None and any(time >= end for time in decoded):
        return end
    # the median step stands for the last frame's duration, which containers rarely say
    length = frame_sampling.frame_ticks(every, round(1 / (stream.fps * stream.time_base)))
    return max(every) + length if end is None else min(max(every) + length, end)


def _check_times(plan: Plan, extracted: Extracted, every: Sequence[int]) -> None:
    """Compare what came out with what was promised; raises Broken."""
    stream = plan.stream
    window = plan.window
    pts = extracted.pts
    if not every:
        raise Broken("SHORT", f"no frame came out of {float(window.seconds):g} s")
    # ffmpeg's `select` and our rule are two implementations of one definition
    wanted = frame_sampling.kept(every, plan.rule, window.start)
    if pts != wanted or len(extracted.jpegs) != len(pts):
        raise AssertionError(f"ffmpeg kept {pts[:9]}, the rule says {wanted[:9]}")
    first = every[0] if window.start is None else window.start
    covered = (_end(plan, extracted.every, every) - first) * stream.time_base
    slack = 1 / Fraction(stream.fps)
    # a frame of slack: the last one's duration is a guess
    if covered + slack < COVERED[0] * window.seconds:
        raise Broken("SHORT", f"{float(covered):g} s came out of {float(window.seconds):g} s")
    longest = stream.longest if window.start is None else window.seconds
    last = (max(every) - first) * stream.time_base  # how long its picture stays is an estimate
    if last - slack > COVERED[1] * longest:
        raise Broken("LONG", f"{float(covered):g} s came out of {float(longest):g} s")
    # appended streams and wrapped clocks show as times that go back
    back = max((a - b for a, b in itertools.pairwise(every)), default=0) * stream.time_base
    if back > RESTART:
        raise Broken("LONG", f"the times go back by {float(back):g} s")


def _colour(stream: Stream, profile: Profile) -> str:
    if stream.transfer in HDR:
        return f"{stream.matrix}/{stream.transfer} tone-mapped {profile.tone_map}"
    return stream.matrix
