"""The synthetic tasks are pure and stay in their ranges; labels and boxes agree with the pixels."""

import pytest
import torch
from torch import Tensor

from stn.lab.data.distort import rotated_scaled_translated
from stn.lab.data.draw import Example
from stn.lab.data.scenes import SCENES, addition
from stn.ops import affine_sample
from tests.helpers import seeded

# Ten classes that differ in their pixels: class k is a bar of 2 k + 4 rows and 8 columns.
AT = torch.arange(28)
LABELS = torch.arange(200) % 10
ROWS = ((AT[:, None] - 13.5).abs() <= LABELS[:, None, None] + 2).float()  # (200, 28, 1)
BARS = (ROWS * ((AT - 13.5).abs() <= 4)).unsqueeze(1)  # (200, 1, 28, 28)
SOLID = torch.zeros(200, 1, 28, 28)
SOLID[..., 4:24, 4:24] = 1  # the extent of the strokes of MNIST's digits


def drawn(name: str, images: Tensor, labels: Tensor = LABELS, seed: int = 0) -> Example:
    return SCENES[name].draw(images, labels[: len(images)], seeded(seed))


@pytest.mark.parametrize("name", SCENES)
def test_pure_and_as_the_table_says(name: str) -> None:
    scene, images = SCENES[name], torch.rand(6, 1, 28, 28, generator=seeded(9))
    before = images.clone()
    x, y, boxes = drawn(name, images, seed=1)
    assert x.shape == (6, *scene.shape) and x.dtype == torch.float32 and y.dtype == torch.int64
    assert y.shape == ((6, scene.length) if scene.length else (6,))
    assert 0 <= y.min() and y.max() < scene.classes
    assert x.min() >= 0 and x.max() <= 1 + 1e-6 and (x.flatten(1).amax(dim=1) > 0.3).all()
    assert (boxes is None) == (scene.boxes == 0)
    if boxes is not None:
        assert boxes.shape == (6, scene.boxes, 4) and boxes.abs().max() <= 1 + 1e-6
    again, other = drawn(name, images, seed=1), drawn(name, images, seed=2)
    assert torch.equal(x, again.x) and torch.equal(y, again.y) and not torch.equal(x, other.x)
    assert torch.equal(images, before)
    for n in (0, 1):
        assert drawn(name, images[:n]).x.shape == (n, *scene.shape)


def test_addition_adds_what_its_channels_show() -> None:
    x, y, _ = drawn("addition", BARS)
    first = rotated_scaled_translated(BARS, after_partners())
    torch.testing.assert_close(x[:, :1], first)  # the image itself with the paper's distortion
    ones = torch.ones(200, dtype=torch.int64)
    assert torch.equal(addition(BARS, ones, seeded()).y, 2 * ones)
    assert not torch.equal(y, 2 * LABELS) and y.min() == 0 and y.max() == 18
    white = torch.cat([torch.ones(1, 1, 28, 28), torch.zeros(199, 1, 28, 28)])
    alone = addition(white, (torch.arange(200) == 0).long(), seeded())
    shown = (alone.x.flatten(2).amax(dim=2) > 0.5).long()  # the channel that holds the one white digit
    assert torch.equal(shown.sum(dim=1), alone.y) and shown.sum(dim=0).tolist() == [1, 1]


def after_partners() -> torch.Generator:
    generator = seeded()
    torch.randperm(200, generator=generator)
    return generator


def cut(x: Tensor, boxes: Tensor) -> Tensor:
    """Return the crop of each box at 28x28 pixels: (N, K, 1, 28, 28)."""
    low, high = boxes.unflatten(-1, (2, 2)).unbind(dim=-2)  # (N, K, 2)
    theta = torch.cat([torch.diag_embed((high - low) / 2), ((high + low) / 2).unsqueeze(-1)], dim=-1)
    seen: Tensor = affine_sample(x, theta, (28, 28))
    return seen


@pytest.mark.parametrize(("name", "read"), (("translated_84", 1.0), ("pairs", 0.85), ("cluttered_84", 0.5)))
def test_boxes_hold_the_digits_that_y_names(name: str, read: float) -> None:
    x, y, boxes = drawn(name, BARS)
    assert boxes is not None
    seen = cut(x, boxes)[:, :, 0]
    digits = torch.stack([y // 10, y % 10], dim=1) if name == "pairs" else y[:, None]
    wanted = BARS[digits.flatten()].view_as(seen)
    covered = (seen * wanted).sum(dim=(2, 3)) / wanted.sum(dim=(2, 3))
    assert covered.min() > 0.7  # with an error of half a pixel, 3 of the 4 rows of the smallest bar match
    nearest = (seen.unsqueeze(2) - BARS[:10, 0]).square().sum(dim=(3, 4)).argmin(dim=2)
    assert (nearest == digits).float().mean() >= read  # clutter hides some digits


def test_clutter_is_sixteen_patches() -> None:
    x, _, boxes = drawn("cluttered_84", SOLID)
    clean = drawn("translated_84", SOLID)
    assert boxes is not None and clean.boxes is not None and torch.equal(boxes, clean.boxes)
    added = (x - clean.x).sum(dim=(1, 2, 3)) / 36
    assert (x >= clean.x).all() and 8 < added.min() and added.max() <= 16.01


def test_a_pair_lies_left_and_right_and_far_apart() -> None:
    x, y, boxes = drawn("pairs", SOLID)
    assert boxes is not None
    middle = 42 * (boxes[..., :2] + boxes[..., 2:]) / 2  # pixels
    left, right = middle.unbind(dim=1)
    assert ((right - left)[:, 0] >= 32).all() and (left[:, 0] <= -16).all() and (right[:, 0] >= 16).all()
    assert (boxes[:, 0, 2] < boxes[:, 1, 0]).all()  # the two frames do not touch
    assert middle[..., 1].min() < -26 and middle[..., 1].max() > 26
    assert len(y.unique()) > 50
    size = 21 * (boxes[..., 2:] - boxes[..., :2]) * 2
    assert size.min() > 0.79 * 28 and size.max() < 28.01


def test_perturbed_is_the_middle_of_its_surroundings() -> None:
    """The surroundings contain the pixels that the frame cuts off."""
    digits = torch.rand(500, 1, 28, 28, generator=seeded())
    labels = torch.zeros(500, dtype=torch.int64)
    frame, wide = (drawn(name, digits, labels).x for name in ("perturbed", "perturbed_56"))
    assert torch.equal(frame, wide[..., 14:42, 14:42])
    outside = 1 - frame.sum(dim=(1, 2, 3)) / wide.sum(dim=(1, 2, 3))
    assert outside.min() > -1e-6 and 0.1 < outside.mean() < 0.5


def test_perturbed_moves_by_an_eighth_of_the_frame() -> None:
    blob = torch.exp(-((AT - 13.5) ** 2 + (AT[:, None] - 13.5) ** 2) / 8).expand(2000, 1, 28, 28)
    x = drawn("perturbed", blob, torch.zeros(2000, dtype=torch.int64)).x[:, 0]
    at = torch.arange(28) - 13.5
    mass = x.sum(dim=(1, 2))
    kept = mass > 0.5 * mass.median()
    middle = torch.stack([(x.sum(dim=1) * at).sum(dim=1), (x.sum(dim=2) * at).sum(dim=1)], dim=1)[kept] / mass[kept, None]
    # Each of four corners moves by s, and all corners together by s. So the crossing of the diagonals moves by s sqrt(1 +
    # 1/4), with s = 3.5 pixels.
    assert kept.float().mean() > 0.9 and middle.mean(dim=0).abs().max() < 0.3
    assert 3.5 < middle.std(dim=0).min() and middle.std(dim=0).max() < 4.5
