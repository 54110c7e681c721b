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
# memory line of 128 bytes, and the rows share loads under any rotation. Compiled for an H100, gradients of planes took 202
# registers per thread at four values each, and take 96 at two. Gradients of volumes took all 255 and 192 bytes of stack at
# four, and take 127 and none at one.
WARPS, ELEMENTS, LEAST, PROGRAMS = 4, 512, 128, 1024
ACROSS, CHANNELS = 32, 32
WASTE = 9 / 8  # ratio of tiled to existing pixels above which pixels are taken in flat order


class Division(NamedTuple):
    """A division of a call among programs: one for each look, group of channels, and tile."""

    block: Block
    channels: int  # per group
    programs: int


def divide(
    size: Sequence[int], looks: int, channels: int, *, last: bool = False, whole: bool = False, halvings: int = 0
) -> Division:
    """Divide `looks` looks. last: channels-last memory. whole: each program has all channels. halvings: of ELEMENTS."""
    together = min(CHANNELS, power_of_two(channels)) if last else 1
    pixels, count = (ELEMENTS >> halvings) // together, math.prod(size) * looks
    while pixels * together > LEAST and count < pixels * PROGRAMS:
        pixels //= 2
    groups = 1 if whole else min(-(-channels // together), -(-PROGRAMS * pixels // count))
    group_channels = -(-channels // (groups * together)) * together
    block = block_of(size, pixels, together)
    programs = looks * -(-channels // group_channels) * tile_count(size, block)
    return Division(block, group_channels, programs)


def block_of(size: Sequence[int], pixels: int, channels: int) -> Block:
    """Return a tile of so many pixels, or as many in flat order if tiles would reach far beyond the edges."""
    across = min(ACROSS, pixels)
    rows = pixels // across
    deep = min(4, rows) if len(size) == 3 else 1
    block = Block(False, across, rows // deep, deep, channels)
    return block._replace(flat=tile_count(size, block) * pixels > WASTE * math.prod(size))


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


def run(kernel: Any, device: torch.device, programs: int, *arguments: Any, **constants: Any) -> None:
    """Launch on the current stream of the device. Fusing a * b + c is explicit: Triton plans to change its default."""
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        kernel[(programs,)](*arguments, **constants, num_warps=WARPS, enable_fp_fusion=True)
