"""Losses between two images, one number per pair, at most 0 for equal images. All are differentiable in the warped image.

warped, fixed: (N, C, *size). weight: (N, 1, *size), the share of each pixel of the warped image that lay inside the moving
image. Pixels outside have no influence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stn import _check
from stn.transforms.bspline import cubic_weights

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # warped, fixed, weight -> (N,)

FLAT = 1e-5  # variance, relative to the square of the largest value, below which a window counts as constant
WINDOW = 9  # pixels, as in VoxelMorph and ANTs (radius 4)
BINS = 8, 32  # smallest and largest number of bins of a histogram
COUNT = 4  # pixels per cell of the joint histogram; with fewer, rotations of 20 degrees at 64 pixels failed
SAMPLES = 2**17  # largest number of pixels in a histogram; a volume of 96^3 uses every 7th
_TINY = 1e-12


class Pair(NamedTuple):
    """Both images of a level, and the weights of their pixels, (N, 1, *size); None: all count."""

    moving: Tensor
    fixed: Tensor
    moving_mask: Tensor | None = None
    fixed_mask: Tensor | None = None

    def repeated(self, count: int) -> Pair:
        """Return each sample `count` times, one copy after the other."""
        moving, fixed = (image.repeat_interleave(count, dim=0) for image in self[:2])
        return Pair(moving, fixed, *(None if mask is None else mask.repeat_interleave(count, dim=0) for mask in self[2:]))


def mean_squared_error(warped: Tensor, fixed: Tensor, weight: Tensor) -> Tensor:
    """Return the mean squared error, for images of the same kind and exposure."""
    return _mean((warped - fixed).square(), weight, _all_axes(fixed))


def cross_correlation(warped: Tensor, fixed: Tensor, weight: Tensor) -> Tensor:
    """Return 1 - r, r the correlation of all pixels per channel, for the same kind, any contrast and brightness."""
    axes = tuple(range(2, fixed.ndim))
    a, b = (image - _mean(image, weight, axes, keepdim=True) for image in (warped, fixed))
    covariance, *variances = (_mean(product, weight, axes) for product in (a * b, a * a, b * b))
    least = FLAT * fixed.detach().square().amax(dim=axes)
    return (1 - covariance / (variances[0] * variances[1] + least.square() + _TINY).sqrt()).mean(dim=1)


@dataclass(frozen=True, init=False)
class LocalCorrelation:
    """1 - r, r the correlation within a window around each pixel: the loss "lncc" of `register` with another window.

    For images of the same kind whose brightness varies. Smaller windows suit small structures.

    Args:
        window: Side of the window in pixels of each level, odd and at least 3.

    Raises:
        InputError: window is even or below 3.

    Example:
        >>> fixed = torch.exp(-8 * stn.grid.lattice((32, 32)).square().sum(dim=-1)).view(1, 1, 32, 32)
        >>> moving = stn.Translation()(torch.tensor([[0.25, 0.0]])).sample(fixed)
        >>> found = stn.register(moving, fixed, "translation", loss=stn.registration.LocalCorrelation(5))
        >>> found.theta.round(decimals=2)
        tensor([[-0.2500,  0.0000]])
    """

    window: int

    def __init__(self, window: int = WINDOW) -> None:
        if _check.at_least("window", window, 3) % 2 == 0:
            _check.fail(f"window must be odd, so that it has a middle; got {window}")
        object.__setattr__(self, "window", window)

    def __call__(self, warped: Tensor, fixed: Tensor, weight: Tensor) -> Tensor:
        """Return the loss of each pair.

        Args:
            warped: (N, C, *size).
            fixed: (N, C, *size).
            weight: (N, 1, *size), the share of each pixel that counts.

        Returns:
            (N,), 0 for equal images and at most 2.
        """
        fixed = fixed.to(warped.dtype)
        wa, wb = weight * warped, weight * fixed
        inside, a, b, ab, aa, bb = self._means(weight.to(wa.dtype), wa, wb, wa * fixed, wa * warped, wb * fixed)
        inside = inside + _TINY
        a, b = a / inside, b / inside
        covariance = ab / inside - a * b
        variances = [(square / inside - m * m).clamp_min(0) for square, m in ((aa, a), (bb, b))]
        axes = tuple(range(2, fixed.ndim))
        flat = [(1e-3 * _mean(v.detach(), weight, axes, keepdim=True)) for v in variances]
        r = covariance / ((variances[0] + flat[0]) * (variances[1] + flat[1]) + _TINY).sqrt()
        return 1 - _mean(r, weight, _all_axes(fixed))

    def _means(self, *images: Tensor) -> tuple[Tensor, ...]:
        """Return the means in a window around each pixel. The common factor of the divisors cancels."""
        shape = images[1].shape  # the first may be a weight, of one channel
        stacked = torch.stack([image.expand(shape) for image in images])
        found: Tensor = _Windows.apply(stacked, self.window, len(shape) - 2)
        return found.unbind()


class _Windows(torch.autograd.Function):
    """Means in windows along the last `ndim` axes, with zeros beyond the edge: a symmetric map, its own adjoint.

    Sums of shifted copies take a tenth of the time of avg_pool3d with windows of 5 or 9 voxels.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor, window: int, ndim: int) -> Tensor:
        ctx.window = window, ndim
        for axis in range(-ndim, 0):
            length, total = image.shape[axis], image.clone(memory_format=torch.contiguous_format)
            for away in range(1, min(window // 2, length - 1) + 1):
                rest = length - away
                total.narrow(axis, away, rest).add_(image.narrow(axis, 0, rest))
                total.narrow(axis, 0, rest).add_(image.narrow(axis, away, rest))
            image = total
        return image / window**ndim

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _Windows.apply(gradient, *ctx.window), None, None


def mutual_information(warped: Tensor, fixed: Tensor, weight: Tensor) -> Tensor:
    """Return minus the mutual information of two images in nats, mean over channels, for images of different kinds.

    Pixels are counted with cubic B-splines instead of bins, so that there is a gradient (Mattes et al. 2003).
    """
    stride = math.ceil(fixed[0, 0].numel() / SAMPLES)
    a, b, w = (image.flatten(2)[..., ::stride] for image in (warped, fixed.to(warped.dtype), weight))
    bins = min(max(math.isqrt(a.shape[-1] // COUNT), BINS[0]), BINS[1])
    x, y = _shares_of_bins(a, bins), _shares_of_bins(b, bins)
    joint = (x * w.unsqueeze(-1)).mT @ y  # (N, C, bins, bins)
    joint = joint / (joint.sum(dim=(-2, -1), keepdim=True) + _TINY)
    apart = joint.sum(dim=-1, keepdim=True) * joint.sum(dim=-2, keepdim=True)
    information = (joint * ((joint + _TINY) / (apart + _TINY)).log()).sum(dim=(-2, -1))
    return -information.mean(dim=1)


def _shares_of_bins(values: Tensor, bins: int) -> Tensor:  # (N, C, P) -> (N, C, P, bins)
    """Return the weight of each pixel in each bin between the darkest and the brightest value."""
    least, most = (bound.unsqueeze(-1) for bound in values.detach().aminmax(dim=-1))
    return cubic_weights(2 * (values - least) / (most - least).clamp_min(_TINY) - 1, bins)


def _mean(values: Tensor, weight: Tensor, axes: tuple[int, ...], *, keepdim: bool = False) -> Tensor:
    """Return the mean over pixels by their weights, and over channels without weights if they are among the axes."""
    total = (weight * values).sum(dim=axes, keepdim=keepdim)
    count = weight.expand_as(values).sum(dim=axes, keepdim=keepdim)
    return total / (count + _TINY)


def _all_axes(image: Tensor) -> tuple[int, ...]:
    return tuple(range(1, image.ndim))


LOSSES: dict[str, Loss] = {
    "mse": mean_squared_error,
    "ncc": cross_correlation,
    "lncc": LocalCorrelation(),
    "mi": mutual_information,
}
SQUARES = (mean_squared_error, cross_correlation)  # which are sums of squares, correlation by its normalized residual


def ignores_contrast(loss: Loss) -> bool:
    """Return whether the loss is the same for any contrast of either image."""
    return loss in (cross_correlation, mutual_information) or isinstance(loss, LocalCorrelation)
