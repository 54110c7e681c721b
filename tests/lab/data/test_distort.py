"""The paper's distortions are pure and reproducible, and stay within their ranges."""

import math

import pytest
import torch
from torch import Tensor

from stn.lab.data import DISTORTIONS
from stn.lab.data.distort import elastic, moved, projected, rotated, rotated_scaled_translated, translated_cluttered
from tests.helpers import seeded

Y, X = torch.meshgrid(torch.arange(28) - 13.5, torch.arange(28) - 13.5, indexing="ij")
BLOB = torch.exp(-(X**2 + Y**2) / 18).expand(400, 1, 28, 28)  # centered, the same for all images
BAR = torch.exp(-(Y**2) / 4 - (X - 4) ** 2 / 24).expand(400, 1, 28, 28)  # from the center to the right


def centroid(images: Tensor) -> Tensor:
    """Return the centroid (N, 2) in pixels from the center of the canvas."""
    n = images.shape[-1]
    at = torch.arange(n) - (n - 1) / 2
    mass = images[:, 0] / images[:, 0].sum(dim=(1, 2), keepdim=True)
    return torch.stack([(mass * at).sum(dim=(1, 2)), (mass * at[:, None]).sum(dim=(1, 2))], dim=1)


@pytest.mark.parametrize("name", DISTORTIONS)
def test_pure_and_reproducible(name: str) -> None:
    apply, side = DISTORTIONS[name]
    images = torch.rand(12, 1, 28, 28, generator=seeded(9))
    before = images.clone()
    first = apply(images, seeded(1))
    assert first.shape == (12, 1, side, side) and first.dtype == torch.float32
    assert first.min() >= 0 and first.max() <= 1 and first.std() > 0.05
    assert torch.equal(first, apply(images, seeded(1))) and torch.equal(images, before)
    if name != "none":
        assert not torch.equal(first, apply(images, seeded(2)))
        assert not torch.equal(first[0], apply(images[:1].expand(2, -1, -1, -1), seeded(1))[1])
    assert apply(images[:0], seeded()).shape == (0, 1, side, side)
    assert apply(images[:1], seeded()).shape == (1, 1, side, side)


def test_r_turns_by_up_to_a_right_angle_either_way() -> None:
    xy = centroid(rotated(BAR, seeded()))
    angle = torch.atan2(xy[:, 1], xy[:, 0])
    assert angle.abs().max() < math.radians(91) and angle.max() > 1.4 and angle.min() < -1.4
    radius = xy.norm(dim=1)
    torch.testing.assert_close(radius, torch.full_like(radius, float(centroid(BAR)[0].norm())), atol=0.1, rtol=0)


def test_rts_places_the_whole_digit_in_the_canvas() -> None:
    out = rotated_scaled_translated(BLOB, seeded())
    area = out.sum(dim=(1, 2, 3)) / BLOB[0].sum()
    assert 0.48 < area.min() < 0.55 and 1.35 < area.max() < 1.45  # scale 0.7 to 1.2, squared
    xy = centroid(out)
    reach = 21 - area.sqrt() * 14
    assert (xy.abs() <= reach[:, None] + 0.1).all()
    assert xy.abs().max() > 9  # small digits reach the edges of the canvas
    turned = centroid(rotated_scaled_translated(BAR, seeded())) - xy
    angle = torch.atan2(turned[:, 1], turned[:, 0])
    assert angle.abs().max() < math.radians(46) and angle.abs().max() > math.radians(43)


def test_p_scales_and_tilts() -> None:
    out = projected(BLOB, seeded())
    assert (centroid(out).std(dim=0) > 1).all()
    line = (X.abs() < 1.5).float().expand(400, 1, 28, 28)
    tilted = projected(line, seeded())
    straight = []
    for image in tilted[:, 0]:
        rows = image[7:21]
        if (rows.sum(dim=1) > 1).all():
            at = (rows * torch.arange(28.0)).sum(dim=1) / rows.sum(dim=1)
            straight.append(at.diff(n=2).abs().max())
    assert len(straight) > 200 and torch.stack(straight).median() < 0.25  # straight lines stay straight


def test_e_bends_and_shrinks() -> None:
    out = elastic(BLOB, seeded())
    area = out.sum(dim=(1, 2, 3)) / BLOB[0].sum()
    assert 0.7 < area.median() < 0.85  # scale 0.75 to 1, squared, on average
    line = (X.abs() < 1.5).float().expand(400, 1, 28, 28)
    rows = elastic(line, seeded())[:, 0, 8:20]
    at = (rows * torch.arange(28.0)).sum(dim=2) / rows.sum(dim=2).clamp_min(1)
    assert at.diff(n=2, dim=1).abs().amax(dim=1).median() > 0.1  # straight lines become curved


def test_tc_adds_six_patches_of_other_digits() -> None:
    images = torch.zeros(50, 1, 28, 28)
    alone = images.clone()
    alone[0] = 1.0  # one white digit: other images get patches of this digit or of black ones
    out = translated_cluttered(alone, seeded())
    clutter = out[1:].sum(dim=(1, 2, 3))
    assert (clutter <= 6 * 36).all() and clutter.max() > 0
    assert (out[0].sum() - 28 * 28).abs() < 1  # it gets no patch of its own
    white = translated_cluttered(torch.ones(50, 1, 28, 28), seeded())
    assert (white.sum(dim=(1, 2, 3)) <= 28 * 28 + 6 * 36 + 1).all()
    digit = translated_cluttered(BLOB[:1], seeded())  # in a batch of one, the patches come from the image itself
    assert digit.shape == (1, 1, 60, 60) and digit.max() > 0.9


def test_tc_places_the_digit_anywhere() -> None:
    lonely = torch.cat([BLOB[:1], torch.zeros(1, 1, 28, 28)])
    xy = torch.cat([centroid(translated_cluttered(lonely, seeded(n))[:1]) for n in range(100)])
    assert xy.abs().max() < 16.2 and (xy.amax(dim=0) > 12).all() and (xy.amin(dim=0) < -12).all()


def test_moved_is_nearly_right() -> None:
    out = moved(BLOB, seeded())
    area = out.sum(dim=(1, 2, 3)) / BLOB[0].sum()
    assert 0.48 < area.min() < 0.55 and 1.35 < area.max() < 1.45  # scale 0.7 to 1.2, squared
    xy = centroid(out)
    assert 3.8 < xy.abs().max() < 4.1 and xy.mean(dim=0).abs().max() < 0.4
    among = moved(BLOB, seeded(), patches=2)
    assert (among >= out).all() and (among > out).flatten(1).any(dim=1).float().mean() > 0.9
