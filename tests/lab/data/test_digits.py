"""The embedded digits, and the division of data sets into training, validation and test sets."""

import pytest
import torch

from stn.lab.data import DISTORTIONS, as_float, load
from stn.lab.data.digits import load_digits


def test_the_embedded_digits() -> None:
    splits = load_digits()
    assert [len(split) for split in splits] == [1260, 140, 397]
    for split in splits:
        assert split.images.dtype == torch.uint8 and split.images.shape[1:] == (1, 28, 28)
        assert set(split.labels.tolist()) == set(range(10))
        margin = split.images.clone()
        margin[:, :, 3:25, 3:25] = 0  # the box of 20x20 pixels; cubic interpolation reaches slightly beyond it
        assert margin.max() <= 4 and split.images.max() == 255


def test_no_image_is_in_two_splits() -> None:
    seen = [{image.numpy().tobytes() for image in split.images} for split in load_digits()]
    assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]


def test_the_labels_belong_to_the_images() -> None:
    """For almost every test digit, the nearest training image has the same label."""
    splits = load("digits")
    train, test = (as_float(split.images).flatten(1) for split in (splits.train, splits.test))
    nearest = splits.train.labels[torch.cdist(test, train).argmin(dim=1)]
    assert (nearest == splits.test.labels).float().mean() > 0.95
    assert set(DISTORTIONS) == {"none", "r", "rts", "p", "e", "tc", "moved", "moved_cluttered"}


@pytest.mark.parametrize("most", (1, 40, 139))
def test_what_is_not_held_out_is_learned_from(most: int) -> None:
    splits = load("digits")
    fewer = splits.holding_out(most)
    assert [len(split) for split in fewer] == [1400 - most, most, 397]
    assert fewer.test is splits.test and fewer.holding_out(most) is fewer and splits.holding_out(140) is splits
    before, after = (s.train + s.valid for s in (splits, fewer))
    ids = {tuple(image): place for place, image in enumerate(before.images.flatten(1).tolist())}
    places = [ids[tuple(image)] for image in after.images.flatten(1).tolist()]
    assert sorted(places) == list(range(1400)) and torch.equal(before.labels[places], after.labels)
    assert places[-most:] == [1260 + k * 140 // most for k in range(most)]  # evenly spaced
