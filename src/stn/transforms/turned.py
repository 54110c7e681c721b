"""Linear families that turn: rotations, in the shape of the image that they act on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from stn import _check
from stn.grid import half_extent
from stn.transforms.aspect import Aspect, constants, in_shape, parsed
from stn.transforms.base import Constants
from stn.transforms.fitting import Frame, Pairs, joined, lengths_of, turn
from stn.transforms.linear import Linear
from stn.transforms.rotations import rotation, rotation_vector


@dataclass(frozen=True, repr=False)
class Turned(Linear):
    """A family with rotations, which keep angles and shapes on an image of this aspect alone."""

    _dimensions: ClassVar[tuple[int, ...]] = (2, 3)  # a signal cannot turn
    aspect: Aspect | None = field(default=None, kw_only=True)
    _ratios: Constants | None = field(default=None, init=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        aspect = parsed(self.aspect, self.ndim)
        self._set(aspect=aspect, _ratios=constants(aspect, self.ndim))

    def __repr__(self) -> str:
        aspect = "" if self.aspect is None else f", aspect={self.aspect}"
        return f"{type(self).__name__}(ndim={self.ndim}{aspect})"

    def fitted(self, aspect: Aspect) -> Self:
        fitting = replace(self, aspect=aspect)
        return fitting if self.aspect is None and fitting._ratios is not None else self

    def _matrix(self, theta: Tensor) -> Tensor:
        return torch.cat([in_shape(self.turn(theta), self._ratios), theta[..., -self.ndim :, None]], dim=-1)

    @abstractmethod
    def turn(self, theta: Tensor) -> Tensor:
        """(.., P) -> (.., d, d), a map of lengths."""

    def _fewest(self) -> int:
        return self.ndim

    def _nearest(self, pairs: Pairs, frame: Frame | None) -> tuple[Tensor, Tensor]:
        """Fit lengths: e x, e the length of one unit along each axis, which is a pixel or half the image."""
        e = self._lengths(frame, pairs.x)
        linear, regular = turn(Pairs(pairs.x * e, pairs.y * e, pairs.w), scaled="scale" in self.parameters)
        return joined(linear * e / e.unsqueeze(-1), pairs), regular

    def _lengths(self, frame: Frame | None, like: Tensor) -> Tensor:
        size = frame.in_size if frame else None
        if self.aspect is None:
            return lengths_of(size or (1.0,) * self.ndim, size, like)
        return lengths_of(_check.aspect("aspect", self.aspect, self.ndim), size, like)

    def _theta(self, matrix: Tensor) -> Tensor:
        e = self._lengths(None, matrix)
        linear = matrix[..., :-1] * e.unsqueeze(-1) / e  # s R
        if self.ndim == 2:
            angle = torch.atan2(linear[..., 1, 0], linear[..., 0, 0]).unsqueeze(-1)
        s = (linear.square().sum(dim=(-2, -1)) / self.ndim).sqrt().unsqueeze(-1)
        if self.ndim == 3:
            angle = rotation_vector(linear / s.unsqueeze(-1))
        return torch.cat([s] * ("scale" in self.parameters) + [angle, matrix[..., -1]], dim=-1)

    def _has_pixels(self, frame: Frame) -> bool:
        """Return True if the aspect is that of the image, and the output has the same shape."""
        like = torch.empty(self.ndim, dtype=torch.float64, device="cpu")
        half = [half_extent(n, frame.align_corners) for n in reversed(frame.in_size)]
        in_pixels = self._lengths(frame, like) * like.new_tensor(half) / self._lengths(None, like)
        scale = frame.shared_scale()
        same = bool((in_pixels - in_pixels[0]).abs().max() < 1e-9 * in_pixels[0])
        return same and (scale is not None if "scale" in self.parameters else scale == 1)


@dataclass(frozen=True, repr=False)
class Rigid(Turned):
    """x' = R x + t. theta = (angle, tx, ty): radians, from the x axis towards the y axis, so clockwise to the eye.

    In 3-D theta = (wx, wy, wz, tx, ty, tz): R turns by |w| radians about the axis w (Rodrigues' formula). R acts on lengths:
    with the sides E of the image x' = E^-1 R E x + t in normalized coordinates.

    Args:
        ndim: 2 or 3; other values raise InputError.
        aspect: Shape of the image: width / height, or its sides (H, W) or (D, H, W), in pixels times the size of a pixel.
            None: a square, unless `SpatialTransformer.for_input` or `register` sets the shape of the image.

    Example:
        >>> stn.Rigid()(torch.tensor([[0.5, 0.0, 0.0]])).points(torch.tensor([1.0, 0.0]))  # cos, sin
        tensor([[0.8776, 0.4794]])
        >>> turned = stn.Rigid(aspect=(200, 400))(torch.tensor([[torch.pi / 2, 0.0, 0.0]]))
        >>> turned.points(torch.tensor([0.5, 0.0])).round(decimals=4)  # 100 pixels to the right, then 100 down
        tensor([[-0.,  1.]])
    """

    @property
    def parameters(self) -> Mapping[str, Sequence[int]]:
        turns = 1 if self.ndim == 2 else 3
        return {"angle": range(turns), "translation": range(turns, turns + self.ndim)}

    def identity(self) -> Tensor:
        return torch.zeros(self.num_params)

    def turn(self, theta: Tensor) -> Tensor:
        return rotation(theta[..., : -self.ndim])


@dataclass(frozen=True, repr=False)
class Similarity(Turned):
    """x' = s R x + t. theta = (s, angle, tx, ty), or (s, wx, wy, wz, tx, ty, tz), as in `Rigid`. s < 1 magnifies.

    Args:
        ndim: 2 or 3; other values raise InputError.
        aspect: Shape of the image, as in `Rigid`.

    Example:
        >>> stn.Similarity()(torch.tensor([[0.5, 0.0, 0.25, 0.0]])).points(torch.tensor([1.0, 1.0]))
        tensor([[0.7500, 0.5000]])
    """

    @property
    def parameters(self) -> Mapping[str, Sequence[int]]:
        rigid = Rigid(self.ndim).parameters
        return {"scale": [0]} | {name: [i + 1 for i in places] for name, places in rigid.items()}

    def identity(self) -> Tensor:
        return torch.tensor([1.0] + [0.0] * (self.num_params - 1))

    def turn(self, theta: Tensor) -> Tensor:
        return theta[..., 0, None, None] * rotation(theta[..., 1 : -self.ndim])
