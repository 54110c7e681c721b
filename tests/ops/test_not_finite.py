"""NaN and infinity in an image or a fill value reach only pixels in which they have a weight."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import stn
from stn.ops.reference import sample as oracle
from stn.ops.rules import Matrix
from stn.ops.sampling import named
from stn.transforms import FAMILIES, family
from tests.helpers import PADDINGS, noise

INTERPOLATING = ("nearest", "bilinear", "bicubic", "catmull_rom")  # at whole pixels, all weights but one are 0
VALUES = (math.nan, math.inf, -math.inf)
SIZES = {2: (33, 41), 3: (9, 11, 7)}


def spoilt(size: tuple[int, ...], value: float, *, last: bool = False, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the image with NaN or infinity in every ninth pixel and on two opposite sides."""
    image = noise(2, 3, *size, dtype=dtype)
    image.flatten()[torch.randperm(image.numel(), generator=torch.Generator().manual_seed(1))[::9]] = value
    image[..., 0], image[..., -1] = value, value
    form = torch.channels_last if len(size) == 2 else torch.channels_last_3d
    return image.contiguous(memory_format=form if last else torch.contiguous_format)


def same(found: Tensor, image: Tensor) -> bool:
    return torch.equal(found.isnan(), image.isnan()) and torch.equal(found.nan_to_num(nan=7.0), image.nan_to_num(nan=7.0))


@pytest.mark.parametrize("mode, ndim, value", list(itertools.product(INTERPOLATING, (2, 3), VALUES)))
def test_the_identity_keeps_them_bit_for_bit(mode: str, ndim: int, value: float) -> None:
    """This covers every rule, padding, layout and fill value, for the kernels and the reference."""
    size, eye = SIZES[ndim], torch.eye(ndim, ndim + 1)
    for padding_mode, align_corners, last in itertools.product(PADDINGS, (False, True), (False, True)):
        image = spoilt(size, value, last=last)
        for fill in (0.0, math.nan, math.inf) if padding_mode == "zeros" else (0.0,):
            options: Any = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners, "fill_value": fill}
            matrix, sampling = Matrix(size), named(mode, padding_mode, align_corners)
            found = {
                "affine": stn.affine_sample(image, eye, **options),
                "projective": stn.projective_sample(image, torch.eye(ndim + 1), **options),
                "field": stn.grid_sample(image, torch.zeros(2, *size, ndim), relative=True, **options),
                "oracle": oracle(matrix, image, eye.expand(2, 1, -1, -1), torch.tensor(fill), sampling)[:, 0],
            }
            for rule, out in found.items():
                assert same(out, image), (rule, options, last)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_identity_of_every_family(name: str) -> None:
    transform, image = family(name), spoilt((17, 23), math.nan)
    warp = transform(transform.identity().expand(2, -1))
    assert same(warp.sample(image), image)
    assert same(warp.sample(image, antialias=True), image)
    theta = transform.identity().expand(2, -1).clone().requires_grad_()
    assert same(transform(theta).sample(image).detach(), image)
    for antialias in (False, True):
        mapped = torch.func.vmap(lambda t, a=antialias: transform(t).sample(image, antialias=a))(theta.detach()[None])
        assert same(mapped[0], image)


def test_levels_without_weight_count_for_nothing() -> None:
    """A compiled graph reads every level of the pyramid, and a perspective view mixes pixels of different scales."""
    image, eye = noise(1, 1, 32, 32, dtype=torch.float32), torch.eye(2, 3)[None]
    image[0, 0, 5, 5] = math.nan

    def sample(theta: Tensor) -> Tensor:
        out: Tensor = stn.affine_sample(image, theta, antialias=True)
        return out

    torch.compiler.reset()
    assert same(torch.compile(sample, backend="aot_eager")(eye), image)
    tilted = torch.tensor([[[1.0, 0, 0], [0, 1, 0], [0, 0.9, 1]]])
    level = stn.projective_sample(image.nan_to_num(), tilted, antialias=True)
    found = stn.projective_sample(image, tilted, antialias=True)
    assert 1 <= found.isnan().sum() < 40  # the pixels, out of 1,024, whose triangle contains the NaN pixel
    known = ~found.isnan()
    torch.testing.assert_close(found[known], level[known], atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16, torch.float64))
def test_the_identity_in_other_precisions(dtype: torch.dtype) -> None:
    image = spoilt((9, 12), math.nan, dtype=torch.float64).to(dtype)
    for mode in INTERPOLATING:
        assert same(stn.affine_sample(image, torch.eye(2, 3), mode=mode), image)


def test_the_last_pixel_of_a_row_does_not_read_the_one_before() -> None:
    """Its taps are at the end of an interval, where the fraction is 1."""
    image = torch.tensor([1.0, 2.0, math.nan, 4.0]).expand(1, 1, 4, 4)
    out = stn.affine_sample(image, torch.eye(2, 3), align_corners=True, padding_mode="border")
    assert out[0, 0, :, 3].tolist() == [4.0] * 4


@pytest.mark.parametrize("mode", INTERPOLATING[1:])
def test_elsewhere_they_reach_what_the_kernel_reaches(mode: str) -> None:
    """Half a pixel to the right, every tap has a weight."""
    image = torch.zeros(1, 1, 1, 11)
    image[..., 5] = math.nan
    moved = torch.zeros(1, 1, 11, 2)
    moved[..., 0] = 0.5
    out = stn.grid_sample(image, moved, units="pixel", relative=True, mode=mode)
    reach = 1 if mode == "bilinear" else 2
    assert out[0, 0, 0].isnan().nonzero().flatten().tolist() == list(range(5 - reach, 5 + reach))


def test_a_fill_value_of_nan_marks_what_lies_outside_alone() -> None:
    """With rotation and reduction, the NaN pixels are those whose mask is not 1, in every code path."""
    image, theta = noise(2, 3, 40, 50, dtype=torch.float32), torch.tensor([[1.1, -0.5, 0.3], [0.4, 1.2, -0.2]])
    for mode, last in itertools.product(("nearest", "bilinear", "bicubic"), (False, True)):
        source = image.contiguous(memory_format=torch.channels_last) if last else image
        out, mask = stn.affine_sample(source, theta, mode=mode, fill_value=math.nan, return_mask=True)
        known = (mask - 1).abs() < 1e-6
        assert 0.2 < known.float().mean() < 0.9
        assert torch.equal(out.isnan().all(dim=1, keepdim=True), ~known), (mode, last)
        plain = stn.affine_sample(source, theta, mode=mode)
        assert torch.equal(torch.where(known, out, 0.0), torch.where(known, plain, 0.0))
