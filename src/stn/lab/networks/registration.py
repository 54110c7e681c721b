"""A network that registers two volumes in one pass: a U-Net proposes the velocity of a spatial transformer.

The velocity is antisymmetric, v(a, b) = u(a, b) - u(b, a), so that exchanging the volumes negates it: the warp from b to a
is the inverse of that from a to b. Labels are not needed to train it (Balakrishnan et al. 2019, who train without an
inverse).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from stn import _check
from stn.nn import SpatialTransformer
from stn.transforms import Velocity, Warp

STRIDE = 4  # voxels between control points
WIDTHS = (8, 16, 32, 32)  # channels at 1, 1/2, 1/4 and 1/8 of the resolution
RESOLUTION, SQUARINGS = 32, 4  # of the flow
SMALL = 1e-5  # standard deviation of the last weights: the network starts near the identity


class RegistrationNetwork(nn.Module):
    """Moving and fixed volumes (N, 1, D, H, W) -> the moving one, warped onto the fixed one, and the warp.

    `template` is the volume (1, 1, D, H, W) with which both are registered before, by affine maps.

    Args:
        size: (D, H, W), multiples of 8 voxels.
        widths: Channels at each of the resolutions, at least four.
    """

    template: Tensor

    def __init__(self, size: Sequence[int], widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        size = _check.lengths("size", size, 3)
        if any(n % 2 ** (len(widths) - 1) for n in size):
            _check.fail(f"size must be multiples of {2 ** (len(widths) - 1)} voxels; got {size}")
        shape = [n // STRIDE + 3 for n in size]  # cells of STRIDE voxels
        family = Velocity(3, shape=shape, resolution=RESOLUTION, squarings=SQUARINGS)
        self.transformer = SpatialTransformer(AntisymmetricUNet(widths), family, size, regress=False, padding_mode="border")
        self.register_buffer("template", torch.zeros(1, 1, *size))

    def forward(self, moving: Tensor, fixed: Tensor) -> tuple[Tensor, Warp]:
        return self.transformer(torch.cat([moving, fixed], dim=1), image=moving, return_warp=True)


class AntisymmetricUNet(nn.Module):
    """Two volumes (N, 2, D, H, W) -> velocities (N, 3, D / 4 + 3, H / 4 + 3, W / 4 + 3), in (x, y, z)."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.first = _block(2, widths[0])
        self.down = nn.ModuleList(
            nn.Sequential(_block(a, b, stride=2), *([_block(b, b)] if i else []))
            for i, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True))
        )
        self.up = nn.ModuleList(_block(a + b, b) for a, b in zip(widths[:2:-1], widths[-2:1:-1], strict=True))
        # A kernel of 4 is centered on the corners of cells, where the control points are: one more on each side.
        self.last = nn.Conv3d(widths[2], 3, 4, padding=3)
        nn.init.normal_(self.last.weight, std=SMALL)
        nn.init.zeros_(cast(Tensor, self.last.bias))

    def forward(self, pair: Tensor) -> Tensor:
        both = self._one_way(torch.cat([pair, pair.flip(1)]) * 2 - 1)
        ahead, back = both.chunk(2)
        return ahead - back

    def _one_way(self, x: Tensor) -> Tensor:
        x = self.first(x)
        kept: list[Tensor] = []
        for down in self.down:
            x = down(x)
            kept.append(x)
        for up, beside in zip(self.up, kept[-2:0:-1], strict=True):
            x = up(torch.cat([nn.functional.interpolate(x, scale_factor=2.0), beside], dim=1))
        found: Tensor = self.last(x)
        return found


def _block(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(before, after, 3, stride, 1), nn.LeakyReLU(0.2))
