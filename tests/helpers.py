"""Helpers and constants that several tests share."""

import itertools

import torch
from torch import Tensor, nn

from stn.grid import lattice
from stn.nn import ParamGroup
from stn.ops.padding import PADDINGS as KNOWN_PADDINGS
from stn.transforms import Family, family

MODES = ("nearest", "bilinear", "bicubic")
PADDINGS = tuple(KNOWN_PADDINGS)
SIZES = {2: ((7, 9), (6, 11)), 3: ((5, 6, 7), (4, 5, 8))}  # number of dimensions -> size of the image, size of the output
RULES = list(itertools.product(MODES, PADDINGS, (False, True)))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=seeded(seed))


def near_identity(
    transform: str | Family, n: int, *, strength: float = 0.2, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Return parameters (n, P) of a family that are close to the identity, differ from it, and cause no folds."""
    start = family(transform).identity().to(dtype)
    return start + strength * torch.randn(n, len(start), dtype=dtype, generator=seeded(seed)).clamp(-1.5, 1.5)


def held(group: ParamGroup) -> list[nn.Parameter]:
    """Return all parameters of an optimizer's group."""
    parameters = group["params"]
    assert isinstance(parameters, list)
    return parameters


def ramp(size: tuple[int, ...], *, align_corners: bool, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return an image (1, d, *size) whose channel i is pixel coordinate i. Bilinear sampling reproduces it exactly."""
    return lattice(size, align_corners=align_corners, dtype=dtype).movedim(-1, 0).unsqueeze(0)
