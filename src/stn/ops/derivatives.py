"""Derivatives that the kernels lack, computed with the reference: second and forward derivatives.

Forward derivatives use reverse mode twice, because forward mode does not nest, and torch.func cannot be entered from the
forward rule of an operator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from stn.ops import reference
from stn.ops import torch_private as private
from stn.ops.rules import Rule
from stn.ops.sampling import Sampling

Function = Callable[..., tuple[Tensor, ...]]
Pull = Callable[[Function, Sequence[Tensor], Sequence[Tensor | None]], tuple[Tensor, ...]]


def pulled_back(function: Function, inputs: Sequence[Tensor], weights: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """Return J^T w for each input, differentiable if autograd records. A weight of None is zero."""
    recorded = _is_recorded(*inputs, *weights)
    with torch.enable_grad(), private.enable_inplace_requires_grad(True):
        inputs = [_tracked(value) for value in inputs]
        outputs = function(*inputs)
        pairs = [(o, w) for o, w in zip(outputs, weights, strict=True) if w is not None and o.requires_grad]
        return _gradients(pairs, inputs, recorded)


def pulled_within(function: Function, inputs: Sequence[Tensor], weights: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """Compute the same under torch.func, in a separate level, which leaves no graph behind."""
    outputs, pull, *_ = torch.func.vjp(function, *inputs)
    found: tuple[Tensor, ...] = pull(
        tuple(torch.zeros_like(o) if w is None else w for o, w in zip(outputs, weights, strict=True))
    )
    return found


def oracle_gradient(
    rule: Rule, fill: Tensor, need: Sequence[bool], sampling: Sampling, pull: Pull = pulled_back
) -> Function:
    """Return the needed gradients in image and data from (grad, image, data), with the reference."""

    def gradient(grad: Tensor, image: Tensor, data: Tensor) -> tuple[Tensor, ...]:
        def sample(image: Tensor, data: Tensor) -> tuple[Tensor, ...]:
            return (reference.sample(rule, image, data, fill, sampling),)

        found = pull(sample, (image, data), (grad,))
        return tuple(g for g, needed in zip(found, need, strict=True) if needed)

    return gradient


def pushed_forward(function: Function, inputs: Sequence[Tensor], tangents: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """Return J t by two backward passes: J^T u is linear in u, and its transpose at t is J t. A tangent of None is zero.

    It is called below torch.func, which cannot be entered from there and forbids tracking tensors.
    """
    recorded = _is_recorded(*inputs, *tangents)
    with torch.enable_grad(), private.enable_inplace_requires_grad(True):
        inputs = [_tracked(value) for value in inputs]
        outputs = function(*inputs)
        u = [torch.zeros_like(out, requires_grad=True) for out in outputs]
        pulled = _gradients([(o, v) for o, v in zip(outputs, u, strict=True) if o.requires_grad], inputs, True)
        pairs = [(p, t) for p, t in zip(pulled, tangents, strict=True) if t is not None and p.requires_grad]
        moved = _gradients(pairs, u, True)
    if recorded:
        return moved
    batched = any(private.is_legacy_batched(out) for out in moved)  # an input that cannot be detached
    if not private.in_torch_func() and not batched:
        return tuple(out.detach() for out in moved)
    with private.below_autograd():  # no graph at this level; the levels below record as before
        return tuple(out.view_as(out) for out in moved)


def _is_recorded(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _gradients(pairs: Sequence[tuple[Tensor, Tensor]], inputs: Sequence[Tensor], recorded: bool) -> tuple[Tensor, ...]:
    if not pairs:
        return tuple(torch.zeros_like(value) for value in inputs)
    outputs, weights = zip(*pairs, strict=True)
    return torch.autograd.grad(outputs, inputs, weights, create_graph=recorded, materialize_grads=True)


def _tracked(value: Tensor) -> Tensor:
    """Return the same values as a separate input: a new node, or a leaf. Detaching would also cut the levels of torch.func
    below this one."""
    if value.requires_grad and (view := value.view_as(value)).requires_grad:
        return view
    with private.below_autograd():
        view = value.view_as(value)
    return view.requires_grad_()


def autograd_allowed() -> ExitStack:
    """Enable autograd in the body of an operator, which torch calls below autograd."""
    stack = ExitStack()
    stack.enter_context(torch.inference_mode(False))
    stack.enter_context(private.without_keys(private.AUTOGRAD, False))
    return stack
