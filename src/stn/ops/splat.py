"""The adjoint of sampling: values go to the pixels that sampling would have read, by the same weights.

With V = S(w) U for the sampling of U at the points w (`reference.py`), this is U = S(w)^T V: the gradient in the image, of
which all devices have a kernel. It is linear in V, and its own derivatives are kernels too: in V the sampling S(w), in w the
gradient of that in its coordinates, because <S(w)^T V, G> = <V, S(w) G>. `library.py` has them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stn import _check
from stn.ops import torch_private as private
from stn.ops.context import differentiated, export_target, observed, refuse_lost_tangents
from stn.ops.derivatives import oracle_gradient, pulled_back, pulled_within
from stn.ops.dispatch import call_gradient, kernels_for
from stn.ops.interpolation import INTERPOLATIONS
from stn.ops.layout import is_channels_last, order_of
from stn.ops.rules import Rule
from stn.ops.sampling import Sampling

NEED = (True, False)  # of the gradients of a sampling call: the one in the image alone


def splatted(
    rule: Rule,
    values: Tensor,  # (N, K, C, *out)
    data: Tensor,  # (N, K, ..): the data of the rule
    size: tuple[int, ...],
    sampling: Sampling,
) -> Tensor:  # (N, C, *size)
    """Add the values of all K looks to one image."""
    if len(size) == 1:  # a signal, as an image of one row
        rule, data = rule.lifted(data)
        return splatted(rule, values.unsqueeze(3), data, (1, *size), sampling).squeeze(2)
    if values.is_complex():
        parts = torch.cat([values.real, values.imag], dim=2)
        real, imaginary = splatted(rule, parts, data, size, sampling).chunk(2, dim=1)
        return torch.complex(real.contiguous(), imaginary.contiguous())
    refuse_lost_tangents()
    if export_target() is not None:
        _check.fail("a network that is exported must not call splat: other runtimes have no such operator")
    image = _zeros(values, size)  # of which only the shape matters: sampling is linear in it
    fill = torch.zeros((), dtype=torch.promote_types(values.dtype, torch.float32), device=values.device)
    kernels, found = kernels_for(rule, image, data, sampling), None
    if kernels is not None and not observed(values, data) and not differentiated(values, data):
        found, _ = kernels.gradient(rule, values, image, data, fill, sampling, NEED)
    elif INTERPOLATIONS.get(sampling.interpolation.name) is sampling.interpolation:
        found, _ = call_gradient(rule, values, image, data, fill, NEED, sampling)
    else:  # a `Kernel`, which has no name in the registry of torch
        pull = pulled_within if private.in_torch_func() else pulled_back
        found = oracle_gradient(rule, fill, NEED, sampling, pull)(values, image, data)[0]
    assert found is not None  # it was asked for
    return found


def _zeros(values: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return zeros (N, C, *size), channels last if the values are."""
    shape = values.shape[0], values.shape[2], *size
    if observed(values):
        return values.new_zeros(shape)
    last = values.ndim > 4 and is_channels_last(values.flatten(0, 1))
    order = tuple(order_of(len(size), 1, last))
    return torch.empty_permuted(shape, order, dtype=values.dtype, device=values.device).zero_()
