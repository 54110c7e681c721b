"""The mistakes of a first day: each gets a sentence that names the argument and says what to pass instead."""

import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import stn

IMAGE = torch.rand(2, 3, 16, 20)
THETA = torch.tensor([[0.9, 0.1, 0.0, -0.1, 0.9, 0.1]]).expand(2, 6)
WARP = stn.Affine()(THETA)
POINTS = torch.tensor([[-0.5, -0.5], [0.5, -0.4], [0.1, 0.6]])
BOXES = torch.tensor([[1.0, 2.0, 5.0, 6.0], [2.0, 1.0, 8.0, 7.0], [3.0, 3.0, 9.0, 12.0]])
SPACE = stn.Space((8, 10))
LAYER = stn.SpatialTransformer.for_input((3, 16, 20), "affine")
TRUNK = stn.SharedTrunkTransformer


def wrong(value: Any) -> Any:
    """Return a value of a wrong type, which a type checker would refuse."""
    return value


# what the user does -> the call, and the sentence
MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "matrix of an array": (
        lambda: stn.Affine().matrix(wrong(THETA.numpy())),
        r"theta must be a torch.Tensor; got ndarray",
    ),
    "matrix of a matrix": (
        lambda: stn.Affine().matrix(THETA.view(2, 2, 3)),
        r"theta must be \(\.\., 6\) for Affine; got \(2, 2, 3\)",
    ),
    "localize one image": (lambda: LAYER.localize(IMAGE[0]), r"x must be \(N, C, H, W\).*pass x\.unsqueeze\(0\)"),
    "localize an array": (lambda: LAYER.localize(wrong(IMAGE.numpy())), r"x must be a torch.Tensor; got ndarray"),
    "localize bytes": (lambda: LAYER.localize(IMAGE.byte()), r"x must have a floating-point dtype.* / 255"),
    "another size": (
        lambda: LAYER(torch.rand(1, 3, 40, 40)),
        r"x must have the size \(16, 20\), for which the localization network was made; got \(1, 3, 40, 40\)",
    ),
    "sample one image": (lambda: WARP.sample(IMAGE[0]), r"image must be \(N, C, H, W\).*pass image\.unsqueeze\(0\)"),
    "boxes without a batch": (
        lambda: stn.from_boxes(BOXES, (16, 20)).sample(IMAGE[:1]),
        r"batch of N = 1.*got a warp of batch \(3,\)\. 3 looks at one image are a batch \(1, 3\)",
    ),
    "boxes of other images": (
        lambda: WARP.apply(image=IMAGE, boxes=BOXES.expand(3, 3, 4)),
        r"boxes must be \(N, P, 4\) for N = 2 images",
    ),
    "another word for boxes": (
        lambda: WARP.apply(image=IMAGE, box=BOXES),  # type: ignore[call-arg]  # the mistake
        r"options must be one of .*boxes.*; got 'box'",
    ),
    "compose with a tensor": (
        lambda: WARP @ wrong(THETA),
        r"must be a Warp, such as stn\.Affine\(\)\(theta\); got Tensor",
    ),
    "invert a tensor": (lambda: stn.InverseWarp(wrong(THETA)), r"warp must be a Warp.*got Tensor"),
    "save to a number": (lambda: WARP.save(wrong(3)), r"path must be the path of a file.*got int"),
    "load a warp": (lambda: stn.load_warp(wrong(WARP)), r"path must be the path of a file.*got MatrixWarp"),
    "write an array as a scan": (lambda: stn.write_nifti(wrong(IMAGE), "x.nii"), r"volume must be a Volume.*got Tensor"),
    "exchange the arguments": (lambda: stn.write_itk(wrong("x.tfm"), "x.tfm", SPACE, SPACE), r"warp must be a Warp"),
    "a scan of another size": (lambda: stn.Volume(IMAGE, SPACE), r"values must be \(1, C, 8, 10\).*got \(2, 3, 16, 20\)"),
    "a pair as a part": (
        lambda: stn.Affine.from_parts(translation=wrong((0.1, 0.2))),
        r"translation must be a number or a torch\.Tensor; got tuple: pass torch\.as_tensor\(translation\)",
    ),
    "a list of points": (
        lambda: stn.ThinPlateSpline(control_points=wrong([[0.0, 0.0], [1.0, 0.0]])),
        r"control_points must be a torch\.Tensor; got list: pass torch\.as_tensor",
    ),
    "a shape without its name": (
        lambda: stn.BSpline(5),
        r"ndim must be 1, 2 or 3 for BSpline; got 5\. Other arguments go by",
    ),
    "parameters for a model": (
        lambda: stn.param_groups(wrong(LAYER.parameters()), lr=0.1, localization_lr=0.1),
        r"model must be a Module.*got generator",
    ),
    "a name for a trunk": (lambda: TRUNK.for_input((3, 8, 8), wrong("affine")), r"trunk must be a Module"),
    "a class for a family": (
        lambda: stn.SpatialTransformer.for_input((3, 16, 20), wrong(stn.Rigid)),
        r"transform must be a family, such as stn\.Rigid\(\), or its name; got the class Rigid",
    ),
    "a class for a transform": (lambda: stn.register(IMAGE, IMAGE, wrong(stn.Affine)), r"such as stn\.Affine\(\)"),
    "export without an example": (lambda: stn.export.to_program(LAYER), r"example must be given"),
    "export an array": (
        lambda: stn.export.to_program(LAYER, wrong(IMAGE.numpy())),
        r"example\[0\] must be a torch\.Tensor",
    ),
    "export to a path": (
        lambda: stn.export.to_program(LAYER, IMAGE, wrong("x.onnx")),
        r"got 'x\.onnx': give the file by its name, path=",
    ),
    "export the example": (lambda: stn.export.to_program(wrong(IMAGE), IMAGE), r"model must be a Module.*got Tensor"),
}
WARNED: dict[str, tuple[Callable[[], Any], str]] = {
    "degrees as a part": (lambda: stn.Affine.from_parts(angle=30), r"angle must be in radians; got 30"),
    "degrees in a tensor": (
        lambda: stn.Affine.from_parts(angle=torch.tensor([0.1, -90.0])),
        r"angle must be in radians; got -90",
    ),
    "degrees to draw": (lambda: stn.Rigid().draw(2, angle=(-30, 30)), r"angle must be in radians"),
    "degrees as a bound": (lambda: stn.bounded(stn.Rigid(), angle=(-30, 30)), r"angle must be in radians"),
    "degrees held": (lambda: stn.fixed(stn.Rigid(), angle=30), r"angle must be in radians"),
    "degrees of a box": (
        lambda: stn.from_boxes(torch.tensor([[5.0, 5.0, 4.0, 2.0, 30.0]]), (16, 20), format="cxcywha"),
        r"the angle of boxes must be in radians; got 30",
    ),
    "normalized boxes": (lambda: stn.from_boxes(BOXES / 20, (16, 20)), r"boxes must be in pixels; got none above 0\.6"),
    "normalized corners": (lambda: stn.from_corners(POINTS[[0, 1, 2, 2]], (16, 20)), r"points must be in pixels"),
    "pixels to fit": (
        lambda: stn.Affine().fit(100 * POINTS, 100 * POINTS),
        r"points must be normalized.*got 60\.0: give pixels=",
    ),
    "pixels as landmarks": (
        lambda: stn.register(IMAGE, IMAGE + 0.01, "translation", landmarks=(20 * POINTS, 20 * POINTS), steps=1),
        r"landmarks must be normalized.*stn\.grid\.pixel_to_normalized",
    ),
    "one image as signals": (
        lambda: stn.register(torch.rand(3, 40, 50), torch.rand(3, 40, 50), "translation", steps=1),
        r"is read as signals \(N, C, L\)\. If it is one image \(C, H, W\), pass fixed\[None\]",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_error_says_what_to_pass(mistake: str) -> None:
    call, sentence = MISTAKES[mistake]
    with pytest.raises((TypeError, ValueError), match=sentence) as raised:
        call()
    assert "\n" not in str(raised.value) and len(str(raised.value)) <= 300


@pytest.mark.parametrize("mistake", WARNED)
def test_a_likely_mistake_warns(mistake: str) -> None:
    call, sentence = WARNED[mistake]
    with pytest.warns(UserWarning, match=sentence):
        call()


def test_usual_values_do_not_warn(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stn.Affine.from_parts(angle=2 * math.pi)
        stn.Rigid().draw(3, angle=(-2 * math.pi, 2 * math.pi))
        stn.from_boxes(BOXES, (16, 20))
        stn.from_boxes(torch.zeros(2, 4), (16, 20))  # a detector that found nothing
        stn.Affine().fit(2 * POINTS, POINTS)
        stn.Affine().fit(100 * POINTS, 90 * POINTS, pixels=((16, 20), (16, 20)))
        stn.register(torch.rand(1, 12, 500), torch.rand(1, 12, 500), "translation", steps=1)
        LAYER(torch.rand(1, 3, 15, 24))  # of as many cells as its dense layer has inputs
        WARP.save(str(tmp_path / "warp.pt"))


def test_the_image_of_apply_needs_no_name() -> None:
    found = WARP.apply(IMAGE, points=torch.ones(1, 2))
    assert found.image is not None and found.image.equal(WARP.sample(IMAGE)) and found.points is not None


def test_a_network_without_a_known_size_takes_any() -> None:
    layer = stn.SpatialTransformer(nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), "affine", features=12)
    assert layer(IMAGE).equal(layer.eval()(IMAGE)) and layer(torch.rand(1, 3, 40, 40)).shape == (1, 3, 40, 40)


@pytest.mark.parametrize("ndim", (2, 3))
def test_boxes_by_corner_width_and_height(ndim: int) -> None:
    first, sides = torch.tensor([1.0, 2.0, 3.0][:ndim]), torch.tensor([4.0, 5.0, 2.0][:ndim])
    size = (9, 8, 7)[-ndim:]
    given = stn.from_boxes(torch.cat([first, sides])[None], size, format="xywh")
    expected = stn.from_boxes(torch.cat([first, first + sides])[None], size)
    assert torch.allclose(given.matrix, expected.matrix) and not torch.allclose(given.matrix, WARP.matrix.new_zeros(()))
    with pytest.warns(UserWarning, match="mirrored.*format='xywh' is first corner, width, height"):
        stn.from_boxes(torch.cat([first, -sides])[None], size, format="xywh")


def test_boxes_by_corner_move_along() -> None:
    corners, own = BOXES, torch.cat([BOXES[:, :2], BOXES[:, 2:] - BOXES[:, :2]], dim=1)
    expected = WARP.apply(boxes=corners, size=(16, 20))
    found = WARP.apply(boxes=own, size=(16, 20), format="xywh")
    assert expected.boxes is not None and found.boxes is not None and found.visible is not None
    assert torch.allclose(found.boxes[..., :2], expected.boxes[..., :2], atol=1e-5)
    assert torch.allclose(found.boxes[..., 2:], expected.boxes[..., 2:] - expected.boxes[..., :2], atol=1e-5)
    assert expected.visible is not None and torch.equal(found.visible, expected.visible)


def test_a_sentence_without_its_hint_is_seen() -> None:
    """The patterns above are not so loose that any message about the argument passes."""
    before = "'numpy.ndarray' object has no attribute 'unflatten'", "image must have 2 spatial dimensions; got (3, 16, 20)"
    assert not any(re.search(sentence, message) for message in before for _, sentence in MISTAKES.values())
    assert np.ndarray.__name__ == "ndarray"
