"""The last step of localization: from features to theta."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stn import _check
from stn.ops.context import unrounded
from stn.transforms import Family
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
        """Return theta, without autocast.

        Args:
            features: (N, F).
        """
        with unrounded(features.device):
            return F.linear(features.to(self.weight.dtype), self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, {self.family!r}, num_transforms={self.num_transforms}"
