"""Networks that align before they classify, in one step or in several (Lin & Lucey 2017, section 5.1).

The classifier is that of Table 1, and all keep to its budget.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from stn import _check
from stn.models.digits import BUDGET, PLANS, cnn, num_parameters
from stn.nn import DigitLocalization, InverseCompositionalTransformer
from stn.transforms import Family

STEPS = {"cnn": 0, "st-cnn": 1, "ic-stn-2": 2, "ic-stn-4": 4}
ALIGNMENT_MODELS = tuple(STEPS)


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
        return cnn(side, num_classes)
    localization = DigitLocalization((1, side, side))
    transformer = InverseCompositionalTransformer(localization, transform, (side, side), steps=STEPS[model])
    classifier = cnn(side, num_classes, BUDGET - num_parameters(transformer))
    return nn.Sequential(OrderedDict(transformer=transformer, classifier=classifier))
