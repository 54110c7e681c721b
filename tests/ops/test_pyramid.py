"""A pyramid goes on beyond the border as the padding says, and never hands out levels that no longer hold."""

import pytest
import torch
from torch import Tensor

import stn
from stn.ops.reference import PADDINGS
from tests.helpers import noise


def at(size: int, step: float, start: float) -> Tensor:
    """Points (1, size, size, 2) in source pixels."""
    axis = start + step * torch.arange(size, dtype=torch.float64)
    return torch.stack(torch.meshgrid(axis, axis, indexing="ij")[::-1], dim=-1)[None]


def repeated(image: Tensor, padding_mode: str, times: int) -> Tensor:
    n = image.shape[-1]
    index = PADDINGS[padding_mode](torch.arange(-times * n, (times + 1) * n), n, False)
    return image[..., index, :][..., index]


@pytest.mark.parametrize("antialias", (True, "anisotropic"))
@pytest.mark.parametrize("align_corners", (False, True))
@pytest.mark.parametrize("padding_mode", ("wrap", "reflection"))
def test_no_seam(padding_mode: str, align_corners: bool, antialias: bool | str) -> None:
    """As in an image that is written out over and over. (Mirrored at the centers of pixels, that is no pyramid of it.)"""
    if padding_mode == "reflection" and align_corners:
        pytest.skip("its period is one pixel shorter than that of any pyramid of the long image")
    for n in (16, 24, 32):
        image, points = noise(1, 2, n, n), at(14, 2.3, -3.1 - n / 2)
        ours = stn.grid_sample(
            image, points, units="pixel", padding_mode=padding_mode, align_corners=align_corners, antialias=antialias
        )
        long = stn.grid_sample(repeated(image, padding_mode, 3), points + 3 * n, units="pixel", antialias=antialias)
        torch.testing.assert_close(ours, long, atol=1e-12, rtol=0)


@pytest.mark.parametrize("align_corners", (False, True))
@pytest.mark.parametrize("padding_mode, period", (("wrap", 0), ("reflection", 0), ("reflection", -2)))
def test_the_period_is_that_of_the_padding(padding_mode: str, period: int, align_corners: bool) -> None:
    """At any size, odd ones too."""
    if padding_mode == "reflection" and (period == -2) != align_corners:
        return
    for n in (9, 15, 20):
        length = n if padding_mode == "wrap" else 2 * n + period
        image, points = noise(1, 1, n, n), at(11, 1.9, -2.2)
        far = points + torch.tensor([length, -2 * length])
        ours, theirs = (
            stn.grid_sample(image, p, units="pixel", padding_mode=padding_mode, align_corners=align_corners, antialias=True)
            for p in (points, far)
        )
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
        assert (ours - stn.grid_sample(image, points, units="pixel", padding_mode=padding_mode)).abs().max() > 0.1


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
    assert pyramid[1] is level  # found once, while nothing changes
    image.copy_(255 - image)
    second = shrunk(image, pyramid)
    assert torch.equal(second, shrunk(image)) and not torch.equal(first, second)


def test_a_pyramid_of_another_border_is_refused() -> None:
    image = noise(1, 1, 8, 8)
    with pytest.raises(stn.InputError, match="pyramid must have padding_mode='wrap' as the call; got .* 'cut'"):
        stn.affine_sample(image, THETA, antialias=True, padding_mode="wrap", pyramid=stn.Pyramid(image))
    with pytest.raises(stn.InputError, match="padding_mode must be one of .*; got 'mirror'"):
        stn.Pyramid(image, padding_mode="mirror")
