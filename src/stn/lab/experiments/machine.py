"""The machine of a training, and settings for it."""

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
    """Raises: InputError if this machine lacks the devices."""
    if accelerator == "cuda":
        lab_check.device("accelerator", f"cuda:{devices - 1}" if devices > 1 else "cuda")
    if accelerator == "mps" and not torch.backends.mps.is_available():
        _check.fail("accelerator must be an available device; got 'mps'")


def processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def machine() -> str:
    """Return the name of the GPU, or of the processor."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{processor()}, {os.cpu_count()} cores"


def arithmetic(precision: str, accelerator: str = "auto") -> str:
    """Return the precision; "auto" is bfloat16 products if the device supports them, otherwise float32."""
    if precision != "auto":
        return precision
    cuda = accelerator in ("auto", "cuda") and torch.cuda.is_available()
    return "bf16-mixed" if has_bfloat16("cuda" if cuda else "cpu") else "32-true"


def has_bfloat16(device_type: str) -> bool:
    """Return True if the device supports products in bfloat16. Emulated with AVX2, a step of the CNN of Table 1 takes seven
    times as long as in float32."""
    if device_type == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch from 2.11 on
    return device_type == "cpu" and any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def keep_memory() -> None:
    """Let this process keep freed memory, with the C library of GNU.

    A training needs the same large maps in each step. By default they return to the system, and mapping their pages again
    takes 100 of the 570 ms of a step of the CNN of Table 1 at 42x42 pixels, one thread.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        for option, value in GLIBC.values():
            library.mallopt(option, value)


GLIBC = {  # malloc.h: option, value
    "M_MMAP_MAX": (-4, 0),  # no block has a separate mapping
    "M_TRIM_THRESHOLD": (-1, 2**31 - 1),  # free bytes at the end of the heap before it shrinks
    "M_TOP_PAD": (-2, 2**28),  # bytes by which it grows
}
