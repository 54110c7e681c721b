"""Extruded digits: complete bodies, rotated but never seen from behind, at any position in the volume."""

import math

import pytest
import torch
from torch import Tensor

from stn.lab.data.scenes import SCENES
from stn.lab.data.volumes import THICKNESS
from tests.helpers import seeded

N = 60
SOLID = torch.zeros(N, 1, 28, 28)
SOLID[..., 4:24, 4:24] = 1  # the extent of the strokes of MNIST's digits


def body(name: str, images: Tensor) -> Tensor:  # (N, D, H, W)
    return SCENES[name].draw(images, torch.zeros(N, dtype=torch.int64), seeded()).x[:, 0]


def moments(volume: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mass (N,), center of mass (N, 3) in (x, y, z) and covariance (N, 3, 3), in voxels."""
    at = torch.arange(volume.shape[-1]) - (volume.shape[-1] - 1) / 2
    points = torch.stack(torch.meshgrid(at, at, at, indexing="ij")[::-1], dim=-1).flatten(0, 2)
    mass = volume.flatten(1)
    middle = (mass @ points) / mass.sum(dim=1, keepdim=True)
    apart = points - middle[:, None]
    covariance = (apart * mass[:, :, None]).mT @ apart / mass.sum(dim=1)[:, None, None]
    return mass.sum(dim=1), middle, covariance


@pytest.mark.parametrize(("name", "low", "high"), (("extruded_32", 0.6, 0.9), ("extruded", 0.7, 1.2)))
def test_whole_bodies_of_every_size_and_place(name: str, low: float, high: float) -> None:
    volume = body(name, SOLID)
    side = volume.shape[-1]
    assert volume.max() > 0.95
    for axis in (1, 2, 3):
        assert volume.select(axis, 0).max() < 0.3 and volume.select(axis, side - 1).max() < 0.3  # no body is cut off
    mass, middle, covariance = moments(volume)
    scale = (mass / (20 * 20 * THICKNESS)) ** (1 / 3)
    assert low * 0.97 < scale.min() < low * 1.1 and high * 0.9 < scale.max() < high * 1.03
    assert middle.abs().max() < side / 2 - 14 * low and middle.abs().amax(dim=0).min() > 0.6 * (side / 2 - 14.5 * low)
    extents = torch.linalg.eigvalsh(covariance).clamp_min(0).mul(12).sqrt() / scale[:, None]  # of a box, from variances
    torch.testing.assert_close(extents.median(dim=0).values, torch.tensor([THICKNESS, 20.0, 20.0]), rtol=0.08, atol=0)


def test_turned_about_every_axis_but_not_to_the_back() -> None:
    right, down = SOLID.clone(), SOLID.clone()
    right[..., :14], down[..., :14, :] = 0, 0
    whole = moments(body("extruded_32", SOLID))
    axes = []
    for half in (right, down):
        direction = moments(body("extruded_32", half))[1] - whole[1]
        axes.append(torch.nn.functional.normalize(direction, dim=1))
    x, y = axes
    z = torch.linalg.cross(x, y)
    for own, axis in enumerate((x, y, z)):
        assert axis[:, own].min() > math.cos(math.radians(79))  # |rotation vector| <= 45 sqrt(3) = 78 degrees
        assert axis[:, own].min() < 0.6 and axis[:, own].max() > 0.97
        assert axis.mean(dim=0)[own] > 0.7 and axis.std(dim=0).max() > 0.3
