"""Labeled images, and the split of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Labeled:
    """Images as bytes, whole in memory, with their classes."""

    images: Tensor  # (N, C, H, W) uint8
    labels: Tensor  # (N,) int64, or (N, L) for sequences

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: slice | Tensor) -> Labeled:
        return Labeled(self.images[index], self.labels[index])

    def __add__(self, other: Labeled) -> Labeled:
        return Labeled(torch.cat([self.images, other.images]), torch.cat([self.labels, other.labels]))

    def to(self, device: torch.device | str) -> Labeled:
        return Labeled(self.images.to(device), self.labels.to(device))


class Splits(NamedTuple):
    """Training, validation and test images."""

    train: Labeled
    valid: Labeled
    test: Labeled

    def holding_out(self, most: int) -> Splits:
        """Return the split with at most so many images in `valid`, evenly spaced; the others move to training."""
        if len(self.valid) <= most:
            return self
        held = torch.zeros(len(self.valid), dtype=torch.bool, device=self.valid.labels.device)
        held[torch.arange(most) * len(held) // most] = True
        return Splits(self.train + self.valid[~held], self.valid[held], self.test)


def as_float(images: Tensor) -> Tensor:
    """Bytes -> float32 in [0, 1]."""
    return images.float() / 255
