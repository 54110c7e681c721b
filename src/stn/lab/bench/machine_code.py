"""Count the instructions in the machine code of a kernel for NVIDIA's GPUs, per loop; read its registers and its stack."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

LINE = re.compile(r"^\s*/\*([0-9a-f]+)\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)(.*)$")
LABEL = re.compile(r"^(\.L_x_\d+):")
TARGET = re.compile(r"`\((\.L_x_\d+)\)")
BYTES = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}  # of a memory instruction; 4 without a suffix
CONVERSIONS = ("F2F", "I2F", "F2I", "FRND")


class Instruction(NamedTuple):
    address: int
    name: str  # with its suffixes
    target: str  # of a branch

    @property
    def head(self) -> str:
        return self.name.split(".")[0]

    @property
    def kind(self) -> str:
        """Return the unit that limits it: float64, conversion (with 64 bits), load, store, atomic, shared, or other."""
        head, double = self.head, ".F64" in self.name or ".64" in self.name
        if head in ("DADD", "DMUL", "DFMA", "DSETP", "DMNMX"):
            return "float64"
        if head in CONVERSIONS and double:
            return "conversion"
        found = {"LDG": "load", "STG": "store", "RED": "atomic", "REDG": "atomic", "ATOMG": "atomic", "ATOM": "atomic"}
        return found.get(head, "shared" if head in ("LDS", "STS", "STSM", "LDSM", "SHFL") else "other")

    @property
    def width(self) -> int:
        """Return the bytes per thread of a memory instruction."""
        return next((BYTES[part] for part in self.name.split(".")[1:] if part in BYTES), 4)


class Code(NamedTuple):
    """The machine code of one kernel. A loop is a range of instructions that a branch repeats.

    The branch that an affine map takes if it reaches 2^22 pixels is not counted.
    """

    registers: int
    stack: int  # bytes per thread: spilled registers
    shared: int  # bytes per program
    outside: Counter[str]  # instructions of each kind per thread, outside of loops
    loops: tuple[Counter[str], ...]  # of one turn of each loop
    widths: dict[str, Counter[int]]  # loads and stores by their bytes per thread

    def per_thread(self, turns: Sequence[int]) -> Counter[str]:
        """Return the instructions that a thread executes if the loops of the source turn so often.

        The compiler may unroll a loop: then a second loop, for the rest, has a fraction of its memory instructions.

        Raises: ValueError if the machine code has other loops than the source.
        """
        total, loops = Counter(self.outside), list(self.loops)
        for count in turns:
            if not loops:
                raise ValueError("the machine code has too few loops")
            loop, unrolled = loops.pop(0), 1
            if len(loops) > len(turns) - 1 and memory(loop) > memory(loops[0]) > 0:
                unrolled = memory(loop) // memory(loops[0])
                add(total, loops.pop(0), count % unrolled)
            add(total, loop, count // unrolled)
            turns = turns[1:]
        if loops:
            raise ValueError("the machine code has too many loops")
        return total


def memory(loop: Counter[str]) -> int:
    return loop["load"] + loop["store"] + loop["atomic"]


def add(total: Counter[str], loop: Counter[str], count: int) -> None:
    for kind, n in loop.items():
        total[kind] += count * n


def tool(name: str) -> str:
    from triton import knobs

    return str(getattr(knobs.nvidia, name).path)


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def read(kernel: Any) -> Code:
    """Disassemble a kernel that Triton compiled."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(kernel.asm["cubin"])
        used = output(tool("cuobjdump"), "-res-usage", str(file))
        text = output(tool("nvdisasm"), "-c", str(file))
    numbers = dict(re.findall(r"(\w+):(\d+)", used))
    registers, stack = int(numbers["REG"]), int(numbers["STACK"])
    outside, loops = by_loop(*instructions(text.splitlines()))
    widths = {kind: Counter(i.width for i in [*outside, *sum(loops, [])] if i.kind == kind) for kind in ("load", "store")}
    counted = counts(outside), tuple(counts(loop) for loop in loops)
    return Code(registers, stack, int(kernel.metadata.shared), *counted, widths)


def instructions(lines: Iterable[str]) -> tuple[list[Instruction], dict[str, int]]:
    """Return the instructions in order, and for each label the number of the instruction that follows it."""
    found: list[Instruction] = []
    labels: dict[str, int] = {}
    for line in lines:
        if label := LABEL.match(line):
            labels[label[1]] = len(found)
        elif match := LINE.match(line):
            target = TARGET.search(match[3])
            found.append(Instruction(int(match[1], 16), match[2], target[1] if target else ""))
    return found, labels


def by_loop(found: list[Instruction], labels: dict[str, int]) -> tuple[list[Instruction], list[list[Instruction]]]:
    """Divide instructions into those outside of loops and those of each outermost loop, up to the end of the kernel.

    A kernel ends with a branch to itself. Subroutines for rare cases follow (a division near the ends of the range).
    """
    end = next((n for n, i in enumerate(found) if i.head == "BRA" and labels.get(i.target) == n), len(found))
    back = sorted((labels[i.target], n) for n, i in enumerate(found[:end]) if i.head == "BRA" and labels[i.target] <= n)
    ranges: list[tuple[int, int]] = []
    for first, last in back:
        if ranges and first <= ranges[-1][1]:
            ranges[-1] = ranges[-1][0], max(ranges[-1][1], last)
        else:
            ranges.append((first, last))
    skipped = [*ranges, *rare(found[:end], labels)]
    outside = [i for n, i in enumerate(found[:end]) if not any(first <= n <= last for first, last in skipped)]
    return outside, [found[first : last + 1] for first, last in ranges]


def rare(found: list[Instruction], labels: dict[str, int]) -> list[tuple[int, int]]:
    """Return the range of the branch for points in float64, if there are other points: it alone tests them for NaN."""
    tests = [n for n, i in enumerate(found) if i.name.startswith("DSETP.NAN")]
    ahead = [(n + 1, labels[i.target] - 1) for n, i in enumerate(found) if i.head == "BRA" and labels.get(i.target, 0) > n]
    around = [(first, last) for first, last in ahead if tests and first <= tests[0] and tests[-1] <= last < len(found) - 1]
    return sorted(around, key=lambda part: part[1] - part[0])[:1]


def counts(found: Iterable[Instruction]) -> Counter[str]:
    known = [i for i in found if i.head != "NOP"]
    return Counter(i.kind for i in known) + Counter({"all": len(known)})
