"""`Sampling`: the parsed options of a sampling call."""

from __future__ import annotations

from typing import NamedTuple

from stn.ops.interpolation import INTERPOLATIONS, Interpolation
from stn.ops.padding import PADDINGS, Padding


class Sampling(NamedTuple):
    """The parsed options except the fill value and the pyramid, which are tensors."""

    interpolation: Interpolation
    padding: Padding
    align_corners: bool = False
    antialias: bool | str = False
    gradient: str = "exact"

    @property
    def names(self) -> tuple[str, str, bool]:
        """The arguments for the registry of torch: `named(*sampling.names)` is this, without anti-aliasing and gradient."""
        return self.interpolation.name, self.padding.name, self.align_corners


def named(mode: str, padding_mode: str, align_corners: bool) -> Sampling:
    return Sampling(INTERPOLATIONS[mode], PADDINGS[padding_mode], align_corners)
