"""The contenders of the benchmark: each returns a function to call for a case, or None without such an operator."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from stn import _check
from stn.grid import lattice
from stn.lab.bench.cases import Case
from stn.lab.bench.families import family_of, sampled_by
from stn.ops import affine_sample, projective_sample
from stn.ops import grid_sample as stored_sample
from stn.ops.rules.spline import radial_and_linear
from stn.transforms import MatrixWarp, ThinPlateSpline
from stn.transforms.spline import coefficients_of_offsets

Operator = Callable[[Tensor, Tensor], Tensor]  # image, theta -> image
SPLINE = ThinPlateSpline(control_points=(4, 4))


TORCH_MODES = {"bspline": "bicubic"}  # the nearest that torch has
OPENCV_MODES = {"nearest": "NEAREST", "bilinear": "LINEAR", "bicubic": "CUBIC", "bspline": "CUBIC", "lanczos3": "LANCZOS4"}


def ours(case: Case) -> Operator | None:
    if case.family:
        family = family_of(case.family, len(case.shape) - 2)
        return lambda image, theta: family(theta).sample(image)
    if case.mode != "bilinear":
        return partial(affine_sample, mode=case.mode)
    if case.rule == "thin_plate":
        return lambda image, theta: SPLINE(theta).sample(image)
    if case.pattern:
        return partial(stored_sample, mode=case.stored.mode)
    return projective_sample if case.rule == "projective" else affine_sample


def torch_eager(case: Case) -> Operator | None:
    shape, mode = list(case.shape), TORCH_MODES.get(case.mode, case.mode)
    if mode == "lanczos3":
        return None
    if case.family:
        with torch.device(case.device):  # its tables
            return sampled_by(case.family, case.size)
    if case.dtype is torch.uint8:
        return torch_on_bytes(shape, mode)
    if case.rule == "thin_plate":
        return matmul_and_grid_sample(case)
    if case.rule == "projective":
        return None
    if case.pattern:
        return partial(grid_sample, mode=case.stored.mode, align_corners=False)

    def sample(image: Tensor, theta: Tensor) -> Tensor:
        return grid_sample(image, affine_grid(theta, shape, align_corners=False), mode, align_corners=False)

    return sample


def torch_on_bytes(shape: list[int], mode: str) -> Operator:
    """Through float32, because `grid_sample` has no bytes."""

    def sample(image: Tensor, theta: Tensor) -> Tensor:
        grid = affine_grid(theta, shape, align_corners=False)
        return grid_sample(image.float(), grid, mode, align_corners=False).round_().clamp_(0, 255).to(torch.uint8)

    return sample


def matmul_and_grid_sample(case: Case) -> Operator:
    """Thin-plate warping in the usual way: a precomputed basis at every pixel, times the offsets."""
    xy = lattice(case.shape[2:], dtype=torch.float64).flatten(0, 1)
    solution = coefficients_of_offsets(SPLINE.control_points, SPLINE.smoothing)  # (T+3, T)
    basis = (radial_and_linear(xy, SPLINE.control_points) @ solution).float().to(case.device)  # (H W, T)
    base, size = xy.float().to(case.device), case.shape[2:]

    def sample(image: Tensor, theta: Tensor) -> Tensor:
        grid = base + basis @ theta.unflatten(1, (16, 2))
        return grid_sample(image, grid.unflatten(1, size), align_corners=False)

    return sample


def torch_compiled(case: Case) -> Operator | None:
    """Compile for this shape only, because the gradient of affine_grid does not compile with dynamic shapes."""
    eager = torch_eager(case)
    torch.compiler.reset()
    return None if eager is None else torch.compile(eager, dynamic=False)


def torch_contiguous(case: Case) -> Operator | None:
    """For channels-last cases: torch on NCHW, where it may be faster."""
    return torch_eager(case) if case.channels_last else None


def kornia(case: Case) -> Operator | None:
    if len(case.shape) != 4 or case.pattern or case.family or case.suite in ("kernels", "bytes"):
        return None
    _check.installed("kornia", "bench")
    if case.rule == "thin_plate":
        return kornia_thin_plate(case)
    from kornia.geometry.transform import warp_affine, warp_perspective

    height, width = case.shape[2:]
    warp: Any = warp_perspective if case.rule == "projective" else warp_affine
    return lambda image, theta: warp(image, theta, (height, width), align_corners=True)


def kornia_thin_plate(case: Case) -> Operator:
    """kornia solves the system of the spline in each call, for each image. Its radial functions are centered at the moved
    points, so its result differs slightly."""
    from kornia.geometry.transform import get_tps_transform, warp_image_tps

    solve: Any = get_tps_transform
    warp: Any = warp_image_tps
    control = SPLINE.control_points.float().expand(case.shape[0], -1, -1).contiguous().to(case.device)

    def sample(image: Tensor, theta: Tensor) -> Tensor:
        moved = control + theta.unflatten(1, (16, 2))
        out: Tensor = warp(image, moved, *solve(control, moved), align_corners=True)
        return out

    return sample


def opencv(case: Case, planes: bool) -> Callable[[], Any] | None:
    """OpenCV on the planes of one image, as in torch, or on interleaved channels, as usual in OpenCV."""
    if case.task != "forward" or case.shape[0] != 1 or len(case.shape) != 4 or case.rule == "thin_plate":
        return None
    _check.installed("cv2", "bench")
    import cv2

    cv2.setNumThreads(torch.get_num_threads())
    pixels, size = case.image()[0].numpy(), (case.shape[3], case.shape[2])
    images = list(pixels) if planes else [pixels.transpose(1, 2, 0).copy()]
    matrix = pixel_matrix(case, "opencv-inverse").numpy()
    warp = cv2.warpPerspective if case.rule == "projective" else cv2.warpAffine
    flags = getattr(cv2, f"INTER_{OPENCV_MODES[case.mode]}") | cv2.WARP_INVERSE_MAP
    return lambda: [warp(image, matrix, size, flags=flags) for image in images]


def pixel_matrix(case: Case, convention: str) -> Tensor:
    """Return theta of the first image in pixels, (2, 3) or (3, 3)."""
    warp = MatrixWarp(case.theta()[:1].double())
    return warp.to_pixel_matrix(case.shape[2:], convention=convention)[0, : warp.matrix.shape[-2]]


def bind(case: Case, operator: Operator, *, contiguous: bool = False, pixels: bool = False) -> Callable[[], Any]:
    """Return the call of an operator for a case. pixels: theta is a matrix from source to target pixels."""
    image, weight, theta = case.image(), case.weight(), case.theta()
    if contiguous:
        image, weight = image.contiguous(), weight.contiguous()
    if pixels:
        theta = pixel_matrix(case, "opencv").float().expand(case.shape[0], -1, -1).contiguous()
    if case.task == "forward":
        return lambda: operator(image, theta)
    inputs = case.inputs(image, theta)
    return lambda: torch.autograd.grad(operator(image, theta), inputs, weight)


def contenders(case: Case) -> dict[str, Callable[[], Any]]:
    """Return name -> call; the first is stn."""
    calls: dict[str, Callable[[], Any] | None] = {}
    for name, make in (("stn", ours), ("torch", torch_eager), ("torch.compile", torch_compiled), ("kornia", kornia)):
        operator = make(case)
        calls[name] = (
            None if operator is None else bind(case, operator, pixels=name == "kornia" and case.rule != "thin_plate")
        )
    on_planes = torch_contiguous(case)
    calls["torch NCHW"] = None if on_planes is None else bind(case, on_planes, contiguous=True)
    if case.suite in ("opencv", "kernels", "bytes") and case.device == "cpu":
        calls["OpenCV planes"] = opencv(case, planes=True)
        calls["OpenCV interleaved"] = opencv(case, planes=False) if case.shape[1] > 1 else None
    return {name: call for name, call in calls.items() if call is not None}
