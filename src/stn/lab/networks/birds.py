"""Networks for photographs of birds: a classifier behind a center crop, or behind a look that it learns to place.

The look is upright (scale and translation). A map of evidence places it: the look has the center and the spread of the map,
which a convolution of few parameters makes. A dense localization network learns little from some hundred photographs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stn import _check
from stn.grid import lattice
from stn.models.blocks import channels_last, convolution
from stn.nn import SpatialTransformer, localization_for
from stn.transforms import Warp

SIDE, LOOK = 64, 32  # pixels of a photograph, and of the look that the classifier reads
LOCALIZERS = ("none", "dense", "own", "shared")
WIDE = 96  # features of a place


class Seen(NamedTuple):
    logits: Tensor  # (N, classes)
    evidence: Tensor | None  # (N, classes): the logits of the places that the map weighs, in the whole photograph
    warp: Warp


class BirdNetwork(nn.Module):
    """A classifier of looks at photographs (N, 3, SIDE, SIDE) in [0, 1].

    Args:
        num_classes: Number of classes.
        localizer: "none": a center crop. "dense": the localization network of `for_input`. "own" or "shared": a map of
            evidence on the features of a trunk of its own, or of the classifier.
        family: "attention", or "anisotropic_scale" for looks of any aspect.
        scale: Side of the center crop, or of the first look, in sides of the photograph.
        padding_mode: Of the look.

    Raises: InputError, which names the argument.
    """

    def __init__(
        self,
        num_classes: int,
        localizer: str = "shared",
        *,
        family: str = "attention",
        scale: float = 1.0,
        padding_mode: str = "border",
    ) -> None:
        super().__init__()
        _check.choice("localizer", localizer, LOCALIZERS)
        _check.choice("family", family, ("attention", "anisotropic_scale"))
        start: Tensor | None = torch.tensor([[scale, 0.0, 0.0], [0.0, scale, 0.0]])
        place: nn.Module
        self.body, self.head = trunk(), nn.Sequential(nn.Dropout(0.3), nn.Linear(WIDE, num_classes))
        self.trunk, self.places, self.map = None, None, None
        if localizer in ("none", "dense"):
            place = Identity() if localizer == "none" else localization_for((3, SIDE, SIDE))
        else:
            place, start = Moments(family, scale), None
            self.map = nn.Conv2d(WIDE, 1, 1)
            nn.init.zeros_(self.map.weight)
        if localizer == "own":
            self.trunk, self.places = trunk(), nn.Linear(WIDE, num_classes)
        self.look = SpatialTransformer(
            place, family, LOOK, start=start, regress=localizer == "dense", padding_mode=padding_mode, antialias=True
        )
        channels_last(self)

    def forward(self, x: Tensor) -> Seen:
        if self.map is None:
            look, warp = self.look(x, return_warp=True)
            return Seen(self.read(look), None, warp)
        features = (self.trunk or self.body)(standard(F.avg_pool2d(x, SIDE // LOOK)))
        evidence = self.map(features)  # (N, 1, h, w)
        weighed = torch.einsum("nchw,nhw->nc", features, shares(evidence))
        look, warp = self.look(evidence, image=x, return_warp=True)
        return Seen(self.read(look), (self.places or self.head)(weighed), warp)

    def read(self, look: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(standard(look)).mean(dim=(2, 3)))
        return logits


class Moments(nn.Module):
    """Theta of the box with the center and the spread of a map of evidence: (N, 1, h, w) -> (N, 3) or (N, 4).

    The shares p of the places are a softmax of the evidence. The center is sum p x. A box that is filled evenly has the
    variance half^2 / 3, so each half side is sqrt(3 (sum p x^2 - center^2)), times a learned factor. A map without
    evidence gives the whole image times that factor, which begins with `scale`.
    """

    def __init__(self, family: str, scale: float) -> None:
        super().__init__()
        self.square = family == "attention"
        self.factor = nn.Parameter(torch.tensor(math.log(scale)))

    def forward(self, evidence: Tensor) -> Tensor:
        share = shares(evidence).flatten(1)
        places = lattice(evidence.shape[2:]).to(share).flatten(0, 1)  # (h w, 2)
        center = share @ places
        variance = (share @ places.square() - center.square()).clamp_min(1e-4)
        half = (3 * variance).sqrt() * self.factor.exp()
        if self.square:  # of the same area
            half = half.log().mean(dim=1, keepdim=True).exp()
        return torch.cat([half, center], dim=1)


class Identity(nn.Module):
    """Theta of the whole image, for every image."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_tensor([1.0, 0.0, 0.0]).expand(len(x), 3)


def shares(evidence: Tensor) -> Tensor:  # (N, 1, h, w) -> (N, h, w), which sum to 1
    return evidence.flatten(1).softmax(dim=1).unflatten(1, evidence.shape[2:])


def standard(x: Tensor) -> Tensor:
    return (x - 0.45) / 0.25


def trunk() -> nn.Sequential:
    """(N, 3, LOOK, LOOK) -> (N, WIDE, LOOK / 4, LOOK / 4)."""
    first = convolution(3, 32, 5, stride=2, image=True), convolution(32, 64, 3), nn.MaxPool2d(2)
    return nn.Sequential(*first, convolution(64, WIDE, 3), convolution(WIDE, WIDE, 3))
