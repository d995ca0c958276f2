"""Images: every bound is checked on the header before a pixel is decoded.

Pillow reads headers, and the pixels of all formats but JPEG (pipeline.media.strict_jpeg).
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.media.decoded import Broken, Decoded, stored_size
from pipeline.media.png_chunks import check_chunks
from pipeline.media.strict_jpeg import MAX_SCANS, decode_jpeg, scans
from shards.profile import Profile

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF")
MAX_BYTES = 256 << 20
MAX_PIXELS = 89_478_485  # Pillow's own limit, where it starts to warn
MAX_ASPECT = 64
ALPHA_GROUND = (255, 255, 255)  # web pages, where these images come from, are white
_REFUSED = (b"%!PS", b"II*\0", b"MM\0*", b"BM", b"<svg", b"%PDF", b"\0\0\1\0")
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_ROTATION = {3: 180, 4: 180, 5: 90, 6: 90, 7: 270, 8: 270}  # EXIF orientation -> degrees clockwise
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How a picture is stored: pixels at most, JPEG chroma."""

    area: int
    chroma: str


def image_shape(profile: Profile) -> Shape:
    """How a pool stores images."""
    return Shape(area=profile.image_area, chroma="444")


def decode_picture(file: IO[bytes], quality: int, shape: Shape) -> Decoded:
    """The picture as one JPEG frame: upright, RGB, in the shape; raises Broken."""
    # by the file's own length, before anything is read
    nbytes = file.seek(0, io.SEEK_END)
    if nbytes > MAX_BYTES:
        raise Broken("TOO_BIG", f"{nbytes} bytes of image, at most {MAX_BYTES}")
    file.seek(0)
    data = file.read()
    # Pillow only warns from its limit to twice as much: here the warning is the refusal
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)  # Pillow's remarks on odd metadata
        with _open(data) as image:
            _check_header(image)
            if image.format in ("JPEG", "MPO") and scans(data) > MAX_SCANS:
                raise Broken("TOO_MANY_SCANS", f"{scans(data)} scans, at most {MAX_SCANS}")
            if image.format == "PNG":
                check_chunks(data)
            return _frame(image, data, quality, shape)


def _open(data: bytes) -> Image.Image:
    """Read the header, of the listed formats only."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        # leading white space before <svg and <!doctype is common; the head is enough to tell
        head = data[:512].lstrip().lower()
        if head.startswith(tuple(m.lower() for m in _REFUSED)) or b"<svg" in head:
            raise Broken("FORMAT_REFUSED", f"not one of {', '.join(FORMATS)}") from error
        if data[4:8] == b"ftyp" and data[8:12] in _HEIC:
            raise Broken(
                "FORMAT_REFUSED", "HEIC, or HEIF of another kind; convert it to JPEG"
            ) from error
        raise Broken("UNREADABLE", f"starts with {data[:16]!r}") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise Broken("TOO_MANY_PIXELS", str(error)) from error
    except (ValueError, OSError, SyntaxError) as error:
        raise Broken(_code_of(error), str(error)) from error


def _code_of(error: Exception) -> str:
    """The code of an error that Pillow raised while it read bytes of a listed format."""
    # Pillow's words for bounds on text chunks and colour profiles (decompression bombs in metadata)
    text = str(error).lower()
    if "too large" in text or "text memory" in text or "decompressed data" in text:
        return "METADATA_BOMB"
    if "truncated" in text or "premature" in text or "unexpected end" in text:
        return "TRUNCATED"
    return "UNDECODABLE"


def _check_header(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise Broken("TOO_MANY_PIXELS", f"{width} x {height} pixels, at most {MAX_PIXELS}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise Broken("BAD_ASPECT", f"{width} x {height}, at most {MAX_ASPECT}:1")
    try:
        # counting frames seeks through the file, so it is done under the same guards
        count = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    except (ValueError, OSError, SyntaxError, EOFError) as error:
        raise Broken(_code_of(error), str(error)) from error
    if count > 1:  # a phone's MPO carries a preview or a second eye behind its picture
        raise Broken("ANIMATED", f"{count} frames")


def _frame(image: Image.Image, data: bytes, quality: int, shape: Shape) -> Decoded:
    mode = image.mode
    try:
        picture = _pixels(image, data)
        # EXIF orientation, tag 274
        orientation = image.getexif().get(0x0112, 1)
        upright = _to_rgb(ImageOps.exif_transpose(picture))
    except (ValueError, OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise Broken(_code_of(error), str(error)) from error
    # scaled once, in RGB, from the full picture
    stored = stored_size(*upright.size, shape.area)
    shown = upright if stored == upright.size else upright.resize(stored, Image.Resampling.BICUBIC)
    # chroma not subsampled: red text on blue must survive
    data = simplejpeg.encode_jpeg(np.asarray(shown), quality, "RGB", shape.chroma)
    return Decoded(
        kind="image",
        frames=(data,),
        pts=(0,),
        time_base=(1, 1),
        duration=(0, 1),
        width=stored[0],
        height=stored[1],
        rotation=_ROTATION.get(orientation, 0),
        is_vfr=False,
        source_fps=(0, 1),
        colour=_colour(mode, image),
        codec=str(image.format).lower(),
        container=str(image.format).lower(),
        source_size=upright.size,
    )


def _pixels(image: Image.Image, data: bytes) -> Image.Image:
    """The decoded picture, with its orientation."""
    if image.format not in ("JPEG", "MPO"):
        # formats other than JPEG are decoded here, within Pillow
        image.load()
        return image
    pixels = decode_jpeg(data, image.mode)
    # Adobe writes inverted CMYK into JPEG; Pillow undoes that, libjpeg does not
    if image.mode == "CMYK" and "adobe" in image.info:  # whose CMYK is inverted
        pixels = 255 - pixels
    picture = Image.fromarray(pixels[..., 0] if image.mode == "L" else pixels, image.mode)
    picture.getexif()[0x0112] = image.getexif().get(0x0112, 1)
    return picture


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB: 16-bit values scaled down (Pillow would clip them), alpha laid on white."""
    if image.mode in _DEEP:
        # mode I of a 16-bit PNG: the high byte, as libpng strips 16 to 8 bits
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray((values >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise Broken("COLOUR_REFUSED", "floating-point pixels")
    if image.has_transparency_data:
        # palette and tRNS transparency count as alpha too
        rgba: Any = image.convert("RGBA")
        ground = Image.new("RGBA", rgba.size, ALPHA_GROUND)
        return Image.alpha_composite(ground, rgba).convert("RGB")
    return image.convert("RGB")


def _colour(mode: str, image: Image.Image) -> str:
    return f"{mode} on white" if image.has_transparency_data else mode
