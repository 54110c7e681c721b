"""Fast kernels under PyTorch's transforms: autograd to any order, forward mode, vmap.

`Sample` and its gradient `SampleGradient` are a pair of Functions around a device's kernels. Kernels give the value and the
first derivatives; whatever comes after is taken from the oracle, which is differentiable to any order.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

from stn import _check
from stn.ops import reference

vjp: Any = torch.func.vjp  # its type has a third result, which comes only with has_aux=True
Settings = tuple[Any, ...]  # of the oracle's function, but for image, where and fill
ORACLE: dict[str, Callable[[Tensor, Tensor, Tensor, Settings], Tensor]] = {
    "matrix": lambda image, where, fill, s: reference.matrix_sample(image, where, s[0], s[1], s[2], fill, s[3]),
    "basis": lambda image, where, fill, s: reference.basis_sample(image, where, s[0], s[1], s[2], fill, s[3], s[4]),
    "field": lambda image, where, fill, s: reference.field_sample(image, where, s[0], s[1], fill, *s[2:]),
}
# settings: matrix (size, mode, padding_mode, align_corners), basis the same and control_points (T, 2),
# field (mode, padding_mode, align_corners, units, relative)


class Kernels(Protocol):
    """What a device registers."""

    def supports(self, rule: str, image: Tensor, where: Tensor, settings: Settings) -> bool: ...

    def sample(self, rule: str, image: Tensor, where: Tensor, fill: Tensor, settings: Settings) -> Tensor: ...

    def gradient(
        self, rule: str, grad: Tensor, image: Tensor, where: Tensor, fill: Tensor, settings: Settings, need: Sequence[bool]
    ) -> tuple[Tensor | None, Tensor | None]: ...

    def averages(self, image: Tensor) -> bool: ...

    def average(self, image: Tensor, fine: tuple[int, ...], align_corners: bool, back: bool) -> Tensor: ...


def sample(kernels: Kernels, rule: str, image: Tensor, where: Tensor, fill: Tensor, settings: Settings) -> Tensor:
    """image (N, C, *in), where (N, K, ..): a matrix or a field for each look -> (N, K, C, *size)."""
    if not differentiated(image, where):
        return kernels.sample(rule, image, where, fill, settings)
    out: Tensor = Sample.apply(image, where, fill, kernels, rule, settings)
    return out


def differentiated(*tensors: Tensor) -> bool:
    """Whether any of torch's transforms may look at this call. A Function costs 0.1 ms, which a batch of digits feels."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors) or is_transformed()


def is_transformed() -> bool:
    """Inside forward mode or torch.func: torch has no public name for it, and its own Function.apply asks the latter so."""
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


class Sample(torch.autograd.Function):
    @staticmethod
    def forward(image: Tensor, where: Tensor, fill: Tensor, kernels: Kernels, rule: str, settings: Settings) -> Tensor:
        return kernels.sample(rule, image, where, fill, settings)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:3])
        ctx.save_for_forward(*inputs[:3])
        ctx.how = inputs[3:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        need = tuple(ctx.needs_input_grad[:2])
        kernels, rule, settings = ctx.how
        if differentiated(grad, *ctx.saved_tensors[:2]):
            gradients = SampleGradient.apply(grad, *ctx.saved_tensors, *ctx.how, need)
        else:
            gradients = kernels.gradient(rule, grad, *ctx.saved_tensors, settings, need)
        return (*gradients, None, None, None, None)

    @staticmethod
    def jvp(ctx: Any, image_t: Tensor | None, where_t: Tensor | None, *rest: Any) -> Tensor:
        image, where, fill = ctx.saved_tensors
        _, rule, settings = ctx.how

        def value(image: Tensor, where: Tensor) -> tuple[Tensor, ...]:
            return (ORACLE[rule](image, where, fill, settings),)

        return forward_derivative(value, (image, where), (image_t, where_t))[0]

    @staticmethod
    def vmap(info: Any, in_dims: Any, image: Tensor, where: Tensor, fill: Tensor, *how: Any) -> tuple[Tensor, int]:
        return fold_looks(lambda i, w: Sample.apply(i, w, fill, *how), info.batch_size, in_dims, image, where)


class SampleGradient(torch.autograd.Function):
    @staticmethod
    def forward(
        grad: Tensor,
        image: Tensor,
        where: Tensor,
        fill: Tensor,
        kernels: Kernels,
        rule: str,
        settings: Settings,
        need: tuple[bool, bool],
    ) -> Any:
        return kernels.gradient(rule, grad, image, where, fill, settings, need)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:4])
        ctx.save_for_forward(*inputs[:4])
        ctx.how, ctx.need = inputs[4:7], inputs[7]

    @staticmethod
    def backward(ctx: Any, *second: Tensor | None) -> Any:
        """The vjp of the oracle's gradient, itself differentiable."""
        grad, image, where, fill = ctx.saved_tensors
        first, pull = vjp(oracle_gradient(ctx, fill), grad, image, where)
        weights = [s for s in second if s is not None]
        return (*pull(tuple(weights)), None, None, None, None, None)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
        grad, image, where, fill = ctx.saved_tensors

        found = iter(forward_derivative(oracle_gradient(ctx, fill), (grad, image, where), tangents[:3]))
        return tuple(next(found) if need else None for need in ctx.need)

    @staticmethod
    def vmap(info: Any, in_dims: Any, grad: Tensor, image: Tensor, where: Tensor, fill: Tensor, *how: Any) -> Any:
        size = info.batch_size
        _check.unmapped("fill_value", in_dims[3])
        folded = [fold(tensor, dim, size) for tensor, dim in zip((grad, image, where), in_dims[:3], strict=True)]
        found = SampleGradient.apply(*folded, fill, *how)
        return tuple(None if g is None else g.unflatten(0, (size, -1)) for g in found), tuple(
            None if g is None else 0 for g in found
        )


# torch asks for these signatures at every call, which takes Python 0.05 ms each time unless they are there.
for _forward in (Sample.forward, SampleGradient.forward):
    setattr(_forward, "__signature__", inspect.signature(_forward))  # noqa: B010, mypy knows no such attribute


def oracle_gradient(ctx: Any, fill: Tensor) -> Callable[..., tuple[Tensor, ...]]:
    """(grad, image, where) -> the oracle's own gradients in image and where, as far as they are needed."""
    _, rule, settings = ctx.how

    def gradient(grad: Tensor, image: Tensor, where: Tensor) -> tuple[Tensor, ...]:
        _, pull = vjp(lambda image, where: ORACLE[rule](image, where, fill, settings), image, where)
        return tuple(found for found, needed in zip(pull(grad), ctx.need, strict=True) if needed)

    return gradient


def forward_derivative(
    function: Callable[..., tuple[Tensor, ...]], primals: Sequence[Tensor], tangents: Sequence[Tensor | None]
) -> tuple[Tensor, ...]:
    """J t by two backward passes: J^T u is linear in u, and its transpose at t is J t. Forward mode does not nest."""
    outputs, pull = vjp(function, *primals)
    _, transpose = vjp(pull, tuple(torch.zeros_like(out) for out in outputs))
    pushed = tuple(torch.zeros_like(p) if t is None else t for p, t in zip(primals, tangents, strict=True))
    (moved,) = transpose(pushed)
    result: tuple[Tensor, ...] = moved
    return result


def fold_looks(
    sample: Callable[[Tensor, Tensor], Tensor], size: int, in_dims: Sequence[int | None], image: Tensor, where: Tensor
) -> tuple[Tensor, int]:
    """The vmap of an operator over image, where and fill: what is mapped becomes looks, or part of the batch."""
    _check.unmapped("fill_value", in_dims[2])
    if in_dims[0] is None and in_dims[1] is not None:  # K times as many looks at one image, which is not copied
        looks = where.movedim(in_dims[1], 1)  # (N, B, K, ..)
        return sample(image, looks.flatten(1, 2)).unflatten(1, (size, looks.shape[2])), 1
    folded = [fold(tensor, dim, size) for tensor, dim in zip((image, where), in_dims[:2], strict=True)]
    return sample(*folded).unflatten(0, (size, -1)), 0


def fold(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """The mapped dimension becomes part of the batch: (B, N, ..) -> (B N, ..)."""
    moved = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    return moved.flatten(0, 1)
