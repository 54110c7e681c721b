"""Crops of photographs equal the corresponding pixels of the photographs."""

import torch

from stn.lab.data.crops import CROP, as_they_are, middle_crops, random_crops
from tests.helpers import seeded

HEIGHT, WIDTH = CROP + 9, CROP + 5


def numbered(count: int) -> torch.Tensor:
    """Return images whose pixels encode their own position: the channels hold row and column."""
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    return torch.stack([rows, columns]).float().expand(count, 2, HEIGHT, WIDTH)


def test_random_crops_are_whole_pixels_of_all_places_and_mirrored_by_half() -> None:
    labels = torch.arange(300)
    x, y, boxes = random_crops(numbered(300), labels, seeded())
    assert torch.equal(y, labels) and boxes is None and x.shape == (300, 2, CROP, CROP)
    top, left, right = x[:, 0, 0, 0], x[:, 1, 0, 0], x[:, 1, 0, -1]
    mirrored = left > right
    assert 110 < mirrored.sum() < 190
    first = torch.minimum(left, right)
    assert set(top.tolist()) == set(range(HEIGHT - CROP + 1)) and set(first.tolist()) == set(range(WIDTH - CROP + 1))
    for i in range(300):
        columns = first[i] + torch.arange(CROP)
        assert torch.equal(x[i, 1], (columns.flip(0) if mirrored[i] else columns).expand(CROP, CROP))
        assert torch.equal(x[i, 0], (top[i] + torch.arange(CROP))[:, None].expand(CROP, CROP))


def test_the_middle_is_the_middle() -> None:
    x = middle_crops(numbered(2), torch.arange(2), seeded()).x
    assert x.shape == (2, 2, CROP, CROP) and x[0, :, 0, 0].tolist() == [4, 2]


def test_what_is_taken_as_it_is() -> None:
    images, labels = numbered(1), torch.zeros(1, 5, dtype=torch.long)
    example = as_they_are(images, labels, seeded())
    assert example.x is images and example.y is labels
