"""The adapter for torchvision. Its geometry is tested by itself; the class with torchvision, or else with a stub of it."""

import importlib
import importlib.util
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

import stn
from stn.transforms.one import warp_boxes, warp_key_points, warp_labels, warp_pixels
from tests import torchvision_stub
from tests.helpers import noise, seeded

IN, OUT = (60, 80), (50, 72)
WARP = stn.Affine()(torch.tensor([[0.8, 0.3, 0.1, -0.2, 0.9, 0.2]]).double())


@pytest.fixture
def vision(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    if importlib.util.find_spec("torchvision") is None:
        for name, module in torchvision_stub.modules().items():
            monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "stn.vision", raising=False)
    yield importlib.import_module("stn.vision")
    sys.modules.pop("stn.vision", None)


# ---- formats of boxes ----


def in_every_format(x: float, y: float, w: float, h: float, degrees: float) -> dict[str, Tensor]:
    """Return one turned box, (x, y) its center, as torchvision documents its formats."""
    r = math.radians(degrees)  # counterclockwise to the eye, so that the width points up
    along, down = torch.tensor([math.cos(r), -math.sin(r)]) * w / 2, torch.tensor([math.sin(r), math.cos(r)]) * h / 2
    center = torch.tensor([x, y])
    corners = [center - along - down, center + along - down, center + along + down, center - along + down]
    found = {"CXCYWHR": [x, y, w, h, degrees], "XYWHR": [*corners[0].tolist(), w, h, degrees]}
    found["XYXYXYXY"] = torch.cat(corners).tolist()
    return {name: torch.tensor([numbers], dtype=torch.float64) for name, numbers in found.items()}


def test_turned_formats_are_one_box() -> None:
    given = in_every_format(30.0, 25.0, 20.0, 10.0, 35.0)
    turned = {name: warp_boxes(WARP, box, name, IN, OUT, clip=False, align_corners=False) for name, box in given.items()}
    x, y, w, h, degrees = turned["CXCYWHR"][0].tolist()
    for name, expected in in_every_format(x, y, w, h, degrees).items():
        torch.testing.assert_close(turned[name], expected, atol=1e-5, rtol=0)
    corners = given["XYXYXYXY"].view(4, 2) - 0.5
    moved = WARP.inverse().points(corners, pixels=(OUT, IN))[0] + 0.5
    hull = warp_boxes(WARP, given["CXCYWHR"], "CXCYWHR", IN, OUT, clip=False, align_corners=False)
    low, high = (getattr(turned["XYXYXYXY"].view(4, 2), name)(dim=0) for name in ("amin", "amax"))
    assert (moved >= low - 1e-3).all() and (moved <= high + 1e-3).all() and hull.shape == (1, 5)


def test_a_turn_changes_the_angle_of_a_box() -> None:
    """torchvision's angles grow counterclockwise; the content turns by the inverse of the warp's clockwise look."""
    warp = stn.Rigid()(torch.tensor([[math.radians(20.0), 0.0, 0.0]]).double())
    box = torch.tensor([[40.0, 40.0, 20.0, 10.0, 35.0]])
    found = warp_boxes(warp, box, "CXCYWHR", (80, 80), (80, 80), clip=False, align_corners=False)
    torch.testing.assert_close(found, torch.tensor([[40.0, 40.0, 20.0, 10.0, 55.0]]), atol=1e-4, rtol=0)


def test_upright_formats_are_one_box() -> None:
    corners = torch.tensor([[10.0, 12.0, 40.0, 30.0]])
    found = warp_boxes(WARP, corners, "XYXY", IN, OUT, clip=True, align_corners=False)
    low, high = found[:, :2], found[:, 2:]
    corner = warp_boxes(WARP, torch.tensor([[10.0, 12.0, 30.0, 18.0]]), "XYWH", IN, OUT, clip=True, align_corners=False)
    torch.testing.assert_close(corner, torch.cat([low, high - low], dim=1), atol=1e-4, rtol=0)
    center = warp_boxes(WARP, torch.tensor([[25.0, 21.0, 30.0, 18.0]]), "CXCYWH", IN, OUT, clip=True, align_corners=False)
    torch.testing.assert_close(center, torch.cat([(low + high) / 2, high - low], dim=1), atol=1e-4, rtol=0)
    integers = warp_boxes(WARP, corners.long(), "XYXY", IN, OUT, clip=True, align_corners=False)
    assert integers.dtype == torch.int64 and torch.equal(integers, found.round().long())
    direct = WARP.apply(boxes=corners.double(), in_size=IN, size=OUT, clip=True).boxes
    assert direct is not None
    torch.testing.assert_close(found.double(), direct[0], atol=1e-5, rtol=0)
    with pytest.raises(stn.InputError, match="format must be one of CXCYWH, CXCYWHR, .*; got 'xyxy'"):
        warp_boxes(WARP, corners, "xyxy", IN, OUT, clip=True, align_corners=False)


# ---- pixels, labels, key points ----


def test_pixels_of_images_and_videos() -> None:
    image = torch.randint(0, 256, (5, 3, *IN), dtype=torch.uint8, generator=seeded())
    found = warp_pixels(WARP, image, OUT, {"mode": "nearest"})
    assert found.shape == (5, 3, *OUT) and found.dtype == torch.uint8
    frames = torch.cat([WARP.sample(frame[None], OUT, mode="nearest") for frame in image])
    assert torch.equal(found, frames)
    deep = warp_pixels(WARP, image[0].to(torch.int32) * 1000, OUT, {"mode": "nearest"})
    assert deep.dtype == torch.int32 and torch.equal(deep, found[0].to(torch.int32) * 1000)
    labels = warp_labels(WARP, image[:, 0].bool(), OUT, 1, {"mode": "bicubic"})
    assert labels.dtype == torch.bool and labels.shape == (5, *OUT)


def test_key_points() -> None:
    points = 30 + 8 * noise(3, 4, 2)
    found = warp_key_points(WARP, points, IN, OUT, False)
    torch.testing.assert_close(WARP.points(found.view(-1, 2), pixels=(IN, OUT))[0], points.view(-1, 2), atol=1e-9, rtol=0)
    rounded = warp_key_points(WARP, points.round().long(), IN, OUT, False)
    assert rounded.dtype == torch.int64 and (rounded - found).abs().max() < 2


# ---- the class ----


def test_a_sample_moves_as_one(vision: ModuleType) -> None:
    tensors = vision.tv_tensors
    spots = torch.tensor([[20.0, 25.0], [50.0, 30.0]])
    image = torch.zeros(1, *IN)
    for x, y in spots.long().tolist():
        image[0, y - 1 : y + 2, x - 1 : x + 2] = 1
    sample = {
        "image": tensors.Image(image),
        "masks": tensors.Mask(image.bool()),
        "boxes": tensors.BoundingBoxes(torch.cat([spots - 1, spots + 2], dim=1), format="XYXY", canvas_size=IN),
        "points": tensors.KeyPoints(spots, canvas_size=IN),
        "label": 7,
        "numbers": torch.arange(3),
    }
    ranges = {"scale": (0.8, 0.9), "angle": (-0.3, 0.3), "translation": (-0.1, 0.1)}
    torch.manual_seed(0)
    augment = vision.RandomWarp(stn.Similarity(), ranges, OUT)
    first, second = augment(sample), augment(sample)
    for out in (first, second):
        assert {name: type(value) for name, value in out.items()} == {name: type(value) for name, value in sample.items()}
        assert out["label"] == 7 and torch.equal(out["numbers"], torch.arange(3))
        assert out["image"].shape == (1, *OUT) and out["masks"].dtype == torch.bool
        assert out["boxes"].canvas_size == OUT and out["points"].canvas_size == OUT
        pixels = out["image"].as_subclass(Tensor)[0]
        for (x, y), box in zip(out["points"].tolist(), out["boxes"].tolist(), strict=True):
            v, u = torch.meshgrid(torch.arange(OUT[0]), torch.arange(OUT[1]), indexing="ij")
            near = pixels * ((v - y).abs() + (u - x).abs() < 8)
            center = torch.stack([(near * u).sum(), (near * v).sum()]) / near.sum()
            assert (center - torch.tensor([x, y])).norm() < 0.1
            assert box[0] < x + 0.5 < box[2] and box[1] < y + 0.5 < box[3]
    assert not torch.equal(first["image"], second["image"])


def test_one_tensor_is_an_image(vision: ModuleType) -> None:
    image = torch.randint(0, 256, (3, *IN), dtype=torch.uint8, generator=seeded())
    found = vision.RandomWarp("translation", {"translation": [(0.5, 0.5), None]}, mode="nearest")(image)
    assert type(found) is Tensor and torch.equal(found[:, :, :60], image[:, :, 20:])


def test_what_it_refuses(vision: ModuleType) -> None:
    with pytest.raises(stn.InputError, match="ranges must be one of angle, translation; got 'scale'"):
        vision.RandomWarp("rigid", {"scale": (0.5, 1)})
    with pytest.raises(stn.InputError, match=r"angle must be a range \(low, high\), finite and in this order; got \(1, 0\)"):
        vision.RandomWarp("rigid", {"angle": (1, 0)})
    with pytest.raises(stn.InputError, match="mode must be one of"):
        vision.RandomWarp("rigid", {}, mode="linear")
    two = (vision.tv_tensors.Image(torch.zeros(1, 4, 4)), vision.tv_tensors.Mask(torch.zeros(4, 5)))
    with pytest.raises(stn.InputError, match=r"must have one size \(H, W\) .*; got \(4, 4\), \(4, 5\)"):
        vision.RandomWarp("rigid", {})(two)


def test_the_call_on_the_page_works(vision: ModuleType) -> None:
    page = (Path(__file__).parents[1] / "docs" / "augmentation.md").read_text()
    ranges, call = (
        re.search(r"^ranges = (.*)$", page, re.MULTILINE),
        re.search(r"stn\.vision\.(RandomWarp\(.*\)),$", page, re.MULTILINE),
    )
    assert ranges and call
    augment = eval(call[1], {"RandomWarp": vision.RandomWarp, "ranges": eval(ranges[1])})
    assert augment(torch.zeros(3, *IN)).shape == (3, 224, 224)


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed")
def test_without_torchvision_there_is_a_sentence() -> None:
    code = "import stn, sys\nassert 'stn.vision' not in sys.modules\nimport stn.vision"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ImportError: stn.vision needs the package torchvision: pip install torchvision" in done.stderr
