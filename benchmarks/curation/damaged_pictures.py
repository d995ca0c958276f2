"""Pictures damaged at random, and whole ones: what the door lets pass. Part of `hostile`.

JPEGs: 250 of each kind of damage over all photographs and codings; of those that a lenient decoder
shows badly wrong, the share that passes. WebP has no checksums: the same is printed, without a bar.
"""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import simplejpeg
from PIL import Image
from rich.console import Console

from benchmarks.frame import Bar, at_most, equal
from pipeline.media.decode import decode_all
from pipeline.media.decoded import Decoded
from shards.profile import Profile
from tests.hostile import damaged_jpegs as made

SIDE, EACH, WHOLE = 384, 250, 240


def bars(console: Console) -> list[Bar]:
    files = list(made.damaged(SIDE, EACH))
    passed = passes([file.data for file in files])
    wrong, admitted, all_admitted = Counter[str](), Counter[str](), Counter[str]()
    for file, passes_ in zip(files, passed, strict=True):
        all_admitted[file.kind] += passes_
        wrong[file.kind] += file.badly_wrong
        admitted[file.kind] += passes_ and file.badly_wrong
    for kind in made.DAMAGE:
        console.print(
            f"JPEG, {kind}: {admitted[kind]} of {wrong[kind]} badly wrong pass, "
            f"{all_admitted[kind]} of all {EACH}"
        )
    console.print(f"WebP, damaged: {webp()}", highlight=False)
    shares = [
        at_most(
            f"of badly wrong JPEGs that pass: {' and '.join(kinds)}",
            sum(admitted[kind] for kind in kinds) / sum(wrong[kind] for kind in kinds),
            bar,
        )
        for kinds, bar in made.BARS.items()
    ]
    return [*shares, equal("whole JPEGs refused", passes(whole()).count(False), 0)]


def passes(files: list[bytes]) -> list[bool]:
    """Whether each passes the media door as an image."""
    with TemporaryDirectory() as folder:
        paths = [Path(folder, f"{number}.jpg") for number in range(len(files))]
        for path, data in zip(paths, files, strict=True):
            path.write_bytes(data)
        found = decode_all([(path, "image", None) for path in paths], Profile())
    return [isinstance(one, Decoded) for one in found]


def whole() -> list[bytes]:
    """Whole pictures in every coding, by two encoders, with filling and bytes behind the end."""
    pictures = [*made.photographs(SIDE), Image.new("RGB", (SIDE, SIDE), "white")]
    found = []
    for number in range(WHOLE):
        picture = pictures[number % len(pictures)]
        data = made.encoded(picture, made.CODINGS[number % len(made.CODINGS)], 40 + number % 60)
        if number % 5 == 1:
            data = simplejpeg.encode_jpeg(np.asarray(picture), 90, "RGB", "422")
        if number % 5 == 2:
            data = made.before_each_mark(data, bytes(1 + number % 9)) + b"behind the end"
        found.append(data)
    return found


def webp() -> str:
    rng, total, passed = np.random.default_rng(0), 0, 0
    for picture in made.photographs(SIDE):
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP")
        data = buffer.getvalue()
        files = [made.DAMAGE[kind](data, 40, len(data), rng) for kind in ("zeroed", "bit flipped")]
        total += len(files)
        passed += passes(files).count(True)
    return f"{passed} of {total} pass"
