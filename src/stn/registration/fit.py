"""`register`: optimize the parameters of any family, from the coarsest level of both images to the finest."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stn import _check
from stn.grid import lattice
from stn.io.arrays import Restore, to_images
from stn.nn.losses import within_reach
from stn.ops import Pyramid
from stn.registration.descent import Descent
from stn.registration.inputs import check_pair, comparable, learning, ordinary
from stn.registration.losses import ANY_CONTRAST, LOSSES, Loss
from stn.registration.volumes import in_volume, placed
from stn.transforms import Family, Warp, family
from stn.transforms.base import identity_of

COARSEST = 16  # smallest side, in pixels
# In pixels of a level: the largest step along each parameter, and the step length at which a level is done. On photographs
# of 128 pixels, rotated by up to 20 degrees, 2 and 0.002 took more steps for the same accuracy (0.005 pixels).
MOST, LEAST = 1.0, 0.01
BENDING = 1e-3  # with 0.01, splines of 16 and 49 points had errors of 0.13 to 0.36 pixels; with this value 0.02 to 0.05
# The number of random initial guesses per pair, up to REACH half widths away, and how many of them compete for each place on
# the next level. With more than FEW parameters no random guess would be near the solution. With one guess, 7 of 39 pairs of
# photographs and affine maps fail, with 32 guesses one. Coarsest levels of more than SMALL pixels use one guess, for speed.
STARTS, KEPT, REACH, FEW, SMALL = 32, 8, 0.35, 15, 2**15
POINTS = 12  # points per side of the lattice for the bending and the reach of a parameter
Report = Callable[[int, int, Tensor], None]  # level, step, losses (N,)


@dataclass(frozen=True)
class Registration:
    """The result of `register`.

    Args:
        warp: From points of the fixed image to points of the moving one. With start= it is `start @ family(theta)`.
        theta: Parameters (N, P) of the family.
        image: The moving image, warped onto the fixed one: a tensor, an array, a PIL image or a volume, as `moving`.
        losses: For each level the mean loss of each step. The coarsest level comes first; level 0 is full resolution.
        family: The family of theta, with the aspect of the fixed images where it turns.

    Example:
        >>> fixed = torch.exp(-8 * stn.grid.lattice((32, 32)).square().sum(dim=-1)).view(1, 1, 32, 32)
        >>> found = stn.register(fixed.flip(-1), fixed, "translation", steps=5)
        >>> found.warp.sample(torch.rand(1, 3, 32, 32)).shape  # apply it to another image
        torch.Size([1, 3, 32, 32])
        >>> len(found.losses)  # levels: 16x16 pixels, 32x32
        2
    """

    warp: Warp  # from points of the fixed image to points of the moving one
    theta: Tensor  # (N, P)
    image: Any  # the moving image, warped onto the fixed one: of the kind that `moving` was
    losses: dict[int, list[float]]  # level -> the mean loss of each step
    family: Family


def register(
    moving: Any,  # (N, C, L), (N, C, H, W), (N, C, D, H, W); one array (H, W[, C]) or (D, H, W), PIL image or Volume
    fixed: Any,
    transform: str | Family = "affine",
    *,
    loss: str | Loss = "ncc",
    start: Warp | None = None,
    spacing: Sequence[float] | None = None,
    bending: float = BENDING,
    levels: int | None = None,
    steps: int = 200,
    report: Report | None = None,
) -> Registration:
    """Find the warp that aligns `moving` with `fixed`, for each of N pairs independently.

    A pair whose largest value is below 1/64 or above 65536 is compared on [0, 1]. A sample of a batch whose pixels are
    all equal causes a warning.

    Args:
        moving: Signals (N, C, L), images (N, C, H, W) or volumes (N, C, D, H, W); or one image: an array (H, W[, C]) or
            (D, H, W), or a PIL image. Or a `stn.Volume`: the search begins where both volumes lie in the world, in
            millimeters, and the result has the smallest number of `moving` where that does not reach.
        fixed: The same number of images and channels; the size may differ.
        transform: A name (`stn.transforms.FAMILIES`) or a family, with the dimensions of the images. Rotations keep
            shapes in the fixed images, unless the family has an aspect of its own (`stn.Rigid`).
        loss: "ncc" (correlation; any contrast), "mse", "lncc" (correlation within windows), "mi" (mutual information;
            images of different kinds), or a function (warped, fixed, weight) -> (N,).
        start: A warp found before, such as an affine one: the result is `start @ new`. None: transforms of at most 15
            parameters start from 32 initial guesses if the coarsest level is small; the best are refined.
        spacing: Size of a pixel or voxel of the fixed images, (H, W) or (D, H, W) in any unit, such as (3.0, 1.0, 1.0)
            for slices 3 mm apart. None: equal along all axes, or that of a `stn.Volume`.
        bending: Weight of the squared second differences of the warp. They are 0 for affine maps.
        levels: Number of pyramid levels. None: down to 16 pixels.
        steps: Most steps on a level. A level ends earlier when its steps are below a hundredth of its pixels.
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
    pair_in_world, guesses = placed(moving, fixed, start, spacing), start is None
    if pair_in_world is not None:
        source, target, start, spacing = pair_in_world
        restore: Restore = functools.partial(in_volume, moving=moving, fixed=fixed)
    else:
        source, restore = to_images("moving", moving)
        target, _ = to_images("fixed", fixed)
    check_pair(source, target)
    steps = _check.at_least("steps", steps, 1)
    measure = _loss(loss)
    with learning():
        pair = comparable(ordinary(source), ordinary(target), apart=measure in ANY_CONTRAST)
        own = _family(transform, tuple(target.shape[2:]), spacing)
        problem = Problem(*pair, ordinary(own), measure, ordinary(start), bending, guesses=guesses)
        theta, losses = descend(problem, levels_of(problem, levels), steps, report)
        warp = problem.warp(problem.family(theta))
    outside = 0.0 if pair_in_world is None else source.min().item()
    image = warp.sample(source, tuple(target.shape[2:]), fill_value=outside)
    return Registration(warp, theta, restore(image), losses, own)


class Problem:
    """A pair of batches, a family, and the objective."""

    def __init__(
        self,
        moving: Tensor,
        fixed: Tensor,
        transform: Family,
        loss: Loss,
        start: Warp | None,
        bending: float,
        *,
        guesses: bool,  # whether other starts may be tried too
    ) -> None:
        _check.finite_number("bending", bending)
        _check.not_negative("bending", bending)
        self.pyramids = Pyramid(moving), Pyramid(fixed)
        self.family, self.loss, self.start, self.bending, self.guesses = transform, loss, start, bending, guesses
        like = torch.promote_types(moving.dtype, torch.float32)
        self.identity = identity_of(transform, moving.new_empty(0, dtype=like))
        self.unit = unit_parameters(transform, self.identity)

    def level(self, k: int) -> tuple[Tensor, ...]:
        """The moving and the fixed images."""
        moving, fixed = (pyramid[min(k, len(pyramid) - 1)] for pyramid in self.pyramids)
        return moving, fixed

    def warp(self, found: Warp) -> Warp:
        return found if self.start is None else self.start @ found

    def losses(self, theta: Tensor, moving: Tensor, fixed: Tensor) -> Tensor:
        """Return the objective (N,) for N thetas and N pairs of a level."""
        new: Warp = self.family(theta)
        size = tuple(fixed.shape[2:])
        # Zero padding would darken the outermost pixels, which caused errors of 0.5 pixels. The weight gets no gradient,
        # which would move the images apart until they hardly overlap.
        warped, weight = self.warp(new).sample(moving, size, padding_mode="border", return_mask=True)
        found = self.loss(warped, fixed, weight.detach().to(warped.dtype))
        return found + self.bending * bent(new) if self.bending else found


def descend(problem: Problem, levels: range, steps: int, report: Report | None) -> tuple[Tensor, dict[int, list[float]]]:
    """Return theta (N, P), and the mean over pairs of the smallest losses, by level and step."""
    count, unit = len(problem.pyramids[1].image), problem.unit
    x = starts(problem, levels[0]).expand(count, -1, -1)  # (N, S, P)
    history: dict[int, list[float]] = {}
    for k in levels:
        pair = problem.level(k)
        if x.shape[1] > 1:
            pair = tuple(image.repeat_interleave(x.shape[1], dim=0) for image in pair)
        pixel = 2 / max(pair[1].shape[2:])  # half widths
        descent, history[k] = Descent(x.flatten(0, 1), MOST * pixel, LEAST * pixel), []
        for step in range(steps):
            position = descent.trial.detach().requires_grad_()
            with torch.enable_grad():
                losses = problem.losses(problem.identity + unit * position, *pair)
                (gradient,) = torch.autograd.grad(losses.sum(), position)
            descent.update(losses.detach(), gradient)
            least = losses.detach().view(count, -1).amin(dim=1)
            history[k].append(least.mean().item())
            if report is not None:
                report(k, step, least)
            if descent.at_rest.all():
                break
        kept = max(1, x.shape[1] // KEPT) if k > levels[-1] else 1
        best = descent.loss.view(count, -1).topk(kept, dim=1, largest=False).indices
        x = descent.x.view(x.shape).gather(1, best.unsqueeze(2).expand(-1, -1, x.shape[2]))
    return problem.identity + unit * x[:, 0], history


def starts(problem: Problem, level: int) -> Tensor:  # (S, P)
    """Return the identity and random maps near it; only the identity for many parameters or a large level."""
    small = all(image[0, 0].numel() <= SMALL for image in problem.level(level))
    few = len(problem.identity) <= FEW and problem.guesses and small
    generator = torch.Generator().manual_seed(0)
    shape = STARTS if few else 1, len(problem.identity)
    x = REACH * (2 * torch.rand(shape, generator=generator, device=generator.device) - 1)
    x[0] = 0
    return x.to(problem.identity)


def levels_of(problem: Problem, count: int | None) -> range:
    """Return the levels, coarsest first: as many as given, or as leave COARSEST pixels along each axis of both images."""
    shared = min(len(pyramid) for pyramid in problem.pyramids)
    if count is None:
        wide = [k for k in range(shared) if all(min(p.sizes[k]) >= COARSEST for p in problem.pyramids)]
        count = max(len(wide), 1)
    count = _check.at_least("levels", count, 1)
    return range(min(count, shared) - 1, -1, -1)


def unit_parameters(transform: Family, identity: Tensor) -> Tensor:  # (P,)
    """Return the change of each parameter that moves some point by one half width, and no point by more.

    Steps are then comparable for an angle, a scale and a control point. One parameter of each name represents the others.
    """
    xy = lattice((POINTS,) * transform.ndim, dtype=identity.dtype, device=identity.device).flatten(0, -2)
    unit = torch.ones_like(identity)
    for places in transform.parameters.values():
        small = 1e-3
        theta = identity.clone()
        theta[list(places)[len(places) // 2]] += small
        moved = (transform(theta.unsqueeze(0)).points(xy)[0] - xy).norm(dim=-1).max() / small
        unit[list(places)] = 1 / moved.clamp_min(1e-3)
    return unit


def bent(warp: Warp) -> Tensor:  # (N,)
    """Return the mean square of second differences along each axis, in half widths: 0 for affine maps."""
    points = within_reach(warp.grid((POINTS,) * warp.ndim))  # a homography may have infinite values on its horizon
    step = 2 / POINTS
    total = torch.zeros((), dtype=points.dtype, device=points.device)
    for axis in range(1, 1 + warp.ndim):
        second = points.diff(n=2, dim=axis) / step**2
        total = total + second.square().flatten(1).mean(dim=1)
    return total


def _family(transform: str | Family, size: Sequence[int], spacing: Sequence[float] | None) -> Family:
    """Ignore the default device of torch: tensors are moved to the device of the images when needed."""
    ndim = transform.ndim if isinstance(transform, Family) else len(size)
    _check.dimension(ndim, (len(size),), "a family for these images")
    steps = (1.0,) * ndim if spacing is None else _check.sides("spacing", spacing, ndim)
    with torch.device("cpu"):
        return family(transform, ndim, aspect=[n * step for n, step in zip(size, steps, strict=True)])


def _loss(loss: str | Loss) -> Loss:
    if isinstance(loss, str):
        _check.choice("loss", loss, LOSSES)
        return LOSSES[loss]
    return loss
