"""The only door for hostile bytes: a file of unknown origin in, frames we encoded out.

Videos are probed and decoded in caged child processes (pipeline.cage, pipeline.video). Images are
decoded in this process under bounds on the header (pipeline.images): a child per image would cost
more than the image. The cage of images is the worker process that calls `decode`; whoever starts
workers must give them memory and CPU limits.
"""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

from pipeline import cage
from pipeline.decoded import Broken, Decoded, MediaRefusal
from pipeline.images import decode_image
from pipeline.video import decode_video
from shards.errors import UserError
from shards.profile import Profile

__all__ = ["Decoded", "MediaRefusal", "check_tools", "decode"]

MAX_BYTES = 5 << 30
_LFS = b"version https://git-lfs.github.com/spec/"


def decode(
    path: Path, kind: str, profile: Profile, span: tuple[int, int] | None = None
) -> Decoded | MediaRefusal:
    """Decode a file as "image" or "video"; `span` is [start, end) of a video in microseconds.

    Broken media come back as a MediaRefusal. Raises UserError for faults of the machine: missing
    ffmpeg, a file that this user may not read.
    """
    try:
        _check_file(path)
        if kind == "image":
            return decode_image(path, profile)
        return decode_video(path.absolute(), profile, span)
    except Broken as broken:
        return broken.refusal


def _check_file(path: Path) -> None:
    """A regular file (not even a link to one), not empty, not huge, not a git-lfs pointer."""
    try:
        found = path.lstat()
    except FileNotFoundError as error:
        raise Broken("MISSING", f"{path.name} is not there") from error
    if not stat.S_ISREG(found.st_mode):
        raise Broken("NOT_A_FILE", f"{path.name} is no regular file")
    if found.st_size == 0:
        raise Broken("EMPTY", f"{path.name} has no bytes")
    if found.st_size > MAX_BYTES:
        raise Broken("TOO_BIG", f"{found.st_size} bytes, at most {MAX_BYTES}")
    with path.open("rb") as file:
        if file.read(len(_LFS)) == _LFS:
            raise Broken("LFS_POINTER", f"{path.name} is a git-lfs pointer; fetch the object")


def check_tools(*, uncaged: bool = False) -> str:
    """One line on ffmpeg and the cage. UserError if a tool is missing, or if no layer works.

    `uncaged` allows a machine where no layer of the cage works.
    """
    cage.tool("ffprobe")
    said = subprocess.run(
        [cage.tool("ffmpeg"), "-version"], capture_output=True, check=False, text=True
    )
    words = said.stdout.split()
    if said.returncode != 0 or len(words) < 3:
        raise UserError(
            f"{cage.tool('ffmpeg')}: does not run: {said.stderr.strip()[:200]}; reinstall ffmpeg"
        )
    active = list(cage.layers())
    if not active and not uncaged:
        raise UserError(
            "no layer of the media cage works here (setpriv, unshare, prlimit); "
            "install util-linux, or allow uncaged decoding for data that you trust"
        )
    return f"ffmpeg {words[2]}, cage: {' '.join(active) or 'none'}"
