"""Derivatives of every order, in image and theta, against finite differences."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import stn
from tests.helpers import PADDINGS, noise

RULES = [(mode, padding_mode) for mode in ("bilinear", "bicubic") for padding_mode in PADDINGS]


def inputs(d: int, rows: int) -> tuple[Tensor, Tensor]:
    """Return a small image and two looks that reach beyond its edges; no coordinate is on a pixel or an edge."""
    image = noise(1, 2, *(3, 4, 2)[:d]).requires_grad_()
    theta = torch.eye(rows, d + 1, dtype=torch.float64) + 0.23 * noise(1, 2, rows, d + 1, seed=3)
    return image, theta.requires_grad_()


@pytest.mark.parametrize("mode, padding_mode", RULES)
@pytest.mark.parametrize("op, d", (("affine", 2), ("projective", 2), ("affine", 3), ("projective", 3)))
def test_matrix_rules(op: str, d: int, mode: str, padding_mode: str) -> None:

    def sample(image: Tensor, theta: Tensor) -> Tensor:
        function = stn.affine_sample if op == "affine" else stn.projective_sample
        return function(image, theta, (3, 2, 2)[:d], mode=mode, padding_mode=padding_mode)

    arguments = inputs(d, d if op == "affine" else d + 1)
    assert gradcheck(sample, arguments, check_forward_ad=True)
    if d == 2:
        assert gradgradcheck(sample, arguments)


@pytest.mark.parametrize("mode, padding_mode", RULES)
@pytest.mark.parametrize("relative, units", ((False, "normalized"), (True, "pixel")))
def test_field_rule(relative: bool, units: str, mode: str, padding_mode: str) -> None:
    def sample(image: Tensor, grid: Tensor) -> Tensor:
        options: Any = {"mode": mode, "padding_mode": padding_mode}
        return stn.grid_sample(image, grid, relative=relative, units=units, **options)

    image = noise(1, 2, 3, 4).requires_grad_()
    grid = (0.8 * noise(1, 2, 2, 2, seed=1)).requires_grad_()
    assert gradcheck(sample, (image, grid), check_forward_ad=True)
    assert gradgradcheck(sample, (image, grid))


def test_gradients_of_gradients_of_gradients() -> None:
    image, theta = noise(1, 1, 4, 4), noise(1, 2, 3, seed=1).requires_grad_()
    value = stn.affine_sample(image, theta, mode="bicubic").square().sum()
    for _ in range(3):
        (gradient,) = torch.autograd.grad(value, theta, create_graph=True)
        value = gradient.square().sum()
        assert gradient.isfinite().all() and gradient.abs().max() > 0


def test_nearest_gives_the_image_its_gradient_and_theta_zeros() -> None:
    image, theta = inputs(2, 2)
    stn.affine_sample(image, theta, mode="nearest").sum().backward()
    assert theta.grad is not None and theta.grad.abs().max() == 0
    assert image.grad is not None and image.grad.abs().max() > 0


def test_at_whole_pixels_the_derivative_is_the_one_to_the_right() -> None:
    """At the identity, all points are whole pixels. A subgradient of 0 would leave the layer without a training signal."""
    image = torch.tensor([0.0, 1.0, 4.0, 9.0], dtype=torch.float64).view(1, 1, 1, 4)
    move = torch.zeros(1, 1, 4, 2, dtype=torch.float64, requires_grad=True)
    stn.grid_sample(image, move, relative=True, units="pixel").sum().backward()
    assert move.grad is not None
    assert move.grad[0, 0, :, 0].tolist() == [1.0, 3.0, 5.0, -9.0]


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16, torch.float32))
def test_low_precision_gradients_keep_their_dtype(dtype: torch.dtype) -> None:
    image = noise(1, 1, 8, 8, dtype=torch.float32).to(dtype).requires_grad_()
    theta = torch.tensor([[[0.9, 0.1, 0.1], [-0.1, 0.9, 0.0]]]).requires_grad_()
    weight = noise(1, 1, 8, 8, dtype=torch.float32)
    (stn.affine_sample(image, theta).float() * weight).sum().backward()
    assert image.grad is not None and theta.grad is not None
    assert image.grad.dtype == dtype and theta.grad.dtype == torch.float32
    wide = [t.detach().double().requires_grad_() for t in (image, theta)]
    (stn.affine_sample(wide[0], wide[1]) * weight).sum().backward()
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float32: 1e-6}[dtype]  # 2 units in the last place
    torch.testing.assert_close(image.grad.double(), wide[0].grad, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(theta.grad.double(), wide[1].grad, atol=20 * tolerance, rtol=tolerance)


def test_the_horizon_has_a_finite_gradient() -> None:
    image = noise(1, 1, 9, 9)
    matrix = torch.tensor([[[1.0, 0, 0.5], [0, 1, 0], [2.0, 0, 0]]], dtype=torch.float64, requires_grad=True)  # w = 2x
    for padding_mode in PADDINGS:
        out = stn.projective_sample(image, matrix, padding_mode=padding_mode)
        (gradient,) = torch.autograd.grad(out.square().sum(), matrix)
        assert out.isfinite().all() and gradient.isfinite().all()
        assert gradient.abs().max() > 0
    assert stn.projective_sample(image, matrix)[0, 0, :, 4].abs().max() == 0  # the middle column is sampled at infinity
