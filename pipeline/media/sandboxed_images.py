"""Images are decoded in a caged child process, many to one child: both ends of its wire.

The parent writes the paths to an open file and starts a Python of its own kind; the child answers
each path in turn with one line of JSON, followed by the JPEG's bytes if there is one. A child that
does not end well proves nothing about any of its images: they are tried again in two halves, and an
image that is alone with a failing child is refused.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from pipeline.media import sandbox
from pipeline.media.decoded import Broken, Decoded, MediaRefusal
from pipeline.media.images import Shape, decode_picture
from pipeline.media.probe import check_exit

FIRST_SECONDS, MORE_SECONDS = 20, 1  # for one image; for each one more
MAX_ANSWER = 16 << 20  # the JPEG of an image of the profile's area, and more
_ROOT = Path(__file__).resolve().parents[2]
_CHILD = (
    "import os, sys; os.environ['OPENBLAS_NUM_THREADS'] = '1'; sys.path.insert(0, sys.argv[1]); "
    "from pipeline.media.sandboxed_images import serve; serve(int(sys.argv[2]))"
)


def decode_images(
    paths: Sequence[Path], quality: int, shape: Shape
) -> list[Decoded | MediaRefusal]:
    """Each image as one JPEG frame, or why it is refused; in the order of the paths."""
    if not paths:
        return []
    try:
        return _ask(paths, quality, shape)
    except Broken as broken:
        if len(paths) == 1:
            return [broken.refusal]
    half = len(paths) // 2
    halves = paths[:half], paths[half:]
    return [found for part in halves for found in decode_images(part, quality, shape)]


def _ask(paths: Sequence[Path], quality: int, shape: Shape) -> list[Decoded | MediaRefusal]:
    said = bytearray()
    with tempfile.TemporaryFile() as request:
        names = [os.fsdecode(path) for path in paths]
        request.write(json.dumps([names, quality, asdict(shape)]).encode())
        request.flush()
        outlet = sandbox.Outlet(said.extend, piece=1 << 20, max_bytes=MAX_ANSWER * len(paths))
        end = sandbox.run(
            [sys.executable, "-I", "-c", _CHILD, str(_ROOT), str(request.fileno())],
            seconds=FIRST_SECONDS + MORE_SECONDS * len(paths),
            outlets=[outlet],
            pass_fds=[request.fileno()],
        )
    if end.status == 1 and not end.stopped:  # an exception of ours: no image is to blame
        raise RuntimeError(f"the image child failed: {end.stderr}")
    check_exit(end, "UNDECODABLE")
    answers = io.BytesIO(said)
    return [_read(answers) for _ in paths]


def _read(answers: io.BytesIO) -> Decoded | MediaRefusal:
    value = json.loads(answers.readline())
    if "code" in value:
        return MediaRefusal(**value)
    frame = answers.read(value.pop("nbytes"))
    lists = {name: tuple(part) for name, part in value.items() if isinstance(part, list)}
    return Decoded(**(value | lists | {"frames": (frame,)}))


def serve(request: int) -> None:
    """The child's end: answer every path of the request on standard output."""
    os.lseek(request, 0, os.SEEK_SET)
    with os.fdopen(request, "rb") as file:
        names, quality, shape = json.load(file)
    for name in names:
        sys.stdout.buffer.write(_answer(Path(name), quality, Shape(**shape)))
    sys.stdout.buffer.flush()


def _answer(path: Path, quality: int, shape: Shape) -> bytes:
    try:
        found = decode_picture(path, quality, shape)
    except Broken as broken:
        return _line(broken)
    except MemoryError:
        return _line(Broken("TOO_MUCH_MEMORY", "more than the cage allows"))
    except Exception as error:  # Pillow's readers raise whatever hostile bytes lead them to
        return _line(Broken("UNDECODABLE", f"{type(error).__name__}: {error}"))
    frame = found.frames[0]
    value = asdict(replace(found, frames=())) | {"nbytes": len(frame)}
    return json.dumps(value).encode() + b"\n" + frame


def _line(broken: Broken) -> bytes:
    return json.dumps(asdict(broken.refusal)).encode() + b"\n"
