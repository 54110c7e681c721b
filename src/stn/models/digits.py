"""The paper's networks for distorted digits (Jaderberg et al. 2015, section 4.1): ReLU, about 400 k parameters each.

Batch norm is ours. A transformer and its classifier together keep to the same budget as the classifier alone.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stn import _check
from stn.nn import DenseLocalization, DigitLocalization, SpatialTransformer
from stn.transforms import Family

BUDGET = 400_000  # parameters


@dataclass(frozen=True)
class Plan:
    """Of one image size: the size of the transformer's look, and the average pooling between it and the classifier."""

    look: int
    pool: int


# 42 and 60 pixels hold a digit of about 28 in much background. The look is sampled twice as fine as the classifier needs
# and averaged 2x2, as in the paper, so that it does not alias while it is still too wide.
PLANS = {28: Plan(look=28, pool=1), 42: Plan(look=56, pool=2), 60: Plan(look=56, pool=2)}
MODELS = ("fcn", "cnn", "st-fcn", "st-cnn")


def build(model: str, side: int = 28, transform: str | Family = "affine", *, num_classes: int = 10) -> nn.Sequential:
    """One of MODELS for images (N, 1, side, side): -> logits (N, num_classes). The `st-` ones begin with `.transformer`."""
    _check.choice("model", model, MODELS)
    _check.side("side", side, PLANS)
    classifier = fcn if model.endswith("fcn") else cnn
    if not model.startswith("st-"):
        return classifier(side, num_classes)
    plan = PLANS[side]
    localization = DenseLocalization(side**2) if model == "st-fcn" else DigitLocalization((1, side, side))
    transformer = SpatialTransformer(localization, transform, (plan.look, plan.look))
    parts: OrderedDict[str, nn.Module] = OrderedDict(transformer=transformer)
    if plan.pool > 1:
        parts["pool"] = nn.AvgPool2d(plan.pool)
    parts["classifier"] = classifier(plan.look // plan.pool, num_classes, BUDGET - num_parameters(transformer))
    return nn.Sequential(parts)


class FirstConvolution(nn.Conv2d):
    """A convolution of one channel by an odd kernel, for images of even side. Behind a look it takes 2x2 pixels at a time.

    On a CPU the gradient to a single channel leaves the vector units empty. A step of ST-CNN at 28x28, 256 images, bfloat16,
    one thread: 101 ms as it stands, 74 ms so. Where the input needs no gradient there is nothing to gain.
    """

    def forward(self, input: Tensor) -> Tensor:  # (N, 1, H, W) -> (N, C, H - k + 1, W - k + 1)
        if not input.requires_grad or input.device.type != "cpu":
            return super().forward(input)
        moved = [F.pad(self.weight, (right, 1 - right, down, 1 - down)) for down in (0, 1) for right in (0, 1)]
        weight = F.pixel_unshuffle(torch.cat(moved), 2)  # (4 C, 4, (k+1)/2, (k+1)/2), an output pixel after the other
        bias = None if self.bias is None else self.bias.repeat(4)
        fours = F.conv2d(F.pixel_unshuffle(input, 2), weight, bias)  # (N, 4 C, h, w)
        n, _, h, w = fours.shape
        pixels = fours.permute(0, 2, 3, 1).reshape(n, h, w, 2, 2, -1).transpose(2, 3)  # (N, h, 2, w, 2, C)
        return pixels.reshape(n, 2 * h, 2 * w, -1).permute(0, 3, 1, 2)


def fcn(side: int, num_classes: int, budget: int = BUDGET) -> nn.Sequential:
    """Two hidden layers, as wide as the budget allows: h side^2 + h^2 + h (6 + num_classes) = budget."""
    b = side**2 + 6 + num_classes
    width = int((math.sqrt(b * b + 4 * budget) - b) / 2)
    return nn.Sequential(nn.Flatten(), *_dense(side**2, width), *_dense(width, width), nn.Linear(width, num_classes))


def cnn(side: int, num_classes: int, budget: int = BUDGET) -> nn.Sequential:
    """Convolution 9x9, pool 2, convolution 7x7, pool 2, one dense layer as wide as the budget allows."""
    body = [
        FirstConvolution(1, 32, 9),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        *_conv(32, 64, kernel=7),
        nn.MaxPool2d(2),
    ]
    pooled = ((side - 8) // 2 - 6) // 2
    features = 64 * pooled**2
    width = (budget - sum(map(num_parameters, body))) // (features + 3 + num_classes)
    return nn.Sequential(*body, nn.Flatten(), *_dense(features, width), nn.Linear(width, num_classes))


def num_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _conv(before: int, after: int, *, kernel: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, kernel), nn.BatchNorm2d(after), nn.ReLU()]


def _dense(before: int, after: int) -> list[nn.Module]:
    return [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
