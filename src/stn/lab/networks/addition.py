"""The paper's networks for MNIST addition (Jaderberg et al. 2015, appendix A.1): each of the two channels holds a digit,
distorted independently; the class is their sum. About 400 k parameters each, as in Table 1; the norms are additions.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from stn import _check
from stn.models.blocks import fully_connected
from stn.models.digits import BUDGET, PLANS, cnn, num_parameters
from stn.nn import DigitLocalization, SpatialTransformer
from stn.transforms import Family

LOOKS = {"fcn": 0, "cnn": 0, "st-fcn": 1, "2xst-fcn": 2}  # transformers in parallel
ADDITION_MODELS = tuple(LOOKS)
SIDE, CHANNELS, SUMS = 42, 2, 19  # pixels; digits; 0 + 0 to 9 + 9


def build_addition(model: str, transform: str | Family = "affine") -> nn.Sequential:
    """One of ADDITION_MODELS for images (N, 2, 42, 42): -> logits (N, 19).

    fcn: two hidden layers. cnn: that of Table 1. st-fcn, 2xst-fcn: one or two transformers, each of which sees both channels
    and transforms both, then the fully connected classifier. The two have one localization network, twice as wide, that
    predicts both thetas; their looks join to four channels. They begin with `.transformer`.

    Raises: InputError, which names the argument.
    """
    _check.choice("model", model, ADDITION_MODELS)
    if model == "cnn":
        return cnn(SIDE, SUMS, channels=CHANNELS)
    looks, plan = LOOKS[model], PLANS[SIDE]
    if not looks:
        return fully_connected(CHANNELS * SIDE**2, SUMS, BUDGET)
    # A sum is learned slowly. Without a norm, 80 % of the units die before there is a useful gradient.
    width = 20 * looks
    localization = DigitLocalization((CHANNELS, SIDE, SIDE), channels=width, features=width, norm=True)
    transformer = SpatialTransformer(localization, transform, (plan.look, plan.look), num_transforms=looks)
    features = looks * CHANNELS * (plan.look // plan.pool) ** 2
    parts: OrderedDict[str, nn.Module] = OrderedDict(transformer=transformer)
    if looks > 1:
        parts["join"] = nn.Flatten(1, 2)  # (N, K, C, S, S) -> (N, K C, S, S)
    parts["pool"] = nn.AvgPool2d(plan.pool)
    parts["classifier"] = fully_connected(features, SUMS, BUDGET - num_parameters(transformer))
    return nn.Sequential(parts)
