"""The images of a training step depend only on the seed and the step."""

import torch

from stn.lab.data import Labeled
from stn.lab.experiments.batches import TEST, evaluation_batches, generator, steps_per_epoch, training_batches
from stn.lab.experiments.tasks import TASKS

DATA = Labeled(torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).repeat(1, 1, 28, 28), torch.arange(10))


def labels(epoch: int, *, copies: int = 3, seed: int = 0) -> list[int]:
    batches = training_batches(DATA, TASKS["none"].draw, batch_size=4, copies=copies, seed=seed, epoch=epoch)
    return [label for example in batches for label in example.y.tolist()]


def test_an_epoch_holds_every_image_as_often_as_asked() -> None:
    seen = labels(0)
    assert len(seen) == 28 == 4 * steps_per_epoch(DATA, batch_size=4, copies=3)
    assert all(seen[:10].count(n) == 1 and seen[10:20].count(n) == 1 for n in range(10))
    assert seen == labels(0) != labels(1) and labels(0, seed=1) != seen
    assert steps_per_epoch(DATA, batch_size=64, copies=1) == 1 and len(labels(0, copies=1)) == 8


def test_labels_follow_their_images_and_copies_differ() -> None:
    for x, y, _ in training_batches(DATA, TASKS["none"].draw, batch_size=4, copies=1, seed=0, epoch=0):
        assert torch.equal((x[:, 0, 0, 0] * 255).round().long(), y)
    one = Labeled(torch.randint(0, 256, (1, 1, 28, 28)).byte(), torch.arange(1))
    (first, *_), (second, *_) = training_batches(one, TASKS["r"].draw, batch_size=1, copies=2, seed=0, epoch=0)
    assert not torch.equal(first, second)


def test_draws_are_independent_and_every_image_is_tested() -> None:
    noise = Labeled(torch.randint(0, 256, (7, 1, 28, 28)).byte(), torch.arange(7))

    def images(draw: int) -> torch.Tensor:
        batches = list(evaluation_batches(noise, TASKS["r"].draw, seed=0, stream=TEST, number=draw, batch_size=3))
        assert torch.cat([example.y for example in batches]).tolist() == list(range(7))
        return torch.cat([example.x for example in batches])

    assert torch.equal(images(0), images(0)) and not torch.equal(images(0), images(1))


def test_streams_do_not_meet() -> None:
    first = {
        torch.rand(1, generator=generator(seed, stream, *position)).item()
        for seed in (0, 1)
        for stream in range(4)
        for position in ((0, 0), (0, 1), (1, 0), (1, 1))
    }
    assert len(first) == 32
