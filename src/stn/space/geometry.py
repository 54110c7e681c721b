"""Space: the position of an image in the world, as NIfTI, DICOM and ITK describe it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stn import _check
from stn.grid import half_extent
from stn.ops.options import CallOptions
from stn.transforms import MatrixWarp, Warp

if TYPE_CHECKING:
    from typing_extensions import Unpack

FLIP = (-1.0, -1.0, 1.0)  # between LPS (ITK, DICOM) and RAS (NIfTI, nibabel): x and y point the other way


@dataclass(frozen=True, init=False)
class Space:
    """Size, voxel size, origin and direction of an image: where its voxels lie in the world, in millimeters.

    World coordinates are LPS, as in ITK and DICOM: x grows to the patient's left, y to the back, z to the head. NIfTI
    and nibabel use RAS, with x and y reversed; `from_affine` and `affine` convert.

    Args:
        size: (H, W) or (D, H, W), in pixels.
        spacing: Distance of neighboring voxels along each axis, in mm, in the order of `size`. None: 1.
        origin: World point (x, y[, z]) of the center of the first voxel. None: 0.
        direction: Rows of the matrix (d, d) whose columns are the world directions of the axes x, y[, z] of the image.
            None: the identity.

    Raises:
        InputError: An argument has a wrong shape or value, which the message names.

    Example:
        >>> space = stn.Space((20, 64, 64), spacing=(3.0, 1.0, 1.0), origin=(-32.0, -32.0, 0.0))
        >>> space.to_mm(torch.zeros(3))  # the center of the volume
        tensor([-0.5000, -0.5000, 28.5000])
        >>> space.to_normalized(torch.tensor([-0.5, -0.5, 28.5]))
        tensor([0., 0., 0.])
    """

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[tuple[float, ...], ...]

    def __init__(
        self,
        size: Sequence[int],
        *,
        spacing: Sequence[float] | None = None,
        origin: Sequence[float] | None = None,
        direction: Any = None,
    ) -> None:
        size = _check.lengths("size", size)
        d = len(size)
        spacing = _check.sides("spacing", (1.0,) * d if spacing is None else spacing, d)
        origin = _check.numbers("origin", (0.0,) * d if origin is None else origin, d)
        rows = _check.directions("direction", torch.eye(d).tolist() if direction is None else direction, d)
        for name, value in {"size": size, "spacing": spacing, "origin": origin, "direction": rows}.items():
            object.__setattr__(self, name, value)

    @staticmethod
    def from_affine(affine: Any, size: Sequence[int]) -> Space:
        """Make the space of a NIfTI affine, as nibabel gives it for an array (X, Y, Z).

        Args:
            affine: (4, 4) from voxels (i, j, k) to RAS millimeters; or (3, 3) in 2-D.
            size: Size of the tensor, (D, H, W): the shape of nibabel's array, reversed.

        Raises:
            InputError: affine or size has a wrong shape, or the axes of the voxels are not perpendicular.

        Example:
            >>> affine = torch.diag(torch.tensor([2.0, 2.0, 3.0, 1.0]))
            >>> stn.Space.from_affine(affine, (10, 20, 30)).spacing
            (3.0, 2.0, 2.0)
        """
        size = _check.lengths("size", size)
        d = len(size)
        matrix = _check.square_matrix("affine", affine, d + 1)
        flip = torch.tensor((*FLIP[:2], 1.0)[:d], dtype=torch.float64, device="cpu")
        columns = flip.unsqueeze(1) * matrix[:d, :d]
        lengths = columns.norm(dim=0)
        origin = flip * matrix[:d, d]
        direction = (columns / lengths.where(lengths > 0, 1.0)).tolist()
        return Space(size, spacing=lengths.flip(0).tolist(), origin=origin.tolist(), direction=direction)

    @staticmethod
    def from_sitk(image: Any) -> Space:
        """Make the space of a SimpleITK image, whose array has the shape `size`.

        Args:
            image: A SimpleITK image, 2-D or 3-D.

        Raises:
            InputError: The image has another number of dimensions.
        """
        d = int(image.GetDimension())
        if d not in (2, 3):
            _check.fail(f"image must have 2 or 3 dimensions; got {d}")
        direction = torch.tensor(image.GetDirection(), dtype=torch.float64, device="cpu").view(d, d).tolist()
        spacing = tuple(reversed(image.GetSpacing()))
        return Space(tuple(reversed(image.GetSize())), spacing=spacing, origin=image.GetOrigin(), direction=direction)

    @property
    def ndim(self) -> int:
        """Return the number of dimensions, 2 or 3."""
        return len(self.size)

    @property
    def extent(self) -> tuple[float, ...]:
        """Return the lengths of the image in mm, (H, W) or (D, H, W): the `aspect` of families that turn."""
        return tuple(n * s for n, s in zip(self.size, self.spacing, strict=True))

    @property
    def affine(self) -> Tensor:
        """Return the NIfTI affine, (d+1, d+1) float64: from voxels (i, j, k) to RAS millimeters."""
        flip = torch.tensor((*FLIP[:2], 1.0)[: self.ndim] + (1.0,), dtype=torch.float64, device="cpu")
        return flip.unsqueeze(1) * self.voxels_to_mm

    @property
    def voxels_to_mm(self) -> Tensor:
        """Return the matrix from voxels (x, y[, z]), 0 at the center of the first, to mm: (d+1, d+1) float64."""
        d, matrix = self.ndim, torch.eye(self.ndim + 1, dtype=torch.float64, device="cpu")
        matrix[:d, :d] = torch.tensor(self.direction, dtype=torch.float64, device="cpu") * torch.tensor(
            self.spacing[::-1], dtype=torch.float64, device="cpu"
        )
        matrix[:d, d] = torch.tensor(self.origin, dtype=torch.float64, device="cpu")
        return matrix

    @property
    def normalized_to_mm(self) -> Tensor:
        """Return the matrix from normalized coordinates (`align_corners=False`) to mm: (d+1, d+1) float64."""
        half = torch.tensor([half_extent(n, False) for n in reversed(self.size)], dtype=torch.float64, device="cpu")
        middle = torch.tensor([(n - 1) / 2 for n in reversed(self.size)], dtype=torch.float64, device="cpu")
        to_voxels = torch.diag(torch.cat([half, torch.ones(1, dtype=torch.float64, device="cpu")]))
        to_voxels[:-1, -1] = middle
        return self.voxels_to_mm @ to_voxels

    def to_mm(self, points: Tensor) -> Tensor:
        """Convert normalized points of the image to the world.

        Args:
            points: (.., d), normalized.

        Returns:
            (.., d) in millimeters, LPS.

        Raises:
            InputError: points has a wrong shape. TypeError: it is not a floating-point tensor.
        """
        return self._mapped(self.normalized_to_mm, points)

    def to_normalized(self, points: Tensor) -> Tensor:
        """Convert points of the world to normalized points of the image.

        Args:
            points: (.., d) in millimeters, LPS.

        Returns:
            (.., d), normalized.

        Raises:
            InputError: points has a wrong shape. TypeError: it is not a floating-point tensor.
        """
        return self._mapped(torch.linalg.inv(self.normalized_to_mm), points)

    def _mapped(self, matrix: Tensor, points: Tensor) -> Tensor:
        _check.points("points", points, self.ndim)
        matrix = matrix.to(points.device)
        moved = points.to(matrix.dtype) @ matrix[:-1, :-1].mT + matrix[:-1, -1]
        return moved.to(points.dtype)

    def to(self, other: Space) -> MatrixWarp:
        """Return the warp from points of this image to the points of another at the same place of the world.

        `moving` resampled to the voxels of `fixed` is `fixed.to(moving).sample(volume, fixed.size)`; it is also the
        start of a registration of images that share a world.

        Args:
            other: The space of the other image, with as many dimensions.

        Returns:
            An affine warp of batch (1,), float64.

        Raises:
            InputError: The spaces differ in their number of dimensions.

        Example:
            >>> thick = stn.Space((10, 32, 32), spacing=(3.0, 1.0, 1.0))
            >>> cubes = stn.Space((28, 32, 32))
            >>> cubes.to(thick).sample(torch.rand(1, 1, 10, 32, 32), cubes.size).shape
            torch.Size([1, 1, 28, 32, 32])
        """
        _check.made("other", other, Space, "stn.Space((240, 320))")
        return from_world(torch.eye(self.ndim + 1, dtype=torch.float64, device="cpu").unsqueeze(0), self, other)

    def resample(self, volume: Tensor, source: Space, **options: Unpack[CallOptions]) -> Tensor:
        """Sample a volume of another space at the voxels of this one.

        Args:
            volume: (N, C, *source.size).
            source: The space of the volume.
            **options: Interpolation, padding and so on: `help(stn.affine_sample)` lists them.

        Returns:
            (N, C, *size).

        Raises:
            InputError: The volume does not have the size of its space, or an option is wrong.

        Example:
            >>> fine, coarse = stn.Space((8, 8), spacing=(1, 1)), stn.Space((4, 4), spacing=(2, 2), origin=(0.5, 0.5))
            >>> coarse.resample(torch.rand(1, 1, 8, 8), fine, antialias=True).shape
            torch.Size([1, 1, 4, 4])
        """
        _check.image("volume", volume)
        _check.made("source", source, Space, "stn.Space((240, 320))")
        if tuple(volume.shape[2:]) != source.size:
            _check.fail(f"volume must have the size of its space, {source.size}; got {tuple(volume.shape[2:])}")
        return self.to(source).sample(volume, self.size, **options)


def from_world(matrix: Tensor, fixed: Space, moving: Space) -> MatrixWarp:  # (N, d+1, d+1): from mm of fixed to mm of moving
    """Return the warp between two images that this matrix between millimeters is."""
    if fixed.ndim != moving.ndim:
        _check.fail(f"both spaces must have the same number of dimensions; got {fixed.ndim} and {moving.ndim}")
    found = torch.linalg.solve(moving.normalized_to_mm, matrix.double() @ fixed.normalized_to_mm)
    return MatrixWarp(found[..., :-1, :])


def in_world(warp: MatrixWarp, fixed: Space, moving: Space) -> Tensor:  # (N, d+1, d+1)
    """Return the matrix from millimeters of the fixed image to those of the moving one."""
    found: Tensor = moving.normalized_to_mm @ warp.square().double() @ torch.linalg.inv(fixed.normalized_to_mm)
    return found


def moved_in_world(warp: Warp, points: Tensor, fixed: Space, moving: Space) -> Tensor:  # (.., d) mm -> mm
    return moving.to_mm(warp.points(fixed.to_normalized(points)))
