"""Strings of digits: the label lists the digits from left to right, and every digit is complete."""

import pytest
import torch
from torch import Tensor

from stn.lab.data.draw import Example
from stn.lab.data.scenes import SCENES
from stn.lab.data.strings import NONE, PITCH, Bend, straight
from tests.helpers import seeded

N = 200
LABELS = torch.arange(N) % 10
SOLID = torch.zeros(N, 1, 28, 28)
SOLID[..., 4:24, 4:24] = 1  # the extent of the strokes of MNIST's digits


def drawn(name: str, lit: Tensor) -> Example:  # lit: (N,), 1 for the images that are white
    return SCENES[name].draw(SOLID * lit.view(-1, 1, 1, 1), LABELS, seeded())


def middle(x: Tensor) -> Tensor:  # (N, 1, H, W) -> (N,), in pixels from the left
    columns = x.sum(dim=(1, 2))
    return (columns * torch.arange(x.shape[-1])).sum(dim=1) / columns.sum(dim=1)


def test_a_straight_string_is_its_digits_side_by_side() -> None:
    images = torch.rand(N, 1, 28, 28, generator=seeded(3))
    images[..., :4], images[..., 24:] = 0, 0
    unique = torch.arange(N)
    line = straight(images, unique + 100, 3, 6, seeded())
    lengths = (line.y != NONE).sum(dim=1)
    assert line.y.shape == (N, 6) and torch.equal(line.y[:, 0], unique + 100)
    assert torch.bincount(lengths, minlength=8)[[2, 7]].sum() == 0 and torch.bincount(lengths)[3:].min() > 0.19 * N
    for k in range(6):
        cell = line.images[..., 4 + PITCH * k : 4 + PITCH * (k + 1)]
        there = line.y[:, k] != NONE
        assert torch.equal(there, k < lengths)
        assert torch.equal(cell[there], images[line.y[there, k] - 100][..., 4:24])
        assert (cell[~there] == 0).all()
    torch.testing.assert_close(line.half, 10.0 * lengths)
    torch.testing.assert_close(middle((line.images > 0).float()) + 0.5 - 64, line.shift, atol=0.5, rtol=0)


@pytest.mark.parametrize("name", ("strings", "curved"))
def test_digits_stand_as_y_says(name: str) -> None:
    """Draw each digit alone in white: from left to right, the digits are in the order of y."""
    whole = drawn(name, torch.ones(N))
    places = []
    for digit in range(10):
        part = drawn(name, (LABELS == digit).float())
        assert torch.equal(part.y, whole.y)
        assert torch.equal((part.x.amax(dim=(1, 2, 3)) > 0.5), (whole.y == digit).any(dim=1))
        places.append(middle(part.x))
    ordered = torch.stack(places, dim=1)  # (N, 10)
    checked = 0
    for digits, where in zip(whole.y.tolist(), ordered, strict=True):
        string = [digit for digit in digits if digit != NONE]
        if len(set(string)) == len(string):
            assert (where[string].diff() > 0).all(), string
            checked += len(string) > 2
    assert checked > N / 4


def test_house_numbers_have_the_pitch_of_their_digits() -> None:
    whole = drawn("strings", torch.ones(N))
    first = drawn("strings", (LABELS == 0).float())
    once = (whole.y == 0).sum(dim=1) == 1
    length = (whole.y[once] != NONE).sum(dim=1)
    place = (whole.y[once] == 0).int().argmax(dim=1) - (length - 1) / 2
    side = (whole.x[once].sum(dim=(1, 2, 3)) / length).sqrt()  # pixels per digit
    moved = middle(first.x[once]) - middle(whole.x[once])
    assert (moved / side - place).abs().max() < 0.15  # rotated by 15 degrees, a distance of 2 digits becomes 1.93


def test_house_numbers_lie_inside_and_anywhere() -> None:
    x, y, _ = drawn("strings", torch.ones(N))
    lit = x[:, 0] > 0.3
    assert not lit[:, 0].any() and not lit[:, -1].any() and not lit[..., 0].any() and not lit[..., -1].any()
    length = (y != NONE).sum(dim=1)
    assert length.unique().tolist() == [1, 2, 3, 4, 5]
    digit = (x.sum(dim=(1, 2, 3)) / length).sqrt()  # side of a digit in pixels
    assert 29 < digit.max() < 30.5 and 6.5 < digit.min() < 8
    rows, columns = lit.any(dim=2).float().argmax(dim=1), lit.any(dim=1).float().argmax(dim=1)
    assert rows.min() <= 4 and rows.max() >= 45 and columns.min() <= 4 and columns.max() >= 32


def test_a_word_image_is_cut_around_its_string() -> None:
    x, y, _ = drawn("curved", torch.ones(N))
    lit = x[:, 0] > 0.3
    for share in (lit.any(dim=1).sum(dim=1) / 200, lit.any(dim=2).sum(dim=1) / 64):
        assert 0.82 < share.min() < 0.87 and share.max() > 0.98
    assert ((y != NONE).sum(dim=1)).unique().tolist() == [3, 4, 5, 6]
    rows = torch.arange(64.0)[:, None]
    heights = ((x[:, 0] * rows).sum(dim=1) / x[:, 0].sum(dim=1).clamp_min(1e-3)).unflatten(1, (5, 40)).mean(dim=2)  # (N, 5)
    sag = heights[:, 2] - heights[:, [0, 4]].mean(dim=1)  # the center below the ends, in pixels
    assert sag.max() > 8 and sag.min() < -8 and (sag.abs() > 3).float().mean() > 0.5
    strokes = x[:, 0].sum(dim=1)
    ratio = strokes[:, 20:60].sum(dim=1) / strokes[:, 140:180].sum(dim=1)  # ratio of the strokes' thickness at the ends
    assert ratio.max() > 1.8 and ratio.min() < 1 / 1.8


def bends(n: int) -> Bend:
    generator = seeded()
    curvature, angle = (torch.rand(n, 1, 1, generator=generator, dtype=torch.float64) - 0.5 for _ in range(2))
    slant = torch.rand(n, 2, 1, 1, generator=generator, dtype=torch.float64) - 0.5
    curvature[0] = 0  # a straight line
    return Bend(curvature / 15, angle, slant / 80)


def test_a_bend_and_its_inverse() -> None:
    bend = bends(50)
    along, down = torch.linspace(-30, 30, 13, dtype=torch.float64), torch.linspace(-10, 10, 5, dtype=torch.float64)[:, None]
    x, y = bend.forward(along, down)
    assert x.shape == (50, 5, 13)
    back = bend.inverse(x, y)
    torch.testing.assert_close(back[0], along.expand_as(x), atol=1e-6, rtol=0)
    torch.testing.assert_close(back[1], down.expand_as(x), atol=1e-6, rtol=0)
    low, high = bend.box(torch.full((50,), 30.0, dtype=torch.float64))
    for p, a, b in zip((x, y), low.T, high.T, strict=True):
        assert (p.amin(dim=(1, 2)) >= a - 0.2).all() and (p.amax(dim=(1, 2)) <= b + 0.2).all()


def test_an_arc_keeps_lengths_along_its_middle() -> None:
    curvature = torch.tensor([1 / 20, -1 / 20])[:, None, None]
    flat = torch.zeros(2, 1, 1)
    arc = Bend(curvature, flat, torch.zeros(2, 2, 1, 1))
    x, y = arc.forward(torch.linspace(-30, 30, 301), torch.zeros(1, 1))
    steps = torch.hypot(x.diff(dim=-1), y.diff(dim=-1))
    torch.testing.assert_close(steps, torch.full_like(steps, 0.2), atol=1e-3, rtol=0)
    assert y[0, 0, 0] > 10 and y[1, 0, 0] < -10  # positive: the ends are lower than the center
    angle = Bend(flat, torch.full((2, 1, 1), 0.3), torch.zeros(2, 2, 1, 1)).forward(
        torch.tensor([[10.0]]), torch.zeros(1, 1)
    )
    assert angle[1][0].item() == pytest.approx(10 * torch.tensor(0.3).sin().item(), abs=1e-2)
