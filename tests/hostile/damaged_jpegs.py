"""JPEGs damaged in their scans, and odd ones that are whole: what the door must tell apart.

A picture is badly wrong when over a tenth of its pixels are off by more than `OFF` in some channel.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from examples.photos import PHOTOS, package_folder

OFF, BADLY = 40, 0.1
Pixels = NDArray[np.uint8]
Damage = Callable[[bytes, int, int, np.random.Generator], bytes]
EOI = b"\xff\xd9"


BARS = {("cut and closed", "bytes lost"): 0.02, ("zeroed",): 0.20, ("bit flipped",): 0.35}
"""Of the badly wrong files of these kinds together, the share that may pass."""


def photographs(side: int) -> list[Image.Image]:
    """Distinct photographs and scans, at most `side` pixels long and wide."""
    found = []
    for photo in PHOTOS:
        with Image.open(package_folder(photo.package) / photo.file) as opened:
            picture = opened.convert("RGB")
        picture.thumbnail((side, side))
        found.append(picture)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Coding:
    """How a JPEG is written; `restarts` is in blocks, 0 for none."""

    progressive: bool
    subsampling: int
    restarts: int
    optimised: bool


CODINGS = tuple(
    Coding(progressive=p, subsampling=s, restarts=r, optimised=o)
    for p, s, r, o in itertools.product((False, True), (0, 2), (0, 7), (False, True))
    if o or not p  # a progressive file's tables are always its own
)


def encoded(picture: Image.Image, coding: Coding, quality: int = 88) -> bytes:
    buffer = io.BytesIO()
    picture.save(
        buffer,
        "JPEG",
        quality=quality,
        progressive=coding.progressive,
        subsampling=coding.subsampling,
        optimize=coding.optimised,
        restart_marker_blocks=coding.restarts,
    )
    return buffer.getvalue()


def scan_bytes(data: bytes) -> tuple[int, int]:
    """[start, stop): from the first scan's first byte to the mark of the end."""
    start = re.search(rb"\xff\xda", data)
    assert start and data.endswith(EOI)
    at = start.end()
    return at + int.from_bytes(data[at : at + 2], "big"), len(data) - 2


def cut(data: bytes, start: int, stop: int, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(start, stop)] + EOI


def lost(data: bytes, start: int, stop: int, rng: np.random.Generator) -> bytes:
    at, count = _run(start, stop, rng)
    return data[:at] + data[at + count :]


def zeroed(data: bytes, start: int, stop: int, rng: np.random.Generator) -> bytes:
    at, count = _run(start, stop, rng)
    return data[:at] + bytes(count) + data[at + count :]


def flipped(data: bytes, start: int, stop: int, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(start, stop))
    return data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :]


def _run(start: int, stop: int, rng: np.random.Generator) -> tuple[int, int]:
    """A place, and a number of bytes from there on: 1 to 4,096, few as likely as many."""
    at = int(rng.integers(start, stop))
    return at, min(int(2 ** rng.uniform(0, 12)), stop - at)


DAMAGE: dict[str, Damage] = {
    "cut and closed": cut,
    "bytes lost": lost,
    "zeroed": zeroed,
    "bit flipped": flipped,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Damaged:
    """A damaged file, its kind, and whether a lenient decoder shows a badly wrong picture."""

    kind: str
    data: bytes
    badly_wrong: bool


def damaged(side: int, each: int, seed: int = 0) -> Iterator[Damaged]:
    """`each` files of every kind, over all photographs and codings in turn."""
    rng, pictures = np.random.default_rng(seed), photographs(side)
    pairs = list(itertools.product(pictures, CODINGS))
    for kind, damage in DAMAGE.items():
        for number in range(each):
            picture, coding = pairs[number * 7919 % len(pairs)]
            whole = encoded(picture, coding)
            data = damage(whole, *scan_bytes(whole), rng)
            yield Damaged(kind=kind, data=data, badly_wrong=badly_wrong(whole, data))


def badly_wrong(whole: bytes, data: bytes) -> bool:
    """Whether a lenient decoder shows something else, or nothing."""
    try:
        shown = simplejpeg.decode_jpeg(data, strict=False)
    except ValueError:
        return True
    return differs(simplejpeg.decode_jpeg(whole), shown)


def differs(expected: Pixels, shown: Pixels) -> bool:
    if expected.shape != shown.shape:
        return True
    off = np.abs(expected.astype(np.int16) - shown).max(-1) > OFF
    return bool(off.mean() > BADLY)


def before_each_mark(data: bytes, filling: bytes) -> bytes:
    """The same picture with bytes before the marks of its header but the first, and of its end."""
    start, at = scan_bytes(data)[0], 4 + int.from_bytes(data[4:6], "big")
    while at < start:
        data = data[:at] + filling + data[at:]
        start += len(filling)
        at += len(filling)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data[:-2] + filling + EOI


def restarts_swapped(data: bytes) -> bytes:
    """RST1 and RST2 have changed places."""
    return (
        data.replace(b"\xff\xd1", b"\xff\xee")
        .replace(b"\xff\xd2", b"\xff\xd1")
        .replace(b"\xff\xee", b"\xff\xd2")
    )
