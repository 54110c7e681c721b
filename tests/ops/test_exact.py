"""Closed forms: results that a sampler must return exactly."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import stn
from stn.grid import lattice, normalized_to_pixel, pixel_to_normalized
from tests.helpers import PADDINGS, RULES, noise, ramp

EYE = torch.eye(2, 3, dtype=torch.float64)


@pytest.mark.parametrize("align_corners", (False, True))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
@pytest.mark.parametrize("mode", ("nearest", "bilinear", "bicubic"))
def test_the_identity_returns_the_image_bit_for_bit(mode: str, dtype: torch.dtype, align_corners: bool) -> None:
    for n in range(1, 66):
        image = noise(1, 1, n, 66 - n, dtype=dtype, seed=n)
        options: Any = {"mode": mode, "align_corners": align_corners}
        assert torch.equal(stn.affine_sample(image, EYE, **options), image)
        if mode != "nearest":  # this saves compiling one kernel
            assert torch.equal(stn.projective_sample(image, torch.eye(3), **options), image)
        still = torch.zeros(1, n, 66 - n, 2)
        assert torch.equal(stn.grid_sample(image, still, relative=True, **options), image)


def test_the_identity_at_every_size() -> None:
    """Sizes 1 to 513, and 2048, so that tiles end at any place, with a matrix and with a displacement field."""
    for n in (*range(1, 514), 2048):
        image = noise(1, 1, n % 67 + 1, n, dtype=torch.float32, seed=n)
        for one in (image, image.mT):
            assert torch.equal(stn.affine_sample(one, EYE), one), n
            still = torch.zeros(1, *one.shape[2:], 2)
            assert torch.equal(stn.grid_sample(one, still, relative=True), one), n
    image = noise(1, 3, 513, 511, dtype=torch.float32).contiguous(memory_format=torch.channels_last)
    out = stn.affine_sample(image, EYE)
    assert torch.equal(out, image) and out.is_contiguous(memory_format=torch.channels_last)


def test_the_identity_of_volumes() -> None:
    image = noise(2, 3, 5, 8, 13)
    for mode, padding_mode, align_corners in RULES:
        options: Any = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
        assert torch.equal(stn.affine_sample(image, torch.eye(3, 4), **options), image)


@pytest.mark.parametrize("mode", ("nearest", "bilinear"))
@pytest.mark.parametrize("n", (1, 2, 7, 8, 28, 65))
def test_flips_and_quarter_turns(mode: str, n: int) -> None:
    image = noise(1, 2, n, n, dtype=torch.float32)
    c, s = math.cos(math.pi / 2), math.sin(math.pi / 2)
    for matrix, expected in (
        ([[-1, 0, 0], [0, 1, 0]], image.flip(3)),
        ([[1, 0, 0], [0, -1, 0]], image.flip(2)),
        ([[0, 1, 0], [1, 0, 0]], image.mT),
        ([[c, -s, 0], [s, c, 0]], image.rot90(1, (2, 3))),  # the grid turns clockwise, the content counterclockwise
        ([[c, s, 0], [-s, c, 0]], image.rot90(-1, (2, 3))),
    ):
        theta = torch.tensor(matrix, dtype=torch.float64)
        for align_corners in (False, True):
            assert torch.equal(stn.affine_sample(image, theta, mode=mode, align_corners=align_corners), expected)


def shifted(image: Tensor, dx: int, dy: int, padding_mode: str) -> Tensor:
    """Return the image with pixel (x + dx, y + dy) at (x, y), by indexing alone."""
    h, w = image.shape[2:]
    y, x = torch.arange(h) + dy, torch.arange(w) + dx
    if padding_mode == "wrap":
        return image[:, :, y % h][..., x % w]
    if padding_mode == "border":
        return image[:, :, y.clamp(0, h - 1)][..., x.clamp(0, w - 1)]
    padded = torch.nn.functional.pad(image, (w, w, h, h))
    return padded[:, :, h + y][..., w + x]


@pytest.mark.parametrize("padding_mode", ("zeros", "border", "wrap"))
@pytest.mark.parametrize("size", ((8, 16), (7, 28), (65, 9)))
def test_whole_pixel_shifts(size: tuple[int, int], padding_mode: str) -> None:
    image = noise(1, 2, *size, dtype=torch.float32)
    for dx, dy in ((1, 0), (0, -1), (3, 2), (-5, 6)):
        theta = EYE.clone()
        theta[:, 2] = torch.tensor([2 * dx / size[1], 2 * dy / size[0]], dtype=torch.float64)
        expected = shifted(image, dx, dy, padding_mode)
        for mode in ("nearest", "bilinear"):
            # A shift of dx / W is not a binary fraction, so the weights may be off by 1e-15.
            torch.testing.assert_close(
                stn.affine_sample(image, theta, mode=mode, padding_mode=padding_mode), expected, atol=1e-6, rtol=0
            )
            move = torch.tensor([dx, dy], dtype=torch.float32).expand(1, *size, 2)
            moved = stn.grid_sample(image, move, relative=True, units="pixel", mode=mode, padding_mode=padding_mode)
            assert torch.equal(moved, expected)


@pytest.mark.parametrize("align_corners", (False, True))
@pytest.mark.parametrize("size, out", (((6, 9), (5, 4)), ((4, 5, 6), (3, 7, 2))))
def test_a_ramp_is_sampled_exactly(size: tuple[int, ...], out: tuple[int, ...], align_corners: bool) -> None:
    d = len(size)
    theta = 0.5 * torch.eye(d, d + 1, dtype=torch.float64) + 0.05 * noise(d, d + 1)
    points = lattice(out, align_corners=align_corners, dtype=torch.float64) @ theta[:, :d].T + theta[:, d]
    image = ramp(size, align_corners=align_corners)
    got = stn.affine_sample(image, theta, out, align_corners=align_corners)
    pixels = normalized_to_pixel(points, size, align_corners=align_corners)
    inside = ((pixels >= 0) & (pixels <= torch.tensor(size[::-1]) - 1)).all(dim=-1)
    error = (got[0].movedim(0, -1) - points).abs().amax(dim=-1)
    assert inside.sum() > inside.numel() / 2 and error[inside].max() < 1e-13


def test_sampling_is_linear_in_the_image_and_keeps_constants() -> None:
    a, b, theta = noise(2, 3, 6, 7), noise(2, 3, 6, 7, seed=1), noise(2, 2, 3, seed=2)
    for mode, padding_mode, align_corners in RULES:
        options: Any = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
        both = stn.affine_sample(2 * a - b, theta, (5, 4), **options)
        apart = 2 * stn.affine_sample(a, theta, (5, 4), **options) - stn.affine_sample(b, theta, (5, 4), **options)
        torch.testing.assert_close(both, apart, atol=1e-12, rtol=0)
        fill: Any = {"fill_value": 3.0} if padding_mode == "zeros" else {}
        constant = stn.affine_sample(torch.full_like(a, 3.0), theta, (5, 4), **options, **fill)
        torch.testing.assert_close(constant, torch.full_like(constant, 3.0), atol=1e-12, rtol=0)


@pytest.mark.parametrize("padding_mode", PADDINGS)
def test_normalise_then_warp_is_warp_then_normalise(padding_mode: str) -> None:
    image, theta, mean, std = noise(2, 3, 8, 8), noise(2, 2, 3), noise(3), noise(3).abs() + 0.1

    def normalized(x: Tensor) -> Tensor:
        return (x - mean[:, None, None]) / std[:, None, None]

    fill: Any = {"fill_value": -mean / std} if padding_mode == "zeros" else {}
    first = stn.affine_sample(normalized(image), theta, padding_mode=padding_mode, **fill)
    last = normalized(stn.affine_sample(image, theta, padding_mode=padding_mode))
    torch.testing.assert_close(first, last, atol=1e-12, rtol=0)


@pytest.mark.parametrize("align_corners", (False, True))
def test_pixels_and_normalised_coordinates_are_inverse(align_corners: bool) -> None:
    size = (5, 8)
    pixels = 4 * noise(10, 2)
    there = pixel_to_normalized(pixels, size, align_corners=align_corners)
    torch.testing.assert_close(normalized_to_pixel(there, size, align_corners=align_corners), pixels)
    corner = 1.0 if align_corners else 1 - 1 / 8
    grid = lattice(size, align_corners=align_corners, dtype=torch.float64)
    assert grid[0, -1, 0] == corner and grid[0, 0, 0] == -corner
    rows, columns = torch.meshgrid(torch.arange(5.0), torch.arange(8.0), indexing="ij")
    found = normalized_to_pixel(grid, size, align_corners=align_corners)
    torch.testing.assert_close(found, torch.stack([columns, rows], dim=-1).double())


def test_the_call_of_the_old_package() -> None:
    image = noise(3, 6, 8, 2)
    theta = torch.tensor([[1.0, 0, 0, 0, 1, 0]], dtype=torch.float64).repeat(3, 1)
    assert torch.equal(stn.spatial_transformer_network(image, theta), image)
    theta = theta + 0.2 * noise(3, 6)
    grid = torch.nn.functional.affine_grid(theta.view(3, 2, 3), [3, 2, 5, 4], align_corners=True)
    expected = torch.nn.functional.grid_sample(image.permute(0, 3, 1, 2), grid, align_corners=True).permute(0, 2, 3, 1)
    for parameters in (theta, theta.view(3, 2, 3)):
        got = stn.spatial_transformer_network(image, parameters, out_dims=(5, 4))
        torch.testing.assert_close(got, expected, atol=1e-12, rtol=0)
