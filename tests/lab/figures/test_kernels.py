"""The figure of kernels shows the weights that the operators use."""

import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from stn.lab.figures.kernels import PANELS, SIDE, draw_kernels, kernels, weights

MIDDLE = SIDE // 2


@pytest.mark.parametrize("name", PANELS)
def test_weights_add_up_to_one_and_balance_at_the_point(name: str) -> None:
    """The weights sum to 1. For kernels that are exact on ramps, the center of mass of the weights is the point."""
    point = (0.25, 0.375)
    weight = weights(point, **PANELS[name])
    assert weight.sum().item() == pytest.approx(1, abs=1e-5)
    place = torch.arange(SIDE) - MIDDLE
    center = ((weight.sum(dim=0) * place).sum().item(), (weight.sum(dim=1) * place).sum().item())
    tolerance = {"nearest": 0.5, "Lanczos-3": 0.02, "bicubic": 0.1}.get(name, 1e-4)  # Keys with a = -0.75 is not exact
    if "antialiased" not in name:
        assert center == pytest.approx(point, abs=tolerance)
    else:  # a pyramid level has larger pixels
        assert center == pytest.approx(point, abs=0.6) and (weight > 1e-3).sum() > 9


def test_weights_of_bilinear_sampling() -> None:
    found = weights((0.25, 0.5), mode="bilinear")[MIDDLE : MIDDLE + 2, MIDDLE : MIDDLE + 2]
    assert torch.allclose(found, torch.tensor([[0.375, 0.125], [0.375, 0.125]]), atol=1e-6)
    assert weights((0.5, 0.0), mode="bicubic")[MIDDLE, MIDDLE - 1].item() == pytest.approx(-0.09375)
    pole = math.sqrt(3) - 2  # of the B-spline's prefilter, which reaches far beyond the kernel's four taps
    far = weights((0.5, 0.0), mode="bspline")[MIDDLE, MIDDLE + 4 : MIDDLE + 6]
    assert (far[1] / far[0]).item() == pytest.approx(pole, abs=1e-2)


def test_each_panel_shows_its_kernel_at_each_point(tmp_path: Path) -> None:
    figure = kernels([(0.0, 0.0), (0.5, 0.5)])
    panels = figure.axes[: 2 * len(PANELS)]
    assert [ax.get_title() for ax in panels[: len(PANELS)]] == list(PANELS)
    between = panels[len(PANELS) + 1].images[0].get_array()
    assert between is not None and between[4, 4] == pytest.approx(0.5)  # the square root of a quarter


def test_they_are_drawn_standing_and_in_motion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stn.lab.figures.kernels.TURN", 3)
    still, moving = draw_kernels(tmp_path)
    with Image.open(moving) as film:
        assert still.name == "kernels.png" and getattr(film, "n_frames", 1) == 3 and film.width == 800
