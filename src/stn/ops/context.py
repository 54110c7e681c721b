"""The context of a call: recording, differentiation, export, and autocast.

Kernels read pixels from memory directly. Compilers, tracers, dispatch modes, torch.func and forward mode cannot record this,
and their tensors may have no memory. Calls under these therefore use the operators of `library.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stn import _check
from stn.ops import torch_private as private

PLAIN = (Tensor, nn.Parameter)  # plain tensor types


def differentiated(*tensors: Tensor) -> bool:
    """Return True if torch may want a derivative of this call. A Function costs 10 us, a third of a small call."""
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor.requires_grad:
                return True
    return private.is_transformed()


def observed(*tensors: Tensor) -> bool:
    """Return True if the call must go through the registered operator instead of directly to a kernel.

    That is so under a compiler, tracer, dispatch mode or transform, and for tensors that are fake, functional, of a
    subclass, or batched by autograd's own vmap.
    """
    # First, because Dynamo cannot trace the other checks.
    return torch.compiler.is_compiling() or recorded(*tensors)


def recorded(*tensors: Tensor) -> bool:
    """Return the same as `observed`, outside a compiler."""
    if private.is_transformed() or private.count_dispatch_modes() or private.tracing_state() is not None:
        return True
    for tensor in tensors:
        if type(tensor) not in PLAIN or private.is_legacy_batched(tensor):
            return True
    return False


def readable(tensor: Tensor) -> bool:
    """Return True if the values can be read at no cost: they lie in the CPU's memory, and nothing records the call."""
    return tensor.device.type == "cpu" and not observed(tensor)


def refuse_lost_tangents() -> None:
    """Raise an error where torch.compile would silently drop tangents: its default backend ignores those of the inputs."""
    # Reading the level makes Dynamo recompile when it changes.
    if torch.compiler.is_compiling() and private.in_forward_mode() and private.entered_in_forward_mode():
        _check.fail("forward mode must begin inside the compiled function: torch.compile drops the tangents of its inputs")


# ---- few calls in a process, which are not worth the compilation of a kernel ----

# Whether eager calls use the reference. Dynamo cannot read a context variable: ask `torch.compiler.is_compiling()` before.
PLAINLY: ContextVar[bool] = ContextVar("plainly", default=False)


@contextmanager
def without_kernels() -> Iterator[None]:
    """Sample in this context with the reference, in plain PyTorch: images, volumes and their pyramids, not integrals of
    velocities. A first kernel takes seconds to compile."""
    token = PLAINLY.set(True)
    try:
        yield
    finally:
        PLAINLY.reset(token)


# ---- export for a runtime without our operators ----

LOWERINGS = ("grid_sample", "gather")
VOLUMES_FROM = 20  # first ONNX opset whose GridSample accepts volumes
ANY = "any"  # GridSample for images where it has the options, otherwise a gather


@dataclass(frozen=True)
class Target:
    """The form of a sampling call in an export: one of LOWERINGS, or ANY. `opset`: of ONNX, None for torch."""

    lowering: str
    opset: int | None = None


_target: ContextVar[Target | None] = ContextVar("target", default=None)


@contextmanager
def exporting(target: Target) -> Iterator[None]:
    """Lower all calls that torch.export traces in this context for the target."""
    token = _target.set(target)
    try:
        yield
    finally:
        _target.reset(token)


def export_target() -> Target | None:
    """Return the target of `exporting`. `torch.onnx.export`, which has none, gets torch's own operators too."""
    # Dynamo cannot read a context variable. It evaluates the first condition, and then skips the read.
    if not torch.compiler.is_exporting():
        return None
    return _target.get() or (Target(ANY) if torch.onnx.is_in_onnx_export() else None)


# ---- precision ----


SINGLE = ("mps",)  # types of devices without float64


def coordinate_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype of coordinates: float64, because at 2048 pixels float32 has errors of 1e-3 in the output and 1e-2 in
    theta's gradient. Apple GPUs, some of Intel's, and most export runtimes have no float64."""
    return torch.float32 if device.type in SINGLE or export_target() or _lacks_double(device) else torch.float64


def _lacks_double(device: torch.device) -> bool:
    """Return True for GPUs of Intel without float64, such as those of the Arc series."""
    return device.type == "xpu" and not torch.xpu.get_device_properties(device).has_fp64


def unrounded(device: torch.device) -> AbstractContextManager[object]:
    """Return a context without autocast, which is meant for features: with coordinates in bfloat16, the sampled region of
    an image of 512 pixels would move in steps of two."""
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
