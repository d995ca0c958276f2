"""The page of an ablation in a real browser: sorted, filtered, by keyboard, light and dark."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.pipeline.report.test_report_browser import BROWSER, browse
from tests.train.ablation.made_results import write
from train.ablation.page import write_page

PROBE = """<!DOCTYPE html>
<iframe id="frame" src="report.html" width="{width}" height="900" frameborder="0"></iframe>
<pre id="told"></pre>
<script>
onload = () => {{
  const page = frame.contentDocument, every = (what) => [...page.querySelectorAll(what)];
  const one = (what) => page.querySelector(what);
  const column = (n) => every("#table tbody tr").map((row) => row.cells[n].textContent.trim());
  const shown = () => every("#table tbody tr").filter((row) => !row.hidden).length;
  const typed = (id, value) => {{
    page.getElementById(id).value = value;
    page.getElementById(id).dispatchEvent(new Event("input"));
  }};
  const said = {{width: page.documentElement.scrollWidth, all: shown()}};
  said.plots = every(".plot").length;
  const heads = every("#table thead button");
  heads[4].click();
  said.up = column(4); said.up_says = heads[4].parentElement.ariaSort;
  heads[4].click();
  said.down = column(4);
  heads[2].click();
  said.names = column(2); said.others = heads[4].parentElement.ariaSort;
  typed("filter", "better verdictless"); said.none = shown();
  typed("filter", "ALIKE"); said.alike = shown(); said.told = one("#shown").textContent;
  typed("filter", ""); typed("measure", "held-out loss"); said.losses = shown();
  page.getElementById("whole").click(); said.whole = shown();
  const key = one(".key[data-variant='alike']");
  key.click();
  said.lines = every("polyline").filter((line) => line.style.display !== "none").length;
  said.pressed = key.ariaPressed;
  // what a keyboard reaches, in order; and nothing that was written is markup
  const tabbed = every("a, button, input, select, [tabindex]");
  said.reached = tabbed.filter((each) => each.tabIndex >= 0).length;
  said.bold = every("th b").length;
  page.getElementById("whole").click();
  typed("measure", "");
  const flat = (each) => !each.getBoundingClientRect().height;
  said.undrawn = every("h1, h2, section, svg:not([hidden] svg), table").filter(flat).length;
  told.textContent = JSON.stringify(said);
}};
</script>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not BROWSER:
        pytest.skip("no chromium; tests/install_tools.sh installs it where apt can")
    return write_page(write(tmp_path_factory.mktemp("page")))


@pytest.mark.parametrize("width", [1280, 420])
def test_the_table_is_sorted_and_filtered(page: Path, tmp_path: Path, width: int) -> None:
    shutil.copy(page, tmp_path / "report.html")
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE.format(width=width))
    dom = browse(tmp_path, "--dump-dom", f"file://{probe}").stdout
    found = re.search(r'<pre id="told">(.*?)</pre>', dom, re.DOTALL)
    assert found and found[1], dom[-2000:]
    said: dict[str, Any] = json.loads(html.unescape(found[1]))
    # two variants, two measures, each whole and in two parts
    assert said["all"] == said["plots"] == 12 and said["width"] <= width
    up = list(map(float, said["up"]))
    assert up == sorted(up) and up[0] < -0.2 and said["up_says"] == "ascending"
    assert list(map(float, said["down"])) == up[::-1]
    assert said["names"] == sorted(said["names"]) and said["others"] == "none"
    assert (said["none"], said["alike"], said["told"]) == (0, 6, "6 of 12 rows")
    assert (said["losses"], said["whole"]) == (6, 2)
    # twenty runs, five of which are hidden
    assert (said["lines"], said["pressed"]) == (15, "false")
    assert said["reached"] >= 30 and said["bold"] == 0 and said["undrawn"] == 0


@pytest.mark.parametrize("dark", [False, True])
def test_it_is_drawn_in_light_and_in_dark(page: Path, tmp_path: Path, dark: bool) -> None:
    shot = tmp_path / "report.png"
    how = ("--blink-settings=preferredColorScheme=0",) if dark else ()
    browse(tmp_path, f"--screenshot={shot}", "--window-size=1280,1600", *how, f"file://{page}")
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    assert (pixels[0, 0].mean() < 60) == dark
    bands = [np.abs(pixels[s : s + 300] - pixels[:1, :1]).max() > 60 for s in range(0, 1500, 300)]
    assert all(bands), "a stretch of the page is blank"
    assert (np.ptp(pixels, axis=2) > 40).mean() > 0.001


def test_names_are_shown_and_not_obeyed_and_nothing_is_fetched(page: Path) -> None:
    text = page.read_text()
    assert "hot&lt;b&gt;, seed 1: diverged at step 7: its loss is nan" in text
    assert "hot<b>" not in text and not re.search(r"(src|href)=.?https?:", text)
