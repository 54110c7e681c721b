"""The loss that pulls looks back to the image."""

import pytest
import torch

import stn
from tests.helpers import near_identity


def test_it_is_zero_inside_and_the_squared_distance_outside() -> None:
    assert stn.off_image_loss(stn.Affine()(0.9 * stn.Affine().identity()[None])) == 0
    moved = stn.Translation()(torch.tensor([[3.0, 0.0], [0.0, 0.0]]).double())
    x = torch.linspace(-0.5, 0.5, 2).double() + 3 - 1  # two points a side, at their pixels' centres
    expected = x.square().mean() / 2
    torch.testing.assert_close(stn.off_image_loss(moved, (2, 2)), expected)


@pytest.mark.parametrize("name", ("affine", "tps", "attention"))
def test_it_brings_a_look_back_from_where_pixels_say_nothing(name: str) -> None:
    family, image = stn.transforms.family(name), torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    theta = near_identity(name, 1, strength=0.05, dtype=torch.float32)
    translation = stn.Translation()(torch.tensor([[4.0, -5.0]]))
    theta.requires_grad_()
    optimizer = torch.optim.Adam([theta], lr=0.05)
    warp = translation @ family(theta)
    (blind,) = torch.autograd.grad(warp.sample(image).sum(), theta)
    assert blind.abs().max() == 0
    for _ in range(300):
        loss = stn.off_image_loss(translation @ family(theta))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    (translation @ family(theta)).sample(image).square().sum().backward()
    assert loss < 1 and theta.grad is not None and theta.grad.abs().max() > 0


def test_in_three_dimensions_with_looks() -> None:
    theta = stn.Affine(3).identity().repeat(2, 4, 1)
    theta[0, 0, 3] = 5.0
    theta.requires_grad_()
    (gradient,) = torch.autograd.grad(stn.off_image_loss(stn.Affine(3)(theta)), theta)
    assert gradient[0, 0, 3] > 0 and gradient[1].abs().max() == 0
