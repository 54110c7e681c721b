"""Small images are sampled in a frame (`stn.ops.cpu.framed`): the same results as without one, and as the reference."""

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import stn
from stn.ops.cpu import plan as plans
from stn.ops.reference import sample as oracle
from stn.ops.rules import Field, Matrix
from stn.ops.sampling import named
from stn.transforms import family
from stn.transforms.spline import ThinPlateWarp
from tests.helpers import SIZES, near_identity, noise, seeded

PADDINGS = ("zeros", "border")
CASES = [(2, name, torch.float32) for name in ("affine", "projective", "tps", "displacement", "velocity")]
CASES += [(3, "affine", torch.float32), (2, "affine", torch.float64), (3, "tps", torch.float64)]
Run = Callable[[], tuple[Tensor, ...]]


@contextmanager
def framed(monkeypatch: pytest.MonkeyPatch, frames: bool) -> Iterator[None]:
    """Sample all that may be framed in a frame, or nothing."""
    with monkeypatch.context() as patch:
        patch.setattr(plans, "FRAMED", dict.fromkeys((2, 3), 1 << 30 if frames else 0))
        patch.setattr(plans, "_plans", {})
        yield


def both(monkeypatch: pytest.MonkeyPatch, run: Run) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each result in a frame and without one."""
    results = []
    for frames in (True, False):
        with framed(monkeypatch, frames):
            results.append(run())
            assert any(plan.framed for plan in plans._plans.values()) == frames and plans._plans
    return zip(*results, strict=True)


def with_gradients(image: Tensor, theta: Tensor, sample: Callable[[Tensor, Tensor], Tensor]) -> Run:
    def run() -> tuple[Tensor, ...]:
        inputs = [part.clone().requires_grad_() for part in (image, theta)]
        out = sample(*inputs)
        weight = noise(*out.shape, dtype=out.dtype, seed=9)
        return out, *torch.autograd.grad(out, inputs, weight)

    return run


@pytest.mark.parametrize("ndim, name, dtype", CASES)
def test_a_frame_changes_no_result(ndim: int, name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and both gradients, for looks of which some lie far outside."""
    size, out_size = SIZES[ndim]
    transform = family(name, ndim)
    theta = near_identity(transform, 6, strength=0.3, dtype=dtype).unflatten(0, (2, 3))
    warp, image = transform(theta), noise(2, 5, *size, dtype=dtype, seed=1)
    if isinstance(warp, ThinPlateWarp):  # a gradient in its theta is a product with a matrix, which magnifies rounding
        theta = warp.coefficients
    for padding_mode, align_corners in itertools.product(PADDINGS, (False, True)):
        options: Any = {"padding_mode": padding_mode, "align_corners": align_corners}

        def sample(image: Tensor, theta: Tensor, options: Any = options) -> Tensor:
            if isinstance(warp, ThinPlateWarp):
                return stn.thin_plate_sample(image, theta, warp.control_points, out_size, **options)
            return transform(theta).sample(image, out_size, **options)

        for inside, outside in both(monkeypatch, with_gradients(image, theta, sample)):
            scale = outside.abs().max().item()
            torch.testing.assert_close(inside, outside, rtol=0, atol=scale * (2e-6 if dtype == torch.float32 else 1e-14))


@pytest.mark.parametrize("frames", (True, False))
@pytest.mark.parametrize("ndim", (2, 3))
def test_points_anywhere_are_as_in_the_reference(ndim: int, frames: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """This includes whole pixels, edges, points that are not finite, and images with NaN and infinity."""
    size = SIZES[ndim][0]
    image = noise(1, 2, *size)
    image[0, 0].view(-1)[3], image[0, 1].view(-1)[-1] = math.nan, math.inf
    edges = torch.tensor([-math.inf, -1e30, -3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 0.25, 1.0])
    values = [torch.cat([edges, n - 1 - edges, torch.tensor([math.nan])]) for n in reversed(size)]
    points = torch.cartesian_prod(*[value.double() for value in values])[:: 1 if ndim == 2 else 7]
    grid = points.view(1, *(1,) * (ndim - 1), -1, ndim)
    field = Field("pixel", False)
    with framed(monkeypatch, frames):
        for padding_mode in PADDINGS:
            expected = oracle(field, image, grid.unsqueeze(1), torch.tensor(0.0), named("bilinear", padding_mode, False))[
                :, 0
            ]
            found = stn.grid_sample(image, grid, units="pixel", padding_mode=padding_mode)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-12, equal_nan=True)
        assert all(bool(plan.framed) == frames for plan in plans._plans.values())


@pytest.mark.parametrize("ndim", (2, 3))
def test_what_lies_outside_is_exact(ndim: int) -> None:
    """The border continues bit for bit, and beyond one pixel of zeros nothing is seen. Neither has a slope."""
    size = SIZES[ndim][0]
    image = noise(1, 1, *size, dtype=torch.float32)
    far = torch.eye(ndim, ndim + 1)
    far[:, -1] = 2.5 + torch.arange(ndim)  # beyond the image on all axes
    for sign, corner in ((1, image.flatten()[-1]), (-1, image.flatten()[0])):
        theta = far.clone()
        theta[:, -1] *= sign
        theta.requires_grad_()
        for padding_mode, value in (("border", corner), ("zeros", torch.zeros(()))):
            out = stn.affine_sample(image, theta, padding_mode=padding_mode)
            assert torch.equal(out, value.expand_as(out))
            (gradient,) = torch.autograd.grad(out.sum(), theta)
            assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("ndim", (2, 3))
def test_a_border_is_not_rounded_beside_the_image(ndim: int) -> None:
    """A mean of two equal numbers may differ from them in the last bit."""
    image = noise(1, 16, *SIZES[ndim][0], dtype=torch.float32)
    points = -torch.rand(1, *(1,) * (ndim - 1), 999, ndim, generator=seeded())  # within a pixel of the first one
    out = stn.grid_sample(image, points, units="pixel", padding_mode="border")
    corner = image.flatten(2)[..., 0].view(1, 16, *(1,) * ndim)
    assert torch.equal(out, corner.expand_as(out))


def test_a_gradient_of_nan_outside_zeros_is_lost_there() -> None:
    image = noise(1, 1, 6, 6).requires_grad_()
    out = stn.affine_sample(image, torch.tensor([[1.0, 0.0, 3.0], [0.0, 1.0, 0.0]], dtype=torch.float64))
    (gradient,) = torch.autograd.grad(out, image, torch.full_like(out, math.nan))
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_bits_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stn.ops.cpu.threads.SMALL", 0)
    image, theta = noise(5, 3, 13, 17, dtype=torch.float32), near_identity("affine", 15, dtype=torch.float32)

    def sample(image: Tensor, theta: Tensor) -> Tensor:
        return stn.affine_sample(image, theta.view(5, 3, 2, 3), padding_mode="border")

    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(with_gradients(image, theta, sample)())
    torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def kernels_of(
    image: Tensor, size: tuple[int, ...], *, mode: str = "bilinear", padding: str = "zeros", looks: int = 1
) -> Any:
    theta = torch.eye(image.ndim - 2, image.ndim - 1).expand(len(image), looks, -1, -1)
    return plans.plan_of(Matrix(size), image, theta, named(mode, padding, False)).framed


def test_images_that_gain_are_framed() -> None:
    digit, volume = torch.zeros(2, 1, 28, 28), torch.zeros(4, 1, 32, 32, 32)
    assert kernels_of(digit, (28, 28)) == kernels_of(volume, (32, 32, 32)) == plans.FRAMES
    assert kernels_of(torch.zeros(1, 3, 32, 32), (32, 32), padding="border") == plans.FRAMES
    assert kernels_of(digit, (7, 7), looks=8) == plans.FRAMES  # all looks share the copy
    # One thread would add up the gradient in the only image.
    assert kernels_of(torch.zeros(1, 1, 128, 128), (128, 128), looks=8) == plans.FRAMES[:2]
    others = [
        kernels_of(torch.zeros(1, 64, 7, 7), (7, 7)),  # of many channels
        kernels_of(torch.zeros(1, 3, 224, 224), (224, 224)),  # large
        kernels_of(digit, (7, 7)),  # hardly read
        kernels_of(torch.zeros(1, 1, 256, 256), (256, 256)),  # one that several threads share
        kernels_of(digit, (28, 28), mode="bicubic"),
        kernels_of(digit, (28, 28), padding="reflection"),
        kernels_of(torch.zeros(2, 3, 8, 8).contiguous(memory_format=torch.channels_last), (8, 8)),
    ]
    assert others == [()] * len(others)


def test_a_fill_value_is_exact_everywhere() -> None:
    """In a frame of such numbers they would be rounded: it is for zeros."""
    image, theta = noise(1, 1, 8, 8, dtype=torch.float32), torch.tensor([[1.0, 0, 2.4], [0, 1.0, 0.3]])
    out = stn.affine_sample(image, theta, fill_value=0.7)
    assert (out[..., 4:] == torch.tensor(0.7)).all()
