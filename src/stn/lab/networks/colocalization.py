"""Finding the object that images share, without labels (Jaderberg et al. 2015, appendix A.2).

A crop of one image should be more similar to the crop of another image than to a random crop of the same image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn

from stn import _check
from stn.models.blocks import convolution, dense
from stn.nn import SpatialTransformer
from stn.transforms import Family, MatrixWarp

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from stn.ops.options import SamplingOptions

CROP = 28  # pixels a side


def build_colocalizer(
    side: int = 84, transform: str | Family = "attention", **options: Unpack[SamplingOptions]
) -> SpatialTransformer:
    """The transformer that finds the object: (N, 1, side, side) -> its crop (N, 1, 28, 28).

    Localization: convolution of 8 channels 9x9 by steps of 4, pool 2, two dense layers of 8. Batch norm is an
    addition that keeps units alive. The first crop is the whole image, reduced.
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


def triplet_loss(
    crop: Tensor,  # (N, F) features of an image's crop
    other: Tensor,  # (N, F) of another image's crop
    random: Tensor,  # (N, F) of a random crop of the first image
    *,
    margin: float = 1.0,
) -> Tensor:  # ()
    """The mean of max(0, |crop - other|^2 - |crop - random|^2 + margin): 0 where the other is nearer by the margin.

    `triplet_margin_loss` of torch uses distances instead of their squares.
    Source: Jaderberg et al. 2015, appendix A.2.
    """
    near, far = ((crop - features).square().sum(dim=-1) for features in (other, random))
    return (near - far + margin).clamp_min(0).mean()


def similarity_triplet_loss(
    crops: Tensor,  # (N, F) codes of the crops of N images
    random: Tensor,  # (N, K, F) of K random crops of each
    *,
    margin: float = 0.5,
) -> Tensor:  # ()
    """The mean of max(0, <crop, random> - <crop, other> + margin) over all pairs of an image and another one, <crop, random>
    averaged over K: `triplet_loss` without the squared norms, because |other|^2 attracts all crops to empty places.
    With codes that are 0 for an empty crop (`Codes`), an empty crop costs the margin and gives no advantage.
    """
    apart = (crops.unsqueeze(1) * random).sum(dim=-1).mean(dim=1)  # (N,)
    cost = (apart[:, None] - crops @ crops.T + margin).clamp_min(0)
    return (cost.sum() - cost.diagonal().sum()) / (len(crops) * max(1, len(crops) - 1))


class Codes(nn.Module):
    """Features minus the features of an empty crop, scaled to a mean square length of 1: (N, 1, 28, 28) -> (N, F).

    features: a trained network without its classifier; it is not trained further. images: (M, 1, 28, 28) objects, whose
    codes have a mean square length of 1.
    """

    origin: Tensor
    length: Tensor

    def __init__(self, features: nn.Module, images: Tensor) -> None:
        super().__init__()
        self.features = features.eval().requires_grad_(False)
        with torch.no_grad():
            self.register_buffer("origin", features(torch.zeros_like(images[:1])))
            self.register_buffer("length", (features(images) - self.origin).square().sum(dim=-1).mean().sqrt())

    def forward(self, crops: Tensor) -> Tensor:
        return (self.features(crops).float() - self.origin) / self.length


def random_places(count: int, looks: int, scale: float, generator: Generator) -> Tensor:  # (count, looks, 2)
    """Draw translations of crops of this scale inside the image, on the device of the generator."""
    draw = torch.rand(count, looks, 2, generator=generator, device=generator.device)
    return (2 * draw - 1) * max(0.0, 1 - scale)


def boxes_of(warp: MatrixWarp) -> Tensor:  # (N[, K], 4)
    """Return the bounding boxes of the looks of a batch: (left, top, right, bottom), normalized."""
    corners = torch.tensor(
        [[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]], dtype=warp.working_dtype, device=warp.device
    )
    points = warp.points(corners)
    return torch.cat([points.amin(dim=-2), points.amax(dim=-2)], dim=-1)


def box_iou(boxes: Tensor, others: Tensor) -> Tensor:  # (.., 4), (.., 4) -> (..)
    """Return the intersection over union of pairs of boxes (left, top, right, bottom) in the same unit; 0 for two points.

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
