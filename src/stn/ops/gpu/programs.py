"""The division of a call among the programs of a kernel, and the launch of a kernel."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from stn.ops.gpu.coordinates import Block

# The block sizes are estimated, not measured. A program has 128 threads with four output values each, so that a thread has
# sixteen pixel loads of a plane in flight. It has fewer values if there would be fewer than PROGRAMS programs, about eight
# for each of the 132 processors of an H100; then channels are divided among programs too. In a tile, 32 pixels across fill a
# memory line of 128 bytes, and the rows share loads under any rotation. Gradients of planes have two values, and those of
# volumes one, because offsets and weights of all taps of all values stay in registers (benchmarks/results/gpu_static.md).
WARPS, ELEMENTS, LEAST, PROGRAMS = 4, 512, 128, 1024
ACROSS, CHANNELS = 32, 32
WASTE = 9 / 8  # ratio of tiled to existing pixels above which pixels are taken in flat order


class Division(NamedTuple):
    """A division of a call among programs: one for each look, group of channels, and tile."""

    block: Block
    channels: int  # per group
    programs: int
    dividers: tuple[int, ...]  # by tiles, groups, looks, and the first two lengths in pixels or tiles


def divide(
    size: Sequence[int], batch: int, looks: int, channels: int, *,
    last: bool = False, whole: bool = False, tiled: bool = False, halvings: int = 0,
) -> Division:  # fmt: skip
    """Divide `looks` looks at each of `batch` images. last: channels-last memory. whole: each program has all channels.
    tiled: never in flat order. halvings: of ELEMENTS."""
    together = min(CHANNELS, power_of_two(channels)) if last else 1
    pixels, count = (ELEMENTS >> halvings) // together, math.prod(size) * batch * looks
    while pixels * together > LEAST and count < pixels * PROGRAMS:
        pixels //= 2
    groups = 1 if whole else min(-(-channels // together), -(-PROGRAMS * pixels // count))
    group_channels = -(-channels // (groups * together)) * together
    block = block_of(size, pixels, together, tiled)._replace(even=channels % together == 0)
    tiles, groups = tile_count(size, block), -(-channels // group_channels)
    lengths = in_xyz(size) if block.flat else [-(-n // m) for n, m in zip(in_xyz(size), block[1:4], strict=True)]
    dividers = tuple(divider(n) for n in (tiles, groups, looks, *lengths[:2]))
    return Division(block, group_channels, batch * looks * groups * tiles, dividers)


def divider(n: int) -> int:
    """Return 256 m + 2 s + 1 with i // n = (2 i m >> 32) >> s for 0 <= i < 2^31, because a division takes 20 instructions.

    m = floor(2^(31 + s) / n) + 1 with n <= 2^s (Granlund and Montgomery 1994, theorem 4.2) has 32 bits. Triton compiles a
    kernel for integers in tuples that are 1 or multiples of 16; these are odd and have more than 32 bits.
    """
    shift = (n - 1).bit_length()
    return 256 * ((1 << (31 + shift)) // n + 1) + 2 * shift + 1


def block_of(size: Sequence[int], pixels: int, channels: int, tiled: bool) -> Block:
    """Return a tile of so many pixels; unless `tiled`, as many in flat order if tiles would reach far beyond the edges."""
    across = min(ACROSS, pixels, power_of_two(size[-1]) if tiled else ACROSS)
    rows = pixels // across
    deep = min(4, rows) if len(size) == 3 else 1
    block = Block(False, across, rows // deep, deep, channels, True)
    return block._replace(flat=not tiled and tile_count(size, block) * pixels > WASTE * math.prod(size))


def tile_count(size: Sequence[int], block: Block) -> int:
    if block.flat:
        return -(-math.prod(size) // (block.across * block.down * block.deep))
    return math.prod(-(-n // m) for n, m in zip(in_xyz(size), block[1:4], strict=True))


def in_xyz(size: Sequence[int]) -> tuple[int, int, int]:
    x, y, z = (*reversed(size), 1)[:3]
    return x, y, z


def power_of_two(n: int) -> int:
    """Return the smallest power of two that is at least n."""
    return 1 << (n - 1).bit_length()


def run(kernel: Any, device: torch.device, programs: int, *arguments: Any, **constants: Any) -> Any:
    """Launch on the current stream of the device, and return the compiled kernel (None in the interpreter).

    Fusing a * b + c is explicit: Triton plans to change its default.
    """
    with on(device):
        return kernel[(programs,)](*arguments, **constants, num_warps=WARPS, enable_fp_fusion=True)


def on(device: torch.device) -> Any:
    """Make a CUDA device the current one, which takes 5 us, unless it is."""
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return contextlib.nullcontext()
    return torch.cuda.device(device)


class Holder:
    """The compiled kernel of equal launches, because Triton takes 66 us of Python to find it, and 4 us to launch it.

    Triton compiles for arguments that are multiples of 16, and on AMD also for the memory behind a tensor. So a kernel is
    held for launches with the same numbers whose tensors all begin at such addresses, on NVIDIA's devices.
    """

    def __init__(self) -> None:
        self.kernels: dict[int | None, Any] = {}  # device -> launch and its last arguments

    def run(self, start: Any, kernel: Any, tensors: Sequence[Any], programs: int, *arguments: Any, **constants: Any) -> None:
        """Launch by `start`, which is `run`, and then by the kernel that it returned. tensors: those of the arguments."""
        device = tensors[0].device
        addresses = 0
        for tensor in tensors:
            addresses |= tensor.data_ptr()
        held = None if addresses % 16 else self.kernels.get(device.index)
        if held is not None:
            with on(device):
                held[0](*arguments, *held[1])
            return
        compiled = start(kernel, device, programs, *arguments, **constants)
        if compiled is not None and addresses % 16 == 0 and torch.version.hip is None:
            last = [constants[name] for name in kernel.arg_names if name in constants]
            with on(device):
                self.kernels[device.index] = compiled[(programs, 1, 1)], last
