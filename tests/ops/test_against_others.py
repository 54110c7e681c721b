"""The results equal those of torch, scipy and OpenCV, on warps other than the identity."""

from typing import Any

import cv2
import numpy as np
import pytest
import scipy.ndimage
import torch
from torch.nn import functional as F

import stn
from stn.grid import normalized_to_pixel
from tests.helpers import RULES, SIZES, noise

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "d, mode, padding_mode, align_corners",
    [(d, *rule) for d in (2, 3) for rule in RULES if rule[1] != "wrap" and (d, rule[0]) != (3, "bicubic")],
)
def test_torch(d: int, mode: str, padding_mode: str, align_corners: bool, dtype: torch.dtype) -> None:
    size, out = SIZES[d]
    image, theta = noise(3, 2, *size, dtype=dtype), noise(3, d, d + 1, dtype=dtype, seed=1)
    options: Any = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    for grid in (1.1 * noise(3, *out, d, dtype=dtype, seed=2), F.affine_grid(theta, [3, 2, *out], align_corners)):
        expected = F.grid_sample(image, grid, **options)
        torch.testing.assert_close(stn.grid_sample(image, grid, **options), expected, atol=TOLERANCE[dtype], rtol=0)
    got = stn.affine_sample(image, theta, out, **options)
    torch.testing.assert_close(got, expected, atol=TOLERANCE[dtype], rtol=0)


def test_half_way_between_pixels_nearest_takes_the_even_one_as_torch_does() -> None:
    image = noise(1, 1, 8, 12)
    half = F.affine_grid(torch.eye(2, 3, dtype=torch.float64)[None], [1, 1, 4, 6], align_corners=False)
    expected = F.grid_sample(image, half, mode="nearest", align_corners=False)
    assert torch.equal(stn.affine_sample(image, torch.eye(2, 3), (4, 6), mode="nearest"), expected)
    assert torch.equal(expected, image[:, :, ::2, ::2])


@pytest.mark.parametrize("mode, padding_mode, align_corners", [rule for rule in RULES if rule[1] != "wrap"])
def test_torch_gradients(mode: str, padding_mode: str, align_corners: bool) -> None:
    image, theta = noise(2, 2, 6, 7), noise(2, 2, 3, seed=1)
    weight = noise(2, 2, 5, 8, seed=2)
    options: Any = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}

    def gradients(sample):  # type: ignore[no-untyped-def]
        leaves = [image.clone().requires_grad_(), theta.clone().requires_grad_()]
        return torch.autograd.grad((weight * sample(*leaves)).sum(), leaves)

    ours = gradients(lambda x, t: stn.affine_sample(x, t, (5, 8), **options))
    torchs = gradients(lambda x, t: F.grid_sample(x, F.affine_grid(t, [2, 2, 5, 8], align_corners), **options))
    for got, expected in zip(ours, torchs, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-11, rtol=0)


SCIPY_MODES = {  # padding, align_corners -> scipy's name
    ("zeros", False): "grid-constant",
    ("border", False): "nearest",
    ("reflection", False): "grid-mirror",
    ("reflection", True): "mirror",
    ("wrap", False): "grid-wrap",
    ("wrap", True): "grid-wrap",
}


@pytest.mark.parametrize("d", (2, 3))
@pytest.mark.parametrize("order", (0, 1))
@pytest.mark.parametrize("padding_mode, align_corners", SCIPY_MODES)
def test_scipy(padding_mode: str, align_corners: bool, order: int, d: int) -> None:
    size, out = SIZES[d]
    image, grid = noise(1, 1, *size), 1.5 * noise(1, *out, d, seed=1)
    fill: Any = {"fill_value": 0.7} if padding_mode == "zeros" else {}
    rule: Any = {"mode": ("nearest", "bilinear")[order], "padding_mode": padding_mode, "align_corners": align_corners}
    got = stn.grid_sample(image, grid, **rule, **fill)[0, 0]
    pixels = normalized_to_pixel(grid[0], size, align_corners=align_corners).flip(-1).movedim(-1, 0).numpy()
    mode = SCIPY_MODES[padding_mode, align_corners]
    expected = scipy.ndimage.map_coordinates(image[0, 0].numpy(), pixels, order=order, mode=mode, cval=0.7)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-12)


def test_tricubic() -> None:
    """No other library has tricubic sampling with torch's a = -3/4. On volumes one pixel thick, bicubic is the same."""
    image = noise(1, 1, 6, 1, 9)
    grid = 0.9 * noise(1, 4, 5, 1, 3, seed=1)
    grid[..., 1] = 0
    got = stn.grid_sample(image, grid, mode="bicubic", padding_mode="border")[0, 0, ..., 0]
    flat = grid[..., 0, :][..., [0, 2]]
    expected = F.grid_sample(image[..., 0, :], flat, mode="bicubic", padding_mode="border", align_corners=False)[0, 0]
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=0)


def test_opencv_affine_and_perspective() -> None:
    """OpenCV maps in pixels, target to source under WARP_INVERSE_MAP. Matrices are float64, pixels and weights float32."""
    h, w, oh, ow = 40, 50, 36, 44
    image = noise(1, 1, h, w, dtype=torch.float32)
    theta = torch.tensor([[0.8, -0.3, 0.1], [0.25, 0.9, -0.05], [0.05, -0.1, 1.0]], dtype=torch.float64)
    source = torch.tensor([[w / 2, 0, (w - 1) / 2], [0, h / 2, (h - 1) / 2], [0, 0, 1]], dtype=torch.float64)
    target = torch.tensor([[ow / 2, 0, (ow - 1) / 2], [0, oh / 2, (oh - 1) / 2], [0, 0, 1]], dtype=torch.float64)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    plane = image[0, 0].numpy()
    affine = torch.cat([theta[:2], torch.tensor([[0.0, 0.0, 1.0]])])
    pixels = (source @ affine @ target.inverse()).numpy()
    expected = cv2.warpAffine(plane, pixels[:2], (ow, oh), flags=flags)
    # OpenCV may round coordinates to 1/32 pixel: an error of a few hundredths on white noise
    difference = stn.affine_sample(image, theta[:2], (oh, ow))[0, 0].numpy() - expected
    assert np.abs(difference)[2:-2, 2:-2].mean() < 0.02
    pixels = (source @ theta @ target.inverse()).numpy()
    expected = cv2.warpPerspective(plane, pixels, (ow, oh), flags=flags)
    difference = stn.projective_sample(image, theta, (oh, ow))[0, 0].numpy() - expected
    assert np.abs(difference)[2:-2, 2:-2].mean() < 0.02


def test_opencv_remap() -> None:
    image = noise(1, 1, 20, 30, dtype=torch.float32)
    pixels = torch.rand(1, 15, 25, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([29.0, 19.0])
    expected = cv2.remap(image[0, 0].numpy(), pixels[0, ..., 0].numpy(), pixels[0, ..., 1].numpy(), cv2.INTER_LINEAR)
    got = stn.grid_sample(image, pixels, units="pixel")[0, 0].numpy()
    assert np.abs(got - expected).mean() < 0.02  # 1/32 pixel, as above
