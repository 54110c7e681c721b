"""Deformable registration of two volumes by other programs: an affine map first, then a deformation.

Each receives arrays (D, H, W) in [0, 1] and returns a map of voxels (P, 3), x first, from the fixed volume to the moving
one, as in `rivals`. Settings of greedy were compared on a few pairs of training cases of hippocampi;
those of SimpleITK were chosen for their time, on two such pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stn.lab.bench.rivals import Array, Move, by_field


def simpleitk(moving: Array, fixed: Array) -> Move:
    """Affine, then a B-spline from 3 cells per axis to 6 and 12, both with the correlation of all voxels."""
    import SimpleITK as sitk

    a, b = (sitk.GetImageFromArray(image.astype(np.float32)) for image in (fixed, moving))
    first = _method(sitk)
    first.SetInitialTransform(sitk.CenteredTransformInitializer(a, b, sitk.AffineTransform(3)))  # of centers
    first.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=1e-3, numberOfIterations=100, gradientMagnitudeTolerance=1e-9
    )
    first.SetOptimizerScalesFromPhysicalShift()
    affine = first.Execute(a, b)
    then = _method(sitk)
    then.SetMovingInitialTransform(affine)
    then.SetInitialTransformAsBSpline(sitk.BSplineTransformInitializer(a, [3, 3, 3]), True, [1, 2, 4])
    # Gradient descent with a line search had not finished a pair after four minutes.
    then.SetOptimizerAsLBFGS2(solutionAccuracy=1e-4, numberOfIterations=30)
    found = sitk.CompositeTransform([affine, then.Execute(a, b)])  # the last is applied first
    return lambda points: np.array([found.TransformPoint([float(x) for x in point]) for point in points])


def _method(sitk: Any) -> Any:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetInterpolator(sitk.sitkLinear)
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([2, 1, 0])
    return method


def greedy(moving: Array, fixed: Array) -> Move:
    """Affine, then diffeomorphic, both with the correlation in windows of 5 voxels."""
    import picsl_greedy
    import SimpleITK as sitk

    tool = picsl_greedy.Greedy3D()
    given = {name: sitk.GetImageFromArray(image.astype(np.float32)) for name, image in (("f", fixed), ("m", moving))}
    common = "-i f m -m NCC 2x2x2 -V 0"
    tool.execute(f"{common} -a -dof 12 -ia-image-centers -n 100x50x10 -o matrix", **given, matrix=None)
    matrix = np.asarray(tool["matrix"])
    tool.execute(f"{common} -it matrix -s 2.0vox 0.5vox -n 100x100x50 -o field", field=None)
    field = sitk.GetArrayFromImage(tool["field"])
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])  # the matrix is of RAS coordinates, the points of LPS
    affine, bend = flip @ matrix @ flip, by_field(field)
    return lambda points: (np.c_[bend(points), np.ones(len(points))] @ affine.T)[:, :3]


def ants(moving: Array, fixed: Array) -> Move:
    """SyN after its affine map, with the correlation in windows of 5 voxels."""
    import ants
    import pandas

    a, b = (ants.from_numpy(image.astype(np.float32).T) for image in (fixed, moving))
    found = ants.registration(a, b, type_of_transform="SyN", syn_metric="CC", syn_sampling=2, random_seed=1)

    def move(points: Array) -> Array:
        table = pandas.DataFrame(points, columns=list("xyz"))
        moved = ants.apply_transforms_to_points(3, table, found["fwdtransforms"])
        result: Array = moved[list("xyz")].to_numpy()
        return result

    return move


PROGRAMS = {"SimpleITK": ("SimpleITK", simpleitk), "greedy": ("picsl_greedy", greedy), "ANTs": ("ants", ants)}
