"""How an image is sampled: `Sampling`, the meaning of the options of a call."""

from __future__ import annotations

from typing import NamedTuple

from stn.ops.interpolation import INTERPOLATIONS, Interpolation
from stn.ops.padding import PADDINGS, Padding


class Sampling(NamedTuple):
    """What the options mean, but for the fill value and the pyramid, which are tensors."""

    interpolation: Interpolation
    padding: Padding
    align_corners: bool = False
    antialias: bool | str = False
    gradient: str = "exact"

    @property
    def names(self) -> tuple[str, str, bool]:
        """As torch's registry has it: `named(*sampling.names)` is this, but for anti-aliasing and the gradient."""
        return self.interpolation.name, self.padding.name, self.align_corners


def named(mode: str, padding_mode: str, align_corners: bool) -> Sampling:
    return Sampling(INTERPOLATIONS[mode], PADDINGS[padding_mode], align_corners)
