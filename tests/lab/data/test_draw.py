"""The drawing functions for synthetic images: placement, clutter, partners."""

import math

import pytest
import torch

from stn.lab.data.distort import rotated_scaled_translated
from stn.lab.data.draw import anywhere, clutter, frames, integers, normal, partners, place, uniform
from tests.helpers import seeded

EMPTY = torch.zeros(500, 1, 28, 28)


def test_a_placed_point_lies_where_it_was_sent() -> None:
    """A dot is 8 pixels right of the center. Rotated clockwise by 90 degrees and enlarged by 2, it is 16 below."""
    image = torch.zeros(1, 1, 21, 41)
    image[0, 0, 10, 28] = 1
    angle, scale, offset = torch.tensor([math.pi / 2]), torch.tensor([2.0]), torch.tensor([[5.0, -3.0]])
    placed = place(image, (61, 71), angle, scale, offset)
    assert placed.shape == (1, 1, 61, 71)
    y, x = divmod(int(placed.argmax()), 71)
    assert (x - 35, y - 30) == (5, -3 + 16)
    assert placed.sum().item() == pytest.approx(4, abs=1e-4)  # the area of the dot


def test_digits_are_placed_as_the_papers_are() -> None:
    images, generator = torch.rand(9, 1, 28, 28, generator=seeded(5)), seeded()
    angle = uniform(images, -math.pi / 4, math.pi / 4, generator)
    scale = uniform(images, 0.7, 1.2, generator)
    placed = place(images, (42, 42), angle, scale, anywhere(images, (42, 42), scale, generator))
    torch.testing.assert_close(placed, rotated_scaled_translated(images, seeded()))


def test_frames_stay_on_the_canvas_and_reach_its_edges() -> None:
    scale = uniform(EMPTY, 0.5, 1.0, seeded())
    boxes = frames(anywhere(EMPTY, (84, 84), scale, seeded(1)), scale, 84)
    assert boxes.abs().max() <= 1 + 1e-6
    assert (boxes.amin(dim=0)[:2] < -0.98).all() and (boxes.amax(dim=0)[2:] > 0.98).all()
    torch.testing.assert_close(boxes[:, 2] - boxes[:, 0], scale * 28 / 42)


def test_clutter_is_cut_from_others() -> None:
    alone = EMPTY[:40].clone()
    alone[0] = 1.0  # one white digit
    out = clutter(alone, 50, 16, seeded())
    assert out.shape == (40, 1, 50, 50)
    area = out.sum(dim=(1, 2, 3))
    assert area[0] == 0 and area.max() >= 36 and (area <= 16 * 36).all()
    assert clutter(alone[:0], 50, 16, seeded()).shape == (0, 1, 50, 50)
    whites = clutter(torch.ones(40, 1, 28, 28), 50, 16, seeded()).sum(dim=(1, 2, 3))
    assert whites.min() > 8 * 36 and whites.max() <= 16 * 36  # some patches overlap


def test_every_image_stands_once_in_every_place() -> None:
    groups = partners(EMPTY, 4, seeded())
    assert groups.shape == (500, 4) and torch.equal(groups[:, 0], torch.arange(500))
    assert torch.equal(groups.sort(dim=0).values, torch.arange(500)[:, None].expand(-1, 4))
    assert (groups[:, 1:] == groups[:, :1]).float().mean() < 0.02  # a digit is almost never its own partner
    assert not torch.equal(groups[:, 1], groups[:, 2])
    assert partners(EMPTY[:1], 3, seeded()).tolist() == [[0, 0, 0]] and partners(EMPTY[:0], 3, seeded()).shape == (0, 3)


def test_numbers_fill_their_ranges() -> None:
    u, z, k = uniform(EMPTY, -2, 3, seeded(), 2), normal(EMPTY, 0.5, seeded(), 3), integers(EMPTY, 3, 6, seeded())
    assert u.shape == (500, 2) and u.min() >= -2 and u.max() <= 3 and u.min() < -1.9 and u.max() > 2.9
    assert z.shape == (500, 3) and 0.45 < z.std() < 0.55
    assert k.unique().tolist() == [3, 4, 5, 6]
    assert uniform(EMPTY[:4].double(), 0, 1, seeded()).dtype == torch.float64
