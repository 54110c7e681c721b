"""Interpolation kernels besides bilinear: against scipy, OpenCV, Pillow and the paper's formula."""

import itertools
import math
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import stn
from stn.ops.interpolation import INTERPOLATIONS, sinc
from tests.helpers import noise

HAT = stn.Kernel(lambda d: 1 - d, support=1)
GAUSS = stn.Kernel(lambda d: torch.exp(-2 * d**2), support=2.5, normalize=True)
LANCZOS4 = stn.Kernel(lambda d: sinc(d) * sinc(d / 4), support=4, normalize=True)
SMOOTH = ("catmull_rom", "bspline", "lanczos3", GAUSS)
NAMES = [str(mode) if isinstance(mode, str) else "gauss" for mode in SMOOTH]
SCIPY = [  # padding_mode, align_corners, scipy's name
    ("reflection", True, "mirror"),
    ("reflection", False, "reflect"),
    ("wrap", False, "grid-wrap"),
    ("border", False, "nearest"),
    ("zeros", False, "grid-constant"),
]


def points_in_pixels(size: tuple[int, ...], count: int, beyond: float) -> Tensor:
    """Return random points (count, d) in x, y, z order, some of them outside."""
    unit = torch.rand(count, len(size), dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    return unit * (torch.tensor(size[::-1]) + 2 * beyond - 1) - beyond


def at(image: Tensor, pixels: Tensor, **options: Any) -> Tensor:
    """Sample the image (*in) at pixels (P, d)."""
    grid = pixels.view(1, *(1,) * (image.ndim - 1), -1, image.ndim)
    out: Tensor = stn.grid_sample(image[None, None], grid, units="pixel", **options)
    return out.flatten()


@pytest.mark.parametrize("size", ((17, 23), (9, 8, 11)))
@pytest.mark.parametrize("padding_mode, align_corners, theirs", SCIPY)
@pytest.mark.parametrize("order, mode", ((0, "nearest"), (1, "bilinear"), (3, "bspline")))
def test_scipy(order: int, mode: str, padding_mode: str, align_corners: bool, theirs: str, size: tuple[int, ...]) -> None:
    image, pixels = noise(*size), points_in_pixels(size, 200, beyond=6.0)
    options = {"fill_value": 0.7} if padding_mode == "zeros" else {}
    got = at(image, pixels, mode=mode, padding_mode=padding_mode, align_corners=align_corners, **options)
    coordinates = pixels.flip(-1).T.numpy()
    expected = ndimage.map_coordinates(image.numpy(), coordinates, order=order, mode=theirs, cval=0.7)
    # scipy pads the coefficients by 12 pixels, and truncates the sum for "reflect". Our coefficients interpolate the pixels
    # to within 1e-12.
    tolerance = {"nearest": 1e-6, "grid-constant": 1e-6, "reflect": 1e-9}.get(theirs, 1e-10) if order == 3 else 1e-10
    np.testing.assert_allclose(got.numpy(), expected, atol=tolerance, rtol=0)


def test_scipys_constant_well_inside() -> None:
    """Beyond the center of the last pixel, scipy is constant at once. Inside, the results agree."""
    image, pixels = noise(40, 50), points_in_pixels((40, 50), 100, beyond=-15.0)
    got = at(image, pixels, mode="bspline")
    expected = ndimage.map_coordinates(image.numpy(), pixels.flip(-1).T.numpy(), order=3, mode="constant")
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-7, rtol=0)


def test_opencvs_lanczos() -> None:
    """INTER_LANCZOS4 has eight taps and rounds coordinates to 1/32 pixel, as these points are. Weights agree to 1e-3."""
    image, size = noise(30, 40, dtype=torch.float32), (30, 40)
    pixels = (points_in_pixels(size, 300, beyond=-6.0) * 32).round() / 32
    x, y = (pixels[:, i].float().view(1, -1).numpy() for i in (0, 1))
    theirs = cv2.remap(image.numpy(), x, y, cv2.INTER_LANCZOS4)
    got = at(image.double(), pixels, mode=LANCZOS4)
    np.testing.assert_allclose(got.numpy(), theirs[0], atol=2e-3)
    bilinear = at(image.double(), pixels)
    assert np.abs(bilinear.numpy() - theirs[0]).max() > 0.3


@pytest.mark.parametrize("mode, theirs", (("catmull_rom", Image.Resampling.BICUBIC), ("lanczos3", Image.Resampling.LANCZOS)))
def test_pillow_enlarges_alike(mode: str, theirs: Image.Resampling) -> None:
    image = noise(14, 17, dtype=torch.float32)
    expected = np.asarray(Image.fromarray(image.numpy()).resize((51, 42), theirs))
    got = stn.affine_sample(image[None, None], torch.eye(2, 3), (42, 51), mode=mode)[0, 0].numpy()
    inner = (slice(12, -12),) * 2  # Pillow drops taps outside and normalizes the rest
    np.testing.assert_allclose(got[inner], expected[inner], atol=1e-5)


@pytest.mark.parametrize("size", ((8, 9), (5, 6, 7)))
def test_the_papers_equation(size: tuple[int, ...]) -> None:
    """V = sum_nm U_nm k(x - m) k(y - n), over all pixels of the image."""
    image, pixels = noise(*size), points_in_pixels(size, 20, beyond=1.0)
    for mode, k in ((HAT, lambda d: (1 - d).clamp_min(0)), (stn.Kernel(torch.cos, 1.5), lambda d: (d <= 1.5) * d.cos())):
        expected = torch.zeros(len(pixels), dtype=torch.float64)
        for place in itertools.product(*map(range, size)):
            weights = [k((pixels[:, -1 - axis] - i).abs()) for axis, i in enumerate(place)]
            expected += image[place] * torch.stack(weights).prod(dim=0)
        torch.testing.assert_close(at(image, pixels, mode=mode), expected, atol=1e-12, rtol=0)


def test_a_hat_is_bilinear_with_its_gradient() -> None:
    """This includes whole pixels, where the identity starts."""
    image, theta = noise(2, 3, 6, 7), torch.eye(2, 3, dtype=torch.float64)[None].repeat(2, 1, 1).requires_grad_()
    found = []
    for mode in (HAT, "bilinear"):
        out = stn.affine_sample(image, theta, mode=mode)
        found.append((out, *torch.autograd.grad(out, theta, noise(*out.shape, seed=1))))
    for ours, theirs in zip(*found, strict=True):  # the slope of a table is a difference over 1/4096 pixel
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-11)


@pytest.mark.parametrize("mode", SMOOTH, ids=NAMES)
@pytest.mark.parametrize("padding_mode", ("zeros", "border", "reflection", "wrap"))
def test_derivatives(mode: str | stn.Kernel, padding_mode: str) -> None:
    image = noise(1, 1, 5, 4).requires_grad_()
    theta = (torch.eye(2, 3, dtype=torch.float64) + 0.2 * noise(2, 3))[None].requires_grad_()

    def sample(image: Tensor, theta: Tensor) -> Tensor:
        out: Tensor = stn.affine_sample(image, theta, (3, 2), mode=mode, padding_mode=padding_mode)
        return out

    assert gradcheck(sample, (image, theta), check_forward_ad=True)
    assert gradgradcheck(sample, (image, theta))


@pytest.mark.parametrize("name", INTERPOLATIONS)
def test_a_constant_stays_constant(name: str) -> None:
    image, theta = torch.full((1, 2, 9, 11), 3.0), torch.eye(2, 3) + 0.1 * noise(2, 3, dtype=torch.float32)
    for padding_mode in ("border", "reflection", "wrap"):
        out = stn.affine_sample(image, theta, mode=name, padding_mode=padding_mode)
        torch.testing.assert_close(out, torch.full_like(out, 3.0), atol=2e-6, rtol=0)
    out = stn.affine_sample(image, theta, mode=name, fill_value=3.0)
    torch.testing.assert_close(out, torch.full_like(out, 3.0), atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", sorted(set(INTERPOLATIONS) - {"bspline"}))
def test_the_identity_is_exact(name: str) -> None:
    image = noise(1, 2, 9, 11, dtype=torch.float32)
    torch.testing.assert_close(stn.affine_sample(image, torch.eye(2, 3), mode=name), image, atol=1e-7, rtol=0)


def test_the_bspline_passes_through_the_pixels() -> None:
    for dtype, tolerance in ((torch.float32, 2e-6), (torch.float64, 1e-12)):
        for padding_mode in ("zeros", "border", "reflection", "wrap"):
            image = noise(1, 2, 9, 1, dtype=dtype)
            out = stn.affine_sample(image, torch.eye(2, 3), mode="bspline", padding_mode=padding_mode)
            torch.testing.assert_close(out, image, atol=tolerance, rtol=0)


@pytest.mark.parametrize("mode", (*INTERPOLATIONS, HAT), ids=(*INTERPOLATIONS, "hat"))
def test_the_mask_is_the_share_inside(mode: str | stn.Kernel) -> None:
    image, theta = noise(2, 3, 9, 11) + 5, torch.eye(2, 3, dtype=torch.float64)[None].repeat(2, 1, 1) * 2.6
    options: Any = {"mode": mode, "return_mask": True}
    out, mask = stn.affine_sample(image, theta, (20, 22), **options)
    assert mask.shape == (2, 1, 20, 22) and out.shape == (2, 3, 20, 22)
    assert (mask[:, :, 9:11, 10:12] - 1).abs().max() < 1e-12 and mask[:, :, 0].abs().max() < 1e-12
    if mode not in ("bspline",):  # whose coefficients reach beyond the image
        ones, again = stn.affine_sample(torch.ones_like(image), theta, (20, 22), **options)
        torch.testing.assert_close(ones[:, :1], mask, atol=1e-12, rtol=0)
        assert torch.equal(mask, again)
    looks, masks = stn.Affine()(theta.view(2, 1, 6).repeat(1, 3, 1)).sample(image, (20, 22), **options)
    assert looks.shape == (2, 3, 3, 20, 22) and torch.equal(masks[:, 1], mask)


@pytest.mark.parametrize("padding_mode", ("border", "reflection", "wrap"))
def test_the_mask_does_not_depend_on_the_padding(padding_mode: str) -> None:
    """The mask is the share of the kernel inside the image, whatever values stand in for the outside."""
    image, grid = noise(1, 1, 6, 7), noise(1, 5, 5, 2)
    _, zeros = stn.grid_sample(image, grid, return_mask=True)
    _, mask = stn.grid_sample(image, grid, padding_mode=padding_mode, return_mask=True)
    assert torch.equal(mask, zeros) and 0 < mask.mean() < 1


def test_masks_of_bytes_and_of_complex_images() -> None:
    for dtype in (torch.uint8, torch.complex64, torch.float16):
        image = torch.ones(1, 1, 4, 4).to(dtype)
        _, mask = stn.affine_sample(image, 2 * torch.eye(2, 3), return_mask=True)
        assert mask.dtype == torch.float32 and 0 < mask.mean() < 1


def test_normalising_commutes_with_warping() -> None:
    """The fill value of the second order is the normalized background."""
    image, theta = 0.5 + 0.1 * noise(2, 3, 12, 10), torch.eye(2, 3).double() * 1.5
    mean, std = torch.tensor([0.4, 0.5, 0.6]).double(), torch.tensor([0.2, 0.3, 0.25]).double()

    def normalize(image: Tensor) -> Tensor:
        return (image - mean[:, None, None]) / std[:, None, None]

    for mode in INTERPOLATIONS:
        after = normalize(stn.affine_sample(image, theta, mode=mode))
        before = stn.affine_sample(normalize(image), theta, mode=mode, fill_value=-mean / std)
        torch.testing.assert_close(before, after, atol=1e-10, rtol=0)


def test_bad_kernels() -> None:
    with pytest.raises(stn.InputError, match="support must be positive; got 0"):
        stn.Kernel(torch.cos, support=0)
    with pytest.raises(stn.InputError, match="mode must be one of bicubic, bilinear, .*; got 'lanczos'"):
        stn.affine_sample(torch.zeros(1, 1, 3, 3), torch.eye(2, 3), mode="lanczos")


def test_sinc_is_numpys_and_smooth_where_its_series_ends() -> None:
    x = torch.linspace(-0.05, 0.05, 2001, dtype=torch.float64)
    np.testing.assert_allclose(sinc(x).numpy(), np.sinc(x.numpy()), rtol=1e-13)
    curvature = torch.func.vmap(torch.func.grad(torch.func.grad(sinc)))(x)
    expected = -(math.pi**2) / 3 * (1 - 3 * (math.pi * x) ** 2 / 10)  # to the fourth order
    np.testing.assert_allclose(curvature.numpy(), expected.numpy(), atol=2e-4)
