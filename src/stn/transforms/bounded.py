"""Bounds: a family whose parameters stay in a range, and whose identity is unchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from stn import _check
from stn.transforms.base import Constants, Family, W, identity_of

Bounds = tuple[float, float] | Sequence[tuple[float, float] | None]  # of one name: for all its numbers, or for each


@dataclass(frozen=True)
class Bounded(Family[W]):
    """A family with some parameters kept within (low, high): theta_i = e + r tanh((raw_i - e) / r).

    e is the identity's value, r its distance to `high` above e and to `low` below. At the identity raw and theta are
    equal, exactly, and so are their gradients (slope 1, no kink): bounds change neither where a layer starts nor how
    fast it leaves.

    Args:
        family: The family to bound.
        bounds: For names of `family.parameters` (low, high), which holds for all numbers of that name, or a sequence with
            one (low, high) for each number, None where it is free. The identity must lie strictly inside.

    Raises:
        InputError: A name is unknown, or the identity does not lie inside the bound, which the message names.
        TypeError: `family` is no family.

    Example:
        >>> family = stn.Bounded(stn.Translation(), {"translation": (-0.5, 0.5)})
        >>> family.constrain(torch.tensor([0.0, 9.0]))
        tensor([0.0000, 0.5000])
    """

    family: Family[W]
    bounds: Mapping[str, Bounds]
    ndim: int = field(init=False, compare=False)
    _constants: Constants = field(init=False, compare=False)

    def __post_init__(self) -> None:
        _check.made("family", self.family, Family, 'stn.Affine() or stn.transforms.family("affine")')
        family, names = self.family, self.family.parameters
        _check.unknown("bounds", self.bounds, names)
        start = identity_of(family, torch.empty(0, dtype=torch.float64, device="cpu"))
        below, above = torch.full_like(start, torch.inf), torch.full_like(start, torch.inf)
        kept: dict[str, Bounds] = {}  # those given may change
        for name, bounds in self.bounds.items():
            each = _check.bounds(name, bounds, start[list(names[name])].tolist())
            if name == "angle":
                _check.radians(name, [n for pair in each if pair is not None for n in pair])
            kept[name] = each[0] if len(set(each)) == 1 and each[0] is not None else tuple(each)
            for place, bound in zip(names[name], each, strict=True):
                if bound is not None:
                    below[place], above[place] = start[place] - bound[0], bound[1] - start[place]
        self._set(bounds=kept, ndim=family.ndim, _constants=Constants(start, below, above))

    def __repr__(self) -> str:
        return f"Bounded({self.family!r}, {self.bounds})"

    def __hash__(self) -> int:
        return hash((self.family, frozenset(self.bounds.items())))

    def each(self, name: str) -> Sequence[tuple[float, float] | None]:
        """Return the bounds of each number of a name, None where there are none.

        Args:
            name: One of `parameters`.
        """
        count = len(self.parameters[name])
        return (None,) * count if name not in self.bounds else _check.bounds(name, self.bounds[name], [None] * count)

    @property
    def parameters(self) -> Mapping[str, Sequence[int]]:
        return self.family.parameters

    def identity(self) -> Tensor:
        return self.family.identity()

    def fitted(self, aspect: float | Sequence[float]) -> Bounded[W]:
        return replace(self, family=self.family.fitted(aspect))

    def constrain(self, raw: Tensor) -> Tensor:  # (.., P) -> (.., P)
        """Map raw parameters to the theta of the wrapped family.

        Args:
            raw: (.., P), unbounded.

        Returns:
            (.., P), within the bounds.
        """
        _check.points("raw", raw, self.num_params)
        start, below, above = (constant.to(raw.dtype) for constant in self._constants.on(raw.device))
        away = raw - start
        reach = torch.where(away > 0, above, below)
        free = reach.isinf()
        reach = torch.where(free, 1, reach)
        return start + torch.where(free, away, reach * torch.tanh(away / reach))

    def make(self, theta: Tensor) -> W:
        return self.family.make(self.constrain(theta))


def bounded(family: Family[W], **bounds: Bounds) -> Bounded[W]:
    """Keep parameters of a family within bounds.

    Args:
        family: The family to bound.
        **bounds: name=(low, high) for names of `family.parameters`, which holds for all numbers of that name, or a sequence
            with one (low, high) for each number, None where it is free. The identity must lie strictly inside.

    Returns:
        The bounded family: see `stn.Bounded`.

    Raises:
        InputError: A name is unknown, or the identity does not lie inside the bound, which the message names.
        TypeError: `family` is no family.

    Example:
        >>> family = stn.bounded(stn.Similarity(), scale=(0.5, 1.5), angle=(-0.5, 0.5))
        >>> family(torch.tensor([[9.0, 0.0, 0.0, 0.0]])).matrix[0, 0, 0]  # scale 9 becomes 1.5
        tensor(1.5000)
        >>> crop = stn.bounded(stn.AnisotropicScale(), scale=[(0.5, 1.5), (0.9, 1.1)])  # along x, along y
        >>> crop.constrain(torch.tensor([9.0, 9.0, 0.0, 0.0]))
        tensor([1.5000, 1.1000, 0.0000, 0.0000])
    """
    return Bounded(family, bounds)
