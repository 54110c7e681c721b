"""The GPU kernels compile to machine code of an H100, on any computer, without a GPU."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

# Instead of a launch, compile the kernel for its arguments, and print its registers and its stack.
CODE = """
import re, subprocess, sys, tempfile
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import mangle_type
from stn.ops import gpu
from stn.ops.gpu import launch, ordered, programs
from tests.helpers import noise
from tests.ops.test_cpu_kernels import layout, call_of, where

done = set()

def kind(argument):
    return tuple(map(kind, argument)) if isinstance(argument, tuple) else mangle_type(argument)

def compile_for_h100(kernel, device, count, *arguments, **constants):
    if kernel in done:
        return
    done.add(kernel)
    values = dict(zip([name for name in kernel.arg_names if name not in constants], arguments))
    signature = {name: "constexpr" if name in constants else kind(values[name]) for name in kernel.arg_names}
    known = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    options = {"num_warps": programs.WARPS, "enable_fp_fusion": True}
    made = triton.compile(ASTSource(kernel, signature, known), target=GPUTarget("cuda", 90, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        used = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    print(kernel.fn.__name__, *(re.search(name + r":(\\d+)", used)[1] for name in ("REG", "STACK")), flush=True)

launch.run = ordered.run = compile_for_h100
rule, d, form, dtype, backward = sys.argv[1:]
size = (512, 512) if d == "2" else (64, 64, 64)
image = layout(torch.zeros(2, 3, *size, dtype=getattr(torch, dtype)), form == "last")
kind_of_rule, sampling = call_of(rule, size, "bilinear", "zeros", False)
call = image, where(rule, len(size), size).float(), torch.zeros(()), sampling
out = gpu.sample(kind_of_rule, *call)
if backward == "backward":
    gpu.gradient(kind_of_rule, out, *call, (True, True))
    torch.use_deterministic_algorithms(True)
    gpu.gradient(kind_of_rule, out, *call, (True, False))
"""
KERNELS = ["sample_kernel", "gradient_kernel", "add_up", "list_kernel", "add_kernel"]


@pytest.mark.parametrize(
    "case, kernels",
    (
        ("affine 2 planes float32 backward", KERNELS),
        ("projective 3 last bfloat16 backward", KERNELS),
        ("basis 2 planes float64 forward", KERNELS[:1]),
    ),
)
def test_machine_code(case: str, kernels: list[str]) -> None:
    """No kernel spills more than a few bytes of registers, and two programs of 128 threads fit on a processor at a time."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "ignore", "-c", CODE, *case.split()]
    out = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    rows = [line.split() for line in out.stdout.splitlines()]
    assert [row[0] for row in rows] == kernels, out
    for name, registers, stack in rows:
        assert int(registers) <= 200 and int(stack) <= 16, (name, registers, stack)
