"""Coordinates keep the precision they come in: autocast, which is meant for features, ends where a warp begins."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def unrounded(device: torch.device) -> AbstractContextManager[object]:
    """Within it autocast rounds no product on this device. In bfloat16 a look over 512 pixels moves in steps of two."""
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
