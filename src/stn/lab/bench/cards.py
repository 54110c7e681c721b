"""Published rates of GPUs, and the times that they allow the kernels at best (a roofline)."""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

from stn.lab.bench.compiled import Launch, Target
from stn.lab.bench.machine_code import Code
from stn.ops.gpu.coordinates import BASIS, LATTICE
from stn.ops.gpu.programs import WARPS

THREADS = 32 * WARPS  # of a program


class Card(NamedTuple):
    """Numbers of the vendor's data sheet; the clock is the boost clock."""

    name: str
    target: Target
    gigabytes_per_second: float
    processors: int
    gigahertz: float
    float64: int  # operations per clock and processor
    conversions: int  # from and to 64 bits, per clock and processor: CUDA's programming guide, arithmetic throughput

    def seconds(self, work: Counter[str], nbytes: float) -> dict[str, float]:
        """Return the least time of each unit for instructions of threads, and of the memory."""
        clocks = 1e9 * self.gigahertz * self.processors
        return {
            "memory": nbytes / (1e9 * self.gigabytes_per_second),
            "issue": work["all"] / (128 * clocks),  # four schedulers, each one instruction of 32 threads per clock
            "float64": work["float64"] / (self.float64 * clocks),
            "conversion": work["conversion"] / (self.conversions * clocks),
        }


CARDS = (
    Card("A100 80 GB SXM", Target("cuda", 80), 2039, 108, 1.41, 32, 16),
    Card("H100 SXM", Target("cuda", 90), 3350, 132, 1.98, 64, 16),
    Card("H200 SXM", Target("cuda", 90), 4800, 132, 1.98, 64, 16),
    Card("RTX 4090", Target("cuda", 80), 1008, 128, 2.52, 2, 2),
    Card("RTX 5090", Target("cuda", 120), 1792, 170, 2.41, 2, 2),
)
WARPS_OF = {80: 64, 90: 64, 120: 48}  # most of a processor at a time; each has 65536 registers


def occupancy(code: Code, target: Target) -> float:
    """Return the share of the warps of a processor that fit, by registers, which come in units of 256 per warp."""
    per_warp = -(-32 * code.registers // 256) * 256
    most = WARPS_OF[int(target.arch)]
    return min(65536 // (per_warp * WARPS), most // WARPS) * WARPS / most


def turns(launch: Launch) -> list[int]:
    """Return how often the loops of a kernel turn: over control points or sums of rows, and over channels."""
    given = dict(zip(launch.kernel.arg_names, launch.arguments, strict=False))
    if launch.name == "add_up":
        return [-(-given["parts"] // launch.constants["PARTS"])]
    if launch.name == "add_rows":
        how, (looks, d, *sums) = launch.constants["HOW"], given["sums"].shape
        rows = looks * math.prod(sums) * (2 * how.reach) ** (d - 1) / given["points"]  # of a control point, in the mean
        return [math.ceil(rows / launch.constants["PARTS"])]
    channels = [-(-given["group_channels"] // launch.constants["BLOCK"].channels)]
    if launch.name == "list_kernel":
        channels = []
    how, again = launch.constants["HOW"], launch.name == "gradient_kernel" and launch.constants["NEED_DATA"]
    if how.rule not in (BASIS.value, LATTICE.value):
        return channels
    points = [given["count"]] if how.rule == BASIS.value else [4] * (how.reach == 2)
    return [*points, *channels, *([given["count"]] if again else [])]


def pixels(launch: Launch) -> int:
    """Return the output pixels of a program."""
    block = launch.constants["BLOCK"]
    return int(block.across * block.down * block.deep)


def per_pixel(code: Code, launch: Launch) -> Counter[str]:
    """Return the instructions of threads per output pixel, all channels together. As whole numbers times 1000."""
    done = code.per_thread(turns(launch))
    return Counter({kind: round(1000 * n * THREADS / pixels(launch)) for kind, n in done.items()})


def total(code: Code, launch: Launch) -> Counter[str]:
    """Return the instructions of all threads of a launch."""
    return Counter({kind: n * THREADS * launch.programs for kind, n in code.per_thread(turns(launch)).items()})
