"""Hostile and odd images, each made on the spot, with what the media door must say of it.

`IMAGES` maps a name to ("kept" or a code, the function that returns the file's bytes).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image, PngImagePlugin

from tests.hostile import damaged_jpegs

KEPT = "kept"


def photograph(width: int = 96, height: int = 64) -> Image.Image:
    across = np.linspace(0, 255, width)[None, :, None] * np.ones((height, 1, 3))
    across[: height // 2, : width // 2] = (200, 30, 30)
    return Image.fromarray(across.astype(np.uint8))


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of a hand-written header and chunks."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for name, body in ((b"IHDR", head), *chunks, (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + name + body
        data += struct.pack(">I", zlib.crc32(name + body))
    return data


def animated(kind: str, count: int = 5) -> bytes:
    """Frames that differ: equal ones would be merged."""
    frames = [Image.new("RGB", (32, 32), (i * 50 % 250, i // 5, 0)) for i in range(count)]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)


def avif() -> bytes:
    return saved(photograph(), "AVIF")


def zipped_text() -> bytes:
    body = b"a\0\0" + zlib.compress(bytes(2_000_000))
    return png(8, 8, *[(b"zTXt", body)] * 3, (b"IDAT", zlib.compress(bytes(72))))


def zipped_profile() -> bytes:
    body = b"a\0\0" + zlib.compress(bytes(50_000_000))
    return png(8, 8, (b"iCCP", body), (b"IDAT", zlib.compress(bytes(72))))


def flat_png() -> bytes:
    """A whole picture of 268 megapixels in 0.3 MB."""
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(bytes(16_385)) for _ in range(16_384)) + packer.flush()
    return png(16_384, 16_384, (b"IDAT", data))


def tiff_of_no_end() -> bytes:
    """A TIFF whose tags say 2^31 by 2^31 pixels."""
    sides = b"".join(struct.pack("<HHII", tag, 4, 1, 1 << 31) for tag in (256, 257))
    return b"II*\0" + struct.pack("<IH", 8, 2) + sides + bytes(4)


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(photograph(), "JPEG", exif=exif)


def deep() -> bytes:
    return saved(Image.fromarray(np.full((32, 32), 0x8000, np.uint16)), "PNG")


def clear() -> bytes:
    return saved(Image.new("RGBA", (32, 32), (255, 0, 0, 0)), "PNG")


def jpeg() -> bytes:
    return saved(photograph(), "JPEG")


def restarting() -> bytes:
    return saved(photograph(), "JPEG", restart_marker_blocks=2)


def more_than_the_picture() -> bytes:
    """Scan data that go on where the picture ends: that of another one, twice as high."""
    tall = saved(photograph(96, 128), "JPEG")
    at = tall.index(b"\xff\xc0") + 5
    return tall[:at] + struct.pack(">H", 64) + tall[at + 2 :]


def less_than_the_picture() -> bytes:
    at = jpeg().index(b"\xff\xc0") + 5
    return jpeg()[:at] + struct.pack(">H", 128) + jpeg()[at + 2 :]


def damaged_png(chunk: bytes) -> bytes:
    data = saved(photograph(), "PNG", pnginfo=noted())
    at = data.index(chunk) + 6
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def noted() -> PngImagePlugin.PngInfo:
    words = PngImagePlugin.PngInfo()
    words.add_text("comment", "something")
    return words


def two_pictures() -> bytes:
    """As phones write them: a preview behind the picture."""
    return saved(photograph(), "MPO", save_all=True, append_images=[photograph(48, 32)])


def many_scans(count: int, side: int = 2048) -> bytes:
    """A grey progressive JPEG, valid throughout: a DC scan, then scans that say "all is zero".

    Each of these goes over every block (ISO/IEC 10918-1, G.1: runs of 2^14 bands at their end).
    """
    blocks = (side // 8) ** 2

    def segment(mark: int, body: bytes) -> bytes:
        return bytes((0xFF, mark)) + struct.pack(">H", len(body) + 2) + body

    def scan(first: int, last: int, before: int, after: int, bits: str) -> bytes:
        table = 0x00 if first == 0 else 0x01
        padded = bits + "1" * (-len(bits) % 8)
        data = int(padded, 2).to_bytes(len(padded) // 8, "big").replace(b"\xff", b"\xff\0")
        return segment(0xDA, bytes((1, 1, table, first, last, before << 4 | after))) + data

    runs = ("0" + "0" * 14) * (blocks >> 14)  # code of run 14, and which run of that length
    bands = [scan(k, k, 0, 13, runs) for k in range(1, 64)]
    bands += [scan(k, k, high + 1, high, runs) for high in range(12, -1, -1) for k in range(1, 64)]
    return b"".join(
        (
            b"\xff\xd8",
            segment(0xDB, b"\0" + bytes([1]) * 64),
            segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0"),
            segment(0xC4, b"\0" + bytes([1] + [0] * 15) + b"\0"),
            segment(0xC4, b"\x11" + bytes([1] + [0] * 15) + b"\xe0"),
            scan(0, 0, 0, 0, "0" * blocks),
            *bands[: count - 1],
            b"\xff\xd9",
        )
    )


IMAGES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "900 megapixels in 74 bytes": ("MEDIA_TOO_MANY_PIXELS", lambda: png(30_000, 30_000)),
    "100 megapixels": ("MEDIA_TOO_MANY_PIXELS", lambda: png(10_000, 10_000)),
    "268 megapixels, whole": ("MEDIA_TOO_MANY_PIXELS", flat_png),
    "1 x 1,000,000": (
        "MEDIA_BAD_ASPECT",
        lambda: png(1, 1_000_000, (b"IDAT", zlib.compress(bytes(2_000_000)))),
    ),
    "600 scans": ("MEDIA_TOO_MANY_SCANS", lambda: many_scans(600)),
    "64 scans": (KEPT, lambda: many_scans(64)),
    "0 x 0": ("MEDIA_UNREADABLE", lambda: png(0, 0)),
    "start marker only": ("MEDIA_UNREADABLE", lambda: b"\xff\xd8"),
    "empty": ("MEDIA_EMPTY", lambda: b""),
    "HTML": ("MEDIA_UNREADABLE", lambda: b"<html><body>404 Not Found</body></html>"),
    "half": ("MEDIA_TRUNCATED", lambda: jpeg()[: len(jpeg()) // 2]),
    "last two bytes missing": ("MEDIA_TRUNCATED", lambda: jpeg()[:-2]),
    "cut and closed": (
        "MEDIA_TRUNCATED",
        lambda: jpeg()[: len(jpeg()) * 3 // 4] + damaged_jpegs.EOI,
    ),
    "end mark within the scan": (
        "MEDIA_TRUNCATED",
        lambda: jpeg()[: len(jpeg()) * 3 // 4] + damaged_jpegs.EOI + jpeg()[len(jpeg()) * 3 // 4 :],
    ),
    "less data than the picture": ("MEDIA_TRUNCATED", less_than_the_picture),
    "more data than the picture": ("MEDIA_DAMAGED", more_than_the_picture),
    "restart marks swapped": (
        "MEDIA_DAMAGED",
        lambda: damaged_jpegs.restarts_swapped(restarting()),
    ),
    "PNG, pixels damaged": ("MEDIA_DAMAGED", lambda: damaged_png(b"IDAT")),
    "PNG, text damaged": ("MEDIA_UNREADABLE", lambda: damaged_png(b"tEXt")),
    "PNG, end missing": ("MEDIA_TRUNCATED", lambda: saved(photograph(), "PNG")[:-12]),
    "text bomb": ("MEDIA_METADATA_BOMB", zipped_text),
    "profile bomb": ("MEDIA_METADATA_BOMB", zipped_profile),
    "EPS": (
        "MEDIA_FORMAT_REFUSED",
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    ),
    "TIFF": ("MEDIA_FORMAT_REFUSED", lambda: saved(photograph(), "TIFF")),
    "TIFF of 2^31 x 2^31": ("MEDIA_FORMAT_REFUSED", tiff_of_no_end),
    "SVG": ("MEDIA_FORMAT_REFUSED", lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
    "GIF of 500 frames": ("MEDIA_ANIMATED", lambda: animated("GIF", 500)),
    "animated WebP": ("MEDIA_ANIMATED", lambda: animated("WEBP")),
    "AVIF": (KEPT, lambda: saved(photograph(), "AVIF")),
    "AVIF, cut in its header": ("MEDIA_UNREADABLE", lambda: avif()[: len(avif()) // 2]),
    "AVIF without its last two bytes": ("MEDIA_TRUNCATED", lambda: avif()[:-2]),
    "animated AVIF": ("MEDIA_ANIMATED", lambda: animated("AVIF")),
    "HEIC": ("MEDIA_FORMAT_REFUSED", lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99)),
    "animated PNG": ("MEDIA_ANIMATED", lambda: animated("PNG")),
    "git-lfs pointer": (
        "MEDIA_LFS_POINTER",
        lambda: b"version https://git-lfs.github.com/spec/v1\n",
    ),
    "CMYK": (KEPT, lambda: saved(photograph().convert("CMYK"), "JPEG")),
    "16 bits": (KEPT, deep),
    "transparent": (KEPT, clear),
    "turned": (KEPT, turned),
    "JPEG and zip": (KEPT, lambda: jpeg() + b"PK\3\4" + bytes(100)),
    "restart marks": (KEPT, restarting),
    "bytes before marks": (
        KEPT,
        lambda: damaged_jpegs.before_each_mark(jpeg(), b"\1\2")[:-4] + damaged_jpegs.EOI,
    ),
    "zeros before marks": (KEPT, lambda: damaged_jpegs.before_each_mark(jpeg(), bytes(3))),
    "two pictures": (KEPT, two_pictures),
    "still GIF": (KEPT, lambda: saved(photograph(), "GIF")),
    "WebP": (KEPT, lambda: saved(photograph(), "WEBP")),
}
