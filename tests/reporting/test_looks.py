"""The report in a real browser: light and dark, desk and phone, and printed."""

from io import BytesIO

import browser
import pytest
from PIL import Image

from slimsearch.drawing.colours import COLOURS

DESK, PHONE = 1200, 390
SHEET = 688  # pixels between the margins of A4
SMALLEST = 8.0  # pixels that a letter of a figure is high at least, as set

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        browser.find() is None,
        reason="no Chromium here: apt-get install chromium, or name one in SLIMSEARCH_BROWSER",
    ),
]


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    """One browser for all of these tests."""
    with browser.opened(browser.find(), tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [DESK, PHONE])
def test_it_looks_as_it_should(tab, page, tmp_path, width, dark):
    tab.open(page, width=width, dark=dark)
    assert tab.ask("document.documentElement.scrollWidth") <= width
    broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert tab.ask(broken) == 0
    shown = Image.open(BytesIO(tab.picture(tmp_path / "page.png"))).convert("RGB")
    assert shown.width == (width if width == DESK else 2 * width)
    paper = "#" + bytes(shown.getpixel((3, 3))).hex()
    assert paper == COLOURS["paper"][dark]
    inks = {"#" + bytes(colour).hex() for count, colour in shown.getcolors(1 << 24) if count > 200}
    assert {COLOURS[name][dark] for name in ("ink", "soft", "blue", "orange")} <= inks


@pytest.mark.parametrize("width", [DESK, PHONE])
def test_no_letter_of_a_figure_is_cut_off_or_too_small(tab, page, width):
    tab.open(page, width=width)
    cut = """[...document.querySelectorAll('svg text')].filter(t => {
        const b = t.getBBox(), v = t.ownerSVGElement.viewBox.baseVal;
        return b.x < -1 || b.y < -1 || b.x + b.width > v.width + 1 || b.y + b.height > v.height + 1;
    }).map(t => t.textContent)"""
    assert tab.ask(cut) == []
    smallest = """Math.min(...[...document.querySelectorAll('svg text')].map(t =>
        parseFloat(getComputedStyle(t).fontSize) * t.getScreenCTM().a))"""
    assert tab.ask(smallest) >= SMALLEST


def test_it_fetches_nothing_and_complains_of_nothing(tab, page):
    tab.open(page, width=DESK)
    asked = [told["params"]["request"]["url"] for told in tab.events
             if told.get("method") == "Network.requestWillBeSent"]  # fmt: skip
    assert asked[0] == page.resolve().as_uri()
    assert all(url.startswith("data:image/") for url in asked[1:])
    complaints = {"Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"}
    assert [told for told in tab.events if told.get("method") in complaints] == []


def test_it_is_printed_on_several_sheets_without_its_contents(tab, page, tmp_path):
    tab.open(page, width=DESK, dark=True)
    content = tab.printed(tmp_path / "page.pdf")
    assert content.startswith(b"%PDF-")
    assert content.count(b"/Type /Page\n") >= 3
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    tab.call("Emulation.setEmulatedMedia", media="print", features=dark)
    assert tab.ask("getComputedStyle(document.querySelector('nav')).display") == "none"
    tab.call("Emulation.setDeviceMetricsOverride", width=SHEET, height=900, deviceScaleFactor=1,
             mobile=False)  # fmt: skip
    assert tab.ask("document.documentElement.scrollWidth") <= SHEET
    light = tuple(bytes.fromhex(COLOURS["ink"][0][1:]))
    assert tab.ask("getComputedStyle(document.body).color") == f"rgb{light}"


def test_figures_by_themselves_darken_too(tab, page, tmp_path):
    tab.open(page.parent / "figures" / "rounds.svg", width=DESK, dark=True)
    shown = Image.open(BytesIO(tab.picture(tmp_path / "figure.png"))).convert("RGB")
    colours = {"#" + bytes(colour).hex() for _, colour in shown.getcolors(1 << 24)}
    assert {COLOURS["paper"][1], COLOURS["blue"][1]} <= colours
