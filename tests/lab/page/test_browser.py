"""The report in a browser: no errors, the numbers of the rows, and controls that work."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from stn.lab.experiments import RunFolder
from tests.lab.page.browser import MISSING, Browser

pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"{' and '.join(MISSING)} not installed (Debian: chromium, chromium-driver)"
)

PHONE = (390, 844)


@pytest.fixture(scope="module")
def browser(page: Path) -> Iterator[Browser]:
    with Browser() as started:
        started.open(page)
        yield started


def test_no_error_is_found_and_one_would_be(browser: Browser, page: Path, tmp_path: Path) -> None:
    assert browser.console() == []
    broken = tmp_path / "broken.html"
    broken.write_text(
        page.read_text().replace('"use strict";', '"use strict"; nothing();') + '<img src="https://localhost:9/x.png">'
    )
    browser.open(broken)
    said = " ".join(browser.console())
    assert "nothing is not defined" in said and "Content Security Policy" in said
    browser.open(page)
    assert browser.console() == []


def test_what_it_reads_is_in_the_rows(browser: Browser, folders: list[RunFolder]) -> None:
    for run, folder in enumerate(folders):
        script = f"""
            const table = document.querySelector('table.rows[data-run="{run}"]');
            const keys = [...table.tHead.rows[0].cells].map((cell) => cell.dataset.key);
            return [...table.tBodies[0].rows].map((row) =>
                Object.fromEntries([...row.cells].map((cell, i) => [keys[i], cell.textContent])));"""
        shown = browser.run(script)
        rows = folder.rows()
        assert len(shown) == len(rows)
        for line, row in zip(shown, rows, strict=True):
            for key in ("loss", "error_percent", "epoch"):
                assert float(line[key]) == pytest.approx(row[key], rel=1e-3), key
    curves = browser.run("""
        const lines = document.querySelectorAll('.chart')[0].querySelectorAll('.series');
        return [...lines].map((line) => line.dataset.values);""")
    expected = [[[row["epoch"], row["error_percent"]] for row in f.rows() if row["split"] == "valid"] for f in folders]
    assert [json.loads(one) for one in curves] == expected


def test_a_run_can_be_hidden(browser: Browser) -> None:
    visible = "return [...document.querySelectorAll('.series')].filter(s => getComputedStyle(s).display != 'none').length"
    everything = browser.run(visible)
    click = "document.querySelector('[data-run=\"1\"][type=checkbox]').click(); "
    assert 0 < browser.run(click + visible) < everything
    assert browser.run(click + visible) == everything


def test_the_pointer_reads_a_chart(browser: Browser, folders: list[RunFolder]) -> None:
    text = browser.run("""
        const svg = document.querySelector('.chart svg'), box = svg.getBoundingClientRect();
        const at = box.left + box.width * Number(svg.querySelector('[data-series="1"] circle').getAttribute('cx')) / 400;
        svg.dispatchEvent(new PointerEvent('pointermove', {clientX: at, clientY: box.top + 5}));
        return document.querySelector('.chart .readout').textContent;""")
    first = [folder.rows()[0]["error_percent"] for folder in folders]
    assert text.startswith("epoch 1: ")
    assert [float(value) for value in text.removeprefix("epoch 1: ").split(" · ")] == pytest.approx(first, rel=1e-3)


def test_the_film_is_turned_and_played(browser: Browser) -> None:
    turn = """
        const film = document.querySelector('.film'), range = film.querySelector('input');
        range.value = 0; range.dispatchEvent(new Event('input'));
        return [film.querySelector('img').src === JSON.parse(film.dataset.frames)[0], Number(range.max)];"""
    count = browser.run("return JSON.parse(document.querySelector('.film').dataset.frames).length")
    assert browser.run(turn) == [True, count - 1]
    browser.run("document.querySelector('.film button').click()")
    moved = """
        return (async () => {
            for (const until = Date.now() + 20000; Date.now() < until; await new Promise((r) => setTimeout(r, 50))) {
                if (Number(document.querySelector('.film input').value) > 1) return true;
            }
            return false;
        })();"""
    assert browser.run(moved) is True
    label = "const button = document.querySelector('.film button'), was = button.textContent; button.click(); "
    assert browser.run(label + "return [was, button.textContent]") == ["Stop", "Play"]


def test_pictures_are_whole(browser: Browser) -> None:
    sizes = browser.run("""
        document.querySelectorAll('img').forEach((image) => { image.loading = 'eager'; });
        return Promise.all([...document.images].map((image) => image.decode().then(() => image.naturalWidth)));""")
    assert len(sizes) == 5 and all(width == 800 for width in sizes)


@pytest.mark.parametrize("dark", (False, True))
def test_it_fits_a_phone_light_and_dark(page: Path, tmp_path: Path, dark: bool) -> None:
    with Browser(*PHONE, dark=dark) as phone:
        phone.open(page)
        assert phone.run("return [innerWidth, document.documentElement.scrollWidth]") == [PHONE[0], PHONE[0]]
        channels = phone.run("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)")
        assert (max(channels) < 60) if dark else (min(channels) > 200)
        phone.screenshot(tmp_path / "phone.png")
        assert (tmp_path / "phone.png").stat().st_size > 10_000
