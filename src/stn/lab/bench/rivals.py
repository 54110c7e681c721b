"""Programs that register images, behind one call: two images and a family -> where the pixels of the fixed image are.

Each contender receives arrays (*size) in [0, 1] and returns a map of pixel coordinates (P, d), x first, from the fixed image
to the moving one. Pixels have a length of 1 and the first lies at 0, so that no program needs another geometry. Settings are
those that each program's own documentation proposes. A contender whose package is missing has no rows.
"""

from __future__ import annotations

import importlib.util
import resource
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import stn

Array = np.ndarray
Move = Callable[[Array], Array]  # (P, d) -> (P, d), pixels, x first
Find = Callable[[Array, Array, str], Move]  # moving, fixed, family
RIGID, AFFINE, DEFORMABLE = "rigid", "affine", "deformable"


@dataclass(frozen=True)
class Rival:
    """A program: its name, the package it needs, and what it can do."""

    name: str
    module: str
    find: Find
    families: tuple[str, ...] = (RIGID, AFFINE, DEFORMABLE)
    ndims: tuple[int, ...] = (2, 3)

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.module) is not None

    def takes(self, ndim: int, family: str) -> bool:
        return ndim in self.ndims and family in self.families


def seconds_of_cpu() -> float:
    """Return the processor time of all threads of this process and its children."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def moved(warp: stn.Warp, in_size: tuple[int, ...], out_size: tuple[int, ...]) -> Move:
    """Return the map of pixels of a warp of one sample."""

    def move(points: Array) -> Array:
        found = warp.points(torch.from_numpy(np.asarray(points, np.float64)), pixels=(in_size, out_size))
        return found[0].detach().numpy()

    return move


def ours(loss: str) -> Find:
    def find(moving: Array, fixed: Array, family: str) -> Move:
        given: list[Tensor] = [torch.from_numpy(image)[None, None].float() for image in (moving, fixed)]
        found = stn.register(given[0], given[1], {DEFORMABLE: "velocity"}.get(family, family), loss=loss)
        return moved(found.warp, moving.shape, fixed.shape)

    return find


# ---- SimpleITK ----


def simpleitk(moving: Array, fixed: Array, family: str) -> Move:
    import SimpleITK as sitk

    a, b = (sitk.GetImageFromArray(image.astype(np.float32)) for image in (fixed, moving))
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetInterpolator(sitk.sitkLinear)
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([2, 1, 0])
    if family == DEFORMABLE:
        method.SetInitialTransformAsBSpline(sitk.BSplineTransformInitializer(a, [2] * a.GetDimension()), True, [1, 2, 5])
        method.SetOptimizerAsGradientDescentLineSearch(5.0, 100, 1e-4, 5)
    else:
        plain = {(2, RIGID): sitk.Euler2DTransform, (3, RIGID): sitk.Euler3DTransform}.get((a.GetDimension(), family))
        kind = plain() if plain else sitk.AffineTransform(a.GetDimension())
        method.SetInitialTransform(sitk.CenteredTransformInitializer(a, b, kind))
        # Its default for the last, 1e-4, ends the search of a brain 4 voxels from the truth.
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=1.0, minStep=1e-3, numberOfIterations=200, gradientMagnitudeTolerance=1e-9
        )
        method.SetOptimizerScalesFromPhysicalShift()
    if fixed.ndim == 3:
        method.SetMetricSamplingStrategy(method.REGULAR)
        method.SetMetricSamplingPercentage(
            0.05
        )  # with 0.2 and minStep=1e-4 three times as accurate, in three times the time
    found = method.Execute(a, b)
    return lambda points: np.array([found.TransformPoint([float(x) for x in point]) for point in points])


# ---- pystackreg, kornia: flat images only ----


def stackreg(moving: Array, fixed: Array, family: str) -> Move:
    from pystackreg import StackReg

    kind = {RIGID: StackReg.RIGID_BODY, AFFINE: StackReg.AFFINE}[family]
    matrix = StackReg(kind).register(fixed, moving)
    return lambda points: (np.c_[points, np.ones(len(points))] @ matrix.T)[:, :2]


def kornia(moving: Array, fixed: Array, family: str) -> Move:
    """Its models have no rotation with a shift alone, and no affine map: a similarity and a homography include these."""
    from kornia.geometry import ImageRegistrator

    images = [torch.from_numpy(image)[None, None].float() for image in (moving, fixed)]
    model = {RIGID: "similarity", AFFINE: "homography"}[family]
    found = ImageRegistrator(model, lr=1e-2, num_iterations=300, tolerance=1e-6).register(images[0], images[1])
    assert isinstance(found, Tensor)
    matrix = found.detach()
    return moved(stn.MatrixWarp(matrix if matrix.shape[-2] == 3 else matrix[:, :2]), moving.shape, fixed.shape)


# ---- greedy and ANTs ----


def greedy(moving: Array, fixed: Array, family: str) -> Move:
    import picsl_greedy
    import SimpleITK as sitk

    tool = picsl_greedy.Greedy2D() if fixed.ndim == 2 else picsl_greedy.Greedy3D()
    images = {"f": fixed, "m": moving}
    given: dict[str, Any] = {name: sitk.GetImageFromArray(image.astype(np.float32)) for name, image in images.items()}
    window = "x".join(["4"] * fixed.ndim)
    common = f"-i f m -m NCC {window} -n 100x50x10 -V 0"
    if family == DEFORMABLE:
        tool.execute(f"{common} -s 2.0vox 0.5vox -o field", **given, field=None)
        return by_field(sitk.GetArrayFromImage(tool["field"]))
    tool.execute(f"{common} -a -dof {6 if family == RIGID else 12} -ia-image-centers -o matrix", **given, matrix=None)
    found = np.asarray(tool["matrix"])
    flip = np.diag([-1.0, -1.0, 1.0, 1.0][: fixed.ndim] + [1.0])  # the matrix is of RAS coordinates, the points of LPS
    found = flip @ found @ flip
    return lambda points: (np.c_[points, np.ones(len(points))] @ found.T)[:, : fixed.ndim]


def by_field(field: Array) -> Move:  # (*size, d) displacements in pixels, x first
    from scipy.ndimage import map_coordinates

    def move(points: Array) -> Array:
        at = points.T[::-1]
        shift = [map_coordinates(field[..., i], at, order=1, mode="nearest") for i in range(field.shape[-1])]
        return points + np.stack(shift, axis=-1)

    return move


def ants(moving: Array, fixed: Array, family: str) -> Move:
    import ants
    import pandas

    a, b = (ants.from_numpy(image.astype(np.float32).T) for image in (fixed, moving))
    kind = {RIGID: "Rigid", AFFINE: "Affine", DEFORMABLE: "SyN"}[family]
    found = ants.registration(a, b, type_of_transform=kind, random_seed=1)

    def move(points: Array) -> Array:
        names = "xyz"[: fixed.ndim]
        table = pandas.DataFrame(points, columns=list(names))
        moved = ants.apply_transforms_to_points(fixed.ndim, table, found["fwdtransforms"])
        result: Array = moved[list(names)].to_numpy()
        return result

    return move


RIVALS = (
    Rival("stn", "stn", ours("ncc")),
    Rival("SimpleITK", "SimpleITK", simpleitk),
    Rival("pystackreg", "pystackreg", stackreg, (RIGID, AFFINE), (2,)),
    Rival("kornia", "kornia", kornia, (RIGID, AFFINE), (2,)),
    Rival("greedy", "picsl_greedy", greedy),
    Rival("ANTs", "ants", ants),
)
