"""Parts of families: some parameters keep a value, and the others are theta."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from stn import _check
from stn.transforms.base import Constants, Family, W
from stn.transforms.bounded import Bounded

Held = float | Sequence[float | None]  # of one name: a number for all its places, or one for each, None where it is free


@dataclass(frozen=True)
class Fixed(Family[W]):
    """A family with some parameters held at a value. theta has the others, in their order.

    Args:
        family: The family. It must not be bounded: bound the fixed family instead, as `stn.fixed` does.
        values: For names of `family.parameters` the value of all numbers of that name, or a sequence with one entry for
            each, None where it is part of theta. With values other than the identity's, `identity()` is not the identity.

    Raises:
        InputError: A name is unknown, a value does not fit its name, or nothing is left for theta.
        TypeError: `family` is no family.

    Example:
        >>> family = stn.Fixed(stn.Rigid(), {"translation": 0.0})
        >>> family(torch.tensor([[0.5]])).points(torch.tensor([1.0, 0.0]))  # cos, sin
        tensor([[0.8776, 0.4794]])
    """

    family: Family[W]
    values: Mapping[str, Held]
    ndim: int = field(init=False, compare=False)
    _free: tuple[int, ...] = field(init=False, compare=False)  # places of theta in the theta of the family
    _constants: Constants = field(init=False, compare=False)

    def __post_init__(self) -> None:
        _check.made("family", self.family, Family, 'stn.Affine() or stn.transforms.family("affine")')
        family, names = self.family, self.family.parameters
        if isinstance(family, Bounded):
            _check.fail("family must not be bounded; bound the fixed family instead, as stn.fixed does")
        _check.unknown("values", self.values, names)
        full: list[float | None] = [None] * family.num_params
        kept: dict[str, Held] = {}
        for name, value in self.values.items():
            each = _check.held(name, value, len(names[name]))
            if name == "angle":
                _check.radians(name, each)
            kept[name] = each[0] if len(set(each)) == 1 and each[0] is not None else each
            for place, number in zip(names[name], each, strict=True):
                full[place] = number
        free = tuple(i for i, number in enumerate(full) if number is None)
        if not free:
            _check.fail(f"values must leave some of the {len(full)} parameters to theta; got {dict(self.values)}")
        at = {place: i for i, place in enumerate(free)}
        order = torch.tensor([at.get(i, len(free) + i) for i in range(len(full))], device="cpu")
        numbers = torch.tensor([number or 0.0 for number in full], dtype=torch.float64, device="cpu")
        self._set(values=kept, ndim=family.ndim, _free=free, _constants=Constants(numbers, order))

    def __repr__(self) -> str:
        return f"Fixed({self.family!r}, {self.values})"

    def __hash__(self) -> int:
        return hash((self.family, frozenset(self.values.items())))

    @property
    def parameters(self) -> Mapping[str, Sequence[int]]:
        at = {place: i for i, place in enumerate(self._free)}
        found = {name: [at[i] for i in places if i in at] for name, places in self.family.parameters.items()}
        return {name: places for name, places in found.items() if places}

    def identity(self) -> Tensor:
        return self.family.identity()[list(self._free)]

    def fitted(self, aspect: float | Sequence[float]) -> Fixed[W]:
        return dataclasses.replace(self, family=self.family.fitted(aspect))

    def complete(self, theta: Tensor) -> Tensor:
        """Return the theta of the family: the free parameters, and the held ones at their places.

        Args:
            theta: (.., P).
        """
        _check.points("theta", theta, self.num_params)
        numbers, order = self._constants.on(theta.device)
        both = torch.cat([theta, numbers.to(theta.dtype).expand(*theta.shape[:-1], -1)], dim=-1)
        return both.index_select(-1, order)

    def make(self, theta: Tensor) -> W:
        return self.family.make(self.complete(theta))


def fixed(family: Family[W], **values: Held) -> Family[W]:
    """Hold parameters of a family at a value; theta has the others.

    Args:
        family: The family, which may be bounded: the bounds of the other parameters stay.
        **values: name=value for names of `family.parameters`: a number for all numbers of that name, or a sequence with one
            entry for each, None where it stays part of theta.

    Returns:
        The family with fewer parameters: see `stn.Fixed`.

    Raises:
        InputError: A name is unknown, a value does not fit its name, or nothing is left for theta.
        TypeError: `family` is no family.

    Example:
        >>> along_x = stn.fixed(stn.Translation(), translation=(None, 0.0))
        >>> along_x(torch.tensor([[0.5]])).matrix[0, :, 2]
        tensor([0.5000, 0.0000])
        >>> shear = stn.fixed(stn.Affine(), matrix=(1.0, None, 0.0, 1.0), translation=0.0)
        >>> shear.parameters, shear.identity()
        ({'matrix': [0]}, tensor([0.]))
    """
    if not isinstance(family, Bounded):
        return Fixed(family, values)
    inner = Fixed(family.family, values)
    return Bounded(inner, {name: found for name in inner.parameters if (found := _left(family, inner, name)) is not None})


def _left(bounded: Bounded[W], inner: Fixed[W], name: str) -> list[tuple[float, float] | None] | None:
    """Return the bounds of the numbers of a name that are still free."""
    if name not in bounded.bounds:
        return None
    places = bounded.family.parameters[name]
    free = set(inner._free)
    return [bound for place, bound in zip(places, bounded.each(name), strict=True) if place in free]
