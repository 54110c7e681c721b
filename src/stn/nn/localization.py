"""Localization networks: image -> features, from which a `SpatialTransformer` regresses theta.

Any module that returns (N, out_features) can be used. Two of these are the paper's for digits (Jaderberg et al. 2015);
the third is for photographs, the fourth for signals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from stn import _check

DIGIT_SIDE = 64  # images of up to this side, in pixels, get the network for digits, larger ones that for photographs


class DenseLocalization(nn.Sequential):
    """Fully connected localization network: (N, ..) -> (N, hidden[-1]).

    Jaderberg et al. 2015 use it for their FCN, with 3 layers of 32.

    Args:
        in_features: Numbers of one sample after flattening, C * H * W for an image.
        hidden: Widths of the layers.
        norm: Add a layer norm before each ReLU, which they do not have. Without it many or all units may die while the
            gradient is still noise.

    Example:
        >>> stn.nn.DenseLocalization(28 * 28)(torch.rand(8, 1, 28, 28)).shape
        torch.Size([8, 32])
    """

    def __init__(self, in_features: int, hidden: Sequence[int] = (32, 32, 32), *, norm: bool = False) -> None:
        widths = [in_features, *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in zip(widths, hidden, strict=False):
            layers += _dense(before, after, norm=norm)
        super().__init__(*layers)
        self.out_features = widths[-1]


class DigitLocalization(nn.Sequential):
    """Localization network for small images: half the resolution, two 5x5 convolutions, one dense layer.

    Jaderberg et al. 2015 use it for their CNN; batch norm and the padding of the convolutions are additions. It maps
    (N, C, H, W) to (N, features).

    Args:
        in_shape: (C, H, W) of the images.
        channels: Channels of both convolutions.
        features: Width of the dense layer.
        norm: Add a layer norm before the ReLU of the dense layer, as in `DenseLocalization`.

    Raises:
        InputError: in_shape is not three positive integers.

    Example:
        >>> stn.nn.DigitLocalization((1, 28, 28))(torch.rand(8, 1, 28, 28)).shape
        torch.Size([8, 20])
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
        self.in_channels, self.in_size, self.out_features = c, (height, width), features

    def takes(self, size: Sequence[int]) -> bool:
        """Return whether the dense layer fits images of this size.

        Args:
            size: (H, W).
        """
        return [-(-n // 8) for n in size] == [-(-n // 8) for n in self.in_size]


class PhotoLocalization(nn.Sequential):
    """Localization network for photographs: convolutions of stride 2 with batch norm, then a small head.

    There are as many convolutions as leave at most 16 pixels a side, at least two; for 512x512x3 they are 5, with 0.16
    M parameters. The head reads a 4x4 map, which keeps positions. It maps (N, C, H, W) to (N, features).

    Args:
        in_shape: (C, H, W) of the images. Larger and smaller images work too.
        width: Channels of the first convolution. Each further one has twice as many, up to max_width.
        max_width: Most channels of a convolution.
        features: Width of the head.

    Raises:
        InputError: in_shape is not three positive integers.

    Example:
        >>> stn.nn.PhotoLocalization((3, 128, 128), features=32)(torch.rand(2, 3, 100, 150)).shape
        torch.Size([2, 32])
    """

    def __init__(self, in_shape: Sequence[int], *, width: int = 16, max_width: int = 64, features: int = 64) -> None:
        c, *sides = _check.input_shape("in_shape", in_shape)
        layers: list[nn.Module] = []
        in_channels = c
        for stage in range(max(2, math.ceil(math.log2(max(sides) / 16)))):
            channels = min(max_width, width << stage)
            layers += _conv(c, channels, kernel=5 if stage == 0 else 3, stride=2)
            c = channels
        layers += [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * c, features), nn.ReLU()]
        super().__init__(*layers)
        self.in_channels, self.out_features = in_channels, features


class SignalLocalization(nn.Sequential):
    """Localization network for signals: convolutions of stride 2 with batch norm, then a small head.

    There are as many convolutions as leave at most 16 samples, at least two. The head reads 8 places, which keeps
    positions. It maps (N, C, L) to (N, features).

    Args:
        in_shape: (C, L) of the signals. Longer and shorter signals work too.
        width: Channels of the first convolution. Each further one has twice as many, up to max_width.
        max_width: Most channels of a convolution.
        features: Width of the head.

    Raises:
        InputError: in_shape is not two positive integers.

    Example:
        >>> stn.nn.SignalLocalization((3, 128), features=32)(torch.rand(2, 3, 100)).shape
        torch.Size([2, 32])
    """

    def __init__(self, in_shape: Sequence[int], *, width: int = 16, max_width: int = 64, features: int = 64) -> None:
        in_channels, length = _check.signal_shape("in_shape", in_shape)
        layers: list[nn.Module] = []
        c = in_channels
        for stage in range(max(2, math.ceil(math.log2(length / 16)))):
            channels = min(max_width, width << stage)
            layers += [nn.Conv1d(c, channels, 5, stride=2, padding=2, bias=False), nn.BatchNorm1d(channels), nn.ReLU()]
            c = channels
        layers += [nn.AdaptiveAvgPool1d(8), nn.Flatten(), nn.Linear(8 * c, features), nn.ReLU()]
        super().__init__(*layers)
        self.in_channels, self.out_features = in_channels, features


def localization_for(in_shape: Sequence[int]) -> DigitLocalization | PhotoLocalization | SignalLocalization:
    """Make a suitable localization network for images or signals of a shape.

    Args:
        in_shape: (C, H, W) of the images, or (C, L) of the signals.

    Returns:
        `DigitLocalization` for images of up to 64 pixels a side, `PhotoLocalization` for larger ones, and
        `SignalLocalization` for signals.

    Raises:
        InputError: in_shape is not two or three positive integers.

    Example:
        >>> type(stn.nn.localization_for((3, 224, 224))).__name__
        'PhotoLocalization'
    """
    _, *sides = _check.input_shape("in_shape", in_shape, signals=True)
    if len(sides) == 1:
        return SignalLocalization(in_shape)
    if max(sides) <= DIGIT_SIDE:
        return DigitLocalization(in_shape)
    return PhotoLocalization(in_shape)


def _conv(before: int, after: int, *, kernel: int, stride: int = 1, pooled: bool = False) -> list[nn.Module]:
    """Return the layers of one convolution. `pooled` halves the size.

    The pooling comes before the ReLU: both orders are equal, and this one has a quarter of the ReLU's work.
    """
    conv = nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2, bias=False)
    pool = [nn.MaxPool2d(2, ceil_mode=True)] if pooled else []
    return [conv, nn.BatchNorm2d(after), *pool, nn.ReLU()]


def _dense(before: int, after: int, *, norm: bool) -> list[nn.Module]:
    return [nn.Linear(before, after), *([nn.LayerNorm(after)] if norm else []), nn.ReLU()]
