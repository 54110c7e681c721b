"""The machine of a training run: precision that suits the device, and reuse of freed memory."""

import platform
import subprocess
import sys

import pytest
import torch

from stn.lab.experiments.machine import arithmetic, has_bfloat16

FAULTS = """
import resource, sys, torch
from stn.lab.experiments.machine import keep_memory
if sys.argv[1] == "keep":
    keep_memory()
for _ in range(8):
    torch.ones(2**24)
start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start)
"""


@pytest.mark.parametrize("there", (False, True))
def test_automatic_arithmetic(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    capabilities = {"avx2": True, "avx512_bf16": there, "amx_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert has_bfloat16("cpu") == there
    assert arithmetic("auto", "cpu") == ("bf16-mixed" if there else "32-true")
    assert arithmetic("32-true", "cpu") == "32-true" and arithmetic("bf16-mixed", "cpu") == "bf16-mixed"
    assert not has_bfloat16("mps")


def test_an_older_torch_says_nothing_of_its_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert arithmetic("auto", "cpu") == "32-true"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory in its own way")
def test_memory_is_kept() -> None:
    """Allocate 64 megabytes eight times: with reuse, each page (4 to 64 KB) is fetched once; without it, each time."""
    faults = {}
    for how in ("keep", "free"):
        done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
        faults[how] = int(done.stdout)
    assert 100 * faults["keep"] < faults["free"], faults
