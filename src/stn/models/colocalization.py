"""Finding what images have in common, without labels (Jaderberg et al. 2015, appendix A.2).

A crop of one image should look more like the crop of another one than like a random crop of the same.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn

from stn import _check
from stn.models.blocks import convolution, dense
from stn.models.digits import cnn
from stn.nn import SpatialTransformer
from stn.transforms import Family, MatrixWarp

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from stn.ops.sample import SamplingOptions

CROP = 28  # pixels a side


def build_colocalizer(
    side: int = 84, transform: str | Family = "attention", **options: Unpack[SamplingOptions]
) -> SpatialTransformer:
    """The transformer that finds the object: (N, 1, side, side) -> its crop (N, 1, 28, 28).

    Localisation: convolution of 8 channels 9x9 by steps of 4, pool 2, two dense layers of 8. Batch norm is ours:
    without it so few units died in training. At the start the crop is the whole image, reduced.
    options: of the sampling, as in SpatialTransformer.

    Raises: InputError, which names the argument.
    """
    _check.at_least("side", side, 13)
    mapped = ((side - 9) // 4 + 1) // 2
    layers = [
        convolution(1, 8, 9, stride=4, padded=False),
        nn.MaxPool2d(2),
        nn.Flatten(),
        dense(8 * mapped**2, 8),
        dense(8, 8),
    ]
    return SpatialTransformer(nn.Sequential(*layers), transform, (CROP, CROP), features=8, **options)


def build_encoder(num_classes: int = 10) -> nn.Sequential:
    """The CNN of Table 1 for crops (N, 1, 28, 28), in two parts: `.features` (N, F), which the triplet loss compares, and
    `.classifier`, logits (N, num_classes), which they are trained by."""
    *layers, last = cnn(CROP, num_classes)
    return nn.Sequential(OrderedDict(features=nn.Sequential(*layers), classifier=last))


def triplet_loss(
    crop: Tensor,  # (N, F) features of an image's crop
    other: Tensor,  # (N, F) of another image's crop
    random: Tensor,  # (N, F) of a random crop of the first image
    *,
    margin: float = 1.0,
) -> Tensor:  # ()
    """The mean of max(0, |crop - other|^2 - |crop - random|^2 + margin): 0 where the other is nearer by the margin.

    torch's `triplet_margin_loss` has distances in place of their squares.
    Source: Jaderberg et al. 2015, appendix A.2.
    """
    near, far = ((crop - features).square().sum(dim=-1) for features in (other, random))
    return (near - far + margin).clamp_min(0).mean()


def random_places(theta: Tensor, generator: Generator) -> Tensor:  # (N, 3) -> (N, 3)
    """Attention parameters (s, tx, ty) of crops of the same sizes at random places inside the image.

    Without a gradient. Drawn on the generator's device. A crop as large as the image stays where it is.
    """
    scale = theta.detach()[:, :1]
    draw = torch.rand(len(theta), 2, generator=generator, device=generator.device).to(theta)
    return torch.cat([scale, (2 * draw - 1) * (1 - scale.abs()).clamp_min(0)], dim=1)


def boxes_of(warp: MatrixWarp) -> Tensor:  # (N[, K], 4)
    """The smallest upright boxes around the looks of a batch: (left, top, right, bottom), normalised."""
    corners = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]).to(warp.device, warp.working_dtype)
    points = warp.points(corners)
    return torch.cat([points.amin(dim=-2), points.amax(dim=-2)], dim=-1)


def box_iou(boxes: Tensor, others: Tensor) -> Tensor:  # (.., 4), (.., 4) -> (..)
    """Intersection over union of each box with its fellow: (left, top, right, bottom) in any one unit; 0 for two points.

    Raises: InputError, which names the argument.
    """
    for name, value in (("boxes", boxes), ("others", others)):
        _check.points(name, value, 4)
    overlap = torch.minimum(boxes[..., 2:], others[..., 2:]) - torch.maximum(boxes[..., :2], others[..., :2])
    intersection = overlap.clamp_min(0).prod(dim=-1)
    union = area(boxes) + area(others) - intersection
    return intersection / union.clamp_min(torch.finfo(union.dtype).tiny)


def area(boxes: Tensor) -> Tensor:  # (.., 4) -> (..)
    return (boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(dim=-1)
