"""Takes docs/pictures of the demo in headless Chromium: `make pictures`, after `make demo`.

``python -m docs.make_pictures STUDY --gene NAME --folder FOLDER`` takes every page to look at, on a
desk and on a phone, by day and by night.
"""

from __future__ import annotations

import argparse
import base64
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.browser import chromium, screen
from tests.serve.studies import get_json, serving

PICTURES = Path(__file__).with_name("pictures")
SHOWN = ("gene",)
HEIGHT = 900


def main() -> None:
    """Take pictures of a study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path, nargs="?", default=Path("demo/study"))
    parser.add_argument("--gene", default="", help="without it the first of the panel")
    parser.add_argument("--folder", type=Path, help="every page goes there")
    given = parser.parse_args()
    folder = given.folder or PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as unused, serving(given.study) as (address, _):
        name = get_json(f"{address}api")["studies"][0]
        panel = get_json(f"{address}api/{name}/panel")["genes"]
        gene = given.gene or panel[0]["gene_symbol"] or panel[0]["gene"]
        get_json(f"{address}api/{name}/why?name={quote(gene)}")
        pages = {
            "home": "", "gene": f"gene?name={quote(gene)}", "panel": "panel", "compare": "compare",
            "order": "order?size=12", "data": "data", "report": "report/",
        }  # fmt: skip
        with chromium(unused) as browser:
            for page, width, dark in product(pages, (1400, 390), (False, True)):
                is_shown = page in SHOWN and width == 1400 and not dark
                if given.folder or is_shown:
                    screen(browser, width, HEIGHT, dark=dark)
                    browser.get(f"{address}s/{name}/{pages[page]}")
                    time.sleep(1)  # pictures draw themselves
                    taken = f"{page}-{width}{'-dark' if dark else ''}" if given.folder else page
                    take(browser, folder / f"{taken}.png", whole=bool(given.folder))


def take(browser: Any, place: Path, *, whole: bool) -> None:  # noqa: ANN401
    """Write what a page shows: the screen, or all of the page."""
    asked: dict[str, object] = {"format": "png"}
    if whole:
        size = browser.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        asked |= {"captureBeyondViewport": True, "clip": clip}
    found = browser.execute_cdp_cmd("Page.captureScreenshot", asked)
    place.write_bytes(base64.b64decode(found["data"]))


if __name__ == "__main__":
    main()
