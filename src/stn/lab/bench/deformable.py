"""Deformable registration of two volumes by other programs: an affine map first, then a deformation.

Each receives arrays (D, H, W) in [0, 1] and returns a map of voxels (P, 3), x first, from the fixed volume to the moving
one, as in `rivals`. Settings were compared on a few pairs of training cases of hippocampi.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stn.lab.bench.rivals import Array, Move, by_field


def simpleitk(moving: Array, fixed: Array) -> Move:
    """Affine with mutual information, then diffeomorphic demons at half and at full resolution.

    Dice of 8 training pairs: 0.763 without folds; three levels of 50 steps had 0.757. Of the first 6: 0.756;
    symmetric forces (a Gaussian of 0.85, three levels of 50 steps) had 0.762, and folds in all. The affine map alone, of
    the first 4: 0.674; with correlation 0.661, with squares 0.664. B-splines had not finished 2 pairs after 40 seconds.
    """
    import SimpleITK as sitk

    a, b = (sitk.GetImageFromArray(image.astype(np.float32)) for image in (fixed, moving))
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([2, 1, 0])
    method.SetInitialTransform(sitk.CenteredTransformInitializer(a, b, sitk.AffineTransform(3)))  # of centers
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=1e-3, numberOfIterations=100, gradientMagnitudeTolerance=1e-9
    )
    method.SetOptimizerScalesFromPhysicalShift()
    affine = method.Execute(a, b)
    bend = by_field(sitk.GetArrayFromImage(_demons(sitk, a, sitk.Resample(b, a, affine))))
    return lambda points: np.array([affine.TransformPoint([float(x) for x in point]) for point in bend(points)])


def _demons(sitk: Any, fixed: Any, moving: Any) -> Any:
    """Return the field of displacements between two images of one size."""
    demons = sitk.DiffeomorphicDemonsRegistrationFilter()
    demons.SetStandardDeviations(0.7)  # voxels, of the field
    demons.SetNumberOfIterations(100)
    half = [sitk.Shrink(sitk.SmoothingRecursiveGaussian(image, 1.0), [2, 2, 2]) for image in (fixed, moving)]
    return demons.Execute(fixed, moving, sitk.Resample(demons.Execute(*half), fixed))


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


def ants(moving: Array, fixed: Array, **options: Any) -> Move:
    """Rigid, affine and SyN, all with mutual information: the defaults of ANTsPy, with no step of SyN at full resolution.

    Dice of 8 training pairs: 0.726. Without the rigid map 0.715, with correlation in windows of 5 voxels 0.712.
    `options` are those of `ants.registration`.
    """
    import ants
    import pandas

    a, b = (ants.from_numpy(image.astype(np.float32).T) for image in (fixed, moving))
    found = ants.registration(a, b, type_of_transform="SyNRA", random_seed=1, **options)

    def move(points: Array) -> Array:
        table = pandas.DataFrame(points, columns=list("xyz"))
        moved = ants.apply_transforms_to_points(3, table, found["fwdtransforms"])
        result: Array = moved[list("xyz")].to_numpy()
        return result

    return move


def ants_full(moving: Array, fixed: Array) -> Move:
    """The same, with 40, 40 and 20 steps: Dice of 4 training pairs 0.733, where the defaults have 0.694."""
    return ants(moving, fixed, reg_iterations=(40, 40, 20))


PROGRAMS = {
    "SimpleITK": ("SimpleITK", simpleitk),
    "greedy": ("picsl_greedy", greedy),
    "ANTs": ("ants", ants),
    "ANTs-full": ("ants", ants_full),
}
