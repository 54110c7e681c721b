"""Kernels k(distance) as tables: which have one, how exact it is, and that a kernel of the user's runs through it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import stn
from stn.ops import cpu, dispatch, tables
from stn.ops.interpolation import INTERPOLATIONS, Interpolation, sinc
from stn.ops.reference import sample as oracle
from stn.ops.rules import Field, Matrix
from stn.ops.sampling import Sampling, named
from tests.helpers import PADDINGS, noise

KERNELS = {
    "lanczos3": INTERPOLATIONS["lanczos3"],
    "hat": stn.Kernel(lambda d: 1 - d, support=1).interpolation,
    "box": stn.Kernel(torch.ones_like, support=0.5).interpolation,
    "gauss": stn.Kernel(lambda d: torch.exp(-2 * d**2), support=2.5, normalize=True).interpolation,
    "raw gauss": stn.Kernel(lambda d: torch.exp(-(d**2)), support=1.3).interpolation,
    "cosine": stn.Kernel(torch.cos, support=1.5).interpolation,
    "lanczos4": stn.Kernel(lambda d: sinc(d) * sinc(d / 4), support=4, normalize=True).interpolation,
    "wide": stn.Kernel(lambda d: torch.exp(-(d**2) / 8), support=5.25, normalize=True).interpolation,
}


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
@pytest.mark.parametrize("name", KERNELS)
def test_a_table_has_the_weights(name: str, dtype: torch.dtype) -> None:
    """At points of its own, and at the ends of the support."""
    kernel = KERNELS[name]
    t = torch.cat([torch.rand(5000, dtype=torch.float64), torch.tensor([0.0, 0.5, 0.25, 0.75, 0.3, 0.7]).double()])
    assert tables.readable(kernel, dtype)
    found = tables.evaluated(tables.table_of(kernel, dtype), t.numpy())
    wanted = torch.stack([weight.expand(t.shape) for weight in kernel.weights(t)], dim=-1)
    error = (torch.from_numpy(found) - wanted).abs().max()
    assert error <= 2 * tables.ERRORS[dtype] * wanted.abs().max()


def test_what_has_no_table() -> None:
    corner = stn.Kernel(lambda d: (d < 0.4142).double() * (0.4142 - d), support=1)
    beyond = stn.Kernel(lambda d: torch.exp(-(d**2) / 500), support=40, normalize=True)
    unknown = stn.Kernel(lambda d: (0.7 - d).sqrt(), support=1)
    for kernel in (corner, beyond, unknown):
        assert not tables.readable(kernel.interpolation, torch.float32)
    image, theta = noise(1, 1, 9, 8), torch.eye(2, 3).double() * 0.9
    for kernel in (corner, beyond):  # the reference samples
        out = stn.affine_sample(image, theta, mode=kernel)
        wanted = oracle(Matrix((9, 8)), image, theta[None, None], torch.zeros(()), how(kernel.interpolation, "zeros", False))
        assert torch.equal(out, wanted[:, 0])


def how(kernel: Interpolation, padding: str, align_corners: bool) -> Sampling:
    return named("bilinear", padding, align_corners)._replace(interpolation=kernel)


def gradients(value: Tensor, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """In image and data; zeros where the reference has none, as of a box."""
    return torch.autograd.grad(value, given, noise(*value.shape, seed=2), allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("last", (False, True))
@pytest.mark.parametrize("d", (2, 3))
@pytest.mark.parametrize("name", KERNELS)
def test_value_and_gradients_are_the_oracles(name: str, d: int, last: bool) -> None:
    """Two looks at each of two images, larger and smaller than a window, which reach beyond the edges."""
    for size, padding in itertools.product(((13, 20), (6, 5)) if d == 2 else ((5, 4, 13), (4, 6, 3)), PADDINGS):
        image = noise(2, 3, *size)
        if last:
            image = image.contiguous(memory_format=torch.channels_last if d == 2 else torch.channels_last_3d)
        matrix = torch.eye(d, d + 1, dtype=torch.float64) + 0.3 * noise(2, 2, d, d + 1, seed=1)
        out = (7, 19) if d == 2 else (3, 4, 11)
        fill = noise(3, seed=4) if padding == "zeros" else torch.zeros(3, dtype=torch.float64)
        rules: list[tuple[Any, Tensor]] = [(Matrix(out), matrix)]
        rules += [(Field("normalized", True), 0.6 * noise(2, 2, *out, d, seed=1))] if not last else []
        for (rule, data), align_corners in itertools.product(rules, (False, True)):
            sampling, given = how(KERNELS[name], padding, align_corners), (image.requires_grad_(), data.requires_grad_())
            kernels: Any = cpu
            assert dispatch.kernels_for(rule, *given, sampling) is kernels
            found = []
            for sample in (dispatch.sample, oracle):
                value = sample(rule, *given, fill, sampling)
                found.append((value, *gradients(value, given)))
            for got, wanted, tolerance in zip(*found, (1e-10, 1e-10, 1e-8), strict=True):
                torch.testing.assert_close(got, wanted, atol=tolerance, rtol=tolerance)


def test_float32_is_as_exact_as_its_sums() -> None:
    image, theta = noise(2, 3, 60, 50, dtype=torch.float32), torch.eye(2, 3) + 0.1 * noise(2, 2, 3, dtype=torch.float32)
    for name in ("lanczos3", "gauss", "lanczos4"):
        sampling, data = how(KERNELS[name], "zeros", False), theta[:, None]
        exact = oracle(Matrix((41, 37)), image.double(), data.double(), torch.zeros(()), sampling)
        got = dispatch.sample(Matrix((41, 37)), image, data, torch.zeros(()), sampling)
        assert (got - exact).abs().max() < 2e-6


@pytest.mark.parametrize("padding", PADDINGS)
def test_the_number_of_threads_changes_no_bit(padding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stn.ops.cpu.threads.SMALL", 0)
    threads, shapes = torch.get_num_threads(), ((1, 9, 70, 60), (2, 3, 9, 8, 30))
    try:
        for shape, last in itertools.product(shapes, (False, True)):
            d, results = len(shape) - 2, []
            theta = (torch.eye(d, d + 1) + 0.2 * noise(shape[0], d, d + 1, dtype=torch.float32)).requires_grad_()
            form = torch.channels_last if d == 2 else torch.channels_last_3d
            image = noise(*shape, dtype=torch.float32).contiguous(memory_format=form if last else torch.contiguous_format)
            for count in (1, 2):
                torch.set_num_threads(count)
                out = stn.affine_sample(image.requires_grad_(), theta, mode="lanczos3", padding_mode=padding)
                results.append((out, *torch.autograd.grad(out, (image, theta), torch.ones_like(out))))
            assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))
    finally:
        torch.set_num_threads(threads)


def test_a_kernel_that_changes_has_another_table() -> None:
    width = torch.tensor(1.0, dtype=torch.float64)
    kernel = stn.Kernel(lambda d: torch.exp(-width * d**2), support=2, normalize=True)
    image, theta = noise(1, 1, 9, 12), 0.8 * torch.eye(2, 3).double()

    def bell(value: float) -> Callable[[Tensor], Tensor]:
        return lambda d: torch.exp(-value * d**2)

    for value in (1.0, 3.0, 1.0):
        width.fill_(value)
        again = stn.Kernel(bell(value), support=2, normalize=True)
        got, wanted = (stn.affine_sample(image, theta, mode=each) for each in (kernel, again))
        torch.testing.assert_close(got, wanted, atol=1e-14, rtol=0)


def test_a_kernel_that_is_learned_has_its_gradient() -> None:
    width = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    image, theta = noise(1, 1, 7, 8), 0.8 * torch.eye(2, 3).double()

    def sample(width: Tensor) -> Tensor:
        kernel = stn.Kernel(lambda d: torch.exp(-width * d**2), support=2, normalize=True)
        return stn.affine_sample(image, theta, mode=kernel)

    assert gradcheck(sample, width)


def test_a_users_kernel_under_transforms_and_compilers() -> None:
    kernel = stn.Kernel(lambda d: torch.exp(-2 * d**2), support=2.5, normalize=True)
    image, theta = noise(1, 2, 7, 8), (0.8 * torch.eye(2, 3).double() + 0.05).requires_grad_()

    def energy(theta: Tensor) -> Tensor:
        out: Tensor = stn.affine_sample(image, theta, (5, 6), mode=kernel)
        return out.square().sum()

    (expected,) = torch.autograd.grad(energy(theta), theta)
    torch.testing.assert_close(torch.func.grad(energy)(theta.detach()), expected, atol=1e-9, rtol=1e-9)
    compiled = torch.compile(energy, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(torch.autograd.grad(compiled(theta), theta)[0], expected, atol=1e-9, rtol=1e-9)
    points = theta.detach()

    def sample(theta: Tensor) -> Tensor:
        out: Tensor = stn.affine_sample(image, theta, (3, 4), mode=kernel)
        return out

    whole, rows = (torch.autograd.functional.jacobian(sample, points, vectorize=v) for v in (True, False))
    torch.testing.assert_close(whole, rows, atol=1e-9, rtol=1e-9)
    assert gradcheck(sample, theta, fast_mode=True) and gradgradcheck(sample, theta, fast_mode=True)
