"""Compile the kernels of a GPU on any computer, without a GPU, exactly as a call would compile them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from stn.lab.bench.cases import Case
from stn.lab.bench.contenders import SPLINE
from stn.lab.bench.families import family_of
from stn.ops import gpu
from stn.ops.rules import Field, Lattice, Matrix, Rule, Spline
from stn.ops.sampling import named

META = torch.device("meta")  # tensors of sizes and strides without memory; their address counts as aligned
LATTICES = {"displacement": 1, "bspline": 3}  # families whose rule is a lattice, and its degree


class Launch(NamedTuple):
    kernel: Any
    programs: int
    arguments: tuple[Any, ...]
    constants: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.kernel.fn.__name__)


class Target(NamedTuple):
    """The processor that code is made for: cuda and 90 for sm_90, hip and gfx942."""

    backend: str
    arch: int | str

    @property
    def name(self) -> str:
        return f"sm_{self.arch}" if self.backend == "cuda" else str(self.arch)


NVIDIA = tuple(Target("cuda", arch) for arch in (80, 90, 120))
AMD = Target("hip", "gfx942")


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """Record launches in place of running them."""
    from stn.ops.gpu import launch, ordered

    found: list[Launch] = []

    def run(kernel: Any, device: torch.device, programs: int, *arguments: Any, **constants: Any) -> None:
        found.append(Launch(kernel, programs, arguments, constants))

    before = launch.run, ordered.run
    launch.run = ordered.run = run
    try:
        yield found
    finally:
        launch.run, ordered.run = before


def call_of(case: Case) -> tuple[Rule, torch.Tensor, torch.Tensor]:
    """Return the rule of a case, and tensors of the sizes of its image and of the rule's data, without memory."""
    n, d = case.shape[0], len(case.shape) - 2
    form = (torch.channels_last if d == 2 else torch.channels_last_3d) if case.channels_last else torch.contiguous_format
    image = torch.empty(case.shape, dtype=case.dtype, device=META).contiguous(memory_format=form)
    if case.pattern or case.rule == "grid":
        return Field(), image, torch.empty(n, 1, *case.size, d, device=META)
    if case.family:
        shape = family_of(case.family, d).shape  # type: ignore[attr-defined]  # of its lattice
        return Lattice(case.size, LATTICES[case.family]), image, torch.empty(n, 1, *shape, d, device=META)
    if case.rule == "thin_plate":
        return Spline(case.size, SPLINE.control_points), image, torch.empty(n, 1, 19, 2, device=META)
    return Matrix(case.size), image, torch.empty(n, 1, d + (case.rule == "projective"), d + 1, device=META)


def launches(case: Case, padding_mode: str = "zeros", *, in_order: bool = False) -> list[Launch]:
    """Return the launches of a case: of the forward call, and of the gradients that its task needs."""
    rule, image, data = call_of(case)
    sampling = named(case.stored.mode if case.pattern else case.mode, padding_mode, False)
    fill = torch.empty((), dtype=torch.promote_types(case.dtype, torch.float32), device=META)
    before = torch.are_deterministic_algorithms_enabled()
    with recording() as found:
        out = gpu.sample(rule, image, data, fill, sampling)
        if case.task != "forward":
            torch.use_deterministic_algorithms(in_order)
            try:
                gpu.gradient(rule, out, image, data, fill, sampling, (case.task == "both", not in_order))
            finally:
                torch.use_deterministic_algorithms(before)
    return found


class NoDevice:
    """Triton's driver of a device that is not there: it can compile, and cannot launch."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def get_current_target(self) -> Any:
        return self.target

    def get_current_device(self) -> str:  # the key of Triton's cache in memory
        return str(self.target.arch)

    def get_current_stream(self, device: Any) -> int:
        return 0


def code(launch: Launch, target: Target) -> Any:
    """Return Triton's compiled kernel; its `asm` has the assembly and the machine code.

    Triton keeps it on disk. Its arguments are specialized as in a call: for addresses that are multiples of 16.
    """
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    from stn.ops.gpu.programs import WARPS

    known: Any = driver
    before = known._active
    known.set_active(NoDevice(GPUTarget(target.backend, target.arch, 32 if target.backend == "cuda" else 64)))
    try:
        constants = launch.constants | {"num_warps": WARPS, "enable_fp_fusion": True}
        return launch.kernel.warmup(*launch.arguments, grid=(launch.programs,), **constants)
    finally:
        known._active = before
