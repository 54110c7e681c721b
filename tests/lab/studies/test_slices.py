"""The picture of two slices: its numbers, and a method that is not installed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from stn.io.images import read_picture
from stn.lab.bench.rivals import Rival
from stn.lab.studies import slices
from tests.helpers import seeded

IMAGE = torch.nn.functional.interpolate(torch.rand(1, 1, 6, 7, generator=seeded()), (40, 48), mode="bicubic").clamp(0, 1)
MOVING = IMAGE[0, 0].numpy()


def test_a_map_is_read_where_it_points_and_its_folds_are_counted() -> None:
    image, folds = slices.warped(MOVING, lambda points: points + [3.0, 2.0])  # x first
    np.testing.assert_allclose(image[:-2, :-3], MOVING[2:, 3:], atol=1e-6)
    assert folds == 0
    assert slices.warped(MOVING, lambda points: points * [-1.0, 1.0])[1] == 1


def test_the_picture_has_a_column_per_map_and_its_correlation(tmp_path: Path) -> None:
    fixed = np.roll(MOVING, 2, axis=1)
    numbers = slices.draw(MOVING, fixed, {"right": lambda points: points - [2.0, 0.0]}, tmp_path / "a.png")
    assert list(numbers) == ["moving", "right"] and numbers["moving"][0] < 0.95 < numbers["right"][0]
    assert read_picture(tmp_path / "a.png").shape[0] in (3, 4)


def test_a_method_that_is_not_installed_has_no_column(monkeypatch: pytest.MonkeyPatch) -> None:
    def shift(moving: np.ndarray, fixed: np.ndarray, family: str) -> slices.Move:
        assert family == slices.DEFORMABLE
        return lambda points: points + 1

    names = []
    for module in ("no_such_package", "stn"):
        monkeypatch.setattr(slices, "RIVALS", (Rival("ANTs", module, shift),))
        names.append(list(slices.found(MOVING, MOVING)))
    assert names == [
        ["stn, affine", "stn, affine and velocity"],
        ["stn, affine", "stn, affine and velocity", "ANTs, affine and SyN"],
    ]
