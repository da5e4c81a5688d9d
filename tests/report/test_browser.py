"""The page in a real browser: it loads, searches, sorts, tells, zooms, saves and prints."""

import base64
import csv
from importlib.resources import files

import numpy as np
import pytest

from dglzarr.report.tables import for_script
from tests.browser import browser, console, downloads, find, requested, screen, texts, until
from tests.report.pages import EVIL, GENES, SYMBOLS
from tests.report.test_interactive import DATA, embedded

pytestmark = pytest.mark.slow
__all__ = ["browser", "downloads"]

OUTSIDE = """
return [...document.querySelectorAll("main p, main h2, main figure, main .live svg")]
  .filter(node => node.getBoundingClientRect().right > innerWidth + 1)
  .map(node => node.outerHTML.slice(0, 80));
"""
COLORS = """
const node = document.querySelector(arguments[0]);
let under = node;
while (getComputedStyle(under).backgroundColor === "rgba(0, 0, 0, 0)") under = under.parentElement;
const pen = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
return [getComputedStyle(node).color, getComputedStyle(under).backgroundColor].map(color => {
  pen.fillStyle = color;
  pen.fillRect(0, 0, 1, 1);
  return [...pen.getImageData(0, 0, 1, 1).data];
});
"""
NAMELESS = """
const bad = [], of = (selector, isGood) => {
  const found = [...document.querySelectorAll(selector)];
  if (!found.length) bad.push("no " + selector);
  bad.push(...found.filter(node => !isGood(node)).map(node => node.outerHTML.slice(0, 90)));
};
of("table", table => table.caption && table.caption.textContent.trim());
of("thead th", head => head.scope === "col");
of("tbody th", head => head.scope === "row");
of("img", image => image.alt.length > 20);
of(".live", chart => chart.getAttribute("aria-label"));
of("input, select", input => input.labels.length || input.getAttribute("aria-label"));
of("button", button => button.textContent.trim() || button.getAttribute("aria-label"));
of("dl > *, dl > div > *", node => node.matches("div, dt, dd"));
of("g[aria-label]", node => node.closest("[aria-hidden=true]"));
of("main > section", one => document.getElementById(one.getAttribute("aria-labelledby")));
const ids = [...document.querySelectorAll("main [id], .side [id]")].map(node => node.id);
bad.push(...ids.filter((id, i) => ids.indexOf(id) !== i));
return bad;
"""


@pytest.fixture
def page(browser, written):
    """The page, freshly opened at 1,400 pixels; at the end nothing was complained of or fetched."""
    screen(browser, 1400, 900)
    show(browser, written)
    yield browser
    assert console(browser) == []
    assert requested(browser) == []


def show(browser, written):
    console(browser)
    requested(browser)
    browser.get(f"file://{written}")
    until(lambda: browser.execute_script("return document.documentElement.dataset.ready"), "page")
    assert set(requested(browser)) == {f"file://{written}"}


CUT_CAPTIONS = """
return [...document.querySelectorAll(".scroll caption")].filter(caption => {
  const text = document.createRange();
  text.selectNodeContents(caption);
  const [own, box] = [text, caption.closest(".scroll")].map(part => part.getBoundingClientRect());
  return own.right > box.right + 1;
}).map(caption => caption.textContent);
"""


def press(browser, selector, *keys):
    """Focus an element and press keys."""
    element = find(browser, selector)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    browser.execute_script("arguments[0].focus()", element)
    for key in keys:
        element.send_keys(key)
    return element


def test_load__every_chart_is_drawn_and_no_still_picture_is_left_beside_it(page):
    drawn = page.execute_script(
        "return [...document.querySelectorAll('figure.drawn')].map(figure => ["
        "figure.dataset.picture, figure.querySelector('.live svg').getBoundingClientRect().height,"
        "getComputedStyle(figure.querySelector('img')).display])"
    )
    assert len(drawn) == 9
    assert all(height > 80 and display == "none" for _, height, display in drawn), drawn


def test_search__all_genes(page):
    press(page, "#gene-search", "sym12")
    names = texts(page, "#all-genes tbody td:nth-child(3)")
    assert names
    assert all("SYM12" in name for name in names)
    assert f"of {SYMBOLS.count('SYM12')} genes" in find(page, "#all-genes .pages").text
    press(page, "#gene-search", "x")
    assert "No gene of this name" in find(page, "#all-genes .pages").text


def test_sort__all_genes_by_score_both_ways(page):
    button = "//div[@id='all-genes']//th/button[text()='score']"
    for way in (1, -1):
        element = page.find_element("xpath", button)
        page.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()
        shown = [float(text) for text in texts(page, "#all-genes tbody td:nth-child(5)")]
        assert shown == sorted(shown, reverse=way < 0)
        sorted_by = texts(page, "#all-genes th[aria-sort]")
        assert sorted_by == ["score"]


def test_sort_and_search__a_table_of_the_page(page):
    table = "#settings table"
    find(page, "#settings").location_once_scrolled_into_view  # noqa: B018
    page.find_element("css selector", f"{table} th:nth-child(3) button").click()
    names = texts(page, f"{table} tbody td:nth-child(3)")
    assert names == sorted(names)
    press(page, "#settings .filter input", "seed")
    visible = texts(page, f"{table} tbody tr:not([hidden])")
    assert 0 < len(visible) < len(names)
    assert all("seed" in row for row in visible)
    assert f"{len(visible)} of {len(names)} rows" in find(page, "#settings .filter").text


def test_sort__numbers_dates_and_versions(page):
    """What the script of the report puts in order, by its own functions."""
    script = files("dglzarr.report").joinpath("report.js").read_text("utf-8")
    part = script[script.index("const number =") : script.index("function sortable")]
    for cells in (
        ["2026-01-09", "2026-02-01", "2026-11-30"],
        ["0.9.1", "0.10.0", "0.10.2"],
        ["-1.5", "<0.001", "0.02 (+1)", "3e1", "1,200"],
        ["SIM2", "SIM10", "-"],
    ):
        code = f"{part} return arguments[0].sort((a, b) => compare(a, b, 1));"
        assert page.execute_script(code, cells[::-1]) == cells


def test_hover__tells_the_gene_under_the_pointer(page):
    from selenium.webdriver import ActionChains

    live = find(page, "[data-picture=target-genes] .live")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", live)
    x, y = page.execute_script(
        "const box = arguments[0].getBoundingClientRect(),"
        "dot = arguments[0].querySelector('[aria-label=dot] circle').getBoundingClientRect();"
        "return [dot.x + dot.width / 2 - box.x - box.width / 2,"
        " dot.y + dot.height / 2 - box.y - box.height / 2]",
        live,
    )
    ActionChains(page).move_to_element_with_offset(live, round(x), round(y)).perform()
    told = until(
        lambda: "".join(texts(page, "[data-picture=target-genes] [aria-label=tip]")), "tip"
    )
    assert any(gene in told for gene in GENES)
    assert "error with mined (z)" in told


def test_zoom__by_dragging_and_back(page):
    from selenium.webdriver import ActionChains

    live = find(page, "[data-picture=target-genes] .live")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", live)
    before = int(live.get_attribute("data-n"))
    half = live.size["width"] // 2
    drag = ActionChains(page).move_to_element_with_offset(live, 0, -120).click_and_hold()
    drag.move_by_offset(half - 60, 250).release().perform()
    assert int(live.get_attribute("data-n")) < before
    assert "in sight" in find(page, "[data-picture=target-genes] .said").text
    press(page, "[data-picture=target-genes] .live", "0")
    assert int(live.get_attribute("data-n")) == before


def test_keyboard__goes_through_points_and_zooms(page):
    from selenium.webdriver import Keys

    name = "[data-picture=score-curve]"
    press(page, f"{name} .live", Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    said = find(page, f"{name} .said").text
    assert "(2 of 60)" in said
    assert "rank by score: 2" in said
    press(page, f"{name} .live", "+")
    assert "of 60 are in sight" in find(page, f"{name} .said").text
    press(page, f"{name} .live", Keys.ESCAPE)
    assert find(page, f"{name} .live").get_attribute("data-n") == "60"


def test_keyboard__the_first_tab_skips_to_the_report(page):
    from selenium.webdriver import Keys

    find(page, "body").send_keys(Keys.TAB)
    assert page.switch_to.active_element.text == "To the report"
    page.switch_to.active_element.send_keys(Keys.ENTER)
    assert page.execute_script("return document.activeElement.id") == "main"


def test_find__marks_one_gene_in_every_picture(page):
    press(page, "#find", SYMBOLS[0].lower())
    assert "rank" in find(page, "#find-said").text
    marked = page.execute_script(
        "return [...document.querySelectorAll('figure.drawn')].filter(figure =>"
        "figure.querySelector('.live [stroke=\"var(--found)\"]')).map(f => f.dataset.picture)"
    )
    assert {"score-curve", "score-histogram"} <= set(marked)
    press(page, "#find", "nothing-like-it")
    assert "no such gene" in find(page, "#find-said").text


def test_download__data_and_picture(page, downloads, written):
    def click(figure, text):
        xpath = f"//figure[@data-picture='{figure}']//button[text()='{text}']"
        element = page.find_element("xpath", xpath)
        page.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    click("learning", "Data (TSV)")
    saved = downloads / "learning.tsv"
    until(saved.exists, "learning.tsv")
    rows, beside = (
        list(csv.DictReader(path.read_text().splitlines(), delimiter="\t"))
        for path in (saved, written.parent / "report_data" / "learning.tsv")
    )
    assert [row["epoch"] for row in rows] == [row["epoch"] for row in beside]
    click("score-curve", "SVG")
    svg = downloads / "score-curve.svg"
    until(svg.exists, "svg")
    assert "var(--" not in svg.read_text().partition("<style")[0]
    assert 'xmlns="http://www.w3.org/2000/svg"' in svg.read_text()
    click("score-curve", "PNG")
    png = downloads / "score-curve.png"
    until(png.exists, "png")
    assert png.read_bytes().startswith(b"\x89PNG")


def test_hostile_names__are_shown_as_text_and_run_nowhere(page):
    assert page.execute_script("return document.querySelectorAll('main script').length") == 0
    assert any(EVIL in text for text in texts(page, "#data td, #data th"))


@pytest.mark.parametrize("width", [390, 820, 1400])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_screens__nothing_wider_than_the_screen_and_words_stand_out(browser, written, width, dark):
    screen(browser, width, 900, dark=dark)
    show(browser, written)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(CUT_CAPTIONS) == []
    outside = browser.execute_script(OUTSIDE)
    assert outside == []
    for selector in ("main p", "section .note", ".side nav a", "figcaption", "td", "caption"):
        assert contrast(browser, selector) >= 4.5, selector
    assert console(browser) == []
    assert requested(browser) == []


def contrast(browser, selector):
    """Contrast of text on what lies under it, as WCAG 2 counts it."""
    colors = browser.execute_script(COLORS, selector)
    light = []
    for color in colors:
        parts = [c / 255 for c in color[:3]]
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        light.append(0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2])
    return (max(light) + 0.05) / (min(light) + 0.05)


def test_print__to_pdf_with_still_pictures(page):
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    shown = page.execute_script(
        "return [...document.querySelectorAll('figure.drawn')].map(figure => ["
        "getComputedStyle(figure.querySelector('img')).display,"
        "getComputedStyle(figure.querySelector('.live')).display])"
    )
    assert shown
    assert all(pair == ["block", "none"] for pair in shown)
    pdf = base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert pdf.startswith(b"%PDF")
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_screen_reader__everything_is_named(page):
    nameless = page.execute_script(NAMELESS)
    assert nameless == []


def test_without_javascript__it_reads_as_it_stands(browser, written):
    screen(browser, 1400, 900)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(f"file://{written}")
        images = browser.find_elements("css selector", "figure img")
        assert len(images) == 10
        assert all(image.is_displayed() for image in images)
        assert not find(browser, "#all-genes").is_displayed()
        assert "JavaScript is off" in find(browser, "main").text
        link = find(browser, "[data-picture=learning] .tools a").get_attribute("href")
        assert link.endswith("report_data/learning.tsv")
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


HOSTILE = "</script><img src=x onerror=document.title='stolen'>"


@pytest.fixture
def dense(written, tmp_path):
    """The page with 3,000 genes, of which one has a hostile symbol."""
    html = written.read_text()
    data = embedded(written)
    genes = data["tables"]["genes"]
    rng, n = np.random.default_rng(0), 3000
    made = {
        "gene": [f"{i}_at" for i in range(n)],
        "gene_symbol": [HOSTILE, *(f"G{i}" for i in range(1, n))],
        "error_mined": rng.normal(0.6, 0.1, n).tolist(),
        "error_rival": rng.normal(0.6, 0.1, n).tolist(),
    }
    columns = zip(genes["names"], genes["columns"], strict=True)
    genes["columns"] = [made.get(name, [*column * 50]) for name, column in columns]
    place = tmp_path / "dense.html"
    place.write_text(DATA.sub(lambda found: found[0].replace(found[1], for_script(data)), html))
    return place


@pytest.fixture
def logarithmic(written, tmp_path):
    """The page with 64 epochs on an axis of logarithms, as that of panel sizes is."""
    data = embedded(written)
    data["charts"]["learning"]["log"] = True
    epochs = list(range(1, 65))
    data["tables"]["learning"]["columns"] = [epochs, epochs, epochs[::-1], epochs]
    place = tmp_path / "logarithmic.html"
    html = written.read_text()
    place.write_text(DATA.sub(lambda found: found[0].replace(found[1], for_script(data)), html))
    return place


def test_keyboard__zooms_an_axis_of_logarithms(browser, logarithmic):
    show(browser, logarithmic)
    live = "[data-picture=learning] .live"
    assert find(browser, live).get_attribute("data-n") == "128"
    press(browser, live, "+")
    n = int(find(browser, live).get_attribute("data-n"))
    assert 34 <= n <= 46  # of two curves from 64 ** 0.25 to 64 ** 0.75, 3 to 22
    assert console(browser) == []


def test_dense__hexagons_until_zoomed_then_dots(browser, dense):
    screen(browser, 1400, 900)
    show(browser, dense)
    chart = "[data-picture=target-genes]"
    assert not browser.find_elements("css selector", f"{chart} [aria-label=dot] circle")
    assert browser.find_elements("css selector", f"{chart} [aria-label=dot] path")
    press(browser, f"{chart} .live", "+", "+")
    until(lambda: browser.find_elements("css selector", f"{chart} [aria-label=dot] circle"), "dots")
    assert f"of {3000:,} are in sight" in find(browser, f"{chart} .said").text
    assert console(browser) == []


def test_dense__a_hostile_symbol_is_text_wherever_it_is_shown(browser, dense):
    from selenium.webdriver import Keys

    screen(browser, 1400, 900)
    show(browser, dense)
    press(browser, "#find", "0_at")
    press(browser, "#gene-search", "onerror")
    assert texts(browser, "#all-genes tbody td:nth-child(3)") == [HOSTILE]
    press(browser, "[data-picture=target-genes] .live", Keys.HOME)
    assert (
        HOSTILE.replace("</script>", "") in find(browser, "[data-picture=target-genes] .said").text
    )
    assert browser.title == "Study <1>"
    assert browser.find_elements("css selector", "img[src=x]") == []
    assert console(browser) == []
    assert requested(browser) == []


def test_zoom__to_where_nothing_is_stays(page):
    from selenium.webdriver import ActionChains

    live = find(page, "[data-picture=target-genes] .live")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", live)
    before = live.get_attribute("data-n")
    x, y = live.size["width"] // 2, live.size["height"] // 2
    drag = ActionChains(page).move_to_element_with_offset(live, 70 - x, y - 60).click_and_hold()
    drag.move_by_offset(12, -12).release().perform()
    assert find(page, "[data-picture=target-genes] .said").text == "Nothing is there."
    assert live.get_attribute("data-n") == before
