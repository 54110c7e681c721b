"""Co-localization runs: their results, their files, and how they continue after an interruption."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from stn import InputError
from stn.lab.data import as_float, load_digits
from stn.lab.experiments.search import Search, _shifted, find
from stn.lab.figures import draw_found
from stn.lab.networks import Codes
from stn.lab.tables import colocalization
from stn.lab.tables.colocalization import found_in, found_name, markdown, reproduce_colocalization, searches
from tests.helpers import seeded

DIGITS = load_digits().train
SMALL = Search("translated_84", 1, images=12, steps=3)


def shared(box: list[float], other: list[float]) -> float:
    """Return the intersection over union of two boxes, by plain arithmetic."""
    width, height = (min(box[i + 2], other[i + 2]) - max(box[i], other[i]) for i in range(2))
    overlap = max(width, 0) * max(height, 0)
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (box, other)]
    return overlap / (sum(areas) - overlap)


@pytest.fixture(scope="module")
def encoder() -> Codes:
    """Return features that show the position of ink: a reduced image."""
    return Codes(nn.Sequential(nn.AvgPool2d(4), nn.Flatten()), as_float(DIGITS.images[:50]))


def test_a_search_sees_one_class_and_gives_boxes_inside_the_image(encoder: Codes) -> None:
    row, example, boxes = find(SMALL, DIGITS, encoder)
    assert example.x.shape == (12, 1, 84, 84) and (example.y == 1).all() and boxes.shape == (12, 4)
    assert boxes.abs().max() <= 1 + 1e-5
    torch.testing.assert_close(boxes[:, 2:] - boxes[:, :2], torch.full((12, 2), 2 / 3))  # the size of the digit
    assert row["cell"] == "translated/1" and row["search"] == SMALL.settings()
    assert example.boxes is not None
    ious = [shared(*pair) for pair in zip(boxes.tolist(), example.boxes[:, 0].tolist(), strict=True)]
    assert row["iou"] == pytest.approx(sum(ious) / 12, rel=1e-5) and 0 < row["iou"] < 1
    assert row["found_percent"] == pytest.approx(100 * sum(iou > 0.5 for iou in ious) / 12, rel=1e-5)
    again = find(SMALL, DIGITS, encoder)
    assert torch.equal(again.boxes, boxes) and again.row["loss"] == row["loss"]
    other = find(dataclasses.replace(SMALL, seed=1), DIGITS, encoder)
    assert not torch.equal(other.example.x, example.x)


def test_a_search_learns(encoder: Codes) -> None:
    found = [find(dataclasses.replace(SMALL, images=40, steps=n, shift=6), DIGITS, encoder).row for n in (2, 120)]
    assert found[1]["iou"] > 2 * found[0]["iou"] and found[1]["loss"] < found[0]["loss"]


def test_shifted_images_are_moved_by_whole_pixels() -> None:
    images = torch.rand(200, 1, 9, 12, generator=seeded())
    moved = _shifted(images, 2, seeded())
    seen = set()
    for image, there in zip(images, moved, strict=True):
        padded = nn.functional.pad(image, (2, 2, 2, 2))[0]
        places = [(y, x) for y in range(5) for x in range(5) if torch.equal(padded[y : y + 9, x : x + 12], there[0])]
        assert len(places) == 1
        seen.update(places)
    assert len(seen) == 25
    assert torch.equal(_shifted(images, 0, seeded()), images)


def test_the_table_goes_on_where_it_was(
    encoder: Codes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(colocalization, "codes", lambda *args, **kwargs: encoder)
    calls = []

    def quick(search: Search, *rest: object) -> object:
        calls.append(search.name)
        row, example, boxes = find(dataclasses.replace(search, images=5, steps=2), DIGITS, encoder)
        return colocalization.Found(row | {"search": search.settings()}, example, boxes)

    monkeypatch.setattr(colocalization, "find", quick)
    out, runs = tmp_path / "out", tmp_path / "runs"
    for cells in (["*/1"], ["translated/*"]):
        rows = reproduce_colocalization(root=None, out=out, runs=runs, data="digits", cells=cells)
    assert sorted(calls) == sorted(["translated/1", "cluttered/1", *(f"translated/{d}" for d in range(10) if d != 1)])
    assert [json.loads(line) for line in out.with_suffix(".jsonl").read_text().splitlines()] == rows and len(rows) == 11
    example, looks = found_in(runs / found_name(Search("cluttered_84", 1)))
    assert example.x.shape == (5, 1, 84, 84) and example.x.max() <= 1 and looks.shape == (5, 4)
    picture = draw_found(runs, tmp_path / "found.png")
    assert picture is not None and picture.stat().st_size > 5000 and draw_found(tmp_path, tmp_path / "none.png") is None
    lines = out.with_suffix(".md").read_text().splitlines()
    found = {row["cell"]: row["found_percent"] for row in rows}
    alone = [found[f"translated/{digit}"] for digit in range(10)]
    table = [*(f"{percent:.0f}" for percent in alone), f"**{sum(alone) / 10:.1f}**", "100"]
    assert f"| translated | {' | '.join(table)} |" in lines
    cluttered = ["–", f"{found['cluttered/1']:.0f}", *"––––––––", f"**{found['cluttered/1']:.1f}**", "75 to 93 by digit"]
    assert f"| among clutter | {' | '.join(cluttered)} |" in lines
    assert "![Images, the digit's frame and the look](out.png)" in lines
    details = [line.split(" | ") for line in lines if line.startswith(("| translated/", "| cluttered/"))]
    assert [(cell.removeprefix("| "), percent) for cell, _, percent, *_ in details] == [
        (cell, f"{percent:.0f}") for cell, percent in found.items()
    ]
    old = rows[0] | {"search": rows[0]["search"] | {"lr": 1.0}}
    out.with_suffix(".jsonl").write_text(json.dumps(old) + "\n")
    assert len(reproduce_colocalization(root=None, out=out, runs=runs, data="digits", cells=["cluttered/1"])) == 1


def test_the_mean_is_over_digits() -> None:
    rows = [
        {"cell": "cluttered/0", "search": Search("cluttered_84", 0, seed).settings(), "found_percent": found}
        | {"iou": 0.5, "loss": 0.1, "seconds": 1.0, "machine": "a machine", "threads": 1}
        for seed, found in enumerate((80.0, 90.0))
    ]
    rows.append(rows[0] | {"search": Search("cluttered_84", 1).settings(), "found_percent": 75.0})
    assert "| among clutter | 85 | 75 | – | – | – | – | – | – | – | – | **80.0** | 75 to 93 by digit |" in markdown(rows)


def test_bad_requests() -> None:
    with pytest.raises(InputError, match="cells must be names or patterns among translated/0, .*; got 'mirrored/1'"):
        list(searches(1, ["mirrored/1"]))
    with pytest.raises(InputError, match="seeds must be an integer of at least 1; got 0"):
        reproduce_colocalization(root=None, out=Path("never"), runs=Path("never"), seeds=0)
