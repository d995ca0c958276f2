"""JPEGs decoded once, by libjpeg-turbo, where the first remark on their bytes is a refusal.

What every decoder must guess about is damage: data that end before the picture does or go on after
it, restart marks out of order, codes that no table has. What stands beside the picture is not:
bytes before a mark, behind the end, or a few zeros before the end are passed over.

Damage that leaves no such trace is looked for in the pixels (pipeline.media.brightness_step).
"""

from __future__ import annotations

import re

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from pipeline.media.brightness_step import brightness_step
from pipeline.media.decoded import Broken

Pixels = NDArray[np.uint8]
MAX_SCANS = 64  # each one goes over all of the picture; the usual progressive JPEG has ten
MAX_FILL = 16  # zeros that an encoder may leave at the end of the last scan
_COLOURS = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
_SOI = 0xD8
_EOI = 0xD9
_SOS = 0xDA
_SOF2 = 0xC2
_APP0 = 0xE0  # JFIF; this and Adobe's say what the colours are
_APP14 = 0xEE
_TABLES = (0xDB, 0xDD, *range(0xC0, 0xD0))  # and frames
_JFIF = b"\0\x10JFIF\0"
_MARK = re.compile(rb"\xff+([^\x00\xff])")
_SCAN_END = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
_FILL = re.compile(rb"(?<!\xff)\x00{1,%d}\Z" % MAX_FILL)


def decode_jpeg(data: bytes, mode: str) -> Pixels:
    """The pixels of a JPEG of Pillow's mode L, RGB or CMYK, [height, width(, 1, 3 or 4)].

    Raises Broken: TRUNCATED, DAMAGED or UNDECODABLE.
    """
    pixels = _decoded(data, _COLOURS[mode])
    if step := brightness_step(pixels):
        raise Broken("DAMAGED", f"from row {step[0]} on all is off by {step[1]} levels")
    return pixels


def _decoded(data: bytes, colours: str) -> Pixels:
    try:
        return _strictly(data, colours)
    except Broken:
        # refused as it is: perhaps for what stands beside the picture
        tidied = tidy(data)
    try:
        return _strictly(tidied, colours)
    except Broken as broken:
        # a zero byte at the end may be the scan's own: tried once more with one kept
        if broken.refusal.code != "MEDIA_TRUNCATED":
            raise
    return _strictly(tidy(data, keep=1), colours)


def _strictly(data: bytes, colours: str) -> Pixels:
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, colours)
    except ValueError as error:
        raise _broken(error) from error
    return pixels


def _broken(error: ValueError) -> Broken:
    # libjpeg's messages: "Premature end of JPEG file", "Corrupt JPEG data: ..."
    message = str(error)
    if "remature end" in message:
        return Broken("TRUNCATED", message)
    return Broken("DAMAGED" if "Corrupt" in message else "UNDECODABLE", message)


def scans(data: bytes) -> int:
    """How many scans the picture's segments begin, counted without decoding any."""
    count = 0
    at = 2
    while (mark := _MARK.search(data, at)) and mark[1][0] != _EOI:
        # marker codes are found by search, segments are skipped by their lengths
        code = mark[1][0]
        at = mark.end()
        if code <= 1 or 0xD0 <= code <= _SOI:  # these stand alone
            continue
        count += code == _SOS
        at += max(int.from_bytes(data[at : at + 2], "big"), 2)
    return count


def tidy(data: bytes, keep: int = 0) -> bytes:
    """The picture's own segments, without what stands between and beside them.

    Gone are bytes before a mark, comments and foreign segments, and up to MAX_FILL zeros before the
    end but for the first `keep` of them, which may be the scan's own last byte. A JFIF version is
    1.1, and the range of a sequential scan, which some cameras leave at 0, is what it must be.
    """
    kept = [data[:2]]
    at = 2
    sequential = True
    while (mark := _MARK.search(data, at)) and mark[1][0] != _EOI:
        code = mark[1][0]
        at = mark.end()
        if code <= 1 or 0xD0 <= code <= _SOI:  # these stand alone
            continue
        # a length counts itself, two bytes, but not the marker
        segment = data[at : at + int.from_bytes(data[at : at + 2], "big")]
        at += max(len(segment), 2)
        sequential &= code != _SOF2
        if code in (*_TABLES, _APP14):
            kept += [b"\xff", mark[1], segment]
        elif code == _APP0 and segment.startswith(_JFIF):
            kept += [b"\xff", mark[1], _JFIF, b"\1\1", segment[9:]]
        elif code == _SOS:
            # entropy-coded data end at the first marker that is neither a stuffed zero nor a
            # restart
            end = _SCAN_END.search(data, at)
            stop = end.start() if end else len(data)
            # spectral selection 0..63, no successive approximation: what a sequential scan must say
            head = segment[:-3] + b"\x00\x3f\x00" if sequential else segment
            is_last = end is not None and end[0][-1] == _EOI
            scan = _FILL.sub(bytes(keep), data[at:stop]) if is_last else data[at:stop]
            kept += [b"\xff", mark[1], head, scan]
            at = stop
    return b"".join([*kept, b"\xff\xd9"] if mark else kept)
