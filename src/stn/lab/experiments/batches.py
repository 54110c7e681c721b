"""Batches: the images of a step depend only on the seed of the run and the step, so a resumed run gets the same ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Generator, Tensor

from stn.lab.data import Labeled, as_float
from stn.lab.data.draw import Example

Draw = Callable[[Tensor, Tensor, Generator], Example]  # of images (N, *Task.shape) in [0, 1] and labels (N, ..)
Batches = Iterable[Example]
AT_ONCE = 1000  # images per evaluation batch
NUMBERS = 2**24  # largest number of values in its images: 85 birds
ORDER, TRAIN, VALID, TEST, DROPOUT = range(5)  # streams of random numbers


def generator(seed: int, stream: int, *position: int) -> Generator:
    """Return a separate CPU generator for each seed, stream and position."""
    state = np.random.SeedSequence([seed, stream, *position]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


def training_batches(data: Labeled, draw: Draw, *, batch_size: int, copies: int, seed: int, epoch: int) -> Iterator[Example]:
    """Yield one epoch: every image `copies` times in random order, drawn independently, without a last, short batch."""
    orders = generator(seed, ORDER, epoch)
    order = torch.cat([torch.randperm(len(data), generator=orders) for _ in range(copies)]).to(data.labels.device)
    for step in range(steps_per_epoch(data, batch_size=batch_size, copies=copies)):
        index = order[step * batch_size : (step + 1) * batch_size]
        yield draw(as_float(data.images[index]), data.labels[index], generator(seed, TRAIN, epoch, step))


def steps_per_epoch(data: Labeled, *, batch_size: int, copies: int) -> int:
    return max(1, copies * len(data) // batch_size)


def evaluation_batches(
    data: Labeled, draw: Draw, *, seed: int, stream: int, number: int = 0, batch_size: int | None = None
) -> Iterator[Example]:
    """Yield every image once, in order, with the distortions of this draw."""
    batch_size = batch_size or max(1, min(AT_ONCE, NUMBERS // data.images[:1].numel()))
    for step, start in enumerate(range(0, len(data), batch_size)):
        part = data[start : start + batch_size]
        yield draw(as_float(part.images), part.labels, generator(seed, stream, number, step))
