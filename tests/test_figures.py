"""The pictures show what they say."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import stn
from stn.experiments import Run, RunFolder
from stn.experiments.train import train
from stn.figures import COLORS, curves, draw_run, looks, save


def test_the_outline_is_where_the_look_is(tmp_path: Path) -> None:
    images = torch.rand(2, 1, 20, 30)
    theta = torch.tensor([[0.5, 0, 0.5, 0, 0.5, -0.5]]).repeat(2, 1)
    warp = stn.Affine()(theta)
    figure = looks(images, warp, warp.sample(images), ["a", "b"])
    assert len(figure.axes) == 6 and figure.axes[1].get_title() == "b"
    outline = np.concatenate([line.get_xydata() for line in figure.axes[0].lines])
    assert outline.min(axis=0) == pytest.approx([14.5, -0.5]) and outline.max(axis=0) == pytest.approx([29.5, 9.5])
    assert len(figure.axes[2].lines) == 18
    path = save(figure, tmp_path / "looks.png")
    with Image.open(path) as picture:
        assert picture.size[0] > 200
    assert list(tmp_path.iterdir()) == [path]


def test_looks_in_parallel_have_a_colour_each() -> None:
    images = torch.rand(3, 1, 12, 12)
    warp = stn.Attention()(torch.tensor([[[0.5, -0.5, 0], [0.5, 0.5, 0]]]).repeat(3, 1, 1))
    figure = looks(images, warp, warp.sample(images, (6, 6)), ["", "", ""])
    assert len(figure.axes) == 12
    assert {line.get_color() for line in figure.axes[0].lines} == set(COLORS[:2])


def test_curves_show_the_rows() -> None:
    rows = [
        {"split": "valid", "epoch": epoch, "error_percent": 20 / epoch, "train_error_percent": 30 / epoch}
        for epoch in (1, 2, 3)
    ]
    figure = curves([*rows, {"split": "test", "error_percent": 4.0}, {"split": "test", "error_percent": 5.0}], "run")
    training, validation, test = figure.axes[0].lines
    assert np.asarray(validation.get_xydata()).tolist() == [[1, 20], [2, 10], [3, 20 / 3]]
    assert np.asarray(training.get_ydata())[0] == 30 and "4.50 % over 2 draws" in str(test.get_label())


@pytest.mark.parametrize("model, names", (("st-fcn", ["curves.png", "looks.png"]), ("fcn", ["curves.png"])))
def test_a_run_is_drawn_into_its_folder(
    model: str, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stn.experiments.train.COPIES", {"digits": 1})
    folder = RunFolder(tmp_path / "run")
    train(Run(model=model, distortion="r", epochs=1, draws=1), folder, quiet=True)
    paths = draw_run(folder, count=3)
    assert sorted(path.name for path in paths) == names == sorted(path.name for path in folder.figures.iterdir())
