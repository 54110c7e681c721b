"""What the numbers of the linear families mean."""

import math

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

import stn
from stn.transforms import family
from stn.transforms.linear import corners_to_matrix
from tests.helpers import noise


def matrix(name: str, *theta: float) -> Tensor:
    """3x3 matrix of a warp, read off from where it takes four points: through `points`, not through its inside."""
    corners = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]], dtype=torch.float64)
    moved = family(name)(torch.tensor([theta], dtype=torch.float64)).points(corners)[0]
    source, target = (points.numpy().astype(np.float32) for points in (corners, moved))
    return torch.from_numpy(cv2.getPerspectiveTransform(source, target))


def affine(*rows: list[float]) -> Tensor:
    return torch.tensor([*rows, [0.0, 0.0, 1.0]], dtype=torch.float64)


C, S = math.cos(0.3), math.sin(0.3)


@pytest.mark.parametrize(
    "name, theta, expected",
    [
        ("translation", (0.1, -0.2), affine([1, 0, 0.1], [0, 1, -0.2])),
        ("rigid", (0.3, 0.1, -0.2), affine([C, -S, 0.1], [S, C, -0.2])),
        ("similarity", (0.5, 0.3, 0.1, -0.2), affine([C / 2, -S / 2, 0.1], [S / 2, C / 2, -0.2])),
        ("attention", (0.5, 0.1, -0.2), affine([0.5, 0, 0.1], [0, 0.5, -0.2])),
        ("affine", (1, 0.2, 0.1, -0.3, 0.9, -0.2), affine([1, 0.2, 0.1], [-0.3, 0.9, -0.2])),
        ("projective", (1, 0.2, 0.1, -0.3, 0.9, -0.2, 0.3, -0.1), None),
    ],
)
def test_parameters(name: str, theta: tuple[float, ...], expected: Tensor | None) -> None:
    if expected is None:
        expected = torch.tensor([*theta, 1.0], dtype=torch.float64).view(3, 3)
    torch.testing.assert_close(matrix(name, *theta), expected, atol=1e-6, rtol=0)


def test_each_family_contains_the_one_before() -> None:
    image, t, angle = noise(1, 2, 8, 8), (0.1, -0.2), 0.4
    c, s = math.cos(angle), math.sin(angle)
    chains: list[list[tuple[str, tuple[float, ...]]]] = [
        [
            ("translation", t),
            ("rigid", (0, *t)),
            ("similarity", (1, 0, *t)),
            ("attention", (1, *t)),
            ("affine", (1, 0, t[0], 0, 1, t[1])),
            ("projective", (1, 0, t[0], 0, 1, t[1], 0, 0)),
        ],
        [
            ("rigid", (angle, *t)),
            ("similarity", (1, angle, *t)),
            ("affine", (c, -s, t[0], s, c, t[1])),
            ("projective", (c, -s, t[0], s, c, t[1], 0, 0)),
        ],
        [("attention", (0.6, *t)), ("similarity", (0.6, 0, *t)), ("affine", (0.6, 0, t[0], 0, 0.6, t[1]))],
    ]
    for chain in chains:
        samples = [family(name)(torch.tensor([theta], dtype=torch.float64)).sample(image) for name, theta in chain]
        for sample in samples[1:]:
            torch.testing.assert_close(sample, samples[0], atol=1e-14, rtol=0)


def test_an_affine_map_is_a_spline() -> None:
    """Thin-plate splines reproduce affine maps: offsets A p + t - p bend nothing."""
    spline, image = stn.ThinPlateSpline(), noise(1, 1, 8, 9)
    a = torch.tensor([[0.8, 0.2, 0.1], [-0.3, 0.9, 0.05]], dtype=torch.float64)
    p = spline.control_points
    offsets = p @ a[:, :2].T + a[:, 2] - p
    expected = stn.affine_sample(image, a)
    torch.testing.assert_close(spline(offsets.view(1, -1)).sample(image), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("ndim", (2, 3))
def test_volumes(ndim: int) -> None:
    size = (4, 5, 6)[:ndim]
    image = noise(2, 1, *size)
    t = torch.tensor([0.2, -0.1, 0.3], dtype=torch.float64)[:ndim]
    moved = stn.affine_sample(image, torch.cat([torch.eye(ndim, dtype=torch.float64), t[:, None]], dim=1))
    scaled = stn.affine_sample(image, torch.cat([0.7 * torch.eye(ndim, dtype=torch.float64), t[:, None]], dim=1))
    assert torch.equal(stn.Translation(ndim)(t.expand(2, -1)).sample(image), moved)
    look = torch.cat([torch.tensor([0.7], dtype=torch.float64), t])
    torch.testing.assert_close(stn.Attention(ndim)(look.expand(2, -1)).sample(image), scaled)
    for transform in (stn.Affine(ndim), stn.Projective(ndim)):
        assert torch.equal(transform(transform.identity().expand(2, -1)).sample(image), image)


def test_a_homography_from_its_corners() -> None:
    square = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]], dtype=torch.float64)
    assert torch.equal(corners_to_matrix(square), torch.eye(3, dtype=torch.float64))
    corners = square + 0.3 * noise(6, 4, 2)
    found = corners_to_matrix(corners)
    for moved, ours in zip(corners, found, strict=True):
        theirs = cv2.getPerspectiveTransform(square.numpy().astype(np.float32), moved.numpy().astype(np.float32))
        np.testing.assert_allclose((ours / ours[2, 2]).numpy(), theirs, atol=1e-5)
        assert ours[2] @ torch.ones(3, dtype=torch.float64) != 0
