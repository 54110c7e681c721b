"""Warps beyond sampling: patches written back, and points, masks and boxes that move along with an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, overload

from torch import Tensor

from stn.ops.options import CallOptions
from stn.ops.sample import Sampled
from stn.transforms import along, picture, writing
from stn.transforms.along import Applied
from stn.transforms.outlines import Format
from stn.transforms.views import Mapped

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Carrying(Mapped):
    """The methods `write` and `apply` of a warp."""

    @overload
    def write(
        self,
        patches: Tensor,
        size: int | Sequence[int] | None = None,
        *,
        onto: Tensor | None = None,
        alpha: Tensor | None = None,
        reduce: str | None = "over",
        edge: str = "soft",
        return_mask: Literal[False] = False,
        **options: Unpack[CallOptions],
    ) -> Tensor: ...
    @overload
    def write(
        self,
        patches: Tensor,
        size: int | Sequence[int] | None = None,
        *,
        onto: Tensor | None = None,
        alpha: Tensor | None = None,
        reduce: str | None = "over",
        edge: str = "soft",
        return_mask: Literal[True],
        **options: Unpack[CallOptions],
    ) -> tuple[Tensor, Tensor]: ...
    def write(
        self,
        patches: Tensor,  # (N, C, *patch), or (N, K, C, *patch)
        size: int | Sequence[int] | None = None,
        *,
        onto: Tensor | None = None,  # (N, C, *size)
        alpha: Tensor | None = None,  # as patches, C = 1
        reduce: str | None = "over",
        edge: str = "soft",
        return_mask: bool = False,
        **options: Unpack[CallOptions],
    ) -> Sampled:
        """Write patches into a canvas where the looks of this warp lie. It is the opposite of `sample`, differentiably.

        Args:
            patches: One for each look, (N, C, *patch) or (N, K, C, *patch).
            size: Size of the canvas, the image of the warp. None: that of `onto`.
            onto: Canvas (N, C, *size) below the patches. It stays as it is where no patch lies. None: zeros.
            alpha: Opacity of each patch, 0 to 1, of the shape of patches with C = 1. None: 1.
            reduce: "over": patch k lies on top of patches 0 to k - 1. "sum": patches and `onto` are added. None: one
                canvas for each look, (N, K, C, *size).
            edge: "soft": the edge of a patch fades over about one of its pixels, half of it outside. "hard": a pixel of the
                canvas shows the patch if the patch contains its center, and stays as it is otherwise, bit for bit.
            return_mask: Also return the opacity of what was written, with C = 1; for "sum" its sum over the looks.
            **options: mode, align_corners, antialias, gradient: see `stn.affine_sample`.

        Returns:
            (N, C, *size), or (N, K, C, *size) with reduce=None; with return_mask a pair of it and the mask.

        Raises:
            InputError: An argument has a wrong shape or value, or the warp has no inverse: a matrix is singular, or the
                warp folds over a patch. TypeError: a wrong type.

        Example:
            >>> warp = stn.from_boxes(torch.tensor([[1.0, 0.0, 3.0, 2.0]]), (3, 4))
            >>> warp.write(torch.ones(1, 1, 2, 2), (3, 4))[0, 0]
            tensor([[0., 1., 1., 0.],
                    [0., 1., 1., 0.],
                    [0., 0., 0., 0.]])
        """
        return writing.write(self, patches, size, onto, alpha, reduce, edge, return_mask, options)

    def apply(
        self,
        image: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        points: Tensor | None = None,
        boxes: Tensor | None = None,
        size: int | Sequence[int] | None = None,
        in_size: int | Sequence[int] | None = None,
        format: Format = "xyxy",
        clip: bool = False,
        mask_fill: float = 0,
        **options: Unpack[CallOptions],
    ) -> Applied:
        """Warp an image, and its mask, points and boxes along with it, in pixels.

        An image is sampled at `points` of each output pixel. Points and boxes of the image therefore move by the inverse.

        Args:
            image: (N, C, H, W) or (N, C, D, H, W).
            mask: (N, *size) or (N, C, *size), of any real dtype, bool included: the nearest pixel.
            points: (N, P, d), or (P, d) for all images, in pixels, 0 at the center of the first.
            boxes: (N, B, 4), or (B, 4) for all images; (.., 5) with an angle. Pixels from the left edge of the first, as in
                `stn.from_boxes`. The result is the box around the moved outline, with an angle the one along its middle.
            size: Size of the output. None: that of the input.
            in_size: Size of the input, for points or boxes alone. None: as the image, the mask, or `size`.
            format: "xyxy", "xywh", "cxcywh" or "cxcywha": see `stn.from_boxes`.
            clip: Return the box around the part of the moved outline that lies on the output, or an empty one.
            mask_fill: Label outside the image with padding_mode="zeros".
            **options: Of the image: see `stn.affine_sample`. padding_mode and align_corners also hold for the mask.

        Returns:
            `Applied`, with `inside` for points and `visible` for boxes.

        Raises:
            InputError: An argument has a wrong shape or value. TypeError: a wrong type.

        Example:
            >>> quarter = stn.Rigid()(torch.tensor([[torch.pi / 2, 0.0, 0.0]]))
            >>> out = quarter.apply(image=torch.rand(1, 3, 9, 9), points=torch.tensor([[8.0, 4.0]]))
            >>> out.points.round()  # the middle of the right edge is now at the top
            tensor([[[4., 0.]]])
        """
        inputs = {"image": image, "mask": mask, "points": points, "boxes": boxes}
        return along.apply(self, inputs, size, in_size, format, clip, mask_fill, options)

    def _repr_html_(self) -> str:
        """Return what Jupyter shows: the sampling grids."""
        return picture.of_warp(self)

    def inverse_points(
        self,
        xy: Tensor,
        *,
        pixels: tuple[Sequence[int], Sequence[int]] | None = None,
        align_corners: bool = False,
        tolerance: float | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Find the points of the output that the warp takes to points of the image, and say which of these have one.

        It begins at `inverse().points(xy)`, improves it through the warp itself, and keeps the best point. Displacement
        fields, B-splines and thin-plate splines take some point to each xy, also if they fold. Derivatives are those of
        the implicit function, and zero where there is no solution.

        Args:
            xy: Points of the image, of a shape as in `points`. Normalized.
            pixels: (in_size, out_size), as in `points`: xy are pixels of the image of `in_size`, the result is in pixels
                of an output of `out_size`.
            align_corners: Of the normalized coordinates, if `pixels` is given.
            tolerance: Largest distance of the warped result from xy, in the units of xy. None: 1e-3, or 0.01 pixels.

        Returns:
            The points (N, .., d) or (N, K, .., d), and bool (N, ..) or (N, K, ..): True where `points` of the result is
            xy. While torch.compile or torch.func traces, the search is short, and may miss solutions.

        Raises:
            InputError: An argument has a wrong shape or value, or a matrix is singular. TypeError: a wrong type.

        Example:
            >>> warp = stn.Velocity()(torch.full((1, 98), 0.25))  # reads an eighth of the image further right and down
            >>> found, exists = warp.inverse_points(torch.tensor([0.5, 0.5]))
            >>> found, exists
            (tensor([[0.2500, 0.2500]]), tensor([True]))
        """
        return along.inverse_points(self, xy, pixels, align_corners, tolerance)
