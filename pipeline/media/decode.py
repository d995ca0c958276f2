"""The only door for hostile bytes: a file of unknown origin in, frames we encoded out.

Videos are decoded by ffmpeg (pipeline.media.video), images by libjpeg-turbo and Pillow
(pipeline.media.images), all in sandboxed child processes (pipeline.media.sandbox) that serve
several files each: starting one costs more than most files do.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from pipeline.media import canary, confinement, sandbox
from pipeline.media.decoded import Broken, Decoded, MediaRefusal
from pipeline.media.images import image_shape
from pipeline.media.sandboxed_images import decode_images
from pipeline.media.video import Span, decode_videos
from shards.errors import Mistakes, UserError
from shards.profile import Profile

__all__ = ["Decoded", "MediaRefusal", "check_tools", "decode", "decode_all", "find_tools"]

MAX_BYTES = 5 << 30
_LFS = b"version https://git-lfs.github.com/spec/"


def decode(path: Path, kind: str, profile: Profile, span: Span = None) -> Decoded | MediaRefusal:
    """Decode one file; see decode_all."""
    return decode_all([(path, kind, span)], profile)[0]


def decode_all(
    items: Sequence[tuple[Path, str, Span]], profile: Profile
) -> list[Decoded | MediaRefusal]:
    """Decode files as "image" or "video"; a span is [start, end) of a video in microseconds.

    What comes of a file does not depend on its neighbours. Broken media come back as refusals.
    Raises UserError for faults of the machine: missing ffmpeg, a file that this user may not read.
    """
    outcomes: dict[int, Decoded | MediaRefusal] = {}
    # numbered, so that results come back in the order that was asked
    images = {}
    videos = {}
    for number, (path, kind, span) in enumerate(items):
        try:
            _check_file(path)
        except Broken as broken:
            outcomes[number] = broken.refusal
            continue
        if kind == "image":
            images[number] = path.absolute()
        else:
            videos[number] = (path.absolute(), span)
    # one call for all of a kind: they share child processes
    pictures = decode_images(list(images.values()), profile.jpeg_quality, image_shape(profile))
    outcomes |= zip(images, pictures, strict=True)
    outcomes |= zip(videos, decode_videos(list(videos.values()), profile), strict=True)
    return [outcomes[number] for number in range(len(items))]


def _check_file(path: Path) -> None:
    """A regular file (not even a link to one), not empty, not huge, not a git-lfs pointer."""
    try:
        # lstat: a link is no regular file, wherever it points
        status = path.lstat()
    except FileNotFoundError as error:
        raise Broken("MISSING", f"{path.name} is not there") from error
    if not stat.S_ISREG(status.st_mode):
        raise Broken("NOT_A_FILE", f"{path.name} is no regular file")
    if status.st_size == 0:
        raise Broken("EMPTY", f"{path.name} has no bytes")
    if status.st_size > MAX_BYTES:
        raise Broken("TOO_BIG", f"{status.st_size} bytes, at most {MAX_BYTES}")
    # a pointer is text of about 130 bytes where git-lfs left the file out
    with sandbox.opened(path) as file:
        if os.pread(file, len(_LFS), 0) == _LFS:
            raise Broken("LFS_POINTER", f"{path.name} is a git-lfs pointer; fetch the object")


def find_tools() -> None:
    """UserError has a line for each program that is not installed; none is started."""
    mistakes = Mistakes()
    for name in ("ffmpeg", "ffprobe"):
        with mistakes.noted():
            sandbox.tool(name)
    mistakes.tell()


def check_tools(*, no_sandbox: bool = False) -> str:
    """One line on ffmpeg and the sandbox; UserError if a tool is missing, or an escape is open.

    `no_sandbox` allows a machine where one is.
    """
    sandbox.tool("ffprobe")
    confined = canary.found()
    if confined.open and not no_sandbox:
        raise UserError(
            f"the media sandbox on {platform.node()} does not hold: {confined}; "
            f"{confinement.why_no_namespaces()}. Install bubblewrap and libseccomp (Debian, "
            "Ubuntu: apt-get install bubblewrap libseccomp2), allow user namespaces or Landlock, "
            "or give --no-sandbox for data that you trust"
        )
    # colour conversion and scaling need them (pipeline.media.ffmpeg)
    missing_filters = {"zscale", "colorspace"} - _filters()
    if missing_filters:
        raise UserError(
            f"{sandbox.tool('ffmpeg')}: built without the filters "
            f"{', '.join(sorted(missing_filters))}; "
            "install one that has them (Debian, Ubuntu: apt-get install ffmpeg)"
        )
    return f"ffmpeg {_version()}, sandbox: {confined}"


@functools.cache
def _version() -> str:
    """The ffmpeg build, asked once per process: every unit of work records it."""
    words = _said("-version").split()
    if len(words) < 3:
        raise UserError(f"{sandbox.tool('ffmpeg')}: has no version; reinstall ffmpeg")
    return words[2]


@functools.cache
def _filters() -> set[str]:
    """The filters of this ffmpeg, asked once per process."""
    return set(re.findall(r"^ \S+ (\w+) ", _said("-v", "error", "-filters"), re.MULTILINE))


def _said(*question: str) -> str:
    """What ffmpeg answers in the sandbox: it must run there, and have nothing to complain of."""
    command = [sandbox.tool("ffmpeg"), "-hide_banner", *question]
    output = bytearray()
    answer = sandbox.Outlet(output.extend, piece_nbytes=1 << 16, max_bytes=1 << 20)
    end = sandbox.run(command, seconds=60, outlets=[answer])
    if end.status != 0 or end.stderr:
        raise UserError(
            f"{command[0]}: does not run in the sandbox ({confinement.kind()}): status "
            f"{end.status}: {end.stderr[:200]}; reinstall ffmpeg"
        )
    return output.decode(errors="replace")
