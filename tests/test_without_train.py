"""Without the extra `train`, the library, warp, register and export work; the first two commands load no laboratory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import stn
from stn.io import read_picture, write_picture
from stn.lab.experiments import Run, RunFolder
from stn.lab.experiments.train import train
from tests.strokes import line_picture

# Packages of the extra that the command line itself does not need.
EXTRA = "h5py jinja2 lightning_fabric matplotlib rich scipy sklearn tensorboard torchmetrics"
# Import finders that hide these packages.
WITHOUT = f"""
import sys
class Without:
    def __init__(self, finder): self.finder = finder
    def __getattr__(self, name): return getattr(self.finder, name)
    def find_spec(self, name, *rest):
        return None if name.partition(".")[0] in {EXTRA.split()} else self.finder.find_spec(name, *rest)
sys.meta_path[:] = map(Without, sys.meta_path)
"""
LABORATORY = "print('laboratory', any(name.split('.')[:2] == ['stn', 'lab'] for name in sys.modules))"
COMMAND = """
import runpy
sys.argv = ["stn", *sys.argv[1:]]
try:
    runpy.run_module("stn", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
"""
READ = f"{COMMAND}\nprint('kernels', 'numba' in sys.modules)"
STEP = """
import torch, stn, stn.models, stn.io, stn.export
layer = stn.SpatialTransformer.for_input((1, 28, 28), "affine")
optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
before = [p.clone() for p in layer.parameters()]
layer(torch.rand(2, 1, 28, 28)).square().mean().backward()
optimizer.step()
assert any((p != q).any() for p, q in zip(layer.parameters(), before))
"""


def without_train(code: str, *words: object, place: Path) -> list[str]:
    """Run code in a process that lacks these packages, and return its output as lines."""
    environment = os.environ | {"PYTHONPATH": str(Path(stn.__file__).parents[1])}
    command = [sys.executable, "-c", f"{WITHOUT}{code}\n{LABORATORY}", *map(str, words)]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 4, 4), size=(24, 24), mode="bicubic").clamp(0, 1)[0]
    write_picture(smooth, tmp_path / "in.png")
    return tmp_path / "in.png"


def test_the_packages_are_missing_there(tmp_path: Path) -> None:
    code = "import importlib.util\nfor name in sys.argv[1:]:\n    print(name, importlib.util.find_spec(name))"
    said = without_train(code, *EXTRA.split(), place=tmp_path)
    assert said[:-1] == [f"{name} None" for name in EXTRA.split()]


def test_a_layer_learns(tmp_path: Path) -> None:
    assert without_train(STEP, place=tmp_path) == ["laboratory False"]


def test_a_picture_is_warped(picture: Path, tmp_path: Path) -> None:
    said = without_train(COMMAND, "warp", "in.png", "out.png", "--rotate", 180, place=tmp_path)
    assert said == ["out.png", "laboratory False"]
    torch.testing.assert_close(read_picture(tmp_path / "out.png"), read_picture(picture).flip(1, 2))


def test_a_picture_is_registered(picture: Path, tmp_path: Path) -> None:
    said = without_train(COMMAND, "register", "in.png", "in.png", "out.png", "--steps", 2, place=tmp_path)
    assert said[-2:] == ["out.png", "laboratory False"] and read_picture(tmp_path / "out.png").shape == (3, 24, 24)


def test_a_digit_is_read(tmp_path: Path) -> None:
    page = torch.ones(1, 60, 80)
    page[:, 10:50, 38:43] = 0  # a black stroke
    write_picture(page, tmp_path / "one.png")
    said = without_train(READ, "read", "one.png", place=tmp_path)
    assert said[0].startswith("one.png: 1 (") and said[1:] == ["kernels False", "laboratory False"]


def test_a_curved_line_is_read(tmp_path: Path) -> None:
    write_picture(line_picture("1407", 2.0), tmp_path / "line.png")
    said = without_train(READ, "read", "line.png", place=tmp_path)
    assert said[0].startswith("line.png: 1407 (") and said[1:] == ["kernels False", "laboratory False"]


def test_a_run_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stn.lab.experiments.train.COPIES", {"digits": 1})
    run = Run(distortion="none", model="st-fcn", epochs=1, draws=1, batch_size=256)
    train(run, RunFolder(tmp_path / "run"), quiet=True)
    said = without_train(COMMAND, "export", "run", "model.onnx", place=tmp_path)
    assert "model.onnx: opset 20" in said[-2] and (tmp_path / "model.onnx").stat().st_size > 10_000


def test_a_command_that_trains_says_what_is_missing(tmp_path: Path) -> None:
    code = COMMAND.replace("assert not end.code, end.code", "print(end.code)")
    environment = os.environ | {"PYTHONPATH": str(Path(stn.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT + code, "demo"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout == "2\n", done.stderr
    assert done.stderr.startswith("stn: the package ") and done.stderr.endswith("pip install 'torch-stn[train]'\n")
