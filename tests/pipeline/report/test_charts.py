"""Charts: every value is drawn once, inside its box, and text stays text."""

from __future__ import annotations

from collections.abc import Iterator
from math import nan
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.charts import Dot, bands, bins, curves, dots, histogram, means, nice_ticks


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=80))
def test_every_value_falls_into_one_bar(values: list[float]) -> None:
    found = bins(values)
    assert sum(found.counts) == len(values)
    assert len(found.labels) == len(found.counts) + found.edges


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=80))
def test_bars_stay_few_where_values_are_spread_wide(values: list[float]) -> None:
    assert len(bins(values).counts) <= 40


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9), st.integers(1, 12))
def test_ticks_cover_the_range(low: float, span: float, most: int) -> None:
    ticks = nice_ticks(low, low + span, most)
    slack = 1e-6 * (abs(low) + span + 1)
    assert ticks[0] <= low + slack
    assert ticks[-1] >= low + span - slack
    assert 2 <= len(ticks) <= most + 3


def numbers_of(chart: str) -> Iterator[float]:
    for element in ElementTree.fromstring(chart).iter():
        for name in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height"):
            if name in element.attrib:
                yield float(element.attrib[name])
        for place in element.attrib.get("points", "").split():
            yield from map(float, place.split(","))


def test_charts_are_xml_inside_their_box() -> None:
    dot = Dot(name="<b>", value=0.5, low=0.4, high=0.6, marks=(0.1, None, 1.0))
    for chart in (
        histogram([1, 2, 2, 900, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13], "h"),
        dots([dot, dot], "d"),
        bands([[0.5, 0.5], [0.25, 0.75]], [0.4, 0.6], 200, "<&>"),
        curves({"a": [(0, 3.0), (10, 1.0), (20, nan)], "b": [(5, 2.0)]}, "c"),
    ):
        assert all(-0.01 <= value <= 640 for value in numbers_of(str(chart)))


def test_means_keep_the_mean() -> None:
    points = [(i, float(i * i)) for i in range(1000)]
    assert len(means(points, 60)) == 60
    assert means(points, 1) == [(499.5, sum(y for _, y in points) / 1000)]
    assert means([], 60) == []
