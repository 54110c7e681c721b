"""Family: the meaning of theta. A family turns parameters into a Warp."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Generic

import torch
from torch import Tensor
from typing_extensions import TypeVar

from stn import _check
from stn.ops.context import coordinate_dtype, observed, readable, unrounded
from stn.ops.torch_private import count_dispatch_modes
from stn.transforms import picture
from stn.transforms.batches import over_looks
from stn.transforms.fitting import Frame, Pairs
from stn.transforms.warp import Warp

Ranges = tuple[float, float] | Sequence[tuple[float, float] | None]  # of one name: for all its numbers, or for each
W = TypeVar("W", bound=Warp, default=Warp, covariant=True)  # the type of warps that a family builds


class Family(ABC, Generic[W]):
    """A parametric set of transforms: a family turns theta into a warp.

    Laws: theta has `num_params` numbers, and `identity()` maps every point to itself.
    The families here are frozen dataclasses: equal where their settings are, and hashable.

    Example:
        >>> family = stn.Similarity()
        >>> family.parameters, family.num_params
        ({'scale': [0], 'angle': [1], 'translation': [2, 3]}, 4)
        >>> family(family.identity().repeat(8, 1)).points(torch.tensor([0.5, 1.0])).shape
        torch.Size([8, 2])
    """

    ndim: int

    @property
    @abstractmethod
    def parameters(self) -> Mapping[str, Sequence[int]]:
        """The names of the numbers of theta, and their places in it: {"scale": [0], "translation": [1, 2]}."""

    @property
    def num_params(self) -> int:
        """P, the length of theta."""
        return sum(len(places) for places in self.parameters.values())

    @abstractmethod
    def identity(self) -> Tensor:
        """Return the theta (P,) of the identity, with which a layer starts."""

    def fitted(self, aspect: float | Sequence[float]) -> Family[W]:
        """Return the family for an image of this shape, which matters where it turns: see `stn.Rigid`.

        Args:
            aspect: Width / height, or the sides (H, W) or (D, H, W) in any unit.

        Returns:
            The family itself if it turns nothing, or already has an aspect.
        """
        return self

    def __call__(self, theta: Tensor) -> W:  # (N, P), or (N, K, P): K looks at each image
        """Make the warp of these parameters.

        Args:
            theta: (N, P), or (N, K, P): K looks at each image.

        Returns:
            A warp of batch (N,) or (N, K). Its `theta` is this one.

        Raises:
            InputError: theta has a wrong shape. TypeError: it is not a floating-point tensor.
        """
        _check.theta(theta, self.num_params, type(self).__name__)
        with unrounded(theta.device):
            warp = self.make(theta)
        warp.theta = theta
        return warp

    @abstractmethod
    def make(self, theta: Tensor) -> W:
        """Make the warp of theta, (N, P) or (N, K, P), which a call of the family has checked."""

    def fit(
        self,
        points: Tensor,  # (P, d), (N, P, d) or (N, K, P, d)
        targets: Tensor,  # likewise
        weights: Tensor | None = None,  # (P,), (N, P) or (N, K, P)
        *,
        pixels: tuple[Sequence[int], Sequence[int]] | None = None,
        align_corners: bool = False,
    ) -> W:
        """Find the warp that maps points nearest to targets: it minimizes sum_i weights_i |warp(points_i) - targets_i|^2.

        Points lie in the output, targets in the image. The result is differentiable in all three, to second order.
        `Rigid`, `Similarity` and `Attention` keep shapes in pixels if `pixels` is given, and otherwise those of `aspect`.

        Args:
            points: (P, d), (N, P, d) or (N, K, P, d), normalized; batches of 1 broadcast.
            targets: As points, one for each.
            weights: (P,), (N, P) or (N, K, P), not negative. None: all equal.
            pixels: (in_size, out_size): points are pixels of an output of `out_size`, targets of an image of `in_size`,
                both (H, W) or (D, H, W). `theta` is then None where the family has no such warp, for example a
                similarity between shapes that differ.
            align_corners: Of the normalized coordinates, if `pixels` is given.

        Raises:
            InputError: Shapes differ, points are too few, or do not determine the warp (which compilers cannot check),
                or the family has no such fit. TypeError: a wrong type.

        Example:
            >>> points = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [0.0, 1.0]])
            >>> stn.Similarity().fit(points, 0.5 * points + 0.25).theta  # scale, angle, translation
            tensor([[0.5000, 0.0000, 0.2500, 0.2500]])
        """
        batch = _check.point_pairs(points, targets, weights, self.ndim)
        if pixels is None and readable(points):
            _check.normalized("points", points, "give pixels=(in_size, out_size) for points in pixels")
        frame = None if pixels is None else Frame(*_check.two_sizes("pixels", pixels, self.ndim), align_corners)
        _check.enough_points(points.shape[-2], self._fewest(), type(self).__name__)
        if weights is None:
            weights = torch.ones_like(points[..., 0])
        parts = [(points, 2), (targets, 2), (weights, 1)]
        precise = coordinate_dtype(points.device)
        pairs = Pairs(*(over_looks(part, batch, core).to(precise) for part, core in parts))
        with unrounded(points.device):
            warp, regular = self._fit(pairs, frame, torch.promote_types(points.dtype, targets.dtype))
        if not observed(regular):
            _check.determined(regular, type(self).__name__)
        return warp

    def draw(self, count: int, *, generator: torch.Generator | None = None, **ranges: Ranges) -> Tensor:  # (count, P)
        """Draw parameters at random, uniformly and independently, for augmentation and for tests.

        Args:
            count: Number of thetas, at least 0.
            generator: Of torch, on the CPU. None: torch's default one.
            **ranges: name=(low, high) for names of `parameters`, for all numbers of that name, or a sequence with one
                (low, high) for each number, None for the identity's. Other parameters are those of the identity.

        Returns:
            (count, P), in torch's default dtype.

        Raises:
            InputError: A name is unknown, or a range does not fit its name.

        Example:
            >>> theta = stn.Similarity().draw(8, scale=(0.8, 1.2), angle=(-0.5, 0.5))
            >>> theta.shape, (theta[:, 2:] == 0).all().item()
            (torch.Size([8, 4]), True)
        """
        count = _check.at_least("count", count, 0)
        _check.unknown("ranges", ranges, self.parameters)
        with torch.device("cpu"):
            theta = self.identity().to(torch.get_default_dtype()).repeat(count, 1)
        for name, given in ranges.items():
            places = self.parameters[name]
            pairs = _check.drawn(name, given, len(places))
            if name == "angle":
                _check.radians(name, [n for pair in pairs if pair is not None for n in pair])
            for place, pair in zip(places, pairs, strict=True):
                if pair is not None:
                    share = torch.rand(count, generator=generator, device="cpu")
                    theta[:, place] = pair[0] + (pair[1] - pair[0]) * share
        return theta.to(torch.get_default_device())

    def _repr_html_(self) -> str:
        """Return what Jupyter shows: the grid that each parameter makes."""
        return picture.of_family(self, self.parameters, self.identity())

    def _fewest(self) -> int:
        """Return the number of points that a fit needs."""
        return 1

    def _fit(self, pairs: Pairs, frame: Frame | None, dtype: torch.dtype) -> tuple[W, Tensor]:
        """Return the warp of the least squares, and for each sample whether the points determine it: (*batch,)."""
        _check.no_fit(type(self).__name__)

    def _set(self, **fields: object) -> None:
        """Set fields in the constructor of a frozen dataclass whose fields differ from its arguments."""
        for name, value in fields.items():
            object.__setattr__(self, name, value)


class Constants:
    """Tensors of a family, with a copy for each device, made when first needed.

    A family is not a module: none of these tensors belongs in a state dict. A new copy in each call would wait for the
    device.
    """

    def __init__(self, *tensors: Tensor) -> None:
        with torch.inference_mode(False):  # an inference tensor could never take part in training
            self._copies = {
                tensors[0].device: tuple(tensor.detach().clone() for tensor in tensors)
            }  # those given may change

    def first(self) -> Tensor:
        """Return the first tensor as it was given."""
        tensor: Tensor = next(iter(self._copies.values()))[0]
        return tensor

    def __getstate__(self) -> dict[str, object]:
        """Keep the copies of the first device, so that a file can be read where the other devices do not exist."""
        device, tensors = next(iter(self._copies.items()))
        return {"_copies": {device: tensors}}

    def on(self, device: torch.device) -> tuple[Tensor, ...]:
        if torch.compiler.is_exporting():  # a tensor made now belongs to the graph
            return self._copied(device)
        # Dispatch modes create special tensors, which must not be kept. Dynamo does not support the query.
        if not torch.compiler.is_compiling() and count_dispatch_modes():
            return tuple(torch.ops.aten.lift_fresh_copy(tensor) for tensor in self._copied(device))
        if device not in self._copies:
            with torch.inference_mode(False):
                self._copies[device] = self._copied(device)
        return self._copies[device]

    def _copied(self, device: torch.device) -> tuple[Tensor, ...]:
        precise, tensors = coordinate_dtype(device), next(iter(self._copies.values()))
        return tuple(t.to(device, precise if t.dtype == torch.float64 else t.dtype) for t in tensors)


def trainable(tensor: Tensor) -> Tensor:
    """Return the tensor, or a copy that autograd can save if it was made in inference mode."""
    if not tensor.is_inference():
        return tensor
    with torch.inference_mode(False):
        return tensor.clone()


def identity_of(family: Family, like: Tensor) -> Tensor:  # (P,)
    """Return the theta of the identity with the dtype and device of `like`, for any default device of torch."""
    if torch.compiler.is_compiling():  # Dynamo cannot trace the context
        return family.identity().to(like)
    with torch.device("cpu"):
        return family.identity().to(like)


def eye(ndim: int) -> Tensor:
    """Return the identity as an affine matrix: (d, d+1)."""
    return torch.eye(ndim, ndim + 1)


def numbers_of_lattice(shape: Sequence[int]) -> range:
    """Return the indices in theta of a vector of d numbers at each node of a lattice (*shape), d = len(shape)."""
    return range(math.prod(shape) * len(shape))
