"""The result of `register`: the warp, and how well it fits."""

from __future__ import annotations

import html
import importlib.util
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stn import _check
from stn.registration.problem import Problem, bent
from stn.transforms import Family, Warp

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Stage:
    """One transform of a chain.

    Args:
        family: The family, with the aspect of the fixed images where it turns.
        theta: Its parameters (N, P).
        losses: For each level the mean loss of each step.
    """

    family: Family
    theta: Tensor
    losses: dict[int, list[float]]


@dataclass(frozen=True, repr=False)
class Registration:
    """The result of `register`.

    Args:
        warp: From points of the fixed image to points of the moving one. With start= it is `start @ family(theta)`; of a
            chain the composition of all stages, which samples once.
        theta: Parameters (N, P) of the family, of a chain those of the last stage.
        image: The moving image, warped onto the fixed one: a tensor, an array, a PIL image or a volume, as `moving`.
        losses: For each level the mean loss of each step. The coarsest level comes first; level 0 is full resolution.
        family: The family of theta, with the aspect of the fixed images where it turns.
        stages: Family, theta and losses of each transform of a chain; one stage without a chain.

    Example:
        >>> fixed = torch.exp(-8 * stn.grid.lattice((32, 32)).square().sum(dim=-1)).view(1, 1, 32, 32)
        >>> found = stn.register(fixed.flip(-1), fixed, ["translation", "affine"], steps=5)
        >>> found.warp.sample(torch.rand(1, 3, 32, 32)).shape  # apply it to another image
        torch.Size([1, 3, 32, 32])
        >>> len(found.losses), len(found.stages), found.fold_share.item()  # levels: 16x16 pixels, 32x32
        (2, 2, 0.0)
    """

    warp: Warp  # from points of the fixed image to points of the moving one
    theta: Tensor  # (N, P)
    image: Any  # the moving image, warped onto the fixed one: of the kind that `moving` was
    losses: dict[int, list[float]]  # level -> the mean loss of each step
    family: Family
    stages: tuple[Stage, ...]
    _problem: Problem = field(compare=False)  # of the last stage
    _before: Warp | None = field(compare=False)  # where the first stage began

    def __repr__(self) -> str:
        names = ", ".join(type(stage.family).__name__ for stage in self.stages)
        last = next(reversed(self.losses.values()))
        return f"Registration({names}, batch={self.warp.batch}, levels={len(self.losses)}, loss={min(last):.4g})"

    def _repr_html_(self) -> str:
        """Return what Jupyter shows: the figure of the first pair; grids for signals and without matplotlib."""
        title, problem = f"<pre>{html.escape(repr(self))}</pre>", self._problem
        if len(problem.size) == 1 or problem.count == 0 or importlib.util.find_spec("matplotlib") is None:
            return title + self.warp._repr_html_()
        from stn.registration.figure import as_html

        more = f"<div>and {problem.count - 1} more: figure(1), ..</div>" if problem.count > 1 else ""
        return title + as_html(self.figure()) + more

    @property
    def residual(self) -> Tensor:
        """The loss of each pair (N,) at full resolution, without bending and landmarks."""
        with torch.no_grad():
            return self._problem.residual(self.theta)

    @property
    def bending_energy(self) -> Tensor:
        """The mean square of second differences of the warp in each pair (N,), in half widths: 0 for affine maps."""
        with torch.no_grad():
            return bent(self.warp)

    @property
    def fold_share(self) -> Tensor:
        """The share of the pixels of each fixed image (N,) at which the warp folds, 0 to 1."""
        with torch.no_grad():
            return self.warp.fold_share(self._problem.size)

    @property
    def landmark_errors(self) -> Tensor | None:
        """The distance of each landmark (N, P) after the warp, in pixels of the fixed image; None without landmarks."""
        points = self._problem.landmarks
        if points is None:
            return None
        with torch.no_grad():
            half = self._problem.half.to(points.fixed.dtype)
            return ((self.warp.points(points.fixed) - points.moving) * half).norm(dim=-1)

    def figure(self, sample: int = 0) -> Figure:
        """Draw a pair before and after: overlays (moving in red, fixed in cyan), a checkerboard of both, and the grid.

        Args:
            sample: Which pair of the batch. Of a volume the middle slice is shown.

        Returns:
            A figure of matplotlib, of which `savefig` writes a file.

        Raises:
            InputError: The batch has no such sample, the images are signals, or matplotlib is not installed.

        Example:
            >>> fixed = torch.exp(-8 * stn.grid.lattice((32, 32)).square().sum(dim=-1)).view(1, 1, 32, 32)
            >>> figure = stn.register(fixed.flip(-1), fixed, "translation", steps=5).figure()
            >>> [axes.get_title() for axes in figure.axes]
            ['before', 'after', 'checkerboard', 'grid']
        """
        _check.installed("matplotlib", "train")
        from stn.registration.figure import drawn

        count, problem = self._problem.count, self._problem
        if not (isinstance(sample, int) and -count <= sample < count):
            _check.fail(f"sample must be an integer from 0 to {count - 1}, one of the batch; got {sample!r}")
        if len(problem.size) == 1:
            _check.fail("the images must have two or three dimensions for a figure; got signals")
        moving, fixed = (pyramid.image for pyramid in problem.pyramids[:2])
        return drawn(moving, fixed, self.warp, self._before, sample % count)
