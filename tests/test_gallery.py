"""The gallery of the documentation: each script makes its picture, and each notebook is its script."""

import importlib.util
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("gallery", ROOT / "docs/extensions/gallery.py")
assert spec and spec.loader
gallery = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gallery)
ENTRIES = {entry.name: entry for entry in gallery.entries()}
JUPYTER = ("nbformat", "nbclient", "ipykernel")
EXECUTED = ("sampling_grid", "own_warp")  # `make docs` executes all notebooks


def test_each_script_is_an_entry() -> None:
    assert sorted(ENTRIES) == sorted(path.stem for path in (ROOT / "docs/gallery").glob("*.py"))
    assert len(ENTRIES) >= 20 and len({entry.title for entry in ENTRIES.values()}) == len(ENTRIES)


@pytest.mark.parametrize("name", ENTRIES)
def test_a_script_is_short_and_makes_its_picture(name: str) -> None:
    entry = ENTRIES[name]
    assert len((ROOT / f"docs/gallery/{name}.py").read_text().splitlines()) <= 40
    assert entry.title and entry.text.endswith(".") and entry.code.endswith("\nplt.show()\n")
    with Image.open(io.BytesIO(gallery.picture(entry))) as picture:
        pixels = np.asarray(picture.convert("RGBA")).astype(float)
    height, width = pixels.shape[:2]
    assert 350 < width < 800 and 100 < height < 400  # small enough for a phone
    assert pixels[..., 3].mean() > 5 and pixels[pixels[..., 3] > 0].std() > 20  # it is not blank


def test_a_script_that_shows_nothing_is_seen() -> None:
    entry = next(iter(ENTRIES.values()))
    with pytest.raises(ValueError):
        gallery.picture(entry._replace(code="x = 1\n"))
    with pytest.raises(ZeroDivisionError):
        gallery.picture(entry._replace(code="1 / 0\n"))


@pytest.mark.parametrize("name", ENTRIES)
def test_a_notebook_is_its_script(name: str) -> None:
    entry = ENTRIES[name]
    book = json.loads(gallery.notebook(entry))
    (title, *code) = [cell["source"] for cell in book["cells"]]
    assert title.startswith(f"# {entry.title}\n") and all(code)
    assert "\n".join(code).split() == entry.code.split()
    assert [bool(re.search(r"^(import|from) ", cell, flags=re.MULTILINE)) for cell in code] == [True, False]


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in JUPYTER),
    reason=f"{', '.join(JUPYTER)} not installed (extra docs)",
)
def test_notebooks_execute() -> None:
    command = [sys.executable, str(ROOT / "docs/extensions/gallery.py"), *EXECUTED]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [word for name in EXECUTED for word in (f"{name}:", "executed")]
