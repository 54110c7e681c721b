"""The examples run, and the two scripts of the pair differ in only a few lines."""

import difflib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stn.lab.experiments import Run, RunFolder
from stn.lab.experiments.tasks import TASKS

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("name", ("mnist_plain.py", "mnist_stn.py"))
def test_examples_run(name: str) -> None:
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), "--steps", "100"]
    out = subprocess.run(command, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    found = re.search(r"parameters, test error ([\d.]+) %", out.stdout)
    assert found and float(found[1]) < 25, out.stdout  # a random guess has 90 % errors


def test_the_picture_of_aliasing(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "aliasing.png"
    command = [sys.executable, "-W", "error", str(EXAMPLES / "aliasing.py"), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == str(out), done.stderr
    with Image.open(out) as picture:
        pixels = np.asarray(picture.convert("L"), dtype=float)
    height, width = pixels.shape
    panels = [pixels[height // 10 : 2 * height // 5, width * i // 3 + 30 : width * (i + 1) // 3 - 30] for i in range(3)]
    plain, isotropic, anisotropic = (panel.std() for panel in panels)
    assert plain > 2 * isotropic and plain > 2 * anisotropic


def test_the_pair_differs_only_where_it_should() -> None:
    plain, layer = ((EXAMPLES / name).read_text().splitlines() for name in ("mnist_plain.py", "mnist_stn.py"))
    added = [line for line in difflib.ndiff(plain, layer) if line.startswith("+ ")]
    assert len(added) <= 8


def run_code_of(page: str, count: int) -> dict[str, Any]:
    """Run the code blocks of a page in order, after checking their number, and return the variables."""
    blocks = re.findall(r"```python\n(.*?)```", (EXAMPLES.parent / page).read_text(), flags=re.DOTALL)
    assert len(blocks) == count
    names: dict[str, Any] = {}
    exec("".join(blocks), names)
    return names


def test_the_code_about_sampling_runs() -> None:
    names = run_code_of("docs/sampling.md", 5)
    assert names["small"].shape == (8, 3, 64, 64) and names["theta"].grad[:, 0].abs().min() > 0
    assert names["seen"].shape == (8, 3, 256, 256) and 0.9 < names["seen"].float().mean() < 1


def test_the_code_of_the_readme_runs() -> None:
    names = run_code_of("README.md", 3)
    assert names["logits"].shape == (8, 10) and names["crops"].shape == (8, 3, 128, 128)
    assert torch.equal(names["corners"][3], torch.tensor([[-1.0, -1], [1, 1]]))
    xy = 0.5 * torch.rand(20, 2)
    assert torch.allclose(names["back"].points(names["both"].points(xy)), xy.expand(8, -1, -1), atol=1e-3)
    assert (names["folds"] == 0).all() and names["matrix"].shape == (8, 3, 3)


def test_the_rectifier_is_shown_on_photographs(tmp_path: Path) -> None:
    """The weights are those before training, so the look is the whole image."""
    run = RunFolder(tmp_path / "run")
    run.open(Run(distortion="curved", model="st-crnn"))
    weights = TASKS["curved"].build("st-crnn", "affine").state_dict()
    parts = dict.fromkeys(("network", "average", "evaluated"), weights) | {"optimizer": {}, "schedule": {"last_epoch": 1}}
    row = {"split": "valid", "error_percent": 100.0} | dict.fromkeys(("epoch", "step"), 1)
    row |= dict.fromkeys(("loss", "train_loss", "train_error_percent", "images_per_second", "seconds"), 1.0)
    run.save(parts | {"epoch": 1, "step": 1, "seconds": 1.0}, [row])
    pixels = np.full((40, 90, 3), 200, dtype=np.uint8)
    pixels[10:30, 20:70] = 30
    Image.fromarray(pixels).save(tmp_path / "word.png")
    out = tmp_path / "rectified.png"
    command = [sys.executable, "-W", "error", str(EXAMPLES / "rectify.py"), str(run.path), str(tmp_path / "word.png")]
    subprocess.run([*command, "--out", str(out)], check=True)
    with Image.open(out) as picture:
        shown = np.asarray(picture.convert("L")).astype(float)
    thirds = [shown[30:-10, 10:290], shown[30:-10, 310:590], shown[30:-10, 610:890]]
    assert thirds[0].mean() < thirds[2].mean()  # the rectifier expects light on dark, unlike the photograph
    assert np.median(thirds[2]) > 150 and thirds[2].min() < 50
