"""Batches: the images of a step are a function of the run's seed and the step alone, so a resumed run sees the same ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Generator, Tensor

from stn.lab.data import Labeled, as_float
from stn.lab.data.draw import Example

Draw = Callable[[Tensor, Tensor, Generator], Example]  # of images (N, *Task.shape) in [0, 1] and labels (N, ..)
Batches = Iterable[Example]
AT_ONCE = 1000  # images in a batch that is not learned from
NUMBERS = 2**24  # but no more than this in its images: 85 of birds
ORDER, TRAIN, VALID, TEST, DROPOUT = range(5)  # streams of random numbers


def generator(seed: int, stream: int, *position: int) -> Generator:
    """A CPU generator of its own for each seed, stream and position."""
    state = np.random.SeedSequence([seed, stream, *position]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


def training_batches(data: Labeled, draw: Draw, *, batch_size: int, copies: int, seed: int, epoch: int) -> Iterator[Example]:
    """One epoch: every image `copies` times, in random order, each drawn on its own. A last, short batch is left out."""
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
    """Every image once, in order; the draw of this number."""
    batch_size = batch_size or max(1, min(AT_ONCE, NUMBERS // data.images[:1].numel()))
    for step, start in enumerate(range(0, len(data), batch_size)):
        part = data[start : start + batch_size]
        yield draw(as_float(part.images), part.labels, generator(seed, stream, number, step))
