"""Matrices in pixel coordinates agree with OpenCV, scipy and scikit-image."""

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import transform as skimage_transform
from torch import Tensor

import stn
from stn import _check
from tests.helpers import near_identity, noise

IN, OUT = (40, 56), (48, 44)
MARGIN = 3  # pixels at the border, where paddings differ


def smooth(size: tuple[int, ...]) -> Tensor:
    """Return a smooth image, on which OpenCV's rounding of fractions to 1/32 causes errors below 1e-3."""
    image = ndimage.gaussian_filter(noise(*size).numpy(), 6)
    return torch.from_numpy(image / np.abs(image).max()).float()


def look(name: str) -> stn.MatrixWarp:
    family = stn.Affine() if name == "affine" else stn.Projective()
    return family(near_identity(family, 1, strength=0.1, seed=4))


@pytest.mark.parametrize("align_corners", (False, True))
@pytest.mark.parametrize("name", ("affine", "projective"))
@pytest.mark.parametrize("convention", ("opencv", "opencv-inverse"))
def test_opencv(name: str, convention: str, align_corners: bool) -> None:
    image, warp = smooth(IN), look(name)
    matrix = warp.to_pixel_matrix(IN, OUT, convention=convention, align_corners=align_corners)[0].numpy()
    flags = cv2.INTER_LINEAR | (cv2.WARP_INVERSE_MAP if convention == "opencv-inverse" else 0)
    if name == "affine":
        theirs = cv2.warpAffine(image.numpy(), matrix[:2], OUT[::-1], flags=flags)
    else:
        theirs = cv2.warpPerspective(image.numpy(), matrix, OUT[::-1], flags=flags)
    ours = warp.sample(image.double()[None, None], OUT, align_corners=align_corners)[0, 0].numpy()
    seen = warp.sample(torch.ones(1, 1, *IN).double(), OUT, align_corners=align_corners)[0, 0].numpy() == 1
    seen = ndimage.binary_erosion(seen, iterations=MARGIN)
    assert seen.mean() > 0.3
    assert np.abs(ours - theirs)[seen].max() < 1e-3


@pytest.mark.parametrize("size, out", ((IN, OUT), ((12, 14, 16), (13, 11, 15))))
def test_scipy(size: tuple[int, ...], out: tuple[int, ...]) -> None:
    image, family = noise(*size), stn.Affine(len(size))
    warp = family(near_identity(family, 1, strength=0.1))
    matrix = warp.to_pixel_matrix(size, out, convention="scipy")[0].numpy()
    theirs = ndimage.affine_transform(image.numpy(), matrix, output_shape=out, order=1, mode="grid-constant")
    np.testing.assert_allclose(warp.sample(image[None, None], out)[0, 0].numpy(), theirs, atol=1e-10)


def test_skimage() -> None:
    image, warp = noise(*IN), look("projective")
    inverse_map = skimage_transform.ProjectiveTransform(
        warp.to_pixel_matrix(IN, OUT, convention="opencv-inverse")[0].numpy()
    )
    theirs = skimage_transform.warp(image.numpy(), inverse_map, output_shape=OUT, order=1, mode="constant")
    ours = warp.sample(image[None, None], OUT)[0, 0].numpy()
    np.testing.assert_allclose(ours[MARGIN:-MARGIN, MARGIN:-MARGIN], theirs[MARGIN:-MARGIN, MARGIN:-MARGIN], atol=1e-10)


@pytest.mark.parametrize("align_corners", (False, True))
@pytest.mark.parametrize("convention", ("opencv", "opencv-inverse", "scipy"))
@pytest.mark.parametrize("name", ("affine", "projective"))
def test_there_and_back(name: str, convention: str, align_corners: bool) -> None:
    warp = look(name)
    options: Any = {"convention": convention, "align_corners": align_corners}
    pixels = warp.to_pixel_matrix(IN, OUT, **options)
    rows = slice(2) if name == "affine" else slice(3)
    back = stn.from_pixel_matrix(pixels[:, rows], IN, OUT, **options)
    torch.testing.assert_close(back.matrix, warp.matrix, atol=1e-12, rtol=0)
    one = stn.from_pixel_matrix(pixels[0, rows], IN, OUT, **options)
    torch.testing.assert_close(one.matrix, back.matrix)


def test_opencv_s_own_rotation() -> None:
    """Our warp uses a matrix that OpenCV made for a rectangular image."""
    image = smooth(IN)
    matrix = cv2.getRotationMatrix2D((27.5, 19.5), 30, 0.9)
    ours = stn.from_pixel_matrix(torch.from_numpy(matrix), IN).sample(image.double()[None, None])[0, 0].numpy()
    theirs = cv2.warpAffine(image.numpy(), matrix, IN[::-1], flags=cv2.INTER_LINEAR)
    inner = (slice(12, -12),) * 2
    assert np.abs(ours - theirs)[inner].max() < 1e-3 and np.abs(theirs - image.numpy())[inner].max() > 0.1


def test_looks_and_gradients() -> None:
    family = stn.Affine()
    theta = near_identity(family, 6).view(2, 3, 6).requires_grad_()
    warp = family(theta)
    pixels = warp.to_pixel_matrix(IN)
    assert pixels.shape == (2, 3, 3, 3)
    pixels.sum().backward()
    assert theta.grad is not None and theta.grad.abs().min() > 0


def test_bad_input() -> None:
    with pytest.raises(_check.InputError, match="convention must be one of opencv, opencv-inverse, scipy; got 'cv'"):
        look("affine").to_pixel_matrix(IN, convention="cv")
    with pytest.raises(_check.InputError, match="in_size must have 2 lengths"):
        look("affine").to_pixel_matrix((3, 4, 5))
    with pytest.raises(_check.InputError, match=r"matrix must be \(N, d, d\+1\)"):
        stn.from_pixel_matrix(torch.eye(5), IN)
    with pytest.raises(_check.InputError, match="must not be singular; it is singular at sample 0 of"):
        stn.from_pixel_matrix(torch.zeros(2, 3), IN)
