"""The playground of the documentation: its formulas, its code and its control points, in a browser and in the library."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import stn
from tests.lab.page.browser import MISSING, Browser

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"{' and '.join(MISSING)} not installed (Debian: chromium, chromium-driver)"
)
RANGES: dict[str, dict[str, Any]] = {  # of the parameters of a family, far from the identity
    "translation": {"translation": (-0.7, 0.7)},
    "rigid": {"angle": (0.4, 1.2), "translation": (-0.3, 0.3)},
    "similarity": {"scale": (0.5, 1.4), "angle": (-1.2, -0.4), "translation": (-0.3, 0.3)},
    "attention": {"scale": (0.3, 0.6), "translation": (-0.5, 0.5)},
    "anisotropic_scale": {"scale": (0.3, 1.3), "translation": (-0.4, 0.4)},
    "affine": {"matrix": (-1.1, 1.1), "translation": (-0.3, 0.3)},
    "corners": {"offsets": (-0.4, 0.4)},
    "projective": {"matrix": (0.2, 1.0), "translation": (-0.2, 0.2), "perspective": (-0.4, 0.4)},
    "tps": {"offsets": (-0.15, 0.15)},
    "bspline": {"displacement": (-0.4, 0.4)},
    "displacement": {"displacement": (-0.3, 0.3)},
}
SEEN = """
const bytes = (array) => {
  let text = "";
  const all = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  for (let i = 0; i < all.length; i += 8192) text += String.fromCharCode(...all.subarray(i, i + 8192));
  return btoa(text);
};
const {w, h, pixels, theta, name, border, drawn} = Playground.state;
const found = new Float32Array(3 * w * h);
Playground.warp(Playground.families[name], theta, Playground.state, border, null, found);
const copy = Object.assign(document.createElement("canvas"), {width: w, height: h}).getContext("2d");
copy.drawImage(document.querySelector('[data-part="output"]'), 0, 0);
const shown = copy.getImageData(0, 0, w, h).data;
const code = document.querySelector('[data-part="code"]').textContent;
return {w, h, theta, code, drawn, found: bytes(found), pixels: bytes(pixels), shown: bytes(shown)};
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page without the theme of the site, which needs no build. `test_pages.py` opens it within the theme."""
    text = (ROOT / "docs/playground.md").read_text()
    (part,) = re.findall(r"<link.*?page.js\"></script>", text, flags=re.DOTALL)
    path = tmp_path_factory.mktemp("playground") / "page.html"
    part = part.replace("../assets", (ROOT / "docs/assets").as_uri())
    path.write_text(f'<!DOCTYPE html><meta charset="utf-8"><body style="height: 3000px">{part}')
    return path


@pytest.fixture(scope="module")
def browser(page: Path) -> Iterator[Browser]:
    with Browser(390, 900) as browser:
        browser.open(page)
        yield browser


def array(text: str, dtype: Any, *shape: int) -> np.ndarray:
    found = np.frombuffer(base64.b64decode(text), dtype)
    return found.reshape(shape)


def differences(seen: dict[str, Any], **other: str) -> tuple[float, float]:
    """Run the code on the page, and return the largest difference from its samples and from the pixels that it shows."""
    h, w = seen["h"], seen["w"]
    image = torch.from_numpy(array(seen["pixels"], np.uint8, h, w, 4)[..., :3].copy()).movedim(2, 0)[None].float()
    names: dict[str, Any] = {"image": image}
    exec(other.get("code", seen["code"]), names)
    output = names["output"]
    assert isinstance(output, Tensor) and output.shape == image.shape
    assert (output - image).abs().mean() > 1  # a warp that is visible
    found = torch.from_numpy(array(seen["found"], np.float32, h, w, 3).copy()).movedim(2, 0)
    shown = torch.from_numpy(array(seen["shown"], np.uint8, h, w, 4)[..., :3].copy()).movedim(2, 0)
    return (found - output[0]).abs().max().item(), (shown - output[0]).abs().max().item()


def select(browser: Browser, name: str, theta: Tensor, padding: str = "zeros") -> dict[str, Any]:
    script = f"Playground.state.border = {str(padding == 'border').lower()}; Playground.select('{name}', {theta.tolist()});"
    seen: dict[str, Any] = browser.run(script + SEEN)
    return seen


# The graphics processor is emulated here, in float32: a point may be off by 1e-4 pixels, and a sample by 0.03.
BY = {"graphics": 0.53, "canvas": 0.52}
CASES = [(name, "zeros") for name in RANGES] + [(name, "border") for name in ("affine", "corners", "tps", "bspline")]


@pytest.fixture(params=BY)
def drawn(browser: Browser, request: pytest.FixtureRequest) -> str:
    """Make the page draw by the graphics processor, as software, or by the canvas, and return which."""
    browser.run(f"Playground.drawBy('{request.param}', true)")
    return str(request.param)


@pytest.mark.parametrize("name, padding", CASES)
def test_the_output_is_that_of_the_library(browser: Browser, drawn: str, name: str, padding: str) -> None:
    families: list[str] = browser.run("return Object.keys(Playground.families)")
    assert sorted(families) == sorted(RANGES)
    family = {"bspline": stn.BSpline(shape=(6, 6)), "displacement": stn.Displacement(shape=(5, 5))}.get(name)
    family = family or stn.transforms.family(name)
    theta = family.draw(1, generator=torch.Generator().manual_seed(3), **RANGES[name])[0]
    seen = select(browser, name, theta, padding)
    assert np.allclose(seen["theta"], theta.numpy(), atol=1e-3)
    of_samples, of_pixels = differences(seen)
    assert seen["drawn"] == drawn
    assert of_samples < 0.02 and of_pixels < BY[drawn]  # pixels are rounded


def test_a_slow_browser_draws_fewer_pixels_until_the_picture_rests(browser: Browser) -> None:
    """At rest the output is that of the library again. A fast browser always draws all pixels."""
    output = "document.querySelector('[data-part=output]')"
    size = f"[{output}.width, {output}.height]"
    select(browser, "affine", torch.tensor([0.7, 0.3, 0.0, -0.3, 0.7, 0.0]))
    moved = f"""
    Playground.drawBy("canvas");
    return (async () => {{
      const seen = [];
      for (const cost of [1, 1000]) {{
        Playground.state.paint.cost = cost;
        Playground.update([0.8, 0.2, 0.1, -0.2, 0.8, 0]);
        await new Promise(requestAnimationFrame);
        seen.push({size});
      }}
      while ({output}.width < Playground.state.w) await new Promise((wake) => setTimeout(wake, 20));
      return [...seen, {size}];
    }})();
    """
    whole = browser.run("return [Playground.state.w, Playground.state.h]")
    assert browser.run(moved) == [whole, [n // 2 for n in whole], whole]
    assert differences(browser.run(SEEN))[1] < 0.52


def test_a_browser_that_became_fast_draws_all_pixels_again(browser: Browser) -> None:
    """The first drawing of a page is slow, because the browser has not compiled its code. The next ones are not."""
    moved = """
    Playground.drawBy("canvas");
    Playground.state.paint.cost = 1000;
    const now = performance.now;
    return (async () => {
      const seen = [];
      for (const took of TOOK) {
        performance.now = () => (performance.calls = (performance.calls || 0) + 1) % 2 ? 0 : took;
        Playground.render(true);
        seen.push(document.querySelector('[data-part=output]').width === Playground.state.w);
      }
      performance.now = now;
      return seen;
    })();
    """
    select(browser, "affine", torch.tensor([0.7, 0.3, 0.0, -0.3, 0.7, 0.0]))
    assert browser.run(moved.replace("TOOK", "[1, 4, 12, 12]")) == [False, True, True, False]
    assert browser.run(moved.replace("TOOK", "[4, 4, 4]")) == [False, False, False]


def test_another_warp_is_another_output(browser: Browser) -> None:
    seen = select(browser, "affine", torch.tensor([0.9, 0.2, 0.1, -0.2, 0.8, 0.0]))
    assert differences(seen)[0] < 0.02 < 5 < differences(seen, code=seen["code"].replace("0.2", "0.21"))[0]


AT = "const box = document.querySelectorAll('[data-part=stage] button')[{}].getBoundingClientRect();"
CENTER = AT + "return [box.left + box.width / 2, box.top + box.height / 2, box.width];"


@pytest.mark.parametrize("name", RANGES)
def test_a_finger_moves_each_control_point(browser: Browser, name: str) -> None:
    """The sampling point of the control point is then below the finger, at the width of a phone."""
    browser.run("Playground.state.border = false; Playground.drawBy('canvas');")
    browser.run(f"Playground.select('{name}'); scrollTo(0, 0)")
    count = browser.run("return document.querySelectorAll('[data-part=stage] button').length")
    for i in sorted({0, count - 1}):
        x, y, width = browser.run(CENTER.format(i))
        assert width >= 40
        browser.drag((round(x), round(y)), (round(x) + 20, round(y) + 15))
        moved = browser.run(CENTER.format(i))
        if i and name in ("rigid", "attention"):  # these cannot follow the finger in both directions
            assert moved != [x, y, width]
        else:
            assert abs(moved[0] - x - 20) <= 1.5 and abs(moved[1] - y - 15) <= 1.5
    assert browser.run("return scrollY") == 0  # the finger moves the point and not the page
    assert differences(browser.run("Playground.render();" + SEEN))[0] < 0.02
    messages = [message for message in browser.console() if "playground" in message]
    assert not [message for message in messages if "GPU stall" not in message]  # Chromium: emulated graphics are slow
