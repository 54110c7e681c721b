"""Derivatives that the kernels lack, computed from the oracle: second derivatives and forward derivatives.

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
    """J^T w, one an input: differentiable itself where autograd records. A weight of None is zeros."""
    recorded = _is_recorded(*inputs, *weights)
    with torch.enable_grad(), private.enable_inplace_requires_grad(True):
        inputs = [_tracked(value) for value in inputs]
        outputs = function(*inputs)
        pairs = [(o, w) for o, w in zip(outputs, weights, strict=True) if w is not None and o.requires_grad]
        return _gradients(pairs, inputs, recorded)


def pulled_within(function: Function, inputs: Sequence[Tensor], weights: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """The same under torch.func, in a level of its own, which leaves no graph behind."""
    outputs, pull, *_ = torch.func.vjp(function, *inputs)
    found: tuple[Tensor, ...] = pull(
        tuple(torch.zeros_like(o) if w is None else w for o, w in zip(outputs, weights, strict=True))
    )
    return found


def oracle_gradient(
    rule: Rule, fill: Tensor, need: Sequence[bool], sampling: Sampling, pull: Pull = pulled_back
) -> Function:
    """(grad, image, data) -> the oracle's gradients in image and data, those that are needed."""

    def gradient(grad: Tensor, image: Tensor, data: Tensor) -> tuple[Tensor, ...]:
        def sample(image: Tensor, data: Tensor) -> tuple[Tensor, ...]:
            return (reference.sample(rule, image, data, fill, sampling),)

        found = pull(sample, (image, data), (grad,))
        return tuple(g for g, needed in zip(found, need, strict=True) if needed)

    return gradient


def pushed_forward(function: Function, inputs: Sequence[Tensor], tangents: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """J t by two backward passes: J^T u is linear in u, and its transpose at t is J t. A tangent of None is zeros.

    Called below torch.func, which cannot be entered from there, and which forbids its users to track tensors.
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
    batched = any(private.is_legacy_batched(out) for out in moved)  # which cannot be detached
    if not private.in_torch_func() and not batched:
        return tuple(out.detach() for out in moved)
    with private.below_autograd():  # at this level nothing is left behind; those below record as they do
        return tuple(out.view_as(out) for out in moved)


def _is_recorded(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _gradients(pairs: Sequence[tuple[Tensor, Tensor]], inputs: Sequence[Tensor], recorded: bool) -> tuple[Tensor, ...]:
    if not pairs:
        return tuple(torch.zeros_like(value) for value in inputs)
    outputs, weights = zip(*pairs, strict=True)
    return torch.autograd.grad(outputs, inputs, weights, create_graph=recorded, materialize_grads=True)


def _tracked(value: Tensor) -> Tensor:
    """The same numbers, as an input of its own: a node after whatever `value` comes from, or a leaf. Not detached, which
    would cut the levels of torch.func below this one too."""
    if value.requires_grad and (view := value.view_as(value)).requires_grad:
        return view
    with private.below_autograd():
        view = value.view_as(value)
    return view.requires_grad_()


def autograd_allowed() -> ExitStack:
    """Within it autograd runs in the body of an operator, which torch calls below autograd."""
    stack = ExitStack()
    stack.enter_context(torch.inference_mode(False))
    stack.enter_context(private.without_keys(private.AUTOGRAD, False))
    return stack
