"""MatrixWarp: warps that are one small matrix, and their conversion to the matrices of OpenCV, scipy and scikit-image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, overload

import torch
from torch import Tensor

from stn import _check
from stn.grid import half_extent
from stn.ops.context import coordinate_dtype, observed, readable, unrounded
from stn.ops.options import CallOptions
from stn.ops.rules import Matrix, Rule
from stn.ops.rules.matrix import HORIZON
from stn.ops.sample import Sampled, sampled
from stn.transforms.warp import Warp

# name -> (maps from target to source, axes in the order of the image, rows first)
CONVENTIONS = {"opencv": (False, False), "opencv-inverse": (True, False), "scipy": (True, True)}


class MatrixWarp(Warp):
    """The warp x' = A x + t, or the homography (A x + t) / w. All linear families make it.

    Args:
        matrix: (N, d, d+1) or (N, K, d, d+1) affine, or (N, d+1, d+1) or (N, K, d+1, d+1) projective, in normalized
            coordinates; d = 2 or 3. (N, K): K looks at each image.

    Example:
        >>> warp = stn.MatrixWarp(torch.tensor([[[0.5, 0.0, 0.2], [0.0, 0.5, 0.0]]]))
        >>> warp.points(torch.tensor([1.0, 1.0]))
        tensor([[0.7000, 0.5000]])
        >>> (warp.inverse() @ warp).matrix.allclose(torch.eye(2, 3))
        True
    """

    _bends: ClassVar[bool] = False

    def __init__(self, matrix: Tensor) -> None:  # (N[, K], d, d+1) affine, or (N[, K], d+1, d+1) projective
        _check.pixel_matrix("matrix", matrix)
        self.matrix = matrix
        self.batch = tuple(matrix.shape[:-2])
        self.ndim = matrix.shape[-1] - 1
        self.dtype, self.device = matrix.dtype, matrix.device

    @property
    def is_affine(self) -> bool:
        return self.matrix.shape[-2] == self.ndim

    def _details(self) -> Sequence[str]:
        return ("affine" if self.is_affine else "projective",)

    def inverse(self, *, check: bool = True) -> MatrixWarp:
        """Return the warp of the inverse matrix, from source to target points.

        Args:
            check: Raise an error for a singular matrix, which waits for the device. False: its inverse is NaN.
                Compilers, tracers and transforms of torch.func cannot check, and also return NaN.

        Raises:
            InputError: A matrix is singular; the message names the samples.
        """
        square = self.square().to(coordinate_dtype(self.device))
        inverse, info = torch.linalg.inv_ex(square)
        condition = square.detach().abs().sum(dim=-1).amax(dim=-1) * inverse.detach().abs().sum(dim=-1).amax(dim=-1)
        regular = (info == 0) & (condition < 1 / torch.finfo(self.working_dtype).eps)
        if check and not observed(regular):
            _check.regular("the warp's matrix", regular)
        else:
            inverse = _inverse_where(regular[..., None, None], square)
        inverse = inverse.to(self.dtype)
        return MatrixWarp(inverse[..., : self.ndim, :] if self.is_affine else inverse)

    @overload
    def __matmul__(self, other: MatrixWarp) -> MatrixWarp: ...
    @overload
    def __matmul__(self, other: Warp) -> Warp: ...
    def __matmul__(self, other: Warp) -> Warp:
        return self.after(other)

    @overload
    def after(self, inner: MatrixWarp) -> MatrixWarp: ...
    @overload
    def after(self, inner: Warp) -> Warp: ...
    def after(self, inner: Warp) -> Warp:
        if not isinstance(inner, MatrixWarp):
            return super().after(inner)
        _check.composable(self.batch, inner.batch, self.ndim, inner.ndim)
        looks = max(len(self.batch), len(inner.batch))
        a, b = (w.square() if len(w.batch) == looks else w.square().unsqueeze(1) for w in (self, inner))
        dtype = torch.promote_types(a.dtype, b.dtype)
        with unrounded(self.device):
            product = a.to(dtype) @ b.to(dtype)
        return MatrixWarp(product[..., : self.ndim, :] if self.is_affine and inner.is_affine else product)

    def square(self) -> Tensor:
        """Return the matrix with its last row: (N[, K], d+1, d+1)."""
        if not self.is_affine:
            return self.matrix
        last = self.matrix.new_zeros(self.ndim + 1)
        last[-1] = 1
        return torch.cat([self.matrix, last.expand(*self.batch, 1, -1)], dim=-2)

    def to_pixel_matrix(
        self,
        in_size: int | Sequence[int],
        out_size: int | Sequence[int] | None = None,  # None: as in_size
        *,
        convention: str = "opencv",
        align_corners: bool = False,
    ) -> Tensor:  # (N[, K], d+1, d+1), float64
        """Return the same warp as a matrix in pixels, between an image of `in_size` and an output of `out_size`.

        Args:
            in_size: Size of the image, (H, W) or (D, H, W), or one length for all axes.
            out_size: Size of the output. None: as in_size.
            convention: "opencv": from source to target in (x, y), as `cv2.warpAffine` (its first two rows) and
                `cv2.warpPerspective` take it. "opencv-inverse": from target to source, for their `WARP_INVERSE_MAP` and
                for `skimage.transform.warp`. "scipy": from target to source in the order of the array's axes, as
                `scipy.ndimage.affine_transform` takes it.
            align_corners: Whether -1 and 1 are the centers of the outer pixels (True) or their outer edges (False).

        Returns:
            (N[, K], d+1, d+1), float64.

        Raises:
            InputError: An argument has a wrong value, or the inverse is needed and a matrix is singular.

        Example:
            >>> warp = stn.Translation()(torch.tensor([[0.5, 0.0]]))  # reads 8 of 32 pixels further right
            >>> warp.to_pixel_matrix(32, convention="opencv-inverse")[0, 0].tolist()
            [1.0, 0.0, 8.0]
        """
        from_target, rows_first = _convention(convention)
        in_size, out_size = _check_sizes(in_size, out_size, self.ndim)
        square = self.square().to(coordinate_dtype(self.device))
        pixels = _to_pixels(in_size, align_corners, square) @ square @ _to_normalized(out_size, align_corners, square)
        pixels = _scaled(pixels if from_target else _inverted(pixels), self.is_affine)
        return _rows_first(pixels) if rows_first else pixels

    def map(self, xy: Tensor) -> Tensor:
        mapped = self._linear(xy)
        return mapped if self.is_affine else _projected(mapped[..., :-1], mapped[..., -1:])

    def _linear(self, xy: Tensor) -> Tensor:
        """Return M (x, 1), for a homography with w last: (*batch, P, d), or (*batch, P, d+1)."""
        dtype = torch.promote_types(self.dtype, xy.dtype)
        matrix = self.matrix.to(dtype)
        return xy.to(dtype) @ matrix[..., :-1].mT + matrix[..., None, :, -1]

    def _jacobian(self, xy: Tensor) -> Tensor:
        """Return A, or d/dx (A x + t) / w = (A - x' v^T) / w with w = v x + 1: infinite and constant on the horizon."""
        dtype = torch.promote_types(self.dtype, xy.dtype)
        a = self.matrix[..., None, : self.ndim, :-1].to(dtype)  # (*batch, 1, d, d)
        if self.is_affine:
            return a.expand(*xy.shape, self.ndim)
        v = self.matrix[..., -1:, :].to(dtype)  # (*batch, 1, d+1)
        w = xy.to(dtype) @ v[..., :-1].mT + v[..., -1:]  # (*batch, P, 1)
        near = _near_horizon(w)
        mapped = self._linear(xy)
        point = mapped[..., :-1] / torch.where(near, 1, mapped[..., -1:])
        found = (a - point.unsqueeze(-1) * v[..., None, :, :-1]) / torch.where(near, 1, w).unsqueeze(-1)
        return torch.where(near.unsqueeze(-1), torch.inf, found)

    def _rule(self, size: tuple[int, ...], align_corners: bool) -> tuple[Rule, Tensor]:
        return Matrix(size), self.matrix

    def _sample(self, image: Tensor, size: tuple[int, ...], return_mask: bool, options: CallOptions) -> Sampled:
        _check.matrix("theta" if self.is_affine else "matrix", self.matrix, image, self.matrix.shape[-2])
        return sampled(image, Matrix(size), self.matrix, return_mask, options)


def from_pixel_matrix(
    matrix: Tensor,  # (.., d, d+1) affine, or (.., d+1, d+1); batch (N,) or (N, K), or none
    in_size: int | Sequence[int],
    out_size: int | Sequence[int] | None = None,  # None: as in_size
    *,
    convention: str = "opencv",
    align_corners: bool = False,
) -> MatrixWarp:
    """Make the warp of a matrix in pixels. It undoes `MatrixWarp.to_pixel_matrix`.

    Args:
        matrix: (.., d, d+1) affine, or (.., d+1, d+1), where .. is (N,), (N, K) or nothing.
        in_size: Size of the image, (H, W) or (D, H, W), or one length for all axes.
        out_size: Size of the output. None: as in_size.
        convention: "opencv" (source to target), "opencv-inverse" (target to source) or "scipy" (target to source, rows
            first): see `MatrixWarp.to_pixel_matrix`.
        align_corners: Whether -1 and 1 are the centers of the outer pixels (True) or their outer edges (False).

    Returns:
        The warp, of batch (1,) if the matrix has none, in the matrix's dtype.

    Raises:
        InputError: An argument has a wrong shape or value, or a matrix is singular; the message names the argument or
            the samples. TypeError: matrix is not a floating-point tensor.

    Example:
        >>> matrix = torch.tensor([[1.0, 0.0, 8.0], [0.0, 1.0, 0.0]])  # cv2.warpAffine: 8 pixels to the right
        >>> stn.from_pixel_matrix(matrix, in_size=32).points(torch.tensor([0.0, 0.5]))
        tensor([[-0.5000,  0.5000]])
    """
    from_target, rows_first = _convention(convention)
    _check.pixel_matrix("matrix", matrix)
    d = matrix.shape[-1] - 1
    in_size, out_size = _check_sizes(in_size, out_size, d)
    matrix = matrix if matrix.ndim > 2 else matrix.unsqueeze(0)
    square = MatrixWarp(matrix.to(coordinate_dtype(matrix.device))).square()
    square = _rows_first(square) if rows_first else square
    square = square if from_target else _inverted(square)
    found = _to_normalized(in_size, align_corners, square) @ square @ _to_pixels(out_size, align_corners, square)
    affine = matrix.shape[-2] == d
    found = _scaled(found, affine, matrix.dtype)
    return MatrixWarp((found[..., :d, :] if affine else found).to(matrix.dtype))


def _projected(above: Tensor, w: Tensor) -> Tensor:  # (.., d), (.., 1)
    """Return above / w. On the horizon w = 0 it is infinite and a constant: its derivatives, of any order, are zero.

    Without this, one such point would make the whole gradient NaN, even where a mask leaves the point out.
    """
    if w.numel() and readable(w) and w.detach().abs().amin() >= _horizon(w.dtype):
        return above / w
    near = _near_horizon(w)
    beyond = (above.detach() / w.detach()).nan_to_num(torch.inf, torch.inf, -torch.inf)  # 0 / 0 is not a point either
    return torch.where(near, beyond, above / torch.where(near, 1, w))


def _near_horizon(w: Tensor) -> Tensor:
    return w.abs() < _horizon(w.dtype)


def _horizon(dtype: torch.dtype) -> float:
    """Return the smallest w whose second derivatives, in 1 / w^3, fit the dtype: 1/32 in float16."""
    return max(HORIZON, float(torch.finfo(dtype).max ** (-1 / 3)))


def _inverse_where(regular: Tensor, square: Tensor) -> Tensor:
    """Return the inverse; NaN with zero gradient for a singular matrix, without effect on other samples."""
    identity = torch.eye(square.shape[-1], dtype=square.dtype, device=square.device)
    return torch.where(regular, torch.linalg.inv_ex(torch.where(regular, square, identity))[0], torch.nan)


def _scaled(square: Tensor, affine: bool, dtype: torch.dtype = torch.float64) -> Tensor:
    """Scale a matrix so that its last entry is 1, as in other libraries, or its norm is 1 if that entry is nearly 0.

    The entry is 0 if the horizon of a homography goes through the first pixel or the center of the image.
    """
    last = square[..., -1:, -1:]
    if affine:
        return square / last
    norm = torch.linalg.matrix_norm(square, keepdim=True)
    return square / torch.where(last.abs() > torch.finfo(dtype).eps ** 0.5 * norm, last, norm)


def _convention(name: str) -> tuple[bool, bool]:
    _check.choice("convention", name, CONVENTIONS)
    return CONVENTIONS[name]


def _check_sizes(
    in_size: int | Sequence[int], out_size: int | Sequence[int] | None, ndim: int
) -> tuple[tuple[int, ...], ...]:
    in_size = _check.lengths("in_size", in_size, ndim)
    return in_size, in_size if out_size is None else _check.lengths("out_size", out_size, ndim)


def _to_pixels(size: Sequence[int], align_corners: bool, like: Tensor) -> Tensor:
    """Return pixel = h x + (n - 1) / 2 as a matrix (d+1, d+1)."""
    half = [half_extent(n, align_corners) or 0.5 for n in reversed(size)]
    matrix = torch.diag(like.new_tensor([*half, 1.0]))
    matrix[:-1, -1] = like.new_tensor([(n - 1) / 2 for n in reversed(size)])
    return matrix


def _to_normalized(size: Sequence[int], align_corners: bool, like: Tensor) -> Tensor:
    """Return x = (pixel - (n - 1) / 2) / h as a matrix (d+1, d+1)."""
    half = [half_extent(n, align_corners) or 0.5 for n in reversed(size)]
    matrix = torch.diag(like.new_tensor([*(1 / h for h in half), 1.0]))
    matrix[:-1, -1] = like.new_tensor([-(n - 1) / 2 / h for n, h in zip(reversed(size), half, strict=True)])
    return matrix


def _inverted(square: Tensor) -> Tensor:
    return MatrixWarp(square).inverse().matrix


def _rows_first(matrix: Tensor) -> Tensor:
    """Reverse the order of the axes: (x, y, z, 1) to (z, y, x, 1), or back."""
    d = matrix.shape[-1] - 1
    order = [*reversed(range(d)), d]
    return matrix[..., order, :][..., order]
