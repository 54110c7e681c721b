"""Networks that align before they classify, in one step or in several (Lin & Lucey 2017, section 5.1).

They have the size of those in the source, about 39 k parameters, and no batch norm in the localization network: with the
networks of Table 1 one step is as good as four (1.65 and 1.57 % errors at 28x28 pixels). As in the source, alignment in
steps may start from a part of a larger image and sample the larger image; a plain transformer has lost the outer part.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

import torch
from torch import nn

from stn import _check
from stn.models.blocks import convolution, dense
from stn.models.digits import num_parameters
from stn.models.few_channels import ImageConvolution
from stn.nn import InverseCompositionalTransformer
from stn.transforms import Family

STEPS = {"cnn": 0, "st-cnn": 1, "ic-stn-1": 1, "ic-stn-2": 2, "ic-stn-4": 4}
ALIGNMENT_MODELS = tuple(STEPS)
IN_STEPS = ALIGNMENT_MODELS[2:]
SIDE, BUDGET = 28, 39_000  # pixels; parameters
FEATURES = 48  # that the localization network ends in


def build_alignment(
    model: str, transform: str | Family = "projective", *, side: int = SIDE, num_classes: int = 10
) -> nn.Sequential:
    """One of ALIGNMENT_MODELS for images (N, 1, 28, 28): -> logits (N, num_classes).

    All except cnn begin with `.transformer`, whose localization network reads the look before each step; one step is the
    plain spatial transformer. The localization network and the classifier are the same for any number of steps.
    side: of larger images, for ic-stn-1, ic-stn-2 and ic-stn-4. The first look is the 28x28 pixels in the middle.

    Raises: InputError, which names the argument.
    """
    _check.at_least("side", side, SIDE)
    _check.choice("model", model, ALIGNMENT_MODELS if side == SIDE else IN_STEPS)
    if not STEPS[model]:
        return deep_classifier(num_classes, BUDGET)
    middle = torch.eye(2, 3) * (SIDE / side) if side > SIDE else None
    transformer = InverseCompositionalTransformer(
        localization(), transform, (SIDE, SIDE), steps=STEPS[model], features=FEATURES, start=middle
    )
    rest = BUDGET - num_parameters(transformer)
    return nn.Sequential(OrderedDict(transformer=transformer, classifier=classifier(num_classes, rest)))


def localization() -> nn.Sequential:
    """The one of the source: 7x7 convolutions of 4 and 8 channels, one pooling, one dense layer: (N, FEATURES)."""
    convolutions = nn.Conv2d(1, 4, 7), nn.ReLU(), nn.Conv2d(4, 8, 7), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
    return nn.Sequential(*convolutions, nn.Linear(8 * ((SIDE - 12) // 2) ** 2, FEATURES), nn.ReLU())


def classifier(num_classes: int, budget: int, width: int = 8) -> nn.Sequential:
    """One convolution 9x9, pooled to 10x10, and one dense layer as wide as the budget allows."""
    body = [ImageConvolution(1, width, 9, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
    return _with_head(body, width * ((SIDE - 8) // 2) ** 2, num_classes, budget)


def deep_classifier(num_classes: int, budget: int) -> nn.Sequential:
    """The one of the source without alignment: convolutions 3x3 of 3, 6, 9 and 12 channels, one pooling after two."""
    widths = (1, 3, 6, 9, 12)
    body: list[nn.Module] = [convolution(b, a, 3, padded=False) for b, a in pairwise(widths)]
    body.insert(2, nn.MaxPool2d(2))
    return _with_head(body, widths[-1] * ((SIDE - 4) // 2 - 4) ** 2, num_classes, budget)


def _with_head(body: list[nn.Module], features: int, num_classes: int, budget: int) -> nn.Sequential:
    hidden = (budget - num_classes - sum(map(num_parameters, body))) // (features + 2 + num_classes)
    return nn.Sequential(*body, nn.Flatten(), dense(features, hidden), nn.Linear(hidden, num_classes))
