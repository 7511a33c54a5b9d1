"""Curves as SVG: sound XML, points where they belong."""

from xml.etree import ElementTree

import pytest

from slimsearch import drawing
from slimsearch.drawing import Chart, Series

SPACE = "{http://www.w3.org/2000/svg}"


def places(text: str) -> list[tuple[float, float]]:
    root = ElementTree.fromstring(text)
    return [(float(c.get("cx")), float(c.get("cy"))) for c in root.iter(f"{SPACE}circle")]


def test_points_stand_in_proportion():
    chart = Chart("t", "x", "y", [Series("a", [(0, 0), (1, 5), (4, 10)])])
    (x0, y0), (x1, y1), (x2, y2) = places(drawing.svg([chart]))
    assert (x2 - x0) / (x1 - x0) == pytest.approx(4, rel=0.01)
    assert (y2 - y0) / (y1 - y0) == pytest.approx(2, rel=0.01)
    assert y2 < y0  # up is more


def test_doublings_are_equally_wide():
    chart = Chart("t", "x", "y", [Series("a", [(8, 1), (16, 2), (32, 3)])], doubling=True)
    (a, _), (b, _), (c, _) = places(drawing.svg([chart]))
    assert c - b == pytest.approx(b - a, abs=0.2)


@pytest.mark.parametrize("points", [[], [(3, 3)], [(1, 2), (1, 2)], [(-1e9, 1e-9), (1e9, 2e-9)]])
def test_any_points_can_be_drawn(points):
    two = Chart("<a> & b", "x", "y", [Series("q", points), Series("r", points, False)])
    text = drawing.svg([two, two])
    assert len(places(text)) == 4 * len(points)
    assert "nan" not in text
    said = [piece.text for piece in ElementTree.fromstring(text).iter(f"{SPACE}text")]
    assert said.count("<a> & b") == 2
