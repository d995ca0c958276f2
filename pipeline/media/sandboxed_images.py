"""Images are decoded in a sandboxed child process, many to one child: both ends of its wire.

The parent opens the files and starts a Python of its own kind; the child answers each in turn with
one line of JSON, followed by the JPEG's bytes if there is one, and has so much CPU time for each. A
child that ends before its last answer is not believed about the picture that it was at: another
child begins with that one and goes on. What ends a child with its first picture is refused.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from pipeline.media import sandbox
from pipeline.media.decoded import Broken, Decoded, MediaRefusal
from pipeline.media.images import Shape, decode_picture
from pipeline.media.probe import check_exit

PICTURE_SECONDS = 20  # of CPU, for one image
FIRST_SECONDS = 40  # of wall time, for one image
MORE_SECONDS = 2  # for each one more
MAX_ANSWER = 16 << 20  # the JPEG of an image of the profile's area, and more
TOGETHER = 128  # images to one child: all are open at once
_ROOT = Path(__file__).resolve().parents[2]
_CHILD = (
    "import os, sys; os.environ['OPENBLAS_NUM_THREADS'] = '1'; sys.path.insert(0, sys.argv[1]); "
    "from pipeline.media.sandboxed_images import serve; serve(int(sys.argv[2]))"
)
_TRUNCATED = "the answer breaks off"


def decode_images(
    paths: Sequence[Path], quality: int, shape: Shape
) -> list[Decoded | MediaRefusal]:
    """Each image as one JPEG frame, or why it is refused; in the order of the paths."""
    outcomes: list[Decoded | MediaRefusal] = []
    while len(outcomes) < len(paths):
        outcomes += _ask(paths[len(outcomes) :][:TOGETHER], quality, shape)
    return outcomes


def _ask(paths: Sequence[Path], quality: int, shape: Shape) -> list[Decoded | MediaRefusal]:
    """The answers of one child: at least one, and none that it may not have come to give."""
    output = bytearray()
    with ExitStack() as stack:
        files, gone = _opened(paths, stack)
        if not files:
            return [gone]
        request = stack.enter_context(tempfile.TemporaryFile())
        request.write(json.dumps([files, quality, asdict(shape)]).encode())
        request.flush()
        # the child answers on standard output, the outlet of the run
        outlet = sandbox.Outlet(
            output.extend, piece_nbytes=1 << 20, max_bytes=MAX_ANSWER * len(files)
        )
        end = sandbox.run(
            [sys.executable, "-I", "-c", _CHILD, str(_ROOT), str(request.fileno())],
            seconds=FIRST_SECONDS + MORE_SECONDS * len(files),
            outlets=[outlet],
            pass_fds=[request.fileno(), *files],
        )
    if end.status == 1 and not end.stopped:  # an exception of ours: no image is to blame
        raise RuntimeError(f"the image child failed: {end.stderr}")
    # answers up to the first that is not whole
    answers = _answers(bytes(output), len(files))
    if end.status == 0 and not end.stopped and len(answers) == len(files):
        return answers
    if len(answers) == len(files):  # it fell after its last word: that one is not believed
        answers.pop()
    if not answers or -end.status == signal.SIGPROF:  # alone, or over its own time
        answers.append(_refused(end))
    return answers


# descriptors pass into the child by inheritance: it opens nothing by name
def _opened(paths: Sequence[Path], stack: ExitStack) -> tuple[list[int], MediaRefusal]:
    """The files up to the first that cannot be opened, and what is to be said of that one."""
    files: list[int] = []
    for path in paths:
        try:
            files.append(stack.enter_context(sandbox.opened(path)))
        except Broken as broken:
            return files, broken.refusal
    return files, MediaRefusal(code="MEDIA_MISSING", detail="")


def _answers(output: bytes, count: int) -> list[Decoded | MediaRefusal]:
    """The whole answers in what a child said, in their order."""
    stream = io.BytesIO(output)
    answers = list[Decoded | MediaRefusal]()
    while len(answers) < count:
        try:
            answers.append(_read(stream))
        # a child that a picture took over may say anything
        except (ValueError, KeyError, TypeError, AttributeError, AssertionError, EOFError):
            break
    return answers


def _read(output: io.BytesIO) -> Decoded | MediaRefusal:
    # a header line, then as many bytes as it says
    value = json.loads(output.readline())
    if "code" in value:
        return MediaRefusal(**value)
    nbytes = value.pop("nbytes")
    frame = output.read(nbytes)
    if len(frame) != nbytes:
        raise EOFError(_TRUNCATED)
    lists = {name: tuple(part) for name, part in value.items() if isinstance(part, list)}
    return Decoded(**(value | lists | {"frames": (frame,)}))


def _refused(end: sandbox.Exit) -> MediaRefusal:
    """What is said of the picture that a child ended at."""
    try:
        check_exit(end, "UNDECODABLE")
    except Broken as broken:
        return broken.refusal
    return MediaRefusal(code="MEDIA_UNDECODABLE", detail="the decoder ended without a word")


def serve(request: int) -> None:
    """The child's end: answer every file of the request on standard output."""
    # the file was written through this very descriptor: back to its start
    os.lseek(request, 0, os.SEEK_SET)
    with os.fdopen(request, "rb") as file:
        files, quality, shape = json.load(file)
    for descriptor in files:
        # the kernel ends this process if a decoder does not come back in time
        signal.setitimer(signal.ITIMER_PROF, PICTURE_SECONDS)
        sys.stdout.buffer.write(_answer(descriptor, quality, Shape(**shape)))
        sys.stdout.buffer.flush()


def _answer(descriptor: int, quality: int, shape: Shape) -> bytes:
    try:
        with os.fdopen(descriptor, "rb") as file:
            decoded = decode_picture(file, quality, shape)
    except Broken as broken:
        return _line(broken)
    except MemoryError:
        return _line(Broken("TOO_MUCH_MEMORY", "more than the sandbox allows"))
    except Exception as error:  # Pillow's readers raise whatever hostile bytes lead them to
        return _line(Broken("UNDECODABLE", f"{type(error).__name__}: {error}"))
    frame = decoded.frames[0]
    # the frame follows as bytes: base64 would cost a third more
    value = asdict(replace(decoded, frames=())) | {"nbytes": len(frame)}
    return json.dumps(value).encode() + b"\n" + frame


def _line(broken: Broken) -> bytes:
    return json.dumps(asdict(broken.refusal)).encode() + b"\n"
