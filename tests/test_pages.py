"""Each page of the documentation in a browser, at the widths of a desktop and of a phone, light and dark."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.lab.page.browser import MISSING, Browser

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"{' and '.join(MISSING)} not installed (Debian: chromium, chromium-driver)"
)
# Returns: the page's excess width, elements that extend beyond the window, code that is clipped, images that are missing,
# and what the page asked of other hosts.
LOOK = """
const width = document.documentElement.clientWidth;
const boxes = ".md-typeset__scrollwrap, pre";  // these scroll by themselves
const out = [...document.querySelectorAll("article *")].filter(e => e.getBoundingClientRect().right > width + 1);
const shown = [...document.images].filter(i => getComputedStyle(i).display !== "none");
return {
  over: document.documentElement.scrollWidth - width,
  out: out.filter(e => !e.closest(boxes)).map(e => e.outerHTML.slice(0, 80)),
  cut: [...document.querySelectorAll("pre code")].filter(e => e.scrollWidth > e.clientWidth + 1).length,
  asked: performance.getEntriesByType("resource").map(e => e.name).filter(name => /^(https?|wss?):/.test(name)),
  missing: shown.filter(i => !i.complete || i.naturalWidth === 0).map(i => i.src),
};
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=os.environ | {"STN_DOCS_DRAFT": "1"})
    return out


def faults(seen: dict[str, Any]) -> list[str]:
    found = [f"{seen['over']} pixels too wide"] if seen["over"] > 0 else []
    found += [f"sticks out: {e}" for e in seen["out"]] + [f"missing: {source}" for source in seen["missing"]]
    found += [f"asks another host: {address}" for address in seen["asked"]]
    return found + (["code is cut off"] if seen["cut"] else [])


def settled(browser: Browser) -> list[str]:
    """Return the faults that remain after the page's script has put wide tables into boxes."""
    deadline = time.monotonic() + 20
    while (found := faults(browser.run(LOOK))) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


@pytest.mark.parametrize("dark", (False, True), ids=("light", "dark"))
@pytest.mark.parametrize("width", (1280, 390))
def test_every_page_fits(site: Path, width: int, dark: bool) -> None:
    pages = sorted(site.rglob("index.html"))
    assert len(pages) > 25
    wrong = {}
    with Browser(width, 900, dark=dark) as browser:
        for page in pages:
            browser.open(page)
            if found := settled(browser) + browser.console():
                wrong[str(page.relative_to(site))] = found
    assert not wrong


def test_a_page_that_does_not_fit_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    wide = '<article><p style="width: 2000px">wide</p><img src="none.png"><pre><code style="display: block; overflow: auto">'
    other = '<script>console.error("a fault")</script><script src="http://127.0.0.1:9/none.js"></script>'
    page.write_text(f"<!DOCTYPE html>{wide}{'long ' * 200}</code></pre></article>{other}")
    with Browser(390, 900) as browser:
        browser.open(page)
        found = faults(browser.run(LOOK))
        console = browser.console()
    assert [fault.split(":")[0].split()[-1] for fault in found] == ["wide", "out", "missing", "host", "off"]
    assert any("a fault" in message for message in console)
