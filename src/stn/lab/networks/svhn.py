"""The paper's networks for house numbers (Jaderberg et al. 2015, section 4.2): a number of up to five digits in one image.

Batch norm after convolutions and the layer norms in the localization networks are additions. Without the layer norms some or
all units die in the first epoch, and the layer samples the same window of every image.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict

from torch import Tensor, nn

from stn import _check
from stn.models.blocks import convolution, scaled
from stn.nn import DenseLocalization, SpatialTransformer
from stn.transforms import Family

SVHN_MODELS = ("cnn", "st-cnn-single", "st-cnn-multi")
CHANNELS = (48, 64, 128, 160, 192, 192, 192, 192)  # of the 5x5 convolutions
POOLED = (0, 2, 4, 6)  # the convolutions after which the image is halved
HIDDEN = 3072
DIGITS, CLASSES = 5, 11  # digits of a number; ten classes and the blank after a shorter number
FEATURES = 32  # of a localization network
REDUCED = 8  # pixels per side of the input of a localization network of `multi`


def build_svhn(
    model: str,
    side: int = 64,
    transform: str | Family = "affine",
    *,
    channels: int = 3,
    width: float = 1.0,
    dropout: float = 0.5,
) -> nn.Sequential:
    """Build one of SVHN_MODELS: images (N, channels, side, side) -> logits (N, 5, 11), the digits from left to right.

    cnn: eight convolutions and two dense layers. st-cnn-single: one transformer of the image before them, with a
    convolutional localization network. st-cnn-multi: a transformer before each of the first four convolutions, three of
    them of feature maps, each with two dense layers of 32 on the map averaged to 8x8 (that is ours).
    side: a multiple of 16. width: scales all layers of the backbone. dropout: of the dense layers.

    Raises: InputError, which names the argument.
    """
    _check.choice("model", model, SVHN_MODELS)
    _check.positive("width", width)
    _check.share("dropout", dropout, 1)
    _check.at_least("channels", channels, 1)
    _check.at_least("side", side, 16)
    if side % 16:
        _check.fail(f"side must be a multiple of 16 pixels; got {side!r}")
    widths = [scaled(c, width) for c in CHANNELS]
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if model == "st-cnn-single":
        parts["transformer"] = SpatialTransformer(_localization(channels, side), transform, features=FEATURES)
    for i, (before, after) in enumerate(itertools.pairwise((channels, *widths))):
        if model == "st-cnn-multi" and i < 4:
            parts[f"transformer{i + 1}"] = SpatialTransformer(
                _reduced_localization(before, side), transform, features=FEATURES
            )
        parts[f"convolution{i + 1}"] = convolution(before, after, 5, image=i == 0)
        if i in POOLED:
            parts[f"pool{i + 1}"] = nn.MaxPool2d(2)
            side //= 2
    parts["classifier"] = _classifier(widths[-1] * side**2, scaled(HIDDEN, width), dropout)
    return nn.Sequential(parts)


def _localization(channels: int, side: int) -> nn.Sequential:
    """conv32 5x5, pool 2, conv32 5x5, two dense layers of 32."""
    dense = DenseLocalization(32 * (side // 2) ** 2, (FEATURES, FEATURES), norm=True)
    return nn.Sequential(convolution(channels, 32, 5), nn.MaxPool2d(2), convolution(32, 32, 5), PixelByPixel(), *dense)


def _reduced_localization(channels: int, side: int) -> nn.Sequential:
    """Two dense layers of 32 on the pooled map. The full map, 49,152 numbers for the second transformer, would need 1.6 M
    parameters."""
    reduced = min(side, REDUCED)
    pool = nn.AvgPool2d(side // reduced) if side % reduced == 0 else nn.AdaptiveAvgPool2d(reduced)
    return nn.Sequential(pool, PixelByPixel(), *DenseLocalization(channels * reduced**2, (FEATURES, FEATURES), norm=True))


class PixelByPixel(nn.Module):
    """Permute (N, C, H, W) to (N, H, W, C), a view for maps in channels-last memory.

    If flattened as (C, H, W), its gradient has that order, and the pooling of torch copies the whole map twice: 15 of the
    18 ms of a pass of a localization network on 32 maps of 64x32x32, one thread.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.movedim(1, -1)


def _classifier(features: int, hidden: int, dropout: float) -> nn.Sequential:
    widths = itertools.pairwise((features, hidden, hidden))
    layers = [(nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)) for before, after in widths]
    heads = nn.Linear(hidden, DIGITS * CLASSES), nn.Unflatten(1, (DIGITS, CLASSES))
    return nn.Sequential(nn.Flatten(), *itertools.chain(*layers), *heads)
