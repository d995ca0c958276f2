"""A page for people: sections in one HTML file, without network, script or other files."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from pipeline.report.charts import COLOURS, number
from shards.store import Store

THUMBNAIL = (320, 120)
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One chapter of a page; `group` says what it belongs to where a page holds several builds."""

    title: str
    note: str
    body: Markup
    group: str = ""

    @property
    def anchor(self) -> str:
        """The name a link jumps to."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.group} {self.title}".lower()).strip("-")


def section(title: str, note: str, macro: str, *, group: str = "", **values: Any) -> Section:
    """The section that a macro of templates/sections.html makes of these values."""
    # templates hold markup only; what is shown was computed before
    module = _ENVIRONMENT.get_template("sections.html").module
    return Section(title=title, note=note, body=getattr(module, macro)(**values), group=group)


def write_page(
    path: str, title: str, sections: Sequence[Section], summary: Sequence[tuple[str, str]]
) -> None:
    """Write or replace the page in one step; `summary` holds (what, value) pairs for its head."""
    page = _ENVIRONMENT.get_template("page.html").render(
        title=title, sections=sections, summary=summary
    )
    folder, _, name = path.rpartition("/")
    Store(folder or ".").put(name, page.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A small JPEG inside the page; `caption` is its presentation time or nothing."""

    data: str
    width: int
    height: int
    alt: str
    caption: str


def picture(jpeg: bytes, alt: str, caption: str = "") -> Picture:
    """A thumbnail of one of our own frames, at most THUMBNAIL pixels, never enlarged."""
    with Image.open(io.BytesIO(jpeg)) as opened:
        # draft: libjpeg decodes at an eighth, a quarter or a half, close above the thumbnail
        opened.draft("RGB", THUMBNAIL)
        image = opened.convert("RGB")
    image.thumbnail(THUMBNAIL)
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=72, optimize=True)
    data = f"data:image/jpeg;base64,{base64.b64encode(sink.getvalue()).decode()}"
    return Picture(data=data, width=image.width, height=image.height, alt=alt, caption=caption)


def runs(sections: Sequence[Section]) -> list[tuple[str, list[Section]]]:
    """Neighbouring sections of one group together."""
    return [(name, list(parts)) for name, parts in groupby(sections, key=lambda part: part.group)]


def percent(share: Any) -> str:
    """A share of 1 as per cent with two decimals."""
    return f"{float(share) * 100:.2f} %"


def size(nbytes: int) -> str:
    """Bytes in the unit that leaves one to four digits."""
    # powers of 1024, chosen so that one to four digits stand before the unit
    step = min((max(nbytes, 1).bit_length() - 1) // 10, len(_UNITS) - 1)
    return f"{nbytes / 1024**step:.{1 if step else 0}f} {_UNITS[step]}"


def _environment() -> Environment:
    loader = FileSystemLoader(Path(__file__).with_name("templates"))
    made = Environment(
        loader=loader,
        # a value that a template misspells is an error, not an empty place
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"number": number, "percent": percent, "runs": runs}
    made.globals["colours"] = COLOURS
    return made


_ENVIRONMENT = _environment()
