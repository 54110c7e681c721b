"""Localisation networks: image -> features, from which a `SpatialTransformer` regresses theta.

Any module that returns (N, out_features) will do. Two of these are the paper's for digits; the third is for photographs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from stn import _check

DIGIT_SIDE = 64  # images of up to this many pixels a side are looked at as digits, larger ones as photographs


class DenseLocalization(nn.Sequential):
    """Fully connected: (N, ..), flattened to in_features, -> (N, hidden[-1]). The paper's for its FCN: 3 layers of 32.

    norm: a layer norm before each ReLU (ours). Without it many units, or all, may die while the gradient is still noise.
    """

    def __init__(self, in_features: int, hidden: Sequence[int] = (32, 32, 32), *, norm: bool = False) -> None:
        widths = [in_features, *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in zip(widths, hidden, strict=False):
            layers += _dense(before, after, norm=norm)
        super().__init__(*layers)
        self.out_features = widths[-1]


class DigitLocalization(nn.Sequential):
    """For small images, the paper's for its CNN: half the resolution, two 5x5 convolutions, one dense layer.

    (N, C, H, W) of in_shape (C, H, W) -> (N, features). Batch norm and the convolutions' padding are ours. norm: as in
    DenseLocalization, for the dense layer.
    """

    def __init__(self, in_shape: Sequence[int], *, channels: int = 20, features: int = 20, norm: bool = False) -> None:
        c, height, width = _check.input_shape("in_shape", in_shape)
        area = math.ceil(height / 8) * math.ceil(width / 8)
        super().__init__(
            nn.AvgPool2d(2, ceil_mode=True),
            *_conv(c, channels, kernel=5, pooled=True),
            *_conv(channels, channels, kernel=5, pooled=True),
            nn.Flatten(),
            *_dense(channels * area, features, norm=norm),
        )
        self.out_features = features


class PhotoLocalization(nn.Sequential):
    """For photographs: convolutions of stride 2 with batch norm until at most 16 pixels a side are left, then a small head.

    (N, C, H, W) of in_shape (C, H, W), or any larger or smaller image, -> (N, features). 512x512x3: 5
    convolutions, 0.16 M parameters. A 4x4 map goes into the head, so that it knows where in the image things are.
    """

    def __init__(self, in_shape: Sequence[int], *, width: int = 16, max_width: int = 64, features: int = 64) -> None:
        c, *sides = _check.input_shape("in_shape", in_shape)
        layers: list[nn.Module] = []
        for stage in range(max(2, math.ceil(math.log2(max(sides) / 16)))):
            channels = min(max_width, width << stage)
            layers += _conv(c, channels, kernel=5 if stage == 0 else 3, stride=2)
            c = channels
        layers += [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * c, features), nn.ReLU()]
        super().__init__(*layers)
        self.out_features = features


def localization_for(in_shape: Sequence[int]) -> DigitLocalization | PhotoLocalization:
    """A suitable localisation network for images (C, H, W)."""
    _, height, width = _check.input_shape("in_shape", in_shape)
    if max(height, width) <= DIGIT_SIDE:
        return DigitLocalization(in_shape)
    return PhotoLocalization(in_shape)


def _conv(before: int, after: int, *, kernel: int, stride: int = 1, pooled: bool = False) -> list[nn.Module]:
    """With `pooled` half the size: the ReLU of the largest is the largest ReLU, and has a quarter of the work."""
    conv = nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2, bias=False)
    pool = [nn.MaxPool2d(2, ceil_mode=True)] if pooled else []
    return [conv, nn.BatchNorm2d(after), *pool, nn.ReLU()]


def _dense(before: int, after: int, *, norm: bool) -> list[nn.Module]:
    return [nn.Linear(before, after), *([nn.LayerNorm(after)] if norm else []), nn.ReLU()]
