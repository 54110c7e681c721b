"""Images of bytes, complex numbers and half precision, and a theta of another dtype."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import stn
from tests.helpers import noise

THETA = torch.tensor([[0.8, -0.3, 0.1], [0.25, 0.7, -0.2]])
KNOTS = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [0.0, 1.0], [0.3, 0.2]])
OPERATORS: dict[str, Callable[..., Tensor]] = {
    "affine": lambda image, **how: stn.affine_sample(image, THETA, (9, 8), **how),
    "projective": lambda image, **how: stn.projective_sample(
        image, torch.cat([THETA, torch.tensor([[0.1, 0.2, 1.0]])]), (9, 8), **how
    ),
    "field": lambda image, **how: stn.grid_sample(image, 0.3 * noise(2, 9, 8, 2, dtype=torch.float32), relative=True, **how),
    "thin plate": lambda image, **how: stn.thin_plate_sample(
        image, 0.05 * noise(2, 7, 2, dtype=torch.float32), KNOTS, (9, 8), **how
    ),
}


@pytest.mark.parametrize("mode", ("nearest", "bilinear", "bicubic"))
@pytest.mark.parametrize("name", OPERATORS)
def test_bytes_are_rounded_and_never_wrap_around(name: str, mode: str) -> None:
    image = torch.randint(0, 2, (2, 3, 7, 6), generator=torch.Generator().manual_seed(0)).mul(255).to(torch.uint8)
    out = OPERATORS[name](image, mode=mode, fill_value=300.0)
    exact = OPERATORS[name](image.double(), mode=mode, fill_value=300.0)
    assert out.dtype == torch.uint8
    assert (out.double() - exact.clamp(0, 255)).abs().max() <= 0.5 + 1e-4
    if mode == "nearest":
        assert set(out.unique().tolist()) == {0, 255}


@pytest.mark.parametrize("dtype", (torch.complex64, torch.complex128))
@pytest.mark.parametrize("name", OPERATORS)
def test_complex_images_are_sampled_by_parts(name: str, dtype: torch.dtype) -> None:
    image = torch.complex(noise(2, 3, 7, 6), noise(2, 3, 7, 6, seed=1)).to(dtype).requires_grad_()
    fill: Any = torch.tensor([1 + 2j, 0.0, -1j])
    out = OPERATORS[name](image, fill_value=fill)
    assert out.dtype == dtype
    real = OPERATORS[name](image.detach().real, fill_value=fill.real)
    imaginary = OPERATORS[name](image.detach().imag, fill_value=fill.imag)
    assert torch.equal(out.detach().real, real) and torch.equal(out.detach().imag, imaginary)
    (gradient,) = torch.autograd.grad(out.abs().square().sum(), image)
    assert gradient.dtype == dtype and gradient.abs().max() > 0


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16))
@pytest.mark.parametrize("name", OPERATORS)
def test_half_precision_is_float32_rounded_once(name: str, dtype: torch.dtype) -> None:
    image = noise(2, 3, 40, 50).to(dtype)
    out = OPERATORS[name](image)
    assert out.dtype == dtype and torch.equal(out, OPERATORS[name](image.float()).to(dtype))


def test_theta_may_have_another_dtype() -> None:
    image = noise(2, 3, 7, 6, dtype=torch.float32).requires_grad_()
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        theta = THETA.to(dtype).requires_grad_()
        out = stn.affine_sample(image, theta)
        assert out.dtype == torch.float32
        assert torch.equal(out, stn.affine_sample(image, theta.detach().double()))
        (gradient,) = torch.autograd.grad(out.sum(), theta)
        assert gradient.dtype == dtype


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16))
def test_half_precision_is_right_at_2048_pixels(dtype: torch.dtype) -> None:
    """Within one unit in the last place, plus float32's rounding where taps cancel. torch's result is wrong here."""
    image = noise(1, 1, 2048, 2048, dtype=torch.float32).to(dtype)
    out = stn.affine_sample(image, THETA).float()
    exact = stn.affine_sample(image.double(), THETA)
    unit = torch.finfo(dtype).eps * exact.abs().clamp_min(torch.finfo(dtype).smallest_normal)
    assert ((out - exact).abs() <= unit + 5e-7).all()


def test_control_points_may_have_another_dtype() -> None:
    image, coefficients = noise(2, 3, 7, 6), 0.05 * noise(2, 7, 2)
    out = stn.thin_plate_sample(image, coefficients, KNOTS.to(torch.bfloat16))
    assert torch.equal(out, stn.thin_plate_sample(image, coefficients, KNOTS.to(torch.bfloat16).double()))
