"""`register`: optimize the parameters of any family, from the coarsest level of both images to the finest."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stn import _check
from stn.io.arrays import Restore, to_images
from stn.ops import Pyramid
from stn.ops.context import unrounded
from stn.registration.inputs import check_pair, comparable, filled, landmarks_of, learning, mask_of, ordinary
from stn.registration.losses import LOSSES, Loss, ignores_contrast
from stn.registration.problem import Landmarks, Problem, Pyramids
from stn.registration.result import Registration, Stage
from stn.registration.search import Report, levels_of, search
from stn.registration.volumes import in_volume, placed
from stn.space import Volume
from stn.transforms import Family, Velocity, Warp, family

BENDING = 1e-3  # with 0.01, splines of 16 and 49 points had errors of 0.13 to 0.36 pixels; with this value 0.02 to 0.05
LANDMARKS = 0.01  # 10 pixels then weigh as much as the largest possible value of ncc, 1 pixel a hundredth of it
Transform = str | Family


def register(
    moving: Any,  # (N, C, L), (N, C, H, W), (N, C, D, H, W); one array (H, W[, C]) or (D, H, W), PIL image or Volume
    fixed: Any,
    transform: Transform | Sequence[Transform] = "affine",
    *,
    loss: str | Loss | Sequence[str | Loss] = "ncc",
    start: Warp | None = None,
    spacing: Sequence[float] | None = None,
    bending: float = BENDING,
    moving_mask: Any = None,
    fixed_mask: Any = None,
    landmarks: tuple[Any, Any] | None = None,
    landmark_weight: float = LANDMARKS,
    symmetric: bool = False,
    levels: int | None = None,
    steps: int = 200,
    report: Report | None = None,
) -> Registration:
    """Find the warp that aligns `moving` with `fixed`, for each of N pairs independently.

    A pair whose largest value is below 1/64 or above 65536 is compared on [0, 1].

    Args:
        moving: Signals (N, C, L), images (N, C, H, W) or volumes (N, C, D, H, W); or one image: an array (H, W[, C]) or
            (D, H, W), or a PIL image. Or a `stn.Volume`: the search begins where both volumes lie in the world, in
            millimeters, and the result has the smallest number of `moving` where that does not reach.
        fixed: The same number of images and channels; the size may differ.
        transform: A name (`stn.transforms.FAMILIES`) or a family, with the dimensions of the images. Rotations keep
            shapes in the fixed images, unless the family has an aspect of its own (`stn.Rigid`). Or several, such as
            ["rigid", "affine", "bspline"]: each begins where the one before ended, and the warp is their composition.
        loss: "ncc" (correlation; any contrast), "mse", "lncc" (correlation within windows), "mi" (mutual information;
            images of different kinds), or a function (warped, fixed, weight) -> (N,). Or several, one for each transform.
        start: A warp found before, such as an affine one: the result is `start @ new`. None: transforms of at most 15
            parameters start from 32 initial guesses if the coarsest level is small; the best are refined.
        spacing: Size of a pixel or voxel of the fixed images, (H, W) or (D, H, W) in any unit, such as (3.0, 1.0, 1.0)
            for slices 3 mm apart. None: equal along all axes, or that of a `stn.Volume`.
        bending: Weight of the squared second differences of the warp. They are 0 for affine maps.
        moving_mask: (*size) or (N, 1, *size): where it is 0, pixels have no influence, and may be NaN. Numbers are weights.
        fixed_mask: Likewise, of `fixed`.
        landmarks: (points of moving, points of fixed), (P, d) or (N, P, d) each, normalized; of a `stn.Volume` in mm.
        landmark_weight: Weight of their mean squared distance in pixels of the fixed image.
        symmetric: Compare the images half way (velocity only): exchanging them gives the inverse warp.
        levels: Number of pyramid levels. None: down to 16 pixels.
        steps: Most steps on a level. A level ends earlier when a step moves no point by a few hundredths of its pixels.
        report: Called in each step with the level, the step and the losses (N,).

    Returns:
        The warp, theta, the warped image and the losses.

    Raises:
        InputError: An argument has a wrong shape or value, which the message names; for example, all images of one side
            have equal pixels. TypeError: a wrong type.

    Example:
        >>> fixed = torch.exp(-8 * stn.grid.lattice((32, 32)).square().sum(dim=-1)).view(1, 1, 32, 32)
        >>> moving = stn.Translation()(torch.tensor([[0.25, 0.0]])).sample(fixed)  # 4 pixels to the left
        >>> stn.register(moving, fixed, "translation").theta.round(decimals=2)
        tensor([[-0.2500,  0.0000]])
    """
    inputs = _inputs(moving, fixed, start, spacing)
    size, steps = tuple(inputs.target.shape[2:]), _check.at_least("steps", steps, 1)
    families = _families(transform, size, inputs.spacing)
    measures = _losses(loss, len(families))
    _check_numbers(bending, landmark_weight, symmetric, families)
    masks = mask_of("moving_mask", moving_mask, inputs.source), mask_of("fixed_mask", fixed_mask, inputs.target)
    pair = [filled(image, mask) for image, mask in zip((inputs.source, inputs.target), masks, strict=True)]
    check_pair(*pair)
    points = None
    if landmarks is not None:
        spaces = (moving.space, fixed.space) if isinstance(moving, Volume) else ()
        points = Landmarks(*landmarks_of(landmarks, len(pair[1]), len(size), pair[1], spaces), landmark_weight)
    stages: list[Stage] = []
    with learning(), unrounded(inputs.target.device):
        pyramids = _pyramids(pair, masks, apart=all(map(ignores_contrast, measures)))
        before, guesses = ordinary(inputs.start), start is None
        for own, measure in zip(families, measures, strict=True):
            problem = Problem(pyramids, ordinary(own), measure, before, bending, points, symmetric, guesses)
            theta, losses = search(problem, levels_of(problem, levels), steps, report)
            before, guesses = problem.warp(problem.family(theta)), False
            stages.append(Stage(own, theta, losses))
    assert before is not None
    shown = inputs.source if moving_mask is None else inputs.source.nan_to_num()
    image = before.sample(shown, size, fill_value=pair[0].min().item() if inputs.in_world else 0.0)
    return Registration(before, theta, inputs.restore(image), losses, own, tuple(stages), problem, inputs.start)


class _Inputs(NamedTuple):
    source: Tensor
    target: Tensor
    start: Warp | None
    spacing: Sequence[float] | None
    restore: Restore
    in_world: bool  # the result has the smallest value of the moving image where that does not reach


def _inputs(moving: Any, fixed: Any, start: Warp | None, spacing: Sequence[float] | None) -> _Inputs:
    if start is not None:
        _check.made("start", start, Warp, "found.warp of an earlier registration")
    world = placed(moving, fixed, start, spacing)
    if world is not None:
        restore: Restore = functools.partial(in_volume, moving=moving, fixed=fixed)
        return _Inputs(world.moving, world.fixed, world.start, world.spacing, restore, True)
    source, restore = to_images("moving", moving)
    target, _ = to_images("fixed", fixed)
    return _Inputs(source, target, start, spacing, restore, False)


def _pyramids(pair: Sequence[Tensor], masks: Sequence[Tensor | None], *, apart: bool) -> Pyramids:
    moving, fixed = comparable(ordinary(pair[0]), ordinary(pair[1]), apart=apart)
    weights = [None if mask is None else Pyramid(ordinary(mask).to(fixed.dtype)) for mask in masks]
    return Pyramid(moving), Pyramid(fixed), weights[0], weights[1]


def _families(
    transform: Transform | Sequence[Transform], size: Sequence[int], spacing: Sequence[float] | None
) -> list[Family]:
    any_kind: Any = transform  # also what is no transform, which `family` refuses
    given = list(any_kind) if isinstance(any_kind, Sequence) and not isinstance(any_kind, str) else [any_kind]
    if not given:
        _check.fail("transform must be the name of a family, a family, or a sequence of at least one; got an empty one")
    return [_family(one, size, spacing) for one in given]


def _check_numbers(bending: float, landmark_weight: float, symmetric: bool, families: Sequence[Family]) -> None:
    for name, value in (("bending", bending), ("landmark_weight", landmark_weight)):
        _check.finite_number(name, value)
        _check.not_negative(name, value)
    if symmetric and not all(isinstance(own, Velocity) for own in families):
        names = ", ".join(type(own).__name__ for own in families)
        _check.fail(
            f"symmetric must be False for families other than velocity, whose start may be another; got True for {names}"
        )


def _family(transform: str | Family, size: Sequence[int], spacing: Sequence[float] | None) -> Family:
    """Ignore the default device of torch: tensors are moved to the device of the images when needed."""
    ndim = transform.ndim if isinstance(transform, Family) else len(size)
    _check.dimension(ndim, (len(size),), "a family for these images")
    steps = (1.0,) * ndim if spacing is None else _check.sides("spacing", spacing, ndim)
    with torch.device("cpu"):
        return family(transform, ndim, aspect=[n * step for n, step in zip(size, steps, strict=True)])


def _losses(loss: str | Loss | Sequence[str | Loss], count: int) -> list[Loss]:
    """Return a loss for each transform of a chain."""
    given: list[str | Loss]
    given = list(loss) if isinstance(loss, Sequence) and not isinstance(loss, str) else [loss] * count
    if len(given) != count:
        _check.fail(f"loss must be one, or as many as the {count} transforms; got {len(given)}")
    for name in given:
        if isinstance(name, str):
            _check.choice("loss", name, LOSSES)
    return [LOSSES[one] if isinstance(one, str) else one for one in given]
