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
    groups: Tensor | None = None  # (N,) int64: images with equal numbers belong together, such as frames of one sign

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: slice | Tensor) -> Labeled:
        return Labeled(self.images[index], self.labels[index], None if self.groups is None else self.groups[index])

    def __add__(self, other: Labeled) -> Labeled:
        groups = None if self.groups is None or other.groups is None else torch.cat([self.groups, other.groups])
        return Labeled(torch.cat([self.images, other.images]), torch.cat([self.labels, other.labels]), groups)

    def to(self, device: torch.device | str) -> Labeled:
        groups = None if self.groups is None else self.groups.to(device)
        return Labeled(self.images.to(device), self.labels.to(device), groups)


class Splits(NamedTuple):
    """Training, validation and test images."""

    train: Labeled
    valid: Labeled
    test: Labeled

    def holding_out(self, most: int) -> Splits:
        """Return the split with at most so many images in `valid`, evenly spaced; the others move to training.

        Groups of images stay whole: one of them in training would tell the answers to the others. One group remains.
        """
        if len(self.valid) <= most:
            return self
        if self.valid.groups is None:
            held = evenly(len(self.valid), most)
        else:
            groups, sizes = self.valid.groups.unique(return_counts=True)
            fitting = max(1, most // int(sizes.max()))
            held = torch.isin(self.valid.groups, groups[evenly(len(groups), min(fitting, len(groups)))])
        held = held.to(self.valid.labels.device)
        return Splits(self.train + self.valid[~held], self.valid[held], self.test)


def evenly(count: int, chosen: int) -> Tensor:  # (count,) bool
    held = torch.zeros(count, dtype=torch.bool)
    held[torch.arange(chosen) * count // chosen] = True
    return held


def as_float(images: Tensor) -> Tensor:
    """Bytes -> float32 in [0, 1]."""
    return images.float() / 255
