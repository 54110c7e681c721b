"""The paper's networks for distorted digits (Jaderberg et al. 2015, section 4.1): ReLU, about 400 k parameters each.

Batch norm is an addition. A transformer and its classifier together have the same budget as the classifier alone.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import nn

from stn import _check
from stn.models.blocks import convolution, dense, fully_connected
from stn.models.few_channels import ImageConvolution
from stn.nn import DenseLocalization, DigitLocalization, SpatialTransformer
from stn.transforms import Family

BUDGET = 400_000  # parameters


@dataclass(frozen=True)
class Plan:
    """Settings for one image size."""

    look: int  # pixels per side of the look
    pool: int  # pooling factor before the classifier
    middle: float = 1.0  # scale of the first look


# Images of 42 and 60 pixels contain a digit of about 28 and much background. The look is sampled at twice the resolution of
# the classifier and pooled 2x2, as in the paper, so that it does not alias while it is too wide. A classifier learns to read
# digits at their first size, and a look at all of 60 pixels shows them at half size. Held-out error of ST-CNN after 5
# epochs: 2.1 %, with a first look of scale 0.6 1.4 %, with scale 0.5 1.2 %. With 42 pixels there is no difference.
PLANS = {28: Plan(28, pool=1), 42: Plan(56, pool=2), 60: Plan(56, pool=2, middle=0.5)}
MODELS = ("fcn", "cnn", "st-fcn", "st-cnn")


def build(model: str, side: int = 28, transform: str | Family = "affine", *, num_classes: int = 10) -> nn.Sequential:
    """Build one of MODELS: images (N, 1, side, side) -> logits (N, num_classes). `st-` models begin with `.transformer`."""
    _check.choice("model", model, MODELS)
    _check.side("side", side, PLANS)
    if not model.startswith("st-"):
        return classifier(model, side, num_classes)
    plan = PLANS[side]
    localization = DenseLocalization(side**2) if model == "st-fcn" else DigitLocalization((1, side, side))
    start = plan.middle * torch.eye(2, 3) if plan.middle < 1 else None
    transformer = SpatialTransformer(localization, transform, (plan.look, plan.look), start=start)
    parts: OrderedDict[str, nn.Module] = OrderedDict(transformer=transformer)
    if plan.pool > 1:
        parts["pool"] = nn.AvgPool2d(plan.pool)
    parts["classifier"] = classifier(model, plan.look // plan.pool, num_classes, BUDGET - num_parameters(transformer))
    return nn.Sequential(parts)


def classifier(model: str, side: int, num_classes: int, budget: int = BUDGET) -> nn.Sequential:
    return fully_connected(side**2, num_classes, budget) if model.endswith("fcn") else cnn(side, num_classes, budget)


def cnn(side: int, num_classes: int, budget: int = BUDGET, channels: int = 1) -> nn.Sequential:
    """Convolution 9x9, pool 2, convolution 7x7, pool 2, one dense layer as wide as the budget allows."""
    body = [
        ImageConvolution(channels, 32, 9, bias=False),
        nn.BatchNorm2d(32),
        nn.MaxPool2d(2),
        nn.ReLU(),  # ReLU after the pooling gives the same result for a quarter of the numbers
        convolution(32, 64, 7, padded=False),
        nn.MaxPool2d(2),
    ]
    features = 64 * (((side - 8) // 2 - 6) // 2) ** 2
    width = (budget - num_classes - sum(map(num_parameters, body))) // (features + 2 + num_classes)
    return nn.Sequential(*body, nn.Flatten(), dense(features, width), nn.Linear(width, num_classes))


def num_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
