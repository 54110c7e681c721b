"""Interpolation kernels k of eq. 3 of the paper: the pixels along an axis, and their weights. A new one is an entry of
`KNOWN`, which the checks, the command line, the reference, the kernels and the export use.

Weights are functions of t = x - floor(x) in [0, 1). At whole pixels (every pixel of an identity initialization) the
derivative must be the one from the right, as in torch, and not 0, which autograd gives for |.| at 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stn import _check

Weights = Callable[[Tensor], tuple[Tensor, ...]]


class Cubic(NamedTuple):
    """The two pieces of a cubic: inner_0 + s^2 (inner_2 + inner_3 s) for |s| <= 1, outer_0 + .. + outer_3 s^3 up to 2."""

    inner_0: float
    inner_2: float
    inner_3: float
    outer_0: float
    outer_1: float
    outer_2: float
    outer_3: float


@dataclass(frozen=True)
class Interpolation:
    """An interpolation kernel, as used by the reference, the kernels of each device, the export and the checks."""

    name: str
    offsets: tuple[int, ...]  # of the taps, relative to floor(x)
    weights: Weights  # functions of t, one per offset
    rounds: bool = False  # offsets are relative to round(x) instead
    prefilter: bool = False  # the weights apply to B-spline coefficients, computed from the pixels first
    cubic: Cubic | None = None  # the same weights as numbers, for the kernels of devices
    support: float | None = None  # the kernels of devices read the weights from a table, up to this distance: `tables.py`
    probe: Callable[[], Tensor] | None = None  # weights of a user's kernel at some distances: another table if they change
    tables: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)  # "now": the tables of these weights
    kernels: tuple[str, ...] = ()  # device types with kernels for it
    volumes: tuple[str, ...] = ()  # the same, for volumes
    grid_sample: tuple[int, ...] = ()  # the dimensions in which GridSample of torch and ONNX supports it under this name


class Kernel:
    """A sampling kernel of your own, for `mode=`: a pixel has the weight k(distance), up to a distance of `support`.

    Along several axes the weights multiply.

    Args:
        k: Differentiable function from a tensor of distances, in pixels, to a tensor of their weights.
        support: Largest distance in pixels at which a pixel has a weight. Positive.
        normalize: Divide by the sum of the weights, so that a constant image stays constant.

    On the CPU the weights come from a table, with errors below 3e-8 of the largest (1e-12 for images in float64). It is made
    when the kernel is first used, and again when k returns other weights. A kernel runs in plain PyTorch if its weights
    need a gradient, or if it has a corner or a jump inside a cell of the table.

    Raises:
        InputError: support is not positive.

    Example:
        >>> gauss = stn.Kernel(lambda d: torch.exp(-2 * d**2), support=1.5, normalize=True)
        >>> image = torch.tensor([0.0, 1.0, 0.0]).view(1, 1, 1, 3)
        >>> stn.affine_sample(image, torch.eye(2, 3), mode=gauss, padding_mode="border").flatten()  # smoothed
        tensor([0.1065, 0.7870, 0.1065])
    """

    def __init__(self, k: Callable[[Tensor], Tensor], support: float, *, normalize: bool = False) -> None:
        _check.positive("support", support)
        self.k, self.support, self.normalize = k, support, normalize
        reach, cpu = math.ceil(support), ("cpu",)
        offsets = tuple(range(1 - reach, reach + 1))
        self.interpolation = Interpolation(
            repr(self), offsets, self._weights, support=float(support), probe=self._probe, kernels=cpu, volumes=cpu
        )

    def __repr__(self) -> str:
        return f"Kernel({self.k}, support={self.support}, normalize={self.normalize})"

    def _probe(self) -> Tensor:
        return self.k(PROBES * self.support)

    def _weights(self, t: Tensor) -> tuple[Tensor, ...]:
        distances = [t - offset if offset <= 0 else offset - t for offset in self.interpolation.offsets]
        weights = [torch.where(d <= self.support, self.k(d), 0.0) for d in distances]
        return normalized(weights) if self.normalize else tuple(weights)


PROBES = (torch.arange(1, 17, dtype=torch.float64, device="cpu") * 0.618034) % 1


def nearest(t: Tensor) -> tuple[Tensor, ...]:
    return (1 + 0 * t,)  # 1, or NaN for a NaN coordinate; no gradient to the coordinate


def bilinear(t: Tensor) -> tuple[Tensor, ...]:
    return 1 - t, t


def keys(a: float) -> Cubic:
    """Keys (1981), eq. 4."""
    return Cubic(1.0, -(a + 3), a + 2, -4 * a, 8 * a, -5 * a, a)


def convolution(a: float) -> Weights:
    def near(s: Tensor) -> Tensor:  # |s| <= 1
        return ((a + 2) * s - (a + 3)) * s * s + 1

    def far(s: Tensor) -> Tensor:  # 1 <= |s| <= 2
        return ((a * s - 5 * a) * s + 8 * a) * s - 4 * a

    return lambda t: (far(t + 1), near(t), near(1 - t), far(2 - t))


def bspline(t: Tensor) -> tuple[Tensor, ...]:
    """The cubic B-spline: Unser, Aldroubi, Eden 1993."""
    s = 1 - t
    return s**3 / 6, (4 - 6 * t**2 + 3 * t**3) / 6, (4 - 6 * s**2 + 3 * s**3) / 6, t**3 / 6


def lanczos3(t: Tensor) -> tuple[Tensor, ...]:
    """sinc(s) sinc(s / 3), divided by the sum, which is not exactly 1: Duchon 1979."""
    return normalized([sinc(t - offset) * sinc((t - offset) / 3) for offset in range(-2, 4)])


def normalized(weights: list[Tensor]) -> tuple[Tensor, ...]:
    total = torch.stack(weights).sum(dim=0)
    return tuple(weight / total for weight in weights)


def sinc(s: Tensor) -> Tensor:
    """sin(pi s) / (pi s). The function of torch has no second derivative at 0."""
    return sine_quotient((math.pi * s) ** 2)


NEAR = 1e-2  # square of the angle below which a series replaces the quotient, whose derivatives at 0 are 0 / 0


def sine_quotient(square: Tensor) -> Tensor:
    """sin t / t, from t^2: smooth at 0."""
    near = square < NEAR
    t = torch.where(near, 1.0, square).sqrt()
    series = torch.ones_like(square)
    for divisor in (110, 72, 42, 20, 6):
        series = 1 - square / divisor * series
    return torch.where(near, series, t.sin() / t)


BOTH = ("cpu", "cuda")
FOUR = (-1, 0, 1, 2)
BSPLINE = Cubic(2 / 3, -1.0, 1 / 2, 4 / 3, -2.0, 1.0, -1 / 6)
KNOWN = (
    Interpolation("nearest", (0,), nearest, rounds=True, kernels=BOTH, volumes=BOTH, grid_sample=(2, 3)),
    Interpolation("bilinear", (0, 1), bilinear, kernels=BOTH, volumes=BOTH, grid_sample=(2, 3)),
    # torch's and OpenCV's. For volumes, 64 taps take too long to compile for a GPU.
    Interpolation("bicubic", FOUR, convolution(-0.75), cubic=keys(-0.75), kernels=BOTH, volumes=("cpu",), grid_sample=(2,)),
    # Pillow's bicubic
    Interpolation("catmull_rom", FOUR, convolution(-0.5), cubic=keys(-0.5), kernels=BOTH, volumes=("cpu",)),
    Interpolation("bspline", FOUR, bspline, prefilter=True, cubic=BSPLINE, kernels=("cpu",), volumes=("cpu",)),
    Interpolation("lanczos3", tuple(range(-2, 4)), lanczos3, support=3.0, kernels=("cpu",), volumes=("cpu",)),
)
INTERPOLATIONS = {interpolation.name: interpolation for interpolation in KNOWN}
BLURRED = Interpolation("bspline without its prefilter", FOUR, bspline)  # of the pixels themselves
