"""The last step of localization: from features to theta, or from theta to theta."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stn import _check
from stn.ops.context import unrounded
from stn.transforms import Bounded, Family, Fixed
from stn.transforms.base import identity_of


class ThetaRegression(nn.Module):
    """The linear regression from features to theta, which starts as the identity: (N, F) -> (N, K P).

    It is not an `nn.Linear`, and its name is unlike that of one. Loops over a network that initialize, normalize, quantize
    or adapt all linear layers leave it alone: with other initial weights, a layer samples random regions from the start.

    Args:
        in_features: F.
        family: The family of theta, with P parameters.
        num_transforms: K, the number of looks.

    Example:
        >>> regression = stn.nn.ThetaRegression(20, stn.Similarity())
        >>> regression(torch.rand(2, 20))
        tensor([[1., 0., 0., 0.],
                [1., 0., 0., 0.]], grad_fn=<AddmmBackward0>)
    """

    def __init__(self, in_features: int, family: Family, num_transforms: int = 1) -> None:
        super().__init__()
        _check.made("family", family, Family, 'stn.Affine() or stn.transforms.family("affine")')
        self.in_features = _check.at_least("in_features", in_features, 1)
        self.family, self.num_transforms = family, _check.at_least("num_transforms", num_transforms, 1)
        count = self.num_transforms * family.num_params
        self.weight = nn.Parameter(torch.empty(count, in_features))  # (K P, F)
        self.bias = nn.Parameter(torch.empty(count))  # (K P,)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set zero weights and the identity as bias."""
        self.weight.zero_()
        self.bias.copy_(identity_of(self.family, self.bias).repeat(self.num_transforms))

    def forward(self, features: Tensor) -> Tensor:
        """Return theta, (N, K P), without autocast.

        Args:
            features: (N, F).
        """
        with unrounded(features.device):
            return F.linear(features.to(self.weight.dtype), self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, {self.family!r}, num_transforms={self.num_transforms}"


class GivenTheta(nn.Module):
    """In place of a regression: the localization network returns theta itself, as numbers or as a map of vectors."""

    def __init__(self, family: Family, num_transforms: int = 1) -> None:
        super().__init__()
        self.family, self.num_transforms = family, num_transforms

    def forward(self, theta: Tensor) -> Tensor:
        """Return (N, K P), in at least float32.

        Args:
            theta: (N, K P) or (N, K, P); or (N, K d, *shape) for a family of vectors on a lattice of this shape.
        """
        shape, looks = lattice_of(self.family), self.num_transforms
        _check.given_theta(theta, self.family.num_params, looks, shape)
        if theta.ndim > 3:
            theta = theta.unflatten(1, (looks, -1)).movedim(2, -1)
        return theta.flatten(1).to(torch.promote_types(theta.dtype, torch.float32))

    def reset_parameters(self) -> None:
        """Raise an error: there are no parameters here that could start as the identity."""
        _check.fail("regress must be True for a start at the identity; got a localization network that returns theta itself")

    def extra_repr(self) -> str:
        return f"{self.family!r}, num_transforms={self.num_transforms}"


def lattice_of(family: Family) -> tuple[int, ...] | None:
    """Return the shape of the lattice on which theta has one vector a node, or None."""
    while isinstance(family, Bounded | Fixed):
        family = family.family
    found: tuple[int, ...] | None = getattr(family, "nodes", getattr(family, "shape", None))
    return found
