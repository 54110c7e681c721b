"""Networks for traffic signs: one classifier, without a transformer, with one of the image, or with three.

Three transformers, of the image and of two feature maps, as in Arcos-Garcia et al. 2018, whose networks are larger (14.6 M
parameters). All networks have the same number of parameters: the dense layer is as wide as the budget allows.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from stn import _check
from stn.models.blocks import convolution, dense
from stn.models.digits import num_parameters
from stn.nn import DenseLocalization, SpatialTransformer
from stn.transforms import Family

SIGN_MODELS = ("cnn", "st-cnn-single", "st-cnn-multi")
TRANSFORMERS = {"cnn": 0, "st-cnn-single": 1, "st-cnn-multi": 3}
BUDGET = 700_000  # parameters
CHANNELS = (32, 64, 128)  # of the three stages, before each of which there may be a transformer
CLASSES = 43
FEATURES, REDUCED = 32, 32  # of a localization network: its dense layer, and channels of its convolutions


def build_signs(
    model: str,
    side: int = 32,
    transform: str | Family = "affine",
    *,
    num_classes: int = CLASSES,
    budget: int = BUDGET,
) -> nn.Sequential:
    """Build one of SIGN_MODELS: images (N, 3, side, side) in [0, 1] -> logits (N, num_classes).

    Each of three stages has two 3x3 convolutions (the first stage: one 5x5 and one 3x3) and halves the map. st-cnn-single
    has a transformer before the first stage, st-cnn-multi before each. Transformers start at the identity and pad with
    the border. The contrast is normalized after the first one, which samples the image itself. side: a multiple of 8, at
    least 16.

    Raises: InputError, which names the argument.
    """
    _check.choice("model", model, SIGN_MODELS)
    _check.at_least("side", side, 16)
    if side % 8:
        _check.fail(f"side must be a multiple of 8 pixels; got {side!r}")
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    channels = 3
    for stage, after in enumerate(CHANNELS):
        if stage < TRANSFORMERS[model]:
            localization = _localization(channels, side)
            layer = SpatialTransformer(localization, transform, features=FEATURES, padding_mode="border")
            parts[f"transformer{stage + 1 if stage else ''}"] = layer
        if stage == 0:
            parts["contrast"] = Contrast()
        first = convolution(channels, after, 3 if stage else 5, image=stage == 0)
        parts[f"stage{stage + 1}"] = nn.Sequential(first, convolution(after, after, 3), nn.MaxPool2d(2))
        channels, side = after, side // 2
    features = channels * side**2
    width = (budget - num_classes - sum(map(num_parameters, parts.values()))) // (features + 2 + num_classes)
    if width < 1:
        _check.fail(f"budget must suffice for the convolutions and a dense layer of one unit; got {budget!r}")
    parts["classifier"] = nn.Sequential(nn.Flatten(), dense(features, width), nn.Linear(width, num_classes))
    return nn.Sequential(parts)


class Contrast(nn.Module):
    """Subtract the mean of an image, and divide by its standard deviation: many photographs are dark, or pale."""

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W)
        centered = x - x.mean(dim=(1, 2, 3), keepdim=True)
        # A gray level of 8 bits is 0.004: an image without contrast stays without.
        return centered / centered.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp_min(0.01)


def _localization(channels: int, side: int) -> nn.Sequential:
    """Two 3x3 convolutions on at most 16 pixels a side, 4x4 places, and a dense layer with a layer norm.

    The places are kept, because a translation is the place of something.
    """
    reduce: list[nn.Module] = [Contrast()] if channels == 3 else []
    if side > 16:
        reduce.append(nn.AvgPool2d(2))
    body = [*reduce, convolution(channels, REDUCED, 3), nn.MaxPool2d(2), convolution(REDUCED, REDUCED, 3)]
    head = DenseLocalization(REDUCED * 16, (FEATURES,), norm=True)
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(4), *head)
