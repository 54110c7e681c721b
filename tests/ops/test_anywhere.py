"""Sampling points at kinks, far away, NaN, in rows and columns, and mixed within one block of pixels."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

import stn
from stn.ops import dispatch

PADDINGS = ("zeros", "border", "reflection", "wrap")
SIZES = {2: ((7, 11), (1, 9), (6, 1), (2, 2)), 3: ((4, 5, 6), (1, 3, 4), (3, 1, 2))}


def points(kind: str, size: tuple[int, ...]) -> Tensor:
    """Return points (1, *out, d) in pixels."""
    torch.manual_seed(0)
    d, out = len(size), (5, 37) if len(size) == 2 else (2, 3, 19)
    extent = torch.tensor(size[::-1], dtype=torch.float64)
    found = (torch.rand(1, *out, d, dtype=torch.float64) * 1.6 - 0.3) * (extent + 2)
    if kind == "whole":  # each is at a kink of the weights
        return found.round()
    if kind == "half":
        return found.round() + 0.5
    if kind == "row":
        return found.flatten(1, -2).unflatten(1, (*(1 for _ in out[1:]), -1))
    if kind == "column":
        return found.flatten(1, -2).unflatten(1, (*(-1 if i == 0 else 1 for i in range(d)),))
    if kind in ("far", "unknown"):  # one lane of a block at a time
        strange = (float("inf"), -float("inf"), 2.0**40, -(2.0**31), 1e300) if kind == "far" else (float("nan"),)
        for k, value in enumerate(strange):
            found.flatten(0, -2)[3 + 9 * k :: 61, k % d] = value
    return found


def found_by(image: Tensor, grid: Tensor, **options: object) -> tuple[Tensor, ...]:
    """Return the value, and the gradients in the image and in the points."""
    image, grid = image.detach().requires_grad_(), grid.detach().requires_grad_()
    out = stn.grid_sample(image, grid, units="pixel", **options)  # type: ignore[call-overload]
    weight = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(1))
    return out, *torch.autograd.grad(out, (image, grid), weight)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("kind", ("wild", "whole", "half", "row", "column", "far", "unknown"))
@pytest.mark.parametrize("d", (2, 3))
@pytest.mark.parametrize("mode", ("nearest", "bilinear", "bicubic", "lanczos3"))
def test_any_point_is_the_oracles(d: int, mode: str, kind: str, padding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for size, last, align_corners in itertools.product(SIZES[d], (False, True), (False, True)):
        grid, image = points(kind, size), torch.randn(1, 9, *size, dtype=torch.float64)
        if last:
            image = image.contiguous(memory_format=torch.channels_last if d == 2 else torch.channels_last_3d)
        fill = 0.7 if padding == "zeros" else 0.0
        options = {"mode": mode, "padding_mode": padding, "fill_value": fill, "align_corners": align_corners}
        got = found_by(image, grid, **options)
        with monkeypatch.context() as without:
            without.delitem(dispatch.KERNELS, "cpu")
            wanted = found_by(image, grid, **options)
        for name, a, b in zip(("value", "in the image", "in the points"), got, wanted, strict=True):
            if kind == "unknown" and name != "value":  # the extent of NaN in gradients is not defined
                continue
            tolerance = 1e-8 if mode == "lanczos3" else 1e-9  # the slopes of a table have errors of 1e-11
            assert torch.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True), (name, size, last, align_corners)


@pytest.mark.parametrize("last", (False, True))
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode", ("bilinear", "bicubic"))
def test_what_has_no_weight_is_not_read(mode: str, padding: str, last: bool) -> None:
    """NaN reaches only the pixels in which it has a weight, although the kernels compute blocks of eight pixels."""
    image = torch.randn(1, 9, 6, 40)
    spoiled = image.clone()
    spoiled[:, :, :, 20] = float("nan")
    if last:
        image, spoiled = (x.contiguous(memory_format=torch.channels_last) for x in (image, spoiled))
    at = torch.stack(torch.meshgrid(torch.arange(-3.0, 44), torch.arange(-2.0, 8), indexing="xy"), dim=-1)[None]
    clean, out = (stn.grid_sample(x, at, units="pixel", padding_mode=padding, mode=mode) for x in (image, spoiled))
    stays = (at[0, :, :, 0] != 20).expand_as(out)
    assert torch.equal(out[stays], clean[stays]) and bool(out[~stays].isnan().any())


@pytest.mark.parametrize("last", (False, True))
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("d", (2, 3))
@pytest.mark.parametrize("mode", ("bilinear", "bicubic", "lanczos3"))
@pytest.mark.parametrize("channels", (3, 9))
def test_a_pixel_has_the_same_bits_in_any_block(channels: int, mode: str, d: int, padding: str, last: bool) -> None:
    """The position of its neighbors decides how the kernel computes a block, but does not change a pixel."""
    torch.manual_seed(0)
    size = (30, 40) if d == 2 else (9, 10, 40)
    image = torch.randn(1, channels, *size)
    if last:
        image = image.contiguous(memory_format=torch.channels_last if d == 2 else torch.channels_last_3d)
    at = (torch.rand(1, *(3 for _ in size[1:]), 100, d, dtype=torch.float64) * 1.04 - 0.02) * torch.tensor(size[::-1])
    whole = stn.grid_sample(image, at, units="pixel", padding_mode=padding, mode=mode)
    for first in range(1, 9):
        part = stn.grid_sample(image, at[..., first:, :].contiguous(), units="pixel", padding_mode=padding, mode=mode)
        assert torch.equal(part, whole[..., first:])
