"""Family: what theta means. A family turns parameters into a Warp."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from stn import _check
from stn.transforms.warp import Warp


class Family(ABC):
    """A parametric set of transforms. Laws: theta has `num_params` numbers, and `identity()` maps every point to itself."""

    ndim: int

    @property
    @abstractmethod
    def num_params(self) -> int: ...

    @abstractmethod
    def identity(self) -> Tensor:
        """The theta (P,) of the identity, where a layer starts."""

    def __call__(self, theta: Tensor) -> Warp:  # (N, P), or (N, K, P): K looks at each image
        """The warp of these parameters."""
        _check.theta(theta, self.num_params, type(self).__name__)
        return self._warp(theta)

    @abstractmethod
    def _warp(self, theta: Tensor) -> Warp: ...


def eye(ndim: int) -> Tensor:
    """The identity as an affine matrix: (d, d+1)."""
    return torch.eye(ndim, ndim + 1)
