"""What a training runs on, and what suits it."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path
from typing import Any

import torch

from stn import _check
from stn.lab import _check as lab_check


def present(accelerator: str, devices: int) -> None:
    """Raises: InputError if this machine lacks them."""
    if accelerator == "cuda":
        lab_check.device("accelerator", f"cuda:{devices - 1}" if devices > 1 else "cuda")
    if accelerator == "mps" and not torch.backends.mps.is_available():
        _check.fail("accelerator must be an available device; got 'mps'")


def processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def machine() -> str:
    """The GPU by its name, or else the processor."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{processor()}, {os.cpu_count()} cores"


def arithmetic(precision: str, accelerator: str = "auto") -> str:
    """The precision asked for; "auto" is products in bfloat16 where the device has them, or else float32."""
    if precision != "auto":
        return precision
    cuda = accelerator in ("auto", "cuda") and torch.cuda.is_available()
    return "bf16-mixed" if has_bfloat16("cuda" if cuda else "cpu") else "32-true"


def has_bfloat16(device_type: str) -> bool:
    """Whether products in bfloat16 are the device's own. A step of Table 1's CNN with AVX2 alone, which must emulate them,
    takes seven times as long as in float32."""
    if device_type == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch from 2.11 on
    return device_type == "cpu" and any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def keep_memory() -> None:
    """Let this process keep the memory that it frees, where the C library is GNU's.

    A training asks for the same large maps in each step. As they are, they go back to the system when they are freed, and
    their pages come back one by one: 100 ms of the 570 of a step of Table 1's CNN on 42x42 pixels, one thread.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        for option, value in GLIBC.values():
            library.mallopt(option, value)


GLIBC = {  # malloc.h: option, value
    "M_MMAP_MAX": (-4, 0),  # no block is a mapping of its own
    "M_TRIM_THRESHOLD": (-1, 2**31 - 1),  # bytes that must lie free at the end of the heap before it shrinks
    "M_TOP_PAD": (-2, 2**28),  # bytes by which it grows
}
