"""The application in a real browser: what a person does, on a desk and on a phone."""

import csv

import pytest

from tests.browser import browser, console, downloads, find, requested, screen, texts, until
from tests.serve.studies import EVIL, N_PANEL, get_json, serving

pytestmark = pytest.mark.slow
__all__ = ["browser", "downloads"]
Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys

CONTRAST = """
const pen = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
const light = color => {
  pen.fillStyle = color;
  pen.fillRect(0, 0, 1, 1);
  const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3).map(c => {
    const x = c / 255;
    return x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const faint = [];
for (const node of document.querySelectorAll("main *, header *")) {
  if (![...node.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
  if (!node.checkVisibility() || node.closest("svg, .hidden, option")) continue;
  let under = node;
  while (under && getComputedStyle(under).backgroundColor === "rgba(0, 0, 0, 0)") {
    under = under.parentElement;
  }
  const [a, b] = [getComputedStyle(node).color,
    getComputedStyle(under || document.body).backgroundColor].map(light);
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) faint.push([node.outerHTML.slice(0, 90), ratio]);
}
return faint;
"""
NAMELESS = """
const bad = [];
const of = (selector, isGood) => bad.push(...[...document.querySelectorAll(selector)]
  .filter(node => !isGood(node)).map(node => node.outerHTML.slice(0, 90)));
of("input:not([type=hidden]), select, textarea", node => node.labels.length);
of("button, a", node => node.textContent.trim());
of("table", node => node.caption && node.caption.textContent.trim());
of("svg", node => node.getAttribute("aria-label") || node.getAttribute("aria-hidden"));
of("dl > *, dl > div > *", node => node.matches("div, dt, dd"));
of("thead th", node => node.textContent.trim());
const regions = [...document.querySelectorAll("[role=region]")].map(node => node.ariaLabel);
bad.push(...regions.filter((name, i) => !name || regions.indexOf(name) !== i));
of("main *", node => node.scrollWidth <= node.clientWidth || node.tabIndex >= 0
  || !["auto", "scroll"].includes(getComputedStyle(node).overflowX));
if (document.querySelectorAll("h1").length !== 1) bad.push("h1");
return bad;
"""


@pytest.fixture(scope="module")
def place(original):
    with serving(original) as (address, _):
        panel = [row["gene"] for row in get_json(f"{address}api/study/panel")["genes"]]
        get_json(f"{address}api/study/why?name={panel[0]}")
        get_json(f"{address}api/study/order?size=3")
        yield address, panel


@pytest.fixture
def page(browser, place):
    """A browser that shows a page of the study; at the end nothing was complained of."""
    address, _ = place
    screen(browser, 1400, 900)
    console(browser)
    requested(browser)

    def show(path):
        browser.get(f"{address}s/study/{path}")
        return browser

    yield show
    assert console(browser) == []
    assert [url for url in requested(browser) if not url.startswith(address)] == []


def heading(browser, text):
    until(lambda: texts(browser, "h1") == [text], f"the page {text!r}")


def test_search__typed_chosen_by_keys_and_opened(page):
    browser = page("")
    find(browser, "body").send_keys("/")
    box = browser.switch_to.active_element
    assert box.get_attribute("id") == "q"
    box.send_keys("sym1")
    until(lambda: len(texts(browser, ".hits li")) == 8, "what is offered")
    box.send_keys(Keys.DOWN, Keys.DOWN)
    chosen = until(lambda: texts(browser, '.hits li[aria-selected="true"] span'), "a choice")
    assert box.get_attribute("aria-activedescendant") == "hit-1"
    box.send_keys(Keys.ENTER)
    heading(browser, chosen[0])
    assert "Expression over samples" in texts(browser, "h2")


def test_search__escape_closes_and_enter_searches(page):
    browser = page("")
    box = find(browser, "#q")
    box.send_keys("tp5")
    until(lambda: texts(browser, ".hits li"), "what is offered")
    box.send_keys(Keys.ESCAPE)
    assert not find(browser, ".hits").is_displayed()
    box.send_keys(Keys.ENTER)
    heading(browser, "“tp5”")
    find(browser, "tbody th a").click()
    heading(browser, "TP53")


def test_names__that_hold_code_are_shown(page):
    browser = page("")
    find(browser, "#q").send_keys("<script")
    until(lambda: texts(browser, ".hits li span") == [EVIL], "the name")
    browser = page("gene?name=003_at&by=tissue")
    heading(browser, EVIL)
    assert 'a "b" <i>c</i>' in texts(browser, "#expression tbody th")


STOPS = """
return [...document.querySelectorAll("a[href], button, input, select, textarea, [tabindex='0']")]
  .filter(node => node.checkVisibility() && node.tabIndex >= 0 && !node.disabled).length;
"""
FOCUSED = """
const {outlineStyle, outlineWidth} = getComputedStyle(document.activeElement);
return [document.activeElement.tagName, outlineStyle !== "none" && outlineWidth !== "0px",
  document.activeElement.textContent.trim()];
"""


@pytest.mark.parametrize("path", ["", "gene?name=TP53", "compare", "order?size=4", "data"])
def test_keyboard__tab_goes_through_all_of_a_page_and_is_seen(page, path):
    """From the skip link to the end, nothing left out, no trap, always with an outline."""
    browser = page(path)
    n_stops, seen = browser.execute_script(STOPS), []
    for _ in range(n_stops + 2):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        tag, is_seen, text = browser.execute_script(FOCUSED)
        if tag == "BODY":
            break
        seen.append(text)
        assert is_seen, (tag, text)
    assert len(seen) == n_stops
    assert seen[0] == "Skip to content"


def test_tables__sorted_by_click_and_by_key(page):
    browser = page("search?q=sym")
    head = "thead th:nth-child(4)"
    button = find(browser, f"{head} button")
    button.click()
    scores = [float(v) for v in texts(browser, "tbody td:nth-child(4)")]
    assert scores == sorted(scores)
    assert find(browser, head).get_attribute("aria-sort") == "ascending"
    button.send_keys(Keys.ENTER)
    assert [float(v) for v in texts(browser, "tbody td:nth-child(4)")] == scores[::-1]
    assert find(browser, head).get_attribute("aria-sort") == "descending"
    find(browser, "thead th:nth-child(2) button").click()
    names = texts(browser, "tbody td:nth-child(2)")
    assert names == sorted(names)
    assert find(browser, head).get_attribute("aria-sort") is None


def test_expression__another_label_is_chosen(page, place):
    browser = page(f"gene?name={place[1][0]}")
    assert len(texts(browser, "#expression svg")) == 3
    browser.execute_script(
        "const s = document.querySelector('#expression select'); s.value = 'series';"
        "s.dispatchEvent(new Event('change'))"
    )
    until(lambda: "GSE1" in texts(browser, "#expression tbody th"), "groups by series")
    width, height = browser.execute_script(
        "const r = document.querySelector('.outline').getBoundingClientRect();"
        "return [r.width, r.height]"
    )
    assert width > 100
    assert height > 15
    assert browser.current_url.endswith("by=series#expression")


MARKS = """
const {left, width} = document.querySelector("#expression svg").getBoundingClientRect();
return [...document.querySelectorAll(".marks span")].map(mark => {
  const text = document.createRange();
  text.selectNodeContents(mark);
  const box = text.getBoundingClientRect();
  return ((box.left + box.right) / 2 - left) / width;
});
"""


@pytest.mark.parametrize("width", [390, 1400])
def test_expression__marks_stand_where_their_values_are_drawn(page, place, width):
    browser = page(f"gene?name={place[1][0]}")
    screen(browser, width, 900)
    found = browser.execute_script(MARKS)
    n = len(found)
    expected = [(4 + 400 * i / (n - 1)) / 408 for i in range(n)]  # as the picture's viewBox has it
    assert found[1:-1] == pytest.approx(expected[1:-1], abs=0.003)
    assert (found[0], found[-1]) == pytest.approx((expected[0], expected[-1]), abs=0.1)


def test_order__a_panel_is_built_and_its_sheet_saved(page, downloads):
    browser = page("order")
    size = find(browser, "[name=size]")
    size.clear()
    size.send_keys("5")
    find(browser, "[name=include]").send_keys("MYC, 020_at")
    find(browser, ".order button").click()
    until(lambda: "5 genes of 40 that could be chosen" in texts(browser, "h2"), "the panel")
    assert texts(browser, "tbody tr td:nth-child(4)")[:3] == ["included", "included", "chosen"]
    find(browser, "a[download]").click()
    file = downloads / "study-order.tsv"
    until(file.exists, "the sheet")
    with file.open(encoding="utf-8") as sheet:
        rows = list(csv.DictReader(sheet, delimiter="\t"))
    assert [row["gene"] for row in rows] == texts(browser, "tbody tr td:nth-child(3)")


def test_order__what_is_wrong_is_told_in_the_form(page, browser):
    page("order?size=4&include=TP54")
    assert "Did you mean TP53" in texts(browser, "[role=alert]")[0]
    # The browser notes every answer of status 400 itself; nothing else is noted.
    assert all("400 (Bad Request)" in line for line in console(browser))


def test_compare__two_panels(page):
    browser = page("compare")
    browser.execute_script("document.querySelector('[name=b]').value = 'random-0'")
    find(browser, "main form button").click()
    heading(browser, "Compare two panels")
    until(lambda: "Only on random-0" in texts(browser, "h2"), "the other panel")
    assert f"mined has {N_PANEL} genes" in texts(browser, ".verdict")[0]


def test_report__its_script_runs_alone(page):
    browser = page("report")
    until(lambda: browser.title == "ran", "the report's own script")
    assert browser.execute_script("return window.origin") == "null"


PATHS = ["", "search", "gene?name=TP53", "gene?name={}", "latent?k=1", "panel", "compare",
         "order?size=4&include=003_at", "data"]  # fmt: skip


@pytest.mark.parametrize(
    ("width", "dark"), [(390, False), (390, True), (1400, False), (1400, True)]
)
def test_pages__on_a_phone_and_a_desk_by_day_and_night(page, place, width, dark):
    for path in PATHS:
        browser = page(path.format(place[1][0]))
        screen(browser, width, 900, dark=dark)
        across = browser.execute_script("return document.documentElement.scrollWidth")
        assert across <= width, path
        assert browser.execute_script(CONTRAST) == [], path
        assert browser.execute_script(NAMELESS) == [], path
        is_dark = browser.execute_script(
            "return getComputedStyle(document.body).backgroundColor === 'rgb(18, 23, 28)'"
        )
        assert is_dark == dark


PAPER = """
return [[...document.querySelectorAll("header, footer, form, input, textarea, button, .button")]
  .filter(node => node.checkVisibility()).map(node => node.outerHTML.slice(0, 90)),
  document.documentElement.scrollWidth, getComputedStyle(document.body).backgroundColor,
  [...document.querySelectorAll(".sortable thead button")]
    .map(node => getComputedStyle(node, "::after").content).filter(mark => mark !== '""')];
"""


def test_print__only_what_is_told_on_white_paper(page, place):
    """A4 between margins; no form, and none of its examples, is taken for what was asked."""
    for path in PATHS:
        browser = page(path.format(place[1][0]))
        screen(browser, 718, 1000, dark=True)
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        try:
            controls, across, paper, marks = browser.execute_script(PAPER)
        finally:
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
        assert (controls, marks, paper) == ([], [], "rgb(255, 255, 255)"), path
        assert across <= 718, path
