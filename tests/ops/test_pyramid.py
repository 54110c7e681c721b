"""A pyramid is periodic under wrap padding, and never returns levels of an older image."""

from typing import Any

import pytest
import torch
from torch import Tensor

import stn
from tests.helpers import noise


def at(size: int, step: float, start: float) -> Tensor:
    """Return points (1, size, size, 2) in source pixels."""
    axis = start + step * torch.arange(size, dtype=torch.float64)
    return torch.stack(torch.meshgrid(axis, axis, indexing="ij")[::-1], dim=-1)[None]


@pytest.mark.parametrize("antialias", (True, "anisotropic"))
@pytest.mark.parametrize("align_corners", (False, True))
def test_no_seam(align_corners: bool, antialias: bool | str) -> None:
    """The result equals that of an image which is repeated in both directions."""
    for n in (16, 24, 32):
        image, points = noise(1, 2, n, n), at(14, 2.3, -3.1 - n / 2)
        ours = stn.grid_sample(
            image, points, units="pixel", padding_mode="wrap", align_corners=align_corners, antialias=antialias
        )
        long = stn.grid_sample(image.repeat(1, 1, 7, 7), points + 3 * n, units="pixel", antialias=antialias)
        torch.testing.assert_close(ours, long, atol=1e-12, rtol=0)


@pytest.mark.parametrize("align_corners", (False, True))
@pytest.mark.parametrize("padding_mode", ("wrap", "reflection"))
def test_the_period_is_that_of_the_padding(padding_mode: str, align_corners: bool) -> None:
    """This holds for any size, odd sizes included, and through every rule."""
    for n in (3, 9, 15, 20):
        length = n if padding_mode == "wrap" else 2 * n - 2 * align_corners
        image, points = noise(1, 1, n, n), at(11, 1.9, -2.2)
        options: Any = {"padding_mode": padding_mode, "align_corners": align_corners, "antialias": True}
        near, far = (
            stn.grid_sample(image, points + away, units="pixel", **options)
            for away in (torch.zeros(2), torch.tensor([length, -2 * length]))
        )
        torch.testing.assert_close(near, far, atol=1e-12, rtol=0)
        assert (near - stn.grid_sample(image, points, units="pixel", padding_mode=padding_mode)).abs().max() > 0.1
        extent = (n - 1) / 2 if align_corners else n / 2
        theta = torch.tensor([[2.1, 0.3, 0.2], [-0.2, 1.9, 0.0]], dtype=torch.float64)
        away = torch.tensor([[0, 0, length / extent], [0, 0, -length / extent]], dtype=torch.float64)
        near, far = (stn.affine_sample(image, t, (7, 8), **options) for t in (theta, theta + away))
        torch.testing.assert_close(near, far, atol=1e-12, rtol=0)


THETA = torch.tensor([[3.0, 0.2, 0.0], [-0.2, 3.0, 0.0]], dtype=torch.float64)


def shrunk(image: Tensor, pyramid: stn.Pyramid | None = None) -> Tensor:
    out: Tensor = stn.affine_sample(image, THETA, (6, 6), antialias=True, pyramid=pyramid)
    return out


def test_levels_that_were_made_without_a_gradient_are_made_again() -> None:
    image = noise(1, 1, 32, 32).requires_grad_()
    (expected,) = torch.autograd.grad(shrunk(image).square().sum(), image)
    pyramid = stn.Pyramid(image)
    with torch.no_grad():
        shrunk(image, pyramid)
    (found,) = torch.autograd.grad(shrunk(image, pyramid).square().sum(), image)
    assert torch.equal(found, expected) and expected.abs().max() > 0
    with torch.inference_mode():
        pyramid = stn.Pyramid(image)
        shrunk(image, pyramid)
    (found,) = torch.autograd.grad(shrunk(image, pyramid).square().sum(), image)
    assert torch.equal(found, expected)


def test_a_gradient_that_is_asked_for_later() -> None:
    image = noise(1, 1, 32, 32)
    pyramid = stn.Pyramid(image)
    shrunk(image, pyramid)
    image.requires_grad_()
    (found,) = torch.autograd.grad(shrunk(image, pyramid).square().sum(), image)
    (expected,) = torch.autograd.grad(shrunk(image).square().sum(), image)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", (torch.float32, torch.uint8, torch.float16))
def test_an_image_that_changes_in_place(dtype: torch.dtype) -> None:
    image = (255 * torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))).to(dtype)
    pyramid = stn.Pyramid(image)
    first = shrunk(image, pyramid)
    level = pyramid[1]
    assert pyramid[1] is level  # computed once, as long as nothing changes
    image.copy_(255 - image)
    second = shrunk(image, pyramid)
    assert torch.equal(second, shrunk(image)) and not torch.equal(first, second)


def test_a_pyramid_of_another_border_is_refused() -> None:
    image = noise(1, 1, 8, 8)
    with pytest.raises(stn.InputError, match="pyramid must be made with padding_mode='wrap', .*; got one that does not"):
        stn.affine_sample(image, THETA, antialias=True, padding_mode="wrap", pyramid=stn.Pyramid(image))
    with pytest.raises(stn.InputError, match="padding_mode must be one of .*; got 'mirror'"):
        stn.Pyramid(image, padding_mode="mirror")
