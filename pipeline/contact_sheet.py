"""Frames as the model sees them, as one PNG: each on its grid, with its time below it."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from pipeline.shown_sample import Shown, ShownClip, ShownFrame

ACROSS = 8
"""Frames side by side at most."""
MOST_FRAMES = 256
"""Of one clip; of more every n-th is drawn."""
SIDE = 192
"""Pixels of a frame's longer side on the sheet at most; smaller grids stay as they are."""
_LINE, _GAP = 14, 6
_INK, _PAPER, _SLOW = (30, 30, 30), (255, 255, 255), (190, 80, 20)


def sheet(shown: Sequence[Shown]) -> bytes:
    """The PNG of these samples, one below the other; slow frames are framed."""
    strips = [strip for shown_sample in shown for strip in _strips(shown_sample)]
    width = max([320, *(strip.width for strip in strips)])
    image = Image.new("RGB", (width, sum(strip.height for strip in strips) or 1), _PAPER)
    top = 0
    for strip in strips:
        image.paste(strip, (0, top))
        top += strip.height
    sink = io.BytesIO()
    image.save(sink, "PNG")
    return sink.getvalue()


def _strips(shown_sample: Shown) -> list[Image.Image]:
    said = f"{shown_sample.source}: {shown_sample.key[:16]}"
    title = _words(said + (f"  {shown_sample.refusal['code']}" if shown_sample.refusal else ""))
    return [title, *(_clip_strip(clip) for clip in shown_sample.clips)]


def _words(text: str) -> Image.Image:
    strip = Image.new("RGB", (8 * len(text) + 2 * _GAP, _LINE + 2 * _GAP), _PAPER)
    ImageDraw.Draw(strip).text((_GAP, _GAP), _ascii(text), _INK, font=ImageFont.load_default())
    return strip


def _ascii(text: str) -> str:
    """Text for a font that has no other signs."""
    return text.encode("ascii", "replace").decode()


def _clip_strip(shown_clip: ShownClip) -> Image.Image:
    """The frames of a clip in rows."""
    frames = shown_clip.frames[:: -(-len(shown_clip.frames) // MOST_FRAMES) or 1]
    across = min(ACROSS, max(len(frames), 1))
    rows = -(-len(frames) // across)
    scale = min(1.0, SIDE / max(shown_clip.placement.width, shown_clip.placement.height))
    width = max(round(shown_clip.placement.width * scale), 1)
    height = max(round(shown_clip.placement.height * scale), 1)
    cell = width + _GAP, height + _LINE + _GAP
    strip = Image.new("RGB", (across * cell[0] + _GAP, rows * cell[1] + _GAP), _PAPER)
    for number, frame in enumerate(frames):
        at = (number % across * cell[0] + _GAP, number // across * cell[1] + _GAP)
        strip.paste(_on_grid(frame, shown_clip).resize((width, height)), at)
        _label(strip, frame, shown_clip.clip.kind, at, (width, height))
    return strip


def _label(
    strip: Image.Image, frame: ShownFrame, kind: str, at: tuple[int, int], size: tuple[int, int]
) -> None:
    draw = ImageDraw.Draw(strip)
    left, top = at
    if kind == "video":
        draw.text((left, top + size[1] + 1), frame.time, _SLOW if frame.slow else _INK)
    if frame.slow:
        draw.rectangle((left - 2, top - 2, left + size[0] + 1, top + size[1] + 1), outline=_SLOW)


def _on_grid(frame: ShownFrame, shown_clip: ShownClip) -> Image.Image:
    """The picture as it is scaled, in the middle of its grid, on zeros."""
    grid = Image.new("RGB", (shown_clip.placement.width, shown_clip.placement.height))
    with Image.open(io.BytesIO(frame.jpeg)) as stored:
        # bicubic, as the trainer scales
        picture = stored.convert("RGB").resize(
            shown_clip.placement.picture, Image.Resampling.BICUBIC
        )
    grid.paste(picture, shown_clip.placement.offset)
    return grid
