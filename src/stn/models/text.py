"""A layer that straightens a line of text before recognition (Shi et al. 2016, RARE; Shi et al. 2018, ASTER)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stn import _check
from stn.nn import SpatialTransformer
from stn.ops.options import SamplingOptions
from stn.transforms import ThinPlateSpline, text_edges

if TYPE_CHECKING:
    from typing_extensions import Unpack

SIZE = (32, 100)  # height and width of the output
REDUCED = (32, 64)  # size of the input of the localization network, as in ASTER


def text_rectifier(
    in_channels: int = 1,
    size: int | Sequence[int] = SIZE,
    *,
    reduced: int | Sequence[int] = REDUCED,
    control_points: int = 20,
    margin: float = 0.05,
    **options: Unpack[SamplingOptions],
) -> SpatialTransformer:
    """Make a layer that straightens a line of text: (N, C, H, W) of any size -> (N, C, *size).

    The transform is a thin-plate spline, which starts as the identity. Its parameters come from a reduced copy of the
    image; the pixels come from the image itself.

    Args:
        in_channels: C.
        size: Output size (H, W) in pixels.
        reduced: Size (H, W) of the copy that the localization network reads.
        control_points: Number of control points along the upper and the lower edge together; even, at least 4.
        margin: Distance of the control points from the image's border, as a share of the image (ASTER: 0.05, RARE: 0).
        **options: The sampling options of `stn.SpatialTransformer`. The default of padding_mode is border here; use
            antialias=True where images are many times as large as `size`.

    Returns:
        The layer.

    Raises:
        InputError: An argument has a wrong value, which the message names.

    Source: Shi et al. 2016 (RARE), Shi et al. 2018 (ASTER).

    Example:
        >>> from stn.models import text_rectifier
        >>> text_rectifier(in_channels=3)(torch.rand(2, 3, 48, 160)).shape
        torch.Size([2, 3, 32, 100])
    """
    _check.at_least("control_points", control_points, 4)
    _check.even("control_points", control_points)
    family = ThinPlateSpline(control_points=text_edges(control_points, margin=margin))
    with_border: SamplingOptions = {"padding_mode": "border", **options}
    return SpatialTransformer(TextLocalization(in_channels, reduced), family, size, **with_border)


class Resize(nn.Module):
    """Resize images without aliasing: (N, C, H, W) -> (N, C, *size)."""

    def __init__(self, size: int | Sequence[int]) -> None:
        super().__init__()
        self.size = _check.lengths("size", size, 2)

    def forward(self, x: Tensor) -> Tensor:
        full = x if torch.finfo(x.dtype).bits > 16 else x.float()  # torch has no CPU kernel for half precision
        return F.interpolate(full, self.size, mode="bilinear", antialias=True).to(x.dtype)

    def extra_repr(self) -> str:
        return f"size={self.size}"


class TextLocalization(nn.Sequential):
    """Localization network for a line of text: four convolutions on a reduced image, (N, C, H, W) -> (N, features).

    It has 0.1 M parameters, half the depth of the one in ASTER and at most half the width. Its map of 2x4 (for 32x64)
    keeps positions.
    """

    def __init__(self, in_channels: int = 1, reduced: int | Sequence[int] = REDUCED, *, features: int = 64) -> None:
        _check.at_least("in_channels", in_channels, 1)
        layers: list[nn.Module] = [Resize(reduced)]
        before = in_channels
        for after in (16, 32, 64, 64):
            layers += [*_conv(before, after), nn.MaxPool2d(2, ceil_mode=True)]
            before = after
        layers += [nn.AdaptiveAvgPool2d((2, 4)), nn.Flatten(), nn.Linear(8 * before, features)]
        layers += [nn.LayerNorm(features), nn.ReLU()]  # without the norm 90 % of these units die in the first epochs
        super().__init__(*layers)
        self.in_channels, self.out_features = in_channels, features


def _conv(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
