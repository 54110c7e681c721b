"""`RandomWarp`: a random warp as a transform of `torchvision.transforms.v2`. Only this module needs torchvision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stn import _check
from stn.ops.options import SamplingOptions, check_options
from stn.transforms import Family, family
from stn.transforms.base import Ranges
from stn.transforms.one import warp_boxes, warp_key_points, warp_labels, warp_pixels

if TYPE_CHECKING:
    from typing_extensions import Unpack

_check.needs("torchvision", "stn.vision")

from torchvision import tv_tensors  # noqa: E402  # after the sentence
from torchvision.transforms import v2  # noqa: E402

KEY_POINTS = getattr(tv_tensors, "KeyPoints", ())  # since torchvision 0.23


class RandomWarp(v2.Transform):
    """Draw a warp of a family for each sample, and move the image, masks, boxes and key points of the sample by it.

    Boxes have torchvision's coordinates, from 0 at the left edge of the first pixel. Key points are 0 at its center. Put
    `v2.SanitizeBoundingBoxes` behind it, which drops boxes that have left the image.

    Args:
        transform: A family, or its name. Rotations keep shapes in the shape of each image.
        ranges: For names of `family.parameters` the range (low, high) of all numbers of that name, or one for each
            number, None for the identity's. Other parameters are those of the identity.
        size: Size of the output (H, W). None: as the input.
        clip: Clip boxes to the output.
        mask_fill: Label outside the image.
        **options: Of the image: see `stn.affine_sample`.
    """

    def __init__(
        self,
        transform: str | Family,
        ranges: Mapping[str, Ranges],
        size: int | Sequence[int] | None = None,
        *,
        clip: bool = True,
        mask_fill: float = 0,
        **options: Unpack[SamplingOptions],
    ) -> None:
        super().__init__()
        self.family = family(transform)
        self.ranges: dict[str, Any] = dict(ranges)
        self.family.draw(0, **self.ranges)  # a wrong range fails here, and not at the first sample
        check_options(options)
        self.size = None if size is None else _check.lengths("size", size, 2)
        self.clip, self.mask_fill, self.options = clip, mask_fill, options

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        in_size = size_of(flat_inputs)
        device = next(value.device for value in flat_inputs if isinstance(value, torch.Tensor))
        fitted = self.family.fitted(in_size)
        theta = fitted.draw(1, **self.ranges).to(device)
        return {"warp": fitted(theta), "in_size": in_size, "size": self.size or in_size}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        _check.tensor("the input", inpt)
        sizes = params["in_size"], params["size"]
        warp, plain, align = params["warp"], inpt.as_subclass(Tensor), bool(self.options.get("align_corners", False))
        if isinstance(inpt, tv_tensors.BoundingBoxes):
            found = warp_boxes(warp, plain, inpt.format.value, *sizes, clip=self.clip, align_corners=align)
            return tv_tensors.wrap(found, like=inpt, canvas_size=sizes[1])
        if isinstance(inpt, KEY_POINTS):
            return tv_tensors.wrap(warp_key_points(warp, plain, *sizes, align), like=inpt, canvas_size=sizes[1])
        if isinstance(inpt, tv_tensors.Mask):
            return tv_tensors.wrap(warp_labels(warp, plain, sizes[1], self.mask_fill, self.options), like=inpt)
        found = warp_pixels(warp, plain, sizes[1], self.options)
        return tv_tensors.wrap(found, like=inpt) if isinstance(inpt, tv_tensors.TVTensor) else found


def size_of(inputs: Sequence[Any]) -> tuple[int, int]:
    """Return the size (H, W) that the inputs of a sample share."""
    sizes = {tuple(getattr(value, "canvas_size", value.shape[-2:])) for value in inputs if isinstance(value, torch.Tensor)}
    if len(sizes) != 1:
        got = ", ".join(map(str, sorted(sizes))) or "none"
        _check.fail(f"the sample must have one size (H, W) of tensors, after v2.ToImage(); got {got}")
    height, width = sizes.pop()
    return height, width
