"""Laws that every family obeys, over the table of families."""

from typing import Any

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import stn
from stn.grid import lattice, normalized_to_pixel
from stn.transforms import FAMILIES, family
from tests.helpers import near_identity, noise, ramp

SIZE, OUT = (7, 9), (6, 5)
pytestmark = pytest.mark.parametrize("name", FAMILIES)


@pytest.mark.parametrize("align_corners", (False, True))
def test_the_identity_returns_the_image(name: str, align_corners: bool) -> None:
    transform = family(name)
    theta = transform.identity()
    assert theta.shape == (transform.num_params,)
    for n in range(1, 66):
        image = noise(2, 1, n, 66 - n, dtype=torch.float32, seed=n)
        out = transform(theta.expand(2, -1)).sample(image, align_corners=align_corners)
        torch.testing.assert_close(out, image, atol=1e-6, rtol=0)
    points = noise(5, 2)
    torch.testing.assert_close(transform(theta.double()[None]).points(points)[0], points, atol=1e-14, rtol=0)


@pytest.mark.parametrize("align_corners", (False, True))
def test_images_agree_with_points(name: str, align_corners: bool) -> None:
    """A ramp, sampled, is the source points themselves wherever they lie inside."""
    warp = family(name)(near_identity(name, 8))
    image = ramp(SIZE, align_corners=align_corners).expand(8, -1, -1, -1)
    sampled = warp.sample(image, OUT, align_corners=align_corners).movedim(1, -1)
    points = warp.points(lattice(OUT, align_corners=align_corners, dtype=torch.float64).flatten(0, 1)).unflatten(1, OUT)
    pixels = normalized_to_pixel(points, SIZE, align_corners=align_corners)
    inside = ((pixels >= 0) & (pixels <= torch.tensor(SIZE[::-1]) - 1)).all(dim=-1)
    assert inside.float().mean() > 0.3
    torch.testing.assert_close(sampled[inside], points[inside], atol=1e-12, rtol=0)
    assert (points - lattice(OUT, align_corners=align_corners, dtype=torch.float64)).abs().max() > 0.1  # no identity


@pytest.mark.parametrize("align_corners", (False, True))
def test_the_grid_is_what_sample_uses(name: str, align_corners: bool) -> None:
    warp = family(name)(near_identity(name, 3))
    image = noise(3, 2, *SIZE)
    options: Any = {"mode": "bicubic", "padding_mode": "reflection", "align_corners": align_corners}
    grid = warp.grid(OUT, align_corners=align_corners)
    assert grid.shape == (3, *OUT, 2)
    got = warp.sample(image, OUT, **options)
    torch.testing.assert_close(got, stn.grid_sample(image, grid, **options), atol=1e-10, rtol=0)


def test_looks(name: str) -> None:
    transform, image = family(name), noise(2, 3, *SIZE)
    theta = near_identity(name, 8).view(2, 4, -1)
    warp = transform(theta)
    out = warp.sample(image, OUT)
    assert out.shape == (2, 4, 3, *OUT) and warp.grid(OUT).shape == (2, 4, *OUT, 2)
    for k in range(4):
        one = transform(theta[:, k])
        torch.testing.assert_close(out[:, k], one.sample(image, OUT), atol=1e-13, rtol=0)
        torch.testing.assert_close(warp.grid(OUT)[:, k], one.grid(OUT), atol=1e-13, rtol=0)


def test_point_sets_of_any_shape(name: str) -> None:
    warp = family(name)(near_identity(name, 3))
    shared = noise(5, 2)
    each = warp.points(shared)
    assert each.shape == (3, 5, 2)
    torch.testing.assert_close(warp.points(shared[0]), each[:, 0])
    torch.testing.assert_close(warp.points(shared.expand(3, 5, 2)), each)
    torch.testing.assert_close(warp.points(shared.view(1, 5, 1, 1, 2)), each.view(3, 5, 1, 1, 2))
    torch.testing.assert_close(warp.points(shared[:3].unsqueeze(1)), each[range(3), range(3)].unsqueeze(1))


def test_derivatives_in_theta(name: str) -> None:
    transform, image, points = family(name), noise(1, 1, 4, 5), noise(3, 2)
    theta = near_identity(name, 1, seed=2).requires_grad_()

    def sample(theta: torch.Tensor) -> torch.Tensor:
        return transform(theta).sample(image, (3, 2), mode="bicubic")

    assert gradcheck(sample, (theta,), check_forward_ad=True)
    assert gradgradcheck(sample, (theta,))
    assert gradcheck(lambda t, p: transform(t).points(p), (theta, points.requires_grad_()))


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16, torch.float32))
def test_dtypes(name: str, dtype: torch.dtype) -> None:
    transform = family(name)
    theta = near_identity(name, 2).to(dtype)
    image = noise(2, 1, *SIZE, dtype=torch.float32)
    out = transform(theta).sample(image)
    assert out.dtype == torch.float32 and transform(theta).grid(OUT).dtype == dtype
    wide = transform(theta.double()).sample(image.double())
    tolerance = {torch.float16: 2e-2, torch.bfloat16: 2e-1, torch.float32: 1e-5}[dtype]  # a rotation's cos in this dtype
    assert (out - wide).abs().max() < tolerance


def test_an_empty_batch(name: str) -> None:
    transform = family(name)
    warp = transform(torch.zeros(0, transform.num_params))
    assert warp.sample(torch.zeros(0, 3, *SIZE), OUT).shape == (0, 3, *OUT)
    assert warp.points(torch.zeros(4, 2)).shape == (0, 4, 2)
