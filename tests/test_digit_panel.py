"""The digit panel of the playground: a trained network in the browser, drawn to by a finger, and the same in PyTorch."""

import base64
import functools
import http.server
import importlib.util
import re
import shutil
import tarfile
import threading
import time
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import stn
from tests.lab.page.browser import MISSING, Browser

ROOT = Path(__file__).parents[1]


def extension(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / f"docs/extensions/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


digits, runtime = extension("digits"), extension("onnxruntime_web")
WITHOUT = [*MISSING, *([] if runtime.installed() else ["onnxruntime-web of npm"])]
browsing = pytest.mark.skipif(bool(WITHOUT), reason=f"{' and '.join(WITHOUT)} not installed (CONTRIBUTING, make test)")

RESULT = """
const bytes = (array) => btoa(String.fromCharCode(...new Uint8Array(array.buffer, array.byteOffset, array.byteLength)));
const {image, result} = Digits.state;
const shown = document.querySelector('[data-part=crop]').getContext('2d').getImageData(0, 0, 56, 56).data;
return {
  image: bytes(image), probabilities: [...result.probabilities], theta: [...result.theta], look: bytes(result.look),
  shown: bytes(shown), reading: document.querySelector('[data-part=reading]').textContent,
  bars: [...document.querySelectorAll('#digit-playground meter')].map((meter) => meter.value),
};
"""
YELLOW = """
const shown = document.querySelector('[data-part=region]');
const {data, width} = shown.getContext('2d').getImageData(0, 0, shown.width, shown.height);
const found = [];
for (let i = 0; i < data.length; i += 4) {
  found.push(Number(data[i] > 120 && data[i + 1] > 60 && data[i + 2] < 0.6 * data[i]));
}
return [width, found];
"""


HEAD = """<!DOCTYPE html>
<meta charset="utf-8"><meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">
<link rel="stylesheet" href="../assets/playground/page.css"><body style="margin: 10px">
"""
PAD = "const pad = document.querySelector('[data-part=pad]');"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the panel without the theme of the site."""
    folder = tmp_path_factory.mktemp("panel")
    shutil.copytree(ROOT / "docs/assets/playground", folder / "assets/playground")
    shutil.copytree(runtime.FOLDER, folder / "assets/onnxruntime")
    (folder / "assets/playground/digits.onnx").write_bytes(digits.model())
    (part,) = digits.PANEL.findall((ROOT / "docs/playground.md").read_text())
    (folder / "playground").mkdir()
    (folder / "playground/index.html").write_text(HEAD + part)
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """Serve the panel: browsers run WebAssembly only on pages of a server."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser(address: str) -> Iterator[Browser]:
    with Browser(390, 900) as browser:
        browser.open(f"{address}playground/")
        yield browser


def settled(browser: Browser) -> dict[str, Any]:
    """Read the drawing once more, and return its result when the panel shows it."""
    browser.run("Digits.done = false; Digits.update().then(() => (Digits.done = true))")
    deadline = time.monotonic() + 60
    while not browser.run("return Digits.done && Boolean(Digits.state.result)"):
        message = browser.run("return document.querySelector('#digit-playground [data-part=message]').textContent")
        assert time.monotonic() < deadline and "could not" not in message, message
        time.sleep(0.05)
    found: dict[str, Any] = browser.run(RESULT)
    return found


def draw(browser: Browser, *strokes: tuple[tuple[float, float], tuple[float, float]]) -> dict[str, Any]:
    """Draw lines with a finger; points are fractions of the pad."""
    browser.run(f"document.querySelector('[data-part=clear]').click(); {PAD} pad.scrollIntoView()")
    left, top, width = browser.run(f"{PAD} const box = pad.getBoundingClientRect(); return [box.left, box.top, box.width]")
    for start, end in strokes:
        (a, b), (c, d) = start, end
        browser.drag((round(left + a * width), round(top + b * width)), (round(left + c * width), round(top + d * width)))
    return settled(browser)


def floats(text: str, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), np.float32).reshape(shape).copy())


DRAWINGS = {  # digit: strokes; the 7 and the 4 are larger than digits of the training images, and the 1 is in a corner
    7: [((0.2, 0.15), (0.8, 0.15)), ((0.8, 0.15), (0.4, 0.9))],
    4: [((0.45, 0.1), (0.15, 0.6)), ((0.15, 0.6), (0.85, 0.6)), ((0.65, 0.35), (0.65, 0.95))],
    1: [((0.9, 0.5), (0.87, 0.95))],
}


@browsing
@pytest.mark.parametrize("digit", DRAWINGS)
def test_a_drawn_digit_has_the_probabilities_of_pytorch(browser: Browser, digit: int) -> None:
    seen = draw(browser, *DRAWINGS[digit])
    image = floats(seen["image"], 1, 1, 42, 42)
    network = digits.Looking(stn.models.load(digits.NAME))
    with torch.no_grad():
        probabilities, theta, crop = network.eval()(image)
    assert (torch.tensor(seen["probabilities"]) - probabilities[0]).abs().max() < 1e-3
    assert torch.allclose(torch.tensor(seen["bars"]), probabilities[0], atol=1e-3)
    assert seen["reading"] == str(digit) == str(probabilities[0].argmax().item())
    assert (torch.tensor(seen["theta"]) - theta.flatten()).abs().max() < 1e-3
    assert (floats(seen["look"], 1, 1, 56, 56) - crop).abs().max() < 1e-3 < 0.5 < crop.max()
    shown = np.frombuffer(base64.b64decode(seen["shown"]), np.uint8).reshape(56, 56, 4)[..., 0]
    assert np.abs(shown - 255 * crop[0, 0].numpy()).max() < 1

    # The region: lines through the nodes of a grid of 5 x 5, and none through the centers of its cells.
    width, colors = browser.run(YELLOW)
    yellow = torch.tensor(colors).reshape(width, width)
    for shift, expected in ((0.0, 1), (0.25, 0)):
        lattice = torch.linspace(-1, 1, 5) + shift
        nodes = torch.cartesian_prod(lattice, lattice, torch.ones(1)) @ theta[0].T
        at = ((nodes / 1.7 + 1) / 2 * width).floor().long()  # the picture shows the image from -1.7 to 1.7
        at = at[((at > 0) & (at < width - 1)).all(dim=1)]
        assert len(at) >= 15
        assert (yellow[at[:, 1], at[:, 0]] == expected).float().mean() >= 0.9


@browsing
def test_a_drawing_of_any_size_has_the_size_of_the_training_images(browser: Browser) -> None:
    for digit, strokes in DRAWINGS.items():
        image = floats(draw(browser, *strokes)["image"], 42, 42)
        inked = [(image > 0.1).any(dim=axis).nonzero().flatten() for axis in (0, 1)]
        longer = max(int(part[-1] - part[0]) + 1 for part in inked)
        assert 14 <= longer <= 27, digit  # 24, and the soft edge of the pen
        assert min(int(part[0]) for part in inked) >= 0 and image[0].max() == image[-1].max() == 0


@browsing
def test_a_turned_drawing_turns_the_region(browser: Browser) -> None:
    before = draw(browser, *DRAWINGS[4])
    slider = "const turn = document.querySelector('[data-part=turn]');"
    browser.run(f"{slider} turn.value = 30; turn.dispatchEvent(new Event('input'))")
    after = settled(browser)

    def angle(seen: dict[str, Any]) -> float:
        theta = seen["theta"]
        return float(np.degrees(np.arctan2(theta[3], theta[0])))

    assert after["reading"] == "4" and 10 < angle(after) - angle(before) < 50


@browsing
def test_a_cleared_pad_shows_no_reading(browser: Browser) -> None:
    draw(browser, *DRAWINGS[1])
    browser.run("document.querySelector('[data-part=clear]').click()")
    script = "return [document.querySelector('[data-part=reading]').textContent, Digits.state.result]"
    assert browser.run(script) == ["–", None]


@browsing
def test_the_panel_fits_a_phone_and_asks_no_other_host(browser: Browser, address: str) -> None:
    draw(browser, *DRAWINGS[7])
    script = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    asked: list[str] = browser.run(script)
    assert any(name.endswith(".wasm") for name in asked)
    assert [name for name in asked if not name.startswith((address, "data:"))] == []
    assert browser.run("return document.documentElement.scrollWidth") <= 390
    assert browser.console() == []


@browsing
def test_the_page_names_the_size_of_the_download(folder: Path) -> None:
    files = [folder / "assets/playground/digits.onnx", *(folder / "assets/onnxruntime" / name for name in runtime.FILES)]
    content = b"".join(path.read_bytes() for path in files)
    (sizes,) = re.findall(r"(\d+) MB, or (\d+) MB from a server", (ROOT / "docs/playground.md").read_text())
    assert sizes == tuple(f"{round(len(part) / 1e6)}" for part in (content, zlib.compress(content, 6)))


def test_without_the_runtime_a_sentence_replaces_the_panel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = type("Page", (), {"file": type("File", (), {"src_uri": "playground.md"})})
    text = (ROOT / "docs/playground.md").read_text()
    monkeypatch.setattr(digits.runtime, "FOLDER", tmp_path)
    shown = digits.on_page_markdown(text, page, None, None)
    assert digits.MISSING in shown and "digits.js" not in shown and "page.js" in shown
    monkeypatch.setattr(digits.runtime, "installed", lambda: True)
    assert digits.on_page_markdown(text, page, None, None) == text


def test_another_package_than_the_expected_one_is_refused(tmp_path: Path) -> None:
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name in runtime.FILES:
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = 4
            tar.addfile(member, BytesIO(b"code"))
    content, target = archive.getvalue(), tmp_path / "new"
    assert "must have the SHA-512" in runtime.unpack(content, target, runtime.SHA512)
    assert not target.exists()
    (found,) = re.findall(r"got (\S+)", runtime.unpack(content, target, runtime.SHA512))
    assert runtime.unpack(content, target, found) == ""
    assert sorted(path.name for path in target.iterdir()) == sorted(runtime.FILES)


def test_without_npm_the_reason_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runtime, "FOLDER", tmp_path / "none")
    monkeypatch.setattr(runtime.shutil, "which", lambda name: None)
    assert runtime.install() == "npm is not installed"
