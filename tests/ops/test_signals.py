"""Signals (N, C, L): the same operators in one dimension, against the reference in 1-D, numpy and scipy."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import stn
from stn.ops import reference
from stn.ops.rules import Field, Matrix, Rule
from stn.ops.sampling import named
from tests.helpers import PADDINGS, noise

ALL_MODES = ("nearest", "bilinear", "bicubic", "catmull_rom", "bspline", "lanczos3")
IN, OUT = 11, 14


def maps(*lead: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return matrices (.., 1, 2) that shrink, magnify and mirror, and look outside the signal."""
    return (torch.tensor([[0.9, 0.1]], dtype=dtype) + 0.5 * noise(*lead, 1, 2, dtype=dtype, seed=4)).requires_grad_()


def by_reference(rule: Rule, signal: Tensor, data: Tensor, mode: str, padding_mode: str, align_corners: bool) -> Tensor:
    """Sample in one dimension, which no kernel does."""
    fill = signal.new_zeros(())
    return reference.sample(rule, signal, data.unsqueeze(1), fill, named(mode, padding_mode, align_corners)).squeeze(1)


@pytest.mark.parametrize("mode, padding_mode", list(itertools.product(ALL_MODES, PADDINGS)))
@pytest.mark.parametrize("align_corners", (False, True))
def test_signals_are_sampled_as_the_reference_does(mode: str, padding_mode: str, align_corners: bool) -> None:
    how: Any = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    signal, weight = noise(3, 2, IN).requires_grad_(), noise(3, 2, OUT, seed=1)
    theta, field = maps(3), (0.8 * noise(3, OUT, 1, seed=2)).requires_grad_()
    flow = (3 * noise(3, OUT, 1, seed=2)).requires_grad_()
    cases: list[tuple[Callable[[], Tensor], Rule, Tensor]] = [
        (lambda: stn.affine_sample(signal, theta, OUT, **how), Matrix((OUT,)), theta),
        (lambda: stn.grid_sample(signal, field, **how), Field(), field),
        (lambda: stn.grid_sample(signal, flow, units="pixel", relative=True, **how), Field("pixel", True), flow),
    ]
    for sample, rule, data in cases:
        got, expected = sample(), by_reference(rule, signal, data, mode, padding_mode, align_corners)
        assert got.shape == (3, 2, OUT)
        torch.testing.assert_close(got, expected, atol=1e-12, rtol=0)
        gradients = [torch.autograd.grad((out * weight).sum(), (signal, data)) for out in (got, expected)]
        close = 1e-9 if mode == "lanczos3" else 1e-11  # the kernels have its slopes from a table
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b, atol=close, rtol=0)
        assert mode == "nearest" or gradients[0][1].abs().max() > 0.1


def test_linear_interpolation_is_numpy_s() -> None:
    signal, at = (
        noise(1, 1, IN),
        14 * torch.rand(1, 40, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 2,
    )
    got = stn.grid_sample(signal, at, units="pixel", padding_mode="border")
    expected = np.interp(at[0, :, 0].numpy(), np.arange(IN), signal[0, 0].numpy())
    np.testing.assert_allclose(got[0, 0].numpy(), expected, atol=1e-13)


@pytest.mark.parametrize(
    "padding_mode, theirs, align_corners", (("reflection", "mirror", True), ("wrap", "grid-wrap", False))
)
def test_splines_are_scipy_s(padding_mode: str, theirs: str, align_corners: bool) -> None:
    signal, at = (
        noise(1, 1, IN),
        14 * torch.rand(1, 40, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 2,
    )
    got = stn.grid_sample(signal, at, units="pixel", mode="bspline", padding_mode=padding_mode, align_corners=align_corners)
    expected = scipy.ndimage.map_coordinates(signal[0, 0].numpy(), at[0, :, 0].numpy()[None], order=3, mode=theirs)
    np.testing.assert_allclose(got[0, 0].numpy(), expected, atol=1e-10)


@pytest.mark.parametrize("mode", ("nearest", "bilinear", "bicubic", "catmull_rom"))
@pytest.mark.parametrize("dtype", (torch.float16, torch.float32, torch.float64, torch.uint8, torch.complex64))
def test_the_identity_is_exact(mode: str, dtype: torch.dtype) -> None:
    for length in (1, 2, 5, 64, 129):
        signal = (100 * noise(2, 3, length)).abs().to(dtype)
        for align_corners in (False, True):
            how: Any = {"mode": mode, "align_corners": align_corners}
            assert torch.equal(stn.affine_sample(signal, torch.eye(1, 2), **how), signal)
            assert torch.equal(stn.grid_sample(signal, torch.zeros(1, length, 1), relative=True, **how), signal)


def test_looks_masks_and_fill_values() -> None:
    signal, theta = noise(2, 3, IN), maps(2, 4).detach()
    how: Any = {"fill_value": [1.0, -2.0, 0.5], "return_mask": True}
    out, mask = stn.affine_sample(signal, theta, OUT, **how)
    assert out.shape == (2, 4, 3, OUT) and mask.shape == (2, 4, 1, OUT)
    for k in range(4):
        one, share = stn.affine_sample(signal, theta[:, k], OUT, **how)
        assert torch.equal(out[:, k], one) and torch.equal(mask[:, k], share)
    ones = stn.affine_sample(torch.ones_like(signal[:, :1]), theta, OUT)
    torch.testing.assert_close(mask, ones, atol=1e-13, rtol=0)
    assert 0.1 < mask.mean() < 0.95
    filled = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64).view(3, 1) * (1 - mask)
    torch.testing.assert_close(out, stn.affine_sample(signal, theta, OUT) + filled, atol=1e-12, rtol=0)


@pytest.mark.parametrize("antialias", (True, "anisotropic"))
def test_anti_aliasing_is_that_of_an_image_that_shrinks_as_much(antialias: bool | str) -> None:
    """An image that is constant along y, and shrinks as much along it, has the levels of its rows."""
    signal = noise(2, 2, 96)
    for shrink in (1.5, 4.0):
        length = int(96 / shrink)
        image = signal.unsqueeze(2).expand(-1, -1, 96, -1)
        plane = stn.affine_sample(image, torch.eye(2, 3).double(), length, antialias=antialias, padding_mode="border")
        got = stn.affine_sample(signal, torch.eye(1, 2).double(), length, antialias=antialias, padding_mode="border")
        torch.testing.assert_close(got, plane[:, :, length // 2], atol=1e-12, rtol=0)
        plain = stn.affine_sample(signal, torch.eye(1, 2).double(), length, padding_mode="border")
        assert (got - plain).abs().max() > 0.1


def test_a_wide_gradient_reaches_further() -> None:
    x = stn.grid.lattice((256,), dtype=torch.float64)[:, 0]
    signal, target = (torch.exp(-((x - at) ** 2) / 0.0008).view(1, 1, -1) for at in (-0.15, 0.15))
    slopes = {}
    for gradient in ("exact", "wide"):
        theta = torch.full((1, 1), 0.003, dtype=torch.float64, requires_grad=True)
        moved = stn.Translation(1)(theta).sample(signal, gradient=gradient)
        torch.testing.assert_close(moved, stn.Translation(1)(theta).sample(signal), atol=1e-15, rtol=0)
        (slopes[gradient],) = torch.autograd.grad((moved * target).sum(), theta)
    assert slopes["wide"] < -0.1 and slopes["exact"].abs() < 1e-10  # towards reading from the left


def test_derivatives_of_every_order_vmap_and_compile() -> None:
    signal, theta = noise(1, 1, 5).requires_grad_(), maps(1)

    def sample(signal: Tensor, theta: Tensor) -> Tensor:
        return stn.affine_sample(signal, theta, 4, mode="bicubic")

    assert gradcheck(sample, (signal, theta), check_forward_ad=True) and gradgradcheck(sample, (signal, theta))
    several = maps(3, 1).detach()
    got = torch.func.vmap(lambda t: sample(signal, t))(several)
    torch.testing.assert_close(got, torch.stack([sample(signal, t) for t in several]), atol=1e-13, rtol=0)
    compiled = torch.compile(sample, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(signal, theta), sample(signal, theta), atol=1e-13, rtol=0)


def test_layouts_and_empty_batches() -> None:
    signal, theta = noise(2, 5, IN), maps(2).detach()
    expected = stn.affine_sample(signal, theta, OUT)
    last = signal.mT.contiguous().mT  # (N, L, C) in memory
    torch.testing.assert_close(stn.affine_sample(last, theta, OUT), expected, atol=1e-13, rtol=0)
    assert stn.affine_sample(torch.zeros(0, 3, IN), torch.zeros(0, 1, 2), OUT).shape == (0, 3, OUT)


SIGNAL, IMAGE = torch.zeros(2, 3, 7), torch.zeros(3, 4, 5)
SENTENCES: list[tuple[Callable[[], Any], str]] = [
    (lambda: stn.affine_sample(SIGNAL, torch.eye(1, 2), (4, 4)), r"size must have 1 length; got \(4, 4\)"),
    (lambda: stn.affine_sample(SIGNAL, torch.zeros(3, 1, 2)), r"theta must be \(1, 2\), .* N = 2, .*; got \(3, 1, 2\)"),
    (
        lambda: stn.affine_sample(IMAGE, torch.eye(2, 3)),
        r"image must be \(N, C, H, W\) for theta \(2, 3\); got \(3, 4, 5\), ",
    ),
    (
        lambda: stn.affine_sample(IMAGE, torch.eye(3, 4)),
        r"image must be \(N, C, D, H, W\) for theta \(3, 4\); got \(3, 4, 5\)",
    ),
    (lambda: stn.grid_sample(IMAGE, torch.zeros(1, 4, 5, 2)), r"image must be \(N, C, H, W\) for grid .*; got \(3, 4, 5\)"),
    (lambda: stn.grid_sample(SIGNAL, torch.zeros(3, 7, 1)), r"grid must be \(N, L, 1\) .*; got \(3, 7, 1\)"),
    (lambda: stn.affine_sample(SIGNAL[0], torch.eye(1, 2)), r"image must be \(N, C, L\), .*; got \(3, 7\)"),
    (lambda: stn.Rigid(1), "ndim must be 2 or 3 for Rigid; got 1"),
    (lambda: stn.BSpline(0), "ndim must be 1, 2 or 3 for BSpline; got 0"),
]


@pytest.mark.parametrize("call, sentence", SENTENCES, ids=[sentence[:48] for _, sentence in SENTENCES])
def test_sentences(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(stn.InputError, match=sentence):
        call()
