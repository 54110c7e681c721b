"""The GPU kernels compile to machine code of NVIDIA's and AMD's GPUs, on any computer, without a GPU."""

import json
import os
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from stn.lab.bench.machine_code import Code, by_loop, counts, instructions

pytest.importorskip("triton")

# Print registers, stack and the widths of loads of each kernel of a case. Not in a process that interprets kernels.
CODE = """
import json, re, sys
import torch
from stn.lab.bench.cases import Case
from stn.lab.bench.compiled import AMD, LATTICES, NVIDIA, code, launches
from stn.lab.bench.machine_code import read

target, rule, shape, form, dtype, task = sys.argv[1:]
named = {"family" if rule in LATTICES else "rule": rule}
case = Case("", tuple(json.loads(shape)), task, **named, channels_last=form == "last", dtype=getattr(torch, dtype))
target = next(t for t in (*NVIDIA, AMD) if t.name == target)
found = launches(case) + (launches(case, in_order=True)[1:3] if task == "both" else [])
for launch in {launch.name: launch for launch in found}.values():
    made = code(launch, target)
    if target is AMD:
        text = made.asm["amdgcn"]
        names = ("vgpr_count", "private_segment_fixed_size")
        row = [int(re.search(rf"\\.{name}: +(\\d+)", text)[1]) for name in names] + [0]
    else:
        used = read(made)
        row = [used.registers, used.stack, max(used.widths["load"], default=0)]
    print(json.dumps([launch.name, *row]), flush=True)
"""
KERNELS = ["sample_kernel", "gradient_kernel", "add_up", "list_kernel", "add_kernel"]
OF_LATTICES = [*KERNELS[:2], "add_rows", *KERNELS[3:]]
PLANES, LAST = "[2, 3, 512, 512]", "[8, 64, 128, 128]"


def compiled(case: str) -> list[Any]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    target, rule, form, dtype, task = case.split()
    shape = {"planes": PLANES, "last": LAST, "volumes": "[2, 3, 64, 64, 64]"}[form]
    command = [sys.executable, "-W", "ignore", "-c", CODE, target, rule, shape, form, dtype, task]
    out = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert out.returncode == 0, out.stderr
    return [json.loads(line) for line in out.stdout.splitlines()]


@pytest.mark.parametrize(
    "case, kernels",
    (
        ("sm_90 affine planes float32 both", KERNELS),
        ("sm_90 projective volumes bfloat16 both", KERNELS),
        ("sm_90 thin_plate planes float64 forward", KERNELS[:1]),
        ("gfx942 affine planes float32 both", KERNELS),
        ("sm_80 bspline planes float32 both", OF_LATTICES),
        ("sm_90 bspline volumes float32 both", OF_LATTICES),
        ("sm_90 displacement last bfloat16 both", OF_LATTICES),
        ("gfx942 displacement volumes float64 both", OF_LATTICES),
    ),
)
def test_machine_code(case: str, kernels: list[str]) -> None:
    """No kernel spills more than a few bytes of registers, and two programs of 128 threads fit on a processor at a time."""
    rows = compiled(case)
    assert [row[0] for row in rows] == kernels
    for name, registers, stack, _ in rows:
        assert registers <= 200 and stack <= 16, (name, registers, stack)


def test_channels_last_images_are_read_in_16_bytes() -> None:
    assert compiled("sm_80 affine last float32 forward")[0][3] == 16


LISTING = """
        /*0000*/                   LDG.E.128 R4, [R2] ;
        /*0010*/                   F2F.F64.F32 R6, R4 ;
        /*0020*/              @P0 BRA `(.L_x_1) ;
        /*0030*/                   DADD R8, R6, 1 ;
        /*0040*/                   BRA `(.L_x_2) ;
.L_x_1:
        /*0050*/                   FRND.F64.FLOOR R8, R6 ;
        /*0060*/                   DSETP.NAN.AND P1, PT, R6, R6, PT ;
.L_x_2:
        /*0070*/                   LDG.E.U16 R5, [R2] ;
        /*0080*/                   REDG.E.ADD.F32 [R2], R5 ;
        /*0090*/               @!P1 BRA `(.L_x_2) ;
        /*00a0*/                   STG.E.64 [R2], R8 ;
        /*00b0*/                   EXIT ;
.L_x_3:
        /*00c0*/                   BRA `(.L_x_3) ;
        /*00d0*/                   NOP ;
"""


def test_instructions_are_counted_by_loop() -> None:
    """The branch with the test for NaN is left out, and so is all after the end of the kernel."""
    outside, loops = by_loop(*instructions(LISTING.splitlines()))
    assert [i.name for i in outside] == ["LDG.E.128", "F2F.F64.F32", "BRA", "DADD", "BRA", "STG.E.64", "EXIT"]
    assert [i.width for i in outside if i.kind in ("load", "store")] == [16, 8]
    assert [counts(loop) for loop in loops] == [Counter({"all": 3, "load": 1, "atomic": 1, "other": 1})]


def test_an_unrolled_loop_counts_its_turns() -> None:
    """Of 11 turns, two are of the loop of four, and three are of the rest."""
    one = Counter({"all": 10, "load": 4, "store": 1})
    four = Counter({"all": 34, "load": 16, "store": 4})
    code = Code(32, 0, 0, Counter({"all": 100}), (four, one), {})
    assert code.per_thread([11])["all"] == 100 + 2 * 34 + 3 * 10
    assert code._replace(loops=(one,)).per_thread([11])["all"] == 100 + 11 * 10
    with pytest.raises(ValueError, match="too few loops"):
        code.per_thread([11, 2, 3])
