"""Parallel looks, one per part of an object (Jaderberg et al. 2015, section 4.3): birds, or two digits far apart."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn

from stn import _check
from stn.models.blocks import convolution, dense
from stn.nn import SpatialTransformer
from stn.nn.trunk import look_at_zeros
from stn.transforms import Attention

HIDDEN = 128  # of the localization network


class PartsNetwork(nn.Module):
    """K looks, one shared backbone, concatenated features, one linear classifier: (N, C, H, W) -> (N, num_classes).

    transformer: its looks are (N, K, C, S, S). backbone: (N, C, S, S) -> (N, F), or maps (N, F, h, w), which are averaged.
    `forward(x, return_warp=True)` returns the warp of the looks too.
    """

    def __init__(self, transformer: SpatialTransformer, backbone: nn.Module, features: int, num_classes: int) -> None:
        super().__init__()
        self.transformer, self.backbone = transformer, backbone
        self.classifier = nn.Linear(transformer.num_transforms * features, num_classes)

    def forward(self, x: Tensor, *, return_warp: bool = False) -> Any:  # Tensor, or (Tensor, Warp)
        looks, warp = self.transformer(x, return_warp=True)
        looks = looks if looks.ndim == 5 else looks.unsqueeze(1)
        features = averaged(self.backbone(looks.flatten(0, 1)))  # (N K, F)
        logits = self.classifier(features.unflatten(0, looks.shape[:2]).flatten(1))
        return (logits, warp) if return_warp else logits


def build_parts(
    num_classes: int,
    side: int = 448,
    *,
    num_looks: int = 2,
    look: int | None = None,
    scale: float = 0.5,
    channels: int = 3,
    backbone: nn.Module | None = None,
) -> PartsNetwork:
    """Build a network with K looks at images (N, channels, side, side). Each look covers a share `scale` of the side, with
    side / 2 pixels unless `look` is given. The first looks tile the image. One localization network predicts them: a
    separate backbone on the image, reduced to the size of a look, a 1x1 convolution and a dense layer of 128.

    backbone: any module (N, channels, look, look) -> maps (N, F, h, w), or (N, F), such as one of torchvision's or timm's
    without its classifier; pretrained weights also initialize the localization network, which is a copy. None: ours.

    Raises: InputError, which names the argument. Source: Jaderberg et al. 2015, section 4.3 and appendix A.5.
    """
    for name, value in (("num_classes", num_classes), ("num_looks", num_looks), ("side", side)):
        _check.at_least(name, value, 1)
    look = max(1, side // 2) if look is None else look
    backbone = small_resnet(channels) if backbone is None else backbone
    shape = shape_of(backbone, (channels, look, look))
    localization = nn.Sequential(nn.AdaptiveAvgPool2d(look), copy.deepcopy(backbone), *_head(shape))
    family = Attention(scale=scale)
    transformer = SpatialTransformer(localization, family, (look, look), num_transforms=num_looks, features=HIDDEN)
    with torch.no_grad():
        bias = transformer.regression.bias
        bias.copy_(tile_centers(num_looks, scale).flatten().to(bias.device))
    return PartsNetwork(transformer, backbone, shape[0], num_classes)


def tile_centers(num_looks: int, scale: float) -> Tensor:  # (K, 2)
    """Return the centers of K looks of this scale, row by row, from edge to edge; four looks of one half tile the image."""
    columns = math.ceil(math.sqrt(num_looks))
    rows = [min(columns, num_looks - start) for start in range(0, num_looks, columns)]
    centers = [(x, y) for y, count in zip(_spread(len(rows)), rows, strict=True) for x in _spread(count)]
    return torch.tensor(centers) * max(0.0, 1 - scale)


def _spread(count: int) -> list[float]:
    """Return evenly spaced numbers from -1 to 1; 0 for a single one."""
    return [2 * i / (count - 1) - 1 for i in range(count)] if count > 1 else [0.0]


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016): (N, before, H, W) -> (N, after, H / stride, W / stride)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        second = nn.Conv2d(after, after, 3, padding=1, bias=False), nn.BatchNorm2d(after)
        self.body = nn.Sequential(convolution(before, after, 3, stride=stride), *second)
        shortcut = nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
        self.shortcut = nn.Identity() if (before, stride) == (after, 1) else nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x) + self.shortcut(x)).relu()


def small_resnet(channels: int = 3) -> nn.Sequential:
    """The default backbone, 1.2 M parameters: (N, channels, S, S) -> maps (N, 256, S / 16, S / 16), rounded up."""
    widths = (32, 32, 64, 128, 256)
    stages = [Residual(a, b, 2 if i else 1) for i, (a, b) in enumerate(itertools.pairwise(widths))]
    return nn.Sequential(convolution(channels, widths[0], 3, stride=2), *stages)


def shape_of(backbone: nn.Module, in_shape: tuple[int, int, int]) -> tuple[int, ...]:
    """Return the shape of the features of one image."""
    shape = tuple(look_at_zeros("backbone", backbone, in_shape).shape[1:])
    if len(shape) not in (1, 3):
        _check.fail(f"backbone must return features (N, F) or (N, F, h, w); got {(1, *shape)}")
    return shape


def averaged(features: Tensor) -> Tensor:  # (N, F), or (N, F, h, w) -> (N, F)
    return features if features.ndim == 2 else features.mean(dim=(2, 3))


def _head(shape: tuple[int, ...]) -> list[nn.Module]:
    """Reduce the features of the backbone to HIDDEN ones that keep positions.

    Without batch norm most units are dead after an epoch at a learning rate of 3e-3, and the looks do not move.
    """
    features, *sides = shape
    reduce = [convolution(features, HIDDEN, 1), nn.Flatten()] if sides else []
    return [*reduce, dense(HIDDEN * math.prod(sides) if sides else features, HIDDEN)]
