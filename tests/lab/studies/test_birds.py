"""The study of looks at photographs of birds: its measure, its networks, its rows."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from stn import InputError
from stn.lab.networks.birds import LOCALIZERS, LOOK, SIDE, BirdNetwork, Moments
from stn.lab.studies import birds
from stn.lab.studies.birds import best_center_crop, ends, held_out, overlap, photographs
from tests.helpers import seeded
from tests.lab.data.test_cub import make


def test_the_overlap_is_that_of_areas_inside_the_photograph() -> None:
    looks = torch.tensor([[-1.0, -1, 1, 1], [0, 0, 1, 1], [-0.5, -0.5, 0.5, 0.5], [-3, -1, 0, 1]])
    boxes = torch.tensor([[-1.0, -1, 0, 1], [-1, -1, 0, 0], [-0.5, -0.5, 0.5, 0.5], [-1, -1, 0, 1]])
    assert overlap(looks, boxes).tolist() == [0.5, 0, 1, 1]
    assert best_center_crop(torch.tensor([[-0.7, -0.7, 0.7, 0.7]])) == 0.7


@pytest.mark.parametrize("family, square", (("attention", True), ("anisotropic_scale", False)))
def test_a_map_that_is_even_over_a_box_gives_the_box(family: str, square: bool) -> None:
    evidence = torch.full((1, 1, 24, 24), -50.0)
    evidence[..., 6:18, 12:20] = 3  # 12 rows and 8 columns: x from 0 to 2/3, y from -1/2 to 1/2
    half = torch.tensor([1 / 3, 1 / 2]) * torch.tensor([1 - 1 / 64, 1 - 1 / 144]).sqrt()  # of 8 and 12 places
    half = half.prod().sqrt().expand(1) if square else half
    theta = Moments(family, 1.0)(evidence)
    torch.testing.assert_close(theta[0], torch.cat([half, torch.tensor([1 / 3, 0.0])]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("localizer", LOCALIZERS)
def test_every_look_starts_at_the_center_and_only_a_learned_one_has_a_gradient(localizer: str) -> None:
    network = BirdNetwork(3, localizer, scale=0.8)
    x = torch.rand(4, 3, SIDE, SIDE, generator=seeded())
    seen = network(x)
    assert seen.logits.shape == (4, 3) and (seen.evidence is None) == (localizer in ("none", "dense"))
    expected = torch.tensor([-0.8, -0.8, 0.8, 0.8]).expand(4, 4)
    torch.testing.assert_close(ends(seen.warp), expected, atol=7e-3, rtol=0)  # 8 places have a variance 1/64 below a box's
    seen.logits.square().sum().backward()
    learned = [p.grad for name, p in network.named_parameters() if name.startswith(("map", "look."))]
    assert any(grad is not None and grad.abs().sum() > 0 for grad in learned) == (localizer != "none")
    assert network.look.size == (LOOK, LOOK)


def test_the_limits_are_those_of_looks_that_read_the_boxes() -> None:
    boxes = torch.tensor([[-0.5, -0.5, 0.5, 0.5], [0, -0.25, 1, 0.25]])  # one in the middle, one twice as wide as high
    crop, placed, sized, both = (row["iou"] for row in birds.bounds(boxes, 0.5))
    half = 0.125**0.5  # of the side of a square with the area of the second box
    assert placed == pytest.approx((1 + 0.5 / 1) / 2) and crop == pytest.approx((1 + 0.25 / 1.25) / 2)
    assert both == pytest.approx((1 + half / (1 - half)) / 2)
    assert sized == pytest.approx((1 + half * 0.5 / (1 - half * 0.5)) / 2)


def test_unknown_networks_are_refused() -> None:
    with pytest.raises(InputError, match="localizer must be one of dense, none, own"):
        BirdNetwork(3, "cam")
    with pytest.raises(InputError, match="family must be one of"):
        BirdNetwork(3, family="affine")


def test_a_third_of_each_class_is_held_out() -> None:
    labels = torch.arange(90) % 9
    folds = torch.stack([held_out(labels, fold) for fold in range(3)])
    assert (folds.sum(dim=0) == 1).all()
    assert all((labels[fold].bincount(minlength=9) - 10 / 3).abs().max() < 1 for fold in folds)


def test_boxes_are_of_the_middle_square(tmp_path: Path) -> None:
    """Images are 48x40 and their boxes x 4.5, y 3, 20 wide, 30.5 high: the square is 40 pixels, from x = 4 on."""
    train, test = photographs(make(tmp_path))
    assert train.images.shape == (36, 3, SIDE, SIDE) and len(test.labels) == 36
    expected = torch.tensor([0.5, 3, 20.5, 33.5]) / 20 - 1
    # the resized width is rounded to a pixel of 64
    torch.testing.assert_close(train.boxes, expected.expand(36, 4), atol=0.02, rtol=0)


def test_a_call_continues_after_the_rows_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = dataclasses.replace(birds.CHOSEN, epochs=1)
    monkeypatch.setattr(birds, "CHOSEN", quick)
    monkeypatch.setattr(birds, "ATTEMPTS", {"chosen": quick})
    root, out = make(tmp_path / "data"), tmp_path / "birds"
    birds.main(root, out, 1, True)
    rows = [json.loads(line) for line in (tmp_path / "birds.jsonl").read_text().splitlines()]
    rows_of_runs = [row for row in rows if row["split"] != "boxes"]
    assert [(row["cell"], row["split"]) for row in rows_of_runs] == [
        ("chosen", "held out"),
        *((name, "test") for name in (birds.WHOLE, birds.CENTER, birds.LOOK)),
    ]
    assert rows_of_runs[1]["scale"] == pytest.approx(1) and 0 < rows_of_runs[3]["iou"] < 1
    assert (tmp_path / "birds.md").read_text() == birds.markdown(rows)
    monkeypatch.setattr(birds, "trained", lambda *args: pytest.fail("trained again"))
    birds.main(root, out, 1, True)
