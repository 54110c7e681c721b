"""Volumes (Jaderberg et al. 2015, appendix A.3): a 3-D look aligns the object, depth becomes channels, and a 2-D
network classifies. Batch norm is an addition.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from stn import _check
from stn.models.blocks import convolution, dense, scaled
from stn.nn import SpatialTransformer
from stn.transforms import Affine, Family

VOLUME_MODELS = ("cnn", "st-cnn")
LOOK = 32  # voxels per side of the input of the classifier


def build_volumes(
    model: str, side: int = 32, transform: Family | None = None, *, num_classes: int = 10, width: float = 1.0
) -> nn.Sequential:
    """Build one of VOLUME_MODELS: volumes (N, 1, side, side, side) -> logits (N, num_classes).

    st-cnn: a 3-D look of 32^3 voxels (`.transformer`; transform None: `stn.Affine(3)`), then the classifier of cnn.
    cnn resizes the volume like an identity look, so that both models start with the same output.
    side: 32, 60 or any other of at least 16 voxels. width: scales all layers of the classifier.

    Raises: InputError, which names the argument.
    """
    _check.choice("model", model, VOLUME_MODELS)
    _check.at_least("side", side, 16)
    _check.positive("width", width)
    size = (LOOK,) * 3
    look: OrderedDict[str, nn.Module] = OrderedDict()
    if model == "st-cnn":
        family = Affine(3) if transform is None else transform
        _check.dimension(family.ndim, (3,), type(family).__name__)
        look["transformer"] = SpatialTransformer(VolumeLocalization((1, side, side, side)), family, size)
    else:
        look["resize"] = nn.Upsample(size, mode="trilinear")
    projection = nn.Flatten(1, 2)  # (N, 1, D, H, W) -> (N, D, H, W)
    return nn.Sequential(OrderedDict(**look, projection=projection, classifier=classifier(num_classes, width)))


class VolumeLocalization(nn.Sequential):
    """Localization network for volumes: half the resolution, two convolutions of stride 2, and one dense layer.

    (N, C, D, H, W) of in_shape (C, D, H, W) -> (N, features).
    """

    def __init__(self, in_shape: Sequence[int], *, width: int = 16, features: int = 32) -> None:
        channels, *sides = in_shape
        cells = math.prod(math.ceil(n / 8) for n in sides)
        super().__init__(
            nn.AvgPool3d(2, ceil_mode=True),
            convolution(channels, width, 5, stride=2, ndim=3),
            convolution(width, 2 * width, 3, stride=2, ndim=3),
            nn.Flatten(),
            nn.Linear(2 * width * cells, features),
            nn.ReLU(),
        )
        self.out_features = features


def classifier(num_classes: int, width: float = 1.0) -> nn.Sequential:
    """(N, 32, 32, 32), depth first -> logits."""
    side, narrow, wide = LOOK // 4, scaled(32, width), scaled(64, width)
    return nn.Sequential(
        convolution(LOOK, narrow, 5),
        nn.MaxPool2d(2),
        convolution(narrow, wide, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        dense(wide * side**2, wide),
        nn.Linear(wide, num_classes),
    )
