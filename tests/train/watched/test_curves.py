"""Curves of a run, from its logs alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from shards.errors import UserError
from train.watched.curves import curves_of, watch


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The logs of a run that is at work: one value is not finite, one line is torn."""
    folder = tmp_path / "a<b>"
    folder.mkdir()
    rows = [
        {
            "step": n,
            "loss": None if n == 7 else 4 / n,
            "grad_norm": 1.0,
            "mfu": None,
            "lr_tower": n,
            "by_source": {"a": None if n == 9 else 2 / n} if n % 2 else {},
        }
        for n in range(1, 301)
    ]
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    (folder / "metrics.jsonl").write_text(f'{text}{{"step": 301, "lo')
    looks = [{"step": n, "loss": 3 / n, "by_source": {"x&y": 5 / n}} for n in (100, 200, 300)]
    (folder / "held_out.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in looks))
    return folder


def test_every_figure_that_is_there_is_a_curve(out: Path) -> None:
    curves = {curve.name: curve.points for curve in curves_of(out)}
    assert list(curves) == [
        *("loss", "grad_norm", "loss, a", "lr_tower", "held-out loss", "held-out loss, x&y")
    ]
    assert len(curves["loss, a"]) == 149 and curves["loss, a"][0] == (1, 2.0)
    assert len(curves["loss"]) == 299 and curves["loss"][0] == (1, 4.0)
    assert curves["held-out loss"] == ((100, 0.03), (200, 0.015), (300, 0.01))


def test_the_page_needs_no_network_and_the_terminal_no_more_than_its_width(out: Path) -> None:
    *lines, last = watch(out, 80).splitlines()
    assert last == f"page {out}/watch.html" and len(lines) == 6
    assert all(len(line) <= 80 for line in lines)
    loss = lines[0].split()
    assert loss[0] == "loss" and loss[3].startswith("█") and loss[3].endswith("▁")
    page = (out / "watch.html").read_text()
    assert page.count("<polyline") == 6 and "held-out loss, x&amp;y" in page
    assert not re.search(r"https?:|//|<script|src=|<link", page.replace("</", ""))
    assert "a&lt;b&gt;" in page and "a<b>" not in page
    assert not list(out.glob(".*"))


def test_a_folder_without_a_step_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no metrics\.jsonl with a step in it; give the --out"):
        watch(tmp_path, 80)
