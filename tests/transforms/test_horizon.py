"""Homographies with a horizon at any place: outside the image, across it, through its center or a corner."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

import stn
from tests.helpers import noise

SIZE, OUT = (41, 57), (47, 43)  # odd: the center of the image is a pixel
POINTS = (5, 5, 5)  # of a lattice, at -0.8, -0.4, 0 ..

# name -> the last row (v, 1 or 0): w = v x + last on the target
PLACES: dict[str, tuple[float, ...]] = {
    "beside": (0.2, -0.3, 1.0),
    "through": (1.5, 0.7, 1.0),
    "on points": (1.25, 0.0, 1.0),  # w = 0 at x = -0.8
    "middle": (1.0, 0.6, 0.0),
    "middle, upright": (1.0, 0.0, 0.0),
    "corner": (-0.5, -0.5, 1.0),
    "first pixel": (1.0, 1.0, 2 - 1 / 57 - 1 / 41),
    "everywhere": (0.0, 0.0, 0.0),
}
SCALES = (1.0, -1.0, 1e-6, 1e6)


def homography(place: str, scale: float = 1.0, ndim: int = 2) -> Tensor:
    """Return a homography (1, d+1, d+1)."""
    top = torch.cat([torch.eye(ndim), torch.zeros(ndim, 1)], dim=1).double() + 0.15 * noise(ndim, ndim + 1, seed=3)
    if place == "everywhere":
        top = torch.cat([top[:, :-1], torch.full((ndim, 1), 0.3)], dim=1)
    first, second, last = PLACES[place]
    row = torch.tensor([first, second, *[0.0] * (ndim - 2), last]).double()
    return scale * torch.cat([top, row[None]])[None]


def drawn(seed: int) -> Tensor:
    """Return a random matrix."""
    return noise(1, 3, 3, seed=seed)


MATRICES: dict[str, Callable[[], Tensor]] = {
    **{f"{place}, {scale}": partial(homography, place, scale) for place in PLACES for scale in SCALES},
    **{f"random {seed}": partial(drawn, seed) for seed in range(12)},
}
REGULAR = [name for name in MATRICES if "everywhere" not in name]


def smooth(size: tuple[int, ...]) -> Tensor:
    """Return a smooth image, on which OpenCV's rounding of fractions to 1/32 causes errors below 1e-3."""
    image = ndimage.gaussian_filter(noise(*size).numpy(), 6)
    return torch.from_numpy(image / np.abs(image).max())


def normal(matrix: Tensor) -> Tensor:
    """Divide a homography by its largest entry: its scale has no meaning."""
    flat = matrix.double().flatten(-2)
    largest = flat.gather(-1, flat.abs().argmax(dim=-1, keepdim=True))
    return matrix.double() / largest.unsqueeze(-1)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
@pytest.mark.parametrize("align_corners", (False, True))
@pytest.mark.parametrize("convention", ("opencv", "opencv-inverse"))
@pytest.mark.parametrize("name", REGULAR)
def test_opencv_sees_the_same(name: str, convention: str, align_corners: bool, dtype: torch.dtype) -> None:
    """Both directions: OpenCV with our matrix, and stn with OpenCV's, whose last entry is 1 unless it is 0."""
    image, warp = smooth(SIZE), stn.MatrixWarp(MATRICES[name]().to(dtype))
    options: Any = {"convention": convention, "align_corners": align_corners}
    pixels = warp.to_pixel_matrix(SIZE, OUT, **options)
    assert pixels.isfinite().all() and pixels.abs().max() >= 0.1
    flags = cv2.INTER_LINEAR | (cv2.WARP_INVERSE_MAP if convention == "opencv-inverse" else 0)
    theirs = cv2.warpPerspective(image.float().numpy(), pixels[0].numpy(), OUT[::-1], flags=flags)
    back = stn.from_pixel_matrix(pixels.to(dtype), SIZE, OUT, **options)
    assert back.dtype == dtype and back.matrix.isfinite().all()
    for found in (warp, back):
        ours = found.sample(image[None, None], OUT, align_corners=align_corners)[0, 0].numpy()
        inside = found.sample(torch.ones(1, 1, *SIZE).double(), OUT, align_corners=align_corners)[0, 0].numpy() == 1
        inside = ndimage.binary_erosion(inside, iterations=2)
        assert not inside.any() or np.abs(ours - theirs)[inside].max() < 2e-3


def test_what_is_compared_with_opencv_is_in_sight() -> None:
    seen = [stn.MatrixWarp(MATRICES[name]()).sample(torch.ones(1, 1, *SIZE).double(), OUT) for name in REGULAR]
    assert sum(mask.mean() > 0.05 for mask in seen) > 0.8 * len(REGULAR)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
@pytest.mark.parametrize("align_corners", (False, True))
@pytest.mark.parametrize("convention", ("opencv", "opencv-inverse", "scipy"))
@pytest.mark.parametrize("name", REGULAR)
def test_there_and_back(name: str, convention: str, align_corners: bool, dtype: torch.dtype) -> None:
    warp = stn.MatrixWarp(MATRICES[name]().to(dtype))
    options: Any = {"convention": convention, "align_corners": align_corners}
    back = stn.from_pixel_matrix(warp.to_pixel_matrix(SIZE, OUT, **options), SIZE, OUT, **options)
    condition = torch.linalg.cond(warp.matrix.double()).item()
    assert condition < 1e3
    torch.testing.assert_close(normal(back.matrix), normal(warp.matrix), atol=1e-13 * condition, rtol=0)
    assert back.matrix.to(dtype).isfinite().all() and 0.1 <= back.matrix.abs().max() <= 1e5


def test_the_last_entry_is_one_wherever_it_can_be() -> None:
    for name in REGULAR:
        pixels = stn.MatrixWarp(MATRICES[name]()).to_pixel_matrix(SIZE, OUT, convention="opencv-inverse")
        assert pixels[0, -1, -1] == 1 or (name.startswith("first pixel") and pixels.norm() == pytest.approx(1))
    shift = torch.eye(3).double()[None].clone()
    shift[:, 0, 2] = 1e9  # far away, but affine: warpAffine accepts these rows
    affine = stn.MatrixWarp(shift[:, :2])
    assert affine.to_pixel_matrix(SIZE, convention="opencv-inverse")[0, -1].tolist() == [0, 0, 1]


def test_pixel_matrices_have_gradients_there() -> None:
    for name in REGULAR:
        matrix = MATRICES[name]().requires_grad_()
        for convention in ("opencv", "opencv-inverse", "scipy"):
            pixels = stn.MatrixWarp(matrix).to_pixel_matrix(SIZE, OUT, convention=convention)
            back = stn.from_pixel_matrix(pixels, SIZE, OUT, convention=convention).matrix
            for value in (pixels, back):
                (gradient,) = torch.autograd.grad(value.sin().sum(), matrix, retain_graph=True)
                assert gradient.isfinite().all(), (name, convention)


Measure = Callable[[stn.MatrixWarp], Tensor]
MEASURES: dict[str, Measure] = {
    "points": lambda warp: warp.points(stn.grid.lattice(POINTS[: warp.ndim], dtype=warp.dtype).flatten(0, -2)),
    "grid": lambda warp: warp.grid(POINTS[: warp.ndim]),
    "jacobian": lambda warp: warp.jacobian(POINTS[: warp.ndim]),
    "determinant": lambda warp: warp.jacobian_determinant(POINTS[: warp.ndim]),
    "after a shift": lambda warp: (shifted(warp) @ warp).grid(POINTS[: warp.ndim]),
    "before a shift": lambda warp: (warp @ shifted(warp)).grid(POINTS[: warp.ndim]),
    "after a field": lambda warp: (bent(warp) @ warp).grid(POINTS[: warp.ndim]),
    "before a field": lambda warp: (warp @ bent(warp)).grid(POINTS[: warp.ndim]),
    "after a field, jacobian": lambda warp: (bent(warp) @ warp).jacobian(POINTS[: warp.ndim]),
    "before a field, determinant": lambda warp: (warp @ bent(warp)).jacobian_determinant(POINTS[: warp.ndim]),
    "inverse": lambda warp: warp.inverse(check=False).grid(POINTS[: warp.ndim]),
    "inverse, jacobian": lambda warp: warp.inverse(check=False).jacobian(POINTS[: warp.ndim]),
}


def shifted(warp: stn.MatrixWarp) -> stn.MatrixWarp:
    start = torch.eye(warp.ndim, warp.ndim + 1, dtype=warp.dtype)
    start[0, -1] = 0.4  # the distance of two points of the lattice
    return stn.MatrixWarp(start.expand(*warp.batch, -1, -1))


FIELDS = {d: stn.Displacement(d, shape=(5,) * d) for d in (2, 3)}
BENT = {d: 0.05 * noise(1, field.num_params, seed=4) for d, field in FIELDS.items()}


def bent(warp: stn.MatrixWarp) -> stn.Warp:
    """Return a displacement field, the same for all samples."""
    return FIELDS[warp.ndim](BENT[warp.ndim].to(warp.dtype))


def masked(measure: Measure, matrix: Tensor) -> Tensor:
    """Return the mean sine of all finite values, as an example of a loss that ignores the others."""
    value = measure(stn.MatrixWarp(matrix))
    return torch.where(value.isfinite(), value, 0).sin().mean()


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
@pytest.mark.parametrize("ndim", (2, 3))
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("place", PLACES)
def test_a_point_on_the_horizon_leaves_the_gradient_of_the_others(
    place: str, measure: str, ndim: int, dtype: torch.dtype
) -> None:
    """First and second derivatives, forward mode and vmap, for two samples; the second sample is the identity."""
    other = torch.eye(ndim + 1, dtype=dtype)[None]
    matrix = torch.cat([homography(place, ndim=ndim).to(dtype), other]).requires_grad_()

    def loss(matrix: Tensor) -> Tensor:
        return masked(MEASURES[measure], matrix)

    (first,) = torch.autograd.grad(loss(matrix), matrix, create_graph=True)
    assert first.isfinite().all() and first[1].abs().max() > 0
    (second,) = torch.autograd.grad(first.square().sum(), matrix)
    assert second.isfinite().all()
    tangent = noise(*matrix.shape, seed=5).to(dtype)
    pushed = torch.func.jvp(loss, (matrix.detach(),), (tangent,))[1]
    torch.testing.assert_close(pushed, (first * tangent).sum().detach(), rtol=1e-3, atol=1e-5)
    each = torch.func.vmap(torch.func.grad(loss))(matrix.detach()[:, None])[:, 0] / 2
    torch.testing.assert_close(each, first.detach(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("ndim", (2, 3))
@pytest.mark.parametrize("place", PLACES)
def test_both_warps_of_a_composition_keep_their_gradient(place: str, ndim: int) -> None:
    """A value is infinite in every entry or in none: infinity minus infinity must not give NaN."""
    matrix, field = homography(place, ndim=ndim).requires_grad_(), FIELDS[ndim]
    theta = BENT[ndim].clone().requires_grad_()
    for order in ("after", "before"):
        warps = field(theta), stn.MatrixWarp(matrix)
        warp = warps[0] @ warps[1] if order == "after" else warps[1] @ warps[0]
        for value in (
            warp.grid(POINTS[:ndim]),
            warp.jacobian(POINTS[:ndim]),
            warp.jacobian_determinant(POINTS[:ndim]),
            warp.sample(noise(1, 2, *SIZE[:1] * ndim), POINTS[:ndim]),
        ):
            assert not value.isnan().any(), order
            loss = torch.where(value.isfinite(), value, 0).sin().sum()
            gradients = torch.autograd.grad(loss, (matrix, theta), materialize_grads=True)
            assert all(gradient.isfinite().all() for gradient in gradients), order


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16))
@pytest.mark.parametrize("place", PLACES)
def test_in_half_precision(place: str, dtype: torch.dtype) -> None:
    matrix = homography(place).to(dtype).requires_grad_()
    for measure in ("points", "grid", "jacobian"):
        (gradient,) = torch.autograd.grad(masked(MEASURES[measure], matrix), matrix)
        assert gradient.isfinite().all(), measure


@pytest.mark.parametrize("ndim", (2, 3))
def test_the_horizon_is_infinitely_far(ndim: int) -> None:
    """Every coordinate is infinite, also those for which 0 / 0 would be NaN. So the point is outside every image."""
    for place in ("on points", "middle", "middle, upright", "everywhere"):
        warp = stn.MatrixWarp(homography(place, ndim=ndim))
        points = 0.8 * stn.grid.lattice(POINTS[:ndim], align_corners=True).flatten(0, -2).double()
        w = points @ warp.matrix[0, -1, :-1] + warp.matrix[0, -1, -1]
        found, jacobian = warp.points(points)[0], warp.jacobian(POINTS[:ndim])[0].flatten(0, ndim - 1)
        assert torch.equal(found.isinf().all(dim=-1), w == 0) and not found.isnan().any() and (w == 0).any()
        assert torch.equal(jacobian.isinf().flatten(1).all(dim=-1), w.abs() < 1e-12)
    origin = torch.zeros(1, ndim + 1, ndim + 1)
    assert stn.MatrixWarp(origin).points(torch.zeros(ndim)).isinf().all()
    assert stn.MatrixWarp(origin * math.nan).points(torch.zeros(ndim)).isnan().all()


def test_a_singular_matrix_leaves_the_others_their_gradient() -> None:
    for singular in (torch.zeros(3, 3), torch.ones(3, 3)):
        matrix = torch.stack([torch.eye(3), singular]).double().requires_grad_()
        inverse = stn.MatrixWarp(matrix).inverse(check=False).matrix
        assert inverse[0].isfinite().all() and inverse[1].isnan().all()
        (gradient,) = torch.autograd.grad(inverse.nan_to_num().sum(), matrix)
        assert gradient[0].abs().max() > 0 and not gradient[1].any()
