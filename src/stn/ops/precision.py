"""In which precision coordinates are computed, and that autocast leaves it alone."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from stn.ops import exporting


def coordinate_dtype(device: torch.device) -> torch.dtype:
    """float64: at 2048 pixels float32 costs 1e-3 in the output and 1e-2 in theta's gradient. Apple's GPUs have none, nor
    have most runtimes that a network is exported to."""
    return torch.float32 if device.type == "mps" or exporting.current() else torch.float64


def unrounded(device: torch.device) -> AbstractContextManager[object]:
    """Within it autocast, which is meant for features, rounds no product on this device: in bfloat16 a look over 512 pixels
    moves in steps of two."""
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
