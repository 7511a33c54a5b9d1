"""The drawing kit: sound XML, marks where they belong, the same scene as SVG and as PNG."""

from io import BytesIO
from xml.etree import ElementTree

import pytest
from PIL import Image

from slimsearch import drawing
from slimsearch.drawing import Bar, Chart, Group, HeatMap, Scene, Series, beside, plot, svg
from slimsearch.drawing.colours import COLOURS, SERIES
from slimsearch.drawing.png import SCALE, png
from slimsearch.drawing.scene import MARGIN, Dot, Rect, Word

SPACE = "{http://www.w3.org/2000/svg}"


def dots(scene: Scene) -> list[tuple[float, float]]:
    """The points of a chart without a legend."""
    return [(mark.x, mark.y) for mark in scene.marks if isinstance(mark, Dot)]


def words(text: str) -> list[str | None]:
    return [piece.text for piece in ElementTree.fromstring(text).iter(f"{SPACE}text")]


def test_points_stand_in_proportion():
    (x0, y0), (x1, y1), (x2, y2) = dots(
        plot(Chart("t", "x", "y", [Series("", [(0, 0), (1, 5), (4, 10)])]))
    )
    assert (x2 - x0) / (x1 - x0) == pytest.approx(4)
    assert (y2 - y0) / (y1 - y0) == pytest.approx(2)
    assert y2 < y0  # up is more


def test_doublings_are_equally_wide():
    chart = Chart("t", "x", "y", [Series("", [(8, 1), (16, 2), (32, 3)])], doubling=True)
    (a, _), (b, _), (c, _) = dots(plot(chart))
    assert c - b == pytest.approx(b - a)


def test_what_lies_beyond_the_highest_value_is_shown_at_the_rim_as_a_triangle():
    chart = Chart("t", "x", "y", [Series("", [(1, 1), (2, 2), (3, 90)])], most=2)
    at_rim, beyond = [mark for mark in plot(chart).marks if isinstance(mark, Dot)][1:]
    assert beyond.y == at_rim.y
    assert (at_rim.shape, beyond.shape) == ("circle", "triangle")


@pytest.mark.parametrize("points", [[], [(3, 3)], [(1, 2), (1, 2)], [(-1e9, 1e-9), (1e9, 2e-9)]])
def test_any_points_can_be_drawn(points):
    two = plot(Chart("<a> & b", "x", "y", [Series("q", points), Series("r", points, False)]))
    text = svg(beside([two, drawing.below([two, two])]))
    assert "nan" not in text
    assert words(text).count("<a> & b") == 3


def test_ticks_that_differ_are_written_differently():
    chart = Chart("t", "x", "y", [Series("", [(1, 1.00001), (2, 1.00002), (3, 1.00003)])])
    marks = [mark.text for mark in plot(chart).marks if isinstance(mark, Word)]
    numbers = [text for text in marks if text.startswith("1.0000")]
    assert len(numbers) == len(set(numbers)) >= 2


def test_nothing_reaches_over_the_edge():
    series = [Series(f"a rather long name {n}", [(n, 10.0**n)]) for n in range(6)]
    scene = plot(Chart("t", "x", "y", series))
    for mark in scene.marks:
        if isinstance(mark, Word | Dot):
            assert 0 <= mark.x <= scene.width
            assert 0 <= mark.y <= scene.height


def test_bars_are_in_proportion_within_their_group():
    scene = drawing.bars([
        Group("one", [Bar("a", 10, "10"), Bar("b <&>", 5, "5", "grey")]),
        Group("two", [Bar("c", 1, "1")]),
    ])  # fmt: skip
    a, b, c = (mark for mark in scene.marks if isinstance(mark, Rect))
    assert a.width == c.width == pytest.approx(2 * b.width)
    assert (a.colour, b.colour) == ("blue", "grey")
    assert words(svg(scene)) == ["one", "a", "10", "b <&>", "5", "two", "c", "1"]
    assert ElementTree.fromstring(svg(drawing.bars([]))).tag == f"{SPACE}svg"


def test_a_heat_map_is_darker_where_there_is_more_and_empty_where_there_is_nothing():
    one = HeatMap("t", ["q", "k"], [[0.0, 1.0], [0.5, None]], [["0", "9"], ["5", ""]], ("0", "9"))
    scene = drawing.heat([one, one], ["0", "1"])
    cells = [mark for mark in scene.marks if isinstance(mark, Rect) and mark.title]
    assert len(cells) == 6
    low, high, middle = cells[:3]
    assert low.opacity < middle.opacity < high.opacity
    assert low.y == high.y < middle.y
    assert low.x == middle.x < high.x
    assert cells[1].title == "0 k: 9"


def test_the_same_scene_as_png():
    marks = (Rect(10, 20, 30, 40, "blue"), Dot(70, 30, 8, "orange"), Word(60, 80, "word"))
    picture = Image.open(BytesIO(png(Scene(100, 90, marks))))
    assert picture.size == ((100 + 2 * MARGIN) * SCALE, (90 + 2 * MARGIN) * SCALE)

    def at(x: float, y: float) -> str:
        place = round((x + MARGIN) * SCALE), round((y + MARGIN) * SCALE)
        return "#" + bytes(picture.getpixel(place)).hex()

    assert at(25, 40) == COLOURS["blue"][0]
    assert at(70, 30) == COLOURS["orange"][0]
    assert at(5, 5) == at(45, 40) == COLOURS["paper"][0]
    box = (60, 68, 95, 84)
    letters = picture.crop(tuple((side + MARGIN) * SCALE for side in box))
    assert len(letters.getcolors(1 << 16)) > 3


@pytest.mark.parametrize("shape", ["circle", "square", "diamond", "triangle", "cross"])
@pytest.mark.parametrize("hollow", [True, False])
def test_every_mark_can_be_drawn_as_png(shape, hollow):
    points = [(1, 1), (2, 3), (2, 3)]
    series = Series("s", points, shape=shape, hollow=hollow, dashed=True, opacity=0.5)
    scene = plot(Chart("t", "x", "y", [series]))
    bare = plot(Chart("t", "x", "y", [Series("s", points, joined=False, dotted=False)]))
    assert png(scene) != png(bare)


def test_a_file_by_itself_has_paper_and_rules_for_the_dark_and_a_part_of_a_page_has_not():
    scene = Scene(10, 10, (Rect(1, 1, 2, 2, "green"),), "what is to be seen")
    alone, part = svg(scene), svg(scene, alone=False)
    assert "prefers-color-scheme:dark" in alone
    assert f".f-green{{fill:{COLOURS['green'][1]}}}" in alone
    assert "<style" not in part
    assert part.count("<rect") == 1
    assert 'aria-label="what is to be seen"' in part


def _light(colour: str) -> float:
    """Relative luminance, as WCAG defines it."""
    parts = [value / 255 for value in bytes.fromhex(colour[1:])]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("paper", [0, 1], ids=["light", "dark"])
def test_letters_and_series_stand_out_from_the_paper(paper):
    ground = _light(COLOURS["paper"][paper])
    for name, least in [("ink", 7.0), ("soft", 4.5), *((name, 3.0) for name in SERIES)]:
        lights = sorted((_light(COLOURS[name][paper]), ground))
        assert (lights[1] + 0.05) / (lights[0] + 0.05) >= least, name
