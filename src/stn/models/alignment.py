"""Networks that align before they classify, in one step or in several (Lin & Lucey 2017, section 5.1).

They are as small as the source's, about 39 k parameters: with a large classifier, one step is as good as four, for what is
left of the perturbation is then learned. Batch norm is ours.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from stn import _check
from stn.models.blocks import dense
from stn.models.digits import PLANS, FirstConvolution, num_parameters
from stn.nn import DigitLocalization, InverseCompositionalTransformer
from stn.transforms import Family

STEPS = {"cnn": 0, "st-cnn": 1, "ic-stn-2": 2, "ic-stn-4": 4}
ALIGNMENT_MODELS = tuple(STEPS)
BUDGET = 39_000  # parameters
WIDTH, FEATURES = 8, 48  # channels of all convolutions; what the localisation network ends in


def build_alignment(
    model: str, side: int = 28, transform: str | Family = "affine", *, num_classes: int = 10
) -> nn.Sequential:
    """One of ALIGNMENT_MODELS for images (N, 1, side, side), side 28, 42 or 60: -> logits (N, num_classes).

    All but cnn begin with `.transformer`, whose localisation network sees the look before each step; one step is the plain
    spatial transformer. They have the same localisation network and classifier, whatever the number of steps.

    Raises: InputError, which names the argument.
    """
    _check.choice("model", model, ALIGNMENT_MODELS)
    _check.side("side", side, PLANS)
    if not STEPS[model]:
        return small_cnn(side, num_classes)
    localization = DigitLocalization((1, side, side), channels=WIDTH, features=FEATURES)
    transformer = InverseCompositionalTransformer(localization, transform, (side, side), steps=STEPS[model])
    classifier = small_cnn(side, num_classes, BUDGET - num_parameters(transformer))
    return nn.Sequential(OrderedDict(transformer=transformer, classifier=classifier))


def small_cnn(side: int, num_classes: int, budget: int = BUDGET) -> nn.Sequential:
    """One convolution 9x9, pooled to about 10x10, and one dense layer as wide as the budget allows."""
    pool = (side - 8) // 10
    body = [FirstConvolution(1, WIDTH, 9, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU(), nn.MaxPool2d(pool)]
    features = WIDTH * ((side - 8) // pool) ** 2
    width = (budget - num_classes - sum(map(num_parameters, body))) // (features + 2 + num_classes)
    return nn.Sequential(*body, nn.Flatten(), dense(features, width), nn.Linear(width, num_classes))
