"""The bar chart is well-formed, in proportion, and its labels are escaped."""

from xml.etree import ElementTree

from slimsearch import chart
from slimsearch.chart import Bar, Group

SPACE = "{http://www.w3.org/2000/svg}"


def test_bars_are_in_proportion_within_their_group():
    groups = [
        Group("one", [Bar("a", 10, "10"), Bar("b <&>", 5, "5", 1)]),
        Group("two", [Bar("c", 1, "1")]),
    ]
    root = ElementTree.fromstring(chart.svg(groups))
    bars = [r for r in root.iter(f"{SPACE}rect") if r.get("x")]
    assert [int(bar.get("width", 0)) for bar in bars] == [chart.BAR, chart.BAR // 2, chart.BAR]
    assert bars[0].get("fill") != bars[1].get("fill")
    words = [text.text for text in root.iter(f"{SPACE}text")]
    assert words == ["one", "a", "10", "b <&>", "5", "two", "c", "1"]


def test_nothing_to_draw_is_an_empty_chart():
    assert ElementTree.fromstring(chart.svg([])).tag == f"{SPACE}svg"
