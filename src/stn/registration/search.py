"""The search from the coarsest level to the finest: many starts of few parameters, and the best of them go on."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from stn import _check
from stn.ops.context import coordinate_dtype
from stn.registration.descent import Descent
from stn.registration.lattices import refined
from stn.registration.losses import Pair
from stn.registration.newton import Damped, Samples
from stn.registration.problem import Problem

COARSEST = 16  # smallest side, in pixels
# In pixels of a level: the largest step along each parameter, and the step length at which a level is done. On photographs
# of 128 pixels, rotated by up to 20 degrees, 2 and 0.002 took more steps for the same accuracy (0.005 pixels).
MOST, LEAST = 1.0, 0.01
# The number of random initial guesses per pair, up to REACH half widths away, and how many of them compete for each place on
# the next level. With more than FEW parameters no random guess would be near the solution. With one guess, 7 of 39 pairs of
# photographs and affine maps fail, with 32 guesses one. Coarsest levels of more than SMALL pixels use one guess, for speed.
STARTS, KEPT, REACH, FEW, SMALL = 32, 8, 0.35, 15, 2**15
# For matrices: the same limits; the pixels of a level that are used at most, by all starts of a pair together, and by each
# at least; and the number of steps after which half of the starts are dropped. On a brain of 1.1 million voxels, all pixels
# instead of 2**17 reduce the error from 0.047 to 0.044 voxels in six times the time, and a NEAR of 0.005 changes nothing.
# With 3 steps until starts are dropped, one of three distant maps of a page of text was lost; with 8 none.
FAR, NEAR, PIXELS, FEWEST, PRUNED = 4.0, 0.02, 2**17, 2**11, 8

Report = Callable[[int, int, Tensor], None]  # level, step, losses (N,)
History = dict[int, list[float]]


def search(problem: Problem, levels: range, steps: int, report: Report | None) -> tuple[Tensor, History]:
    """Return theta (N, P), and the mean over pairs of the smallest losses, by level and step."""
    own = problem.coarser(levels[0])
    theta = own.identity + own.unit * starts(own, levels[0]).expand(problem.count, -1, -1)  # (N, S, P)
    find = _by_squares if problem.is_quadratic else _by_descent
    history: History = {}
    for k in levels:
        before, own = own.family, problem.coarser(k)
        theta = refined(theta, before, own.family)
        kept = max(1, theta.shape[1] // KEPT) if k > levels[-1] else 1
        history[k] = []

        def told(losses: Tensor, k: int = k) -> None:  # (N, S)
            least = losses.amin(dim=1)
            history[k].append(least.mean().item())
            if report is not None:
                report(k, len(history[k]) - 1, least)

        x = find(own, (theta - own.identity) / own.unit, own.level(k), kept, steps, told)
        theta = own.identity + own.unit * x
    return theta[:, 0].to(problem.identity), history


def _by_descent(
    problem: Problem, x: Tensor, pair: Pair, kept: int, steps: int, told: Callable[[Tensor], None]
) -> Tensor:  # (N, S, P) -> (N, kept, P)
    count, guesses, _ = x.shape
    if guesses > 1:
        pair = pair.repeated(guesses)
    pixel = 2 / max(pair.fixed.shape[2:])  # half widths
    descent = Descent(x.flatten(0, 1), MOST * pixel, LEAST * pixel)
    for _ in range(steps):
        position = descent.trial.detach().requires_grad_()
        with torch.enable_grad():
            losses = problem.losses(problem.identity + problem.unit * position, pair)
            (gradient,) = torch.autograd.grad(losses.sum(), position)
        descent.update(losses.detach(), gradient)
        told(losses.detach().view(count, -1))
        if descent.at_rest.all():
            break
    best = descent.loss.view(count, -1).topk(kept, dim=1, largest=False).indices
    return descent.x.view(x.shape).gather(1, best.unsqueeze(2).expand(-1, -1, x.shape[2]))


def _by_squares(
    problem: Problem, x: Tensor, pair: Pair, kept: int, steps: int, told: Callable[[Tensor], None]
) -> Tensor:  # (N, S, P) -> (N, kept, P)
    """Many starts run on few pixels, and the best of them on more."""
    size, left, before = tuple(pair.fixed.shape[2:]), steps, 0
    for count in (x.shape[1], kept):
        stride = max(1, math.ceil((math.prod(size) / max(PIXELS // count, FEWEST)) ** (1 / len(size))))
        if left == 0 or stride == before:
            break
        samples, before = Samples(pair, stride, scales=problem.ignores_contrast), stride
        damped = Damped(x.to(coordinate_dtype(x.device)), 2 / max(size), FAR, NEAR)
        for step in range(left):
            damped.update(problem.quadratic(damped.trial, samples))
            told(damped.loss)
            left -= 1
            if damped.at_rest.all():
                break
            if (step + 1) % PRUNED == 0 and damped.loss.shape[1] > kept:
                damped.keep(max(kept, damped.loss.shape[1] // 2))
        damped.keep(kept)
        x = damped.x
    return x


def starts(problem: Problem, level: int) -> Tensor:  # (S, P)
    """Return the identity and random maps near it; only the identity for many parameters or a large level."""
    small = problem.is_quadratic or all(image[0, 0].numel() <= SMALL for image in problem.level(level)[:2])
    few = len(problem.identity) <= FEW and problem.guesses and small
    generator = torch.Generator().manual_seed(0)
    shape = STARTS if few else 1, len(problem.identity)
    x = REACH * (2 * torch.rand(shape, generator=generator, device=generator.device) - 1)
    x[0] = 0
    return x.to(problem.identity)


def levels_of(problem: Problem, count: int | None) -> range:
    """Return the levels, coarsest first: as many as given, or as leave COARSEST pixels along each axis of both images."""
    pyramids = problem.pyramids[:2]
    shared = min(len(pyramid) for pyramid in pyramids)
    if count is None:
        wide = [k for k in range(shared) if all(min(p.sizes[k]) >= COARSEST for p in pyramids)]
        count = max(len(wide), 1)
    count = _check.at_least("levels", count, 1)
    return range(min(count, shared) - 1, -1, -1)
