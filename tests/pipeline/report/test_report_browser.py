"""The datasheet in a real browser: everything on it is drawn, and nothing runs out of the page."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.report.page import write_report
from tests.pipeline.report.test_report import built

__all__ = ["built"]  # a fixture: OUT and POOL of a build with one of every trouble

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or ""
PROBE = """<!DOCTYPE html>
<iframe id="frame" src="report.html" width="{width}" height="900" frameborder="0"></iframe>
<pre id="told"></pre>
<script>
onload = () => {{
  const page = frame.contentDocument, every = (what) => [...page.querySelectorAll(what)];
  every("details").forEach((each) => each.open = true);
  const drawn = (each) => each.getBoundingClientRect().width * each.getBoundingClientRect().height;
  told.textContent = JSON.stringify({{
    width: page.documentElement.scrollWidth,
    titles: every("h2").map((each) => each.textContent.trim()),
    undrawn: every("h1, h2, h3, section, svg, img, table").filter((each) => !drawn(each)).length,
    broken: every("img").filter((each) => !each.complete || !each.naturalWidth).length,
    images: every("img").length,
    charts: every("svg").length,
  }});
}};
</script>
"""


def browse(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the browser without a network, its profile in `folder`."""
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files")
    nowhere = ("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}")
    return subprocess.run(
        [BROWSER, *flags, *nowhere, *words], capture_output=True, text=True, check=True, timeout=90
    )


@pytest.fixture(scope="module")
def page(built: tuple[str, str]) -> Path:
    if not BROWSER:
        pytest.skip("no chromium; tests/install_tools.sh installs it where apt can")
    return Path(write_report(*built))


@pytest.mark.parametrize("width", [1280, 420])
def test_all_of_the_page_is_drawn_within_its_width(page: Path, tmp_path: Path, width: int) -> None:
    shutil.copy(page, tmp_path / "report.html")
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE.format(width=width))
    dom = browse(tmp_path, "--dump-dom", f"file://{probe}").stdout
    found = re.search(r'<pre id="told">(.*?)</pre>', dom, re.DOTALL)
    assert found and found[1], dom[-2000:]
    told: dict[str, Any] = json.loads(html.unescape(found[1]))
    assert told["width"] <= width
    assert told["undrawn"] == 0 and told["broken"] == 0
    assert told["images"] > 20 and told["charts"] >= 7
    assert {"Distributions", "Licences", "Leaks from evaluation data"} <= set(told["titles"])


def test_a_screenshot_shows_frames_and_charts(page: Path, tmp_path: Path) -> None:
    shot = tmp_path / "report.png"
    browse(tmp_path, f"--screenshot={shot}", "--window-size=1280,9000", f"file://{page}")
    pixels = np.asarray(Image.open(shot).convert("RGB"))
    assert pixels.shape == (9000, 1280, 3)
    rows = np.abs(pixels.astype(int) - pixels[:, :1]).max((1, 2))
    bands = [(rows[start : start + 300] > 40).any() for start in range(0, 3000, 300)]
    assert all(bands), "a stretch of the page is blank"
    colourful = np.ptp(pixels.astype(int), axis=2) > 40
    assert colourful.mean() > 0.01
