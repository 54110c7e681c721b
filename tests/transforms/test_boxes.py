"""Warps from boxes and corners: they equal `roi_align` where its definition is the same, OpenCV, and their own corners."""

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

import stn
from tests.helpers import noise

IN, OUT = (40, 56), (6, 8)


def roi_align(image: Tensor, boxes: Tensor, index: Tensor, size: tuple[int, int], ratio: int) -> Tensor:
    """`roi_align(aligned=True)` as torchvision defines it: the mean of ratio x ratio samples in each bin of each box.

    Sample s of bin b is at start + (b + (s + 1/2) / ratio) * width / bins - 1/2. Samples beyond one pixel from the image
    count 0, others are moved onto it.
    """
    found = []
    for box, n in zip(boxes, index, strict=True):
        x1, y1, x2, y2 = box.tolist()
        rows = y1 + (torch.arange(size[0] * ratio).double() + 0.5) / ratio * (y2 - y1) / size[0] - 0.5
        columns = x1 + (torch.arange(size[1] * ratio).double() + 0.5) / ratio * (x2 - x1) / size[1] - 0.5
        value = torch.zeros(image.shape[1], len(rows), len(columns), dtype=image.dtype)
        for i, y in enumerate(rows.tolist()):
            for j, x in enumerate(columns.tolist()):
                if -1 <= y <= image.shape[2] and -1 <= x <= image.shape[3]:
                    value[:, i, j] = bilinear(image[n], y, x)
        found.append(value.unflatten(1, (size[0], ratio)).unflatten(3, (size[1], ratio)).mean(dim=(2, 4)))
    return torch.stack(found)


def bilinear(image: Tensor, y: float, x: float) -> Tensor:
    height, width = image.shape[1:]
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    a, b = min(int(y), height - 2), min(int(x), width - 2)
    v, u = y - a, x - b
    top, bottom = (image[:, r, b] * (1 - u) + image[:, r, b + 1] * u for r in (a, a + 1))
    return top * (1 - v) + bottom * v


BOXES = torch.tensor([[3.2, 5.1, 40.7, 30.3], [10.0, 2.0, 18.0, 38.0], [0.4, 0.6, 55.5, 39.5], [30.0, 20.0, 30.9, 20.5]])
INDEX = torch.tensor([2, 0, 1, 0])  # an order that is not its own inverse


@pytest.mark.parametrize("ratio", (1, 2, 3))
def test_roi_align(ratio: int) -> None:
    """With border padding also where samples fall between the outer pixel centers and the edges, as there."""
    image, boxes = noise(3, 2, *IN), BOXES.double()
    expected = roi_align(image, boxes, INDEX, OUT, ratio)
    warp = stn.from_boxes(boxes, IN, index=INDEX)
    dense = warp.sample(image, [n * ratio for n in OUT], padding_mode="border")
    found = torch.nn.functional.avg_pool2d(dense, ratio)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
    each = stn.from_boxes(boxes.expand(3, 4, 4), IN).sample(image, [n * ratio for n in OUT], padding_mode="border")
    assert torch.equal(each[INDEX, range(4)], dense)


def test_zeros_outside() -> None:
    """Beyond one pixel from the image both are zero."""
    image = noise(1, 1, *IN)
    boxes = torch.tensor([[-30.0, -20.0, 86.0, 60.0]], dtype=torch.float64)
    found = stn.from_boxes(boxes, IN).sample(image, (8, 12))
    expected = roi_align(image, boxes, torch.tensor([0]), (8, 12), 1)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
    assert (expected == 0).float().mean() > 0.5 and expected.abs().max() > 0.5


@pytest.mark.parametrize("angle", (0.0, 0.4, -2.0))
def test_opencv(angle: float) -> None:
    """A turned box is OpenCV's warpAffine of the matrix that takes pixels of the look to pixels of the image."""
    rows, columns = np.mgrid[: IN[0], : IN[1]]
    image = (np.sin(rows / 5) * np.cos(columns / 7)).astype(np.float32)
    cx, cy, w, h = 27.3, 19.1, 20.5, 12.2
    cos, sin = np.cos(angle), np.sin(angle)
    size, fine = (24, 32), (w / 32, h / 24)
    linear = np.array([[cos * fine[0], -sin * fine[1]], [sin * fine[0], cos * fine[1]]])
    offset = np.array([cx - 0.5, cy - 0.5]) - linear @ np.array([15.5, 11.5])
    matrix = np.concatenate([linear, offset[:, None]], axis=1)
    theirs = cv2.warpAffine(image, matrix, size[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    box = torch.tensor([cx, cy, w, h, angle])
    ours = stn.from_boxes(box, IN, format="cxcywha").sample(torch.from_numpy(image)[None, None], size)[0, 0]
    np.testing.assert_allclose(ours.numpy(), theirs, atol=2e-3)  # OpenCV rounds fractions to 1/32
    if angle == 0:
        same = stn.from_boxes(box[:4], IN, format="cxcywh").matrix
        torch.testing.assert_close(same, stn.from_boxes(box, IN, format="cxcywha").matrix)
        corners = torch.tensor([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
        torch.testing.assert_close(stn.from_boxes(corners, IN).matrix, same, atol=1e-6, rtol=0)


def test_boxes_of_pixels_are_slices() -> None:
    image = noise(2, 3, *IN)
    boxes = torch.tensor([[[0, 0, 56, 40], [8, 4, 40, 36]], [[3, 5, 35, 21], [2, 2, 3, 3]]], dtype=torch.float64)
    for n in range(2):
        for k in range(2):
            x1, y1, x2, y2 = boxes[n, k].int().tolist()
            found = stn.from_boxes(boxes, IN).sample(image, (y2 - y1, x2 - x1))[n, k]
            torch.testing.assert_close(found, image[n, :, y1:y2, x1:x2], atol=1e-12, rtol=0)


def test_volumes() -> None:
    image = noise(1, 2, 9, 10, 11)
    boxes = torch.tensor([[2.0, 3.0, 4.0, 8.0, 7.0, 9.0]], dtype=torch.float64)
    found = stn.from_boxes(boxes, (9, 10, 11)).sample(image, (5, 4, 6))
    torch.testing.assert_close(found, image[:, :, 4:9, 3:7, 2:8], atol=1e-12, rtol=0)
    centers = torch.tensor([[5.0, 5.0, 6.5, 6.0, 4.0, 5.0]], dtype=torch.float64)
    same = stn.from_boxes(centers, (9, 10, 11), format="cxcywh")
    torch.testing.assert_close(same.matrix, stn.from_boxes(boxes, (9, 10, 11)).matrix)


def test_derivatives() -> None:
    image = noise(2, 1, *IN)
    boxes = torch.tensor([[20.0, 15.0, 21.0, 12.0, 0.3], [30.0, 20.0, 11.0, 22.0, -1.0]], dtype=torch.float64)

    def run(boxes: Tensor) -> Tensor:
        return stn.from_boxes(boxes, IN, format="cxcywha").sample(image, (3, 4), mode="bicubic")

    def flat(boxes: Tensor) -> Tensor:
        return stn.from_boxes(boxes, IN, index=torch.tensor([1, 1])).sample(image, (3, 4), mode="bicubic")

    assert gradcheck(run, (boxes.requires_grad_(),))
    assert gradcheck(flat, (boxes[:, :4].detach().abs().requires_grad_(),))


# ---- a flat list ----


def test_a_flat_list_is_each_box_of_its_image() -> None:
    image, boxes = noise(3, 2, *IN), BOXES.double()
    warp = stn.from_boxes(boxes, IN, index=INDEX)
    alone = [
        stn.from_boxes(box, IN).sample(image[n : n + 1], OUT, return_mask=True) for box, n in zip(boxes, INDEX, strict=True)
    ]
    found, mask = warp.sample(image, OUT, return_mask=True)
    torch.testing.assert_close(found, torch.cat([part[0] for part in alone]), atol=1e-13, rtol=0)
    torch.testing.assert_close(mask, torch.cat([part[1] for part in alone]), atol=1e-13, rtol=0)
    assert warp.batch == (4,) and warp.grid(OUT).shape == (4, *OUT, 2)
    some = warp[torch.tensor([3, 0])].sample(image, OUT)
    torch.testing.assert_close(some, found[[3, 0]], atol=1e-13, rtol=0)
    graph = torch.func.vmap(lambda one: warp.sample(one, OUT))(image.unsqueeze(0))[0]
    torch.testing.assert_close(graph, found, atol=1e-13, rtol=0)
    none = stn.from_boxes(torch.zeros(0, 4), IN, index=torch.zeros(0, dtype=torch.int64))
    assert none.sample(image.float(), OUT).shape == (0, 2, *OUT)


def test_the_gradient_of_an_image_that_two_boxes_share() -> None:
    image = noise(3, 2, *IN).requires_grad_()
    weights = noise(4, 2, *OUT, seed=2)
    found = stn.from_boxes(BOXES.double(), IN, index=INDEX).sample(image, OUT)
    got = torch.autograd.grad((found * weights).sum(), image)[0]
    copied = stn.from_boxes(BOXES.double(), IN).sample(image[INDEX], OUT)
    torch.testing.assert_close(got, torch.autograd.grad((copied * weights).sum(), image)[0], atol=1e-12, rtol=0)


def test_products_and_the_inverse_keep_the_index(tmp_path: Path) -> None:
    image = noise(3, 2, *IN)
    warp = stn.from_boxes(BOXES.double(), IN, index=INDEX)
    turn = stn.Rigid()(torch.tensor([[0.3, 0.0, 0.0]], dtype=torch.float64))
    bend = stn.BSpline()(0.02 * noise(1, 98))
    for both in (warp @ turn, turn @ warp, warp @ bend, bend @ warp):
        single = (both.warp)[2]  # type: ignore[attr-defined]  # of an indexed warp
        torch.testing.assert_close(both.sample(image, OUT)[2:3], single.sample(image[1:2], OUT), atol=1e-12, rtol=0)
    xy = 0.5 * noise(4, 7, 2)
    torch.testing.assert_close(warp.inverse().points(warp.points(xy)), xy, atol=1e-9, rtol=0)
    warp.save(tmp_path / "warp.pt")
    torch.testing.assert_close(stn.load_warp(tmp_path / "warp.pt").sample(image, OUT), warp.sample(image, OUT))


# ---- corners ----


@pytest.mark.parametrize("align_corners", (False, True))
def test_corners_are_where_they_were_given(align_corners: bool) -> None:
    points = torch.tensor([[[5.0, 6.0], [50.0, 3.0], [45.5, 30.0], [8.0, 35.0]]], dtype=torch.float64)
    warp = stn.from_corners(points, IN, align_corners=align_corners)
    edge = 0.0 if align_corners else 0.5
    corners = torch.tensor([[-edge, -edge], [7 + edge, -edge], [7 + edge, 5 + edge], [-edge, 5 + edge]], dtype=torch.float64)
    found = warp.points(corners, pixels=(IN, OUT), align_corners=align_corners)
    torch.testing.assert_close(found, points, atol=1e-10, rtol=0)
    looks = stn.from_corners(points.expand(2, 3, 4, 2), IN, align_corners=align_corners)
    assert looks.batch == (2, 3)
    assert gradcheck(lambda p: stn.from_corners(p, IN).matrix, (points.requires_grad_(),))


def test_a_plate_from_four_corners() -> None:
    """OpenCV's rectification: getPerspectiveTransform of the corners to a rectangle, then warpPerspective."""
    rows, columns = np.mgrid[:96, :128]
    image = (np.sin(rows / 9) * np.cos(columns / 11)).astype(np.float32)
    corners = torch.tensor([[20.0, 30.0], [80.0, 20.0], [82.0, 45.0], [19.0, 52.0]], dtype=torch.float64)
    size = (24, 72)
    rectangle = np.array([[0, 0], [71, 0], [71, 23], [0, 23]], dtype=np.float32)
    matrix = cv2.getPerspectiveTransform(corners.float().numpy(), rectangle)
    theirs = cv2.warpPerspective(image, matrix, size[::-1], flags=cv2.INTER_LINEAR)
    warp = stn.from_corners(corners, (96, 128), align_corners=True)
    ours = warp.sample(torch.from_numpy(image)[None, None].double(), size, align_corners=True)[0, 0]
    np.testing.assert_allclose(ours.numpy(), theirs, atol=3e-3)  # OpenCV rounds fractions to 1/32
    pixels = warp.to_pixel_matrix((96, 128), size, align_corners=True)[0].numpy()
    np.testing.assert_allclose(pixels, matrix, atol=1e-4, rtol=1e-4)  # and corners to float32


@pytest.mark.parametrize("batch", ((), (2,), (2, 3)))
def test_a_reversed_box_is_named(batch: tuple[int, ...]) -> None:
    """It is a mirrored look, as a matrix with a negative diagonal is. A box without area is none."""
    boxes = torch.tensor([3.0, 2.0, 9.0, 7.0]).repeat(*batch, 1).view(*batch, 4)
    last = (-1,) * len(batch)
    reversed_box = boxes.clone()
    reversed_box[(*last, 0)], reversed_box[(*last, 2)] = 9.0, 3.0
    where = ", ".join(str(n - 1) for n in batch or (1,))
    where = f"({where})" if len(batch) == 2 else where
    with pytest.warns(UserWarning, match=re.escape(f"mirrored, at {where}; format='xyxy' is first corner, second")):
        found = stn.from_boxes(reversed_box, IN)
    image = noise(len(boxes) if batch else 1, 1, *IN).float()
    mirrored, plain = (warp.sample(image, (5, 6)) for warp in (found, stn.from_boxes(boxes, IN)))
    one = (-1,) * max(1, len(batch))
    torch.testing.assert_close(mirrored[one], plain[one].flip(-1), atol=1e-5, rtol=0)
    with pytest.warns(UserWarning, match="format='cxcywh' is center, width, height, positive"):
        stn.from_boxes(torch.tensor([5.0, 5.0, 3.0, -1.0]), IN, format="cxcywh")
    stn.from_boxes(torch.tensor([5.0, 5.0, 5.0, 5.0]), IN)
    stn.from_boxes(reversed_box.requires_grad_(), IN)  # learned boxes may cross on their way


BAD: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "format": (
        lambda: stn.from_boxes(BOXES, IN, format="yxyx"),  # type: ignore[call-overload]  # on purpose
        stn.InputError,
        "format must be one of cxcywh, cxcywha, xywh, xyxy; got 'yxyx'",
    ),
    "numbers": (
        lambda: stn.from_boxes(BOXES, IN, format="cxcywha"),
        stn.InputError,
        r"boxes must be \(n,\), \(N, n\) or \(N, K, n\), n = 5 for format='cxcywha'; got \(4, 4\)",
    ),
    "flat": (
        lambda: stn.from_boxes(BOXES[None], IN, index=INDEX),
        stn.InputError,
        r"boxes must be \(M, n\) with an index, n = 4 or 6 for format='xyxy'; got \(1, 4, 4\)",
    ),
    "size": (lambda: stn.from_boxes(BOXES, (4, 5, 6)), stn.InputError, r"in_size must have 2 lengths; got \(4, 5, 6\)"),
    "index": (
        lambda: stn.from_boxes(BOXES, IN, index=INDEX[:3]),
        stn.InputError,
        r"index must be \(M,\) = \(4,\), one image for each box; got \(3,\)",
    ),
    "images": (
        lambda: stn.from_boxes(BOXES, IN, index=INDEX).sample(torch.zeros(2, 1, *IN)),
        stn.InputError,
        "index must be of N = 2 images, 0 to 1; got 0 to 2",
    ),
    "kind of index": (
        lambda: stn.from_boxes(BOXES, IN, index=INDEX.float()),
        TypeError,
        "index must be a tensor of integers; got torch.float32",
    ),
    "integers": (lambda: stn.from_boxes(BOXES.int(), IN), TypeError, "boxes must have a floating-point dtype"),
    "corners": (
        lambda: stn.from_corners(BOXES, IN),
        stn.InputError,
        r"points must be \(4, 2\), \(N, 4, 2\) or \(N, K, 4, 2\); got \(4, 4\)",
    ),
    "write": (
        lambda: stn.from_boxes(BOXES, IN, index=INDEX).write(torch.zeros(4, 1, 2, 2), IN),
        stn.InputError,
        "must have a batch .* to write; got a list of warps with an index",
    ),
    "apply": (
        lambda: stn.from_boxes(BOXES, IN, index=INDEX).apply(image=torch.zeros(4, 1, 2, 2)),
        stn.InputError,
        "must have a batch .* to apply; got a list of warps with an index",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_the_sentence(name: str) -> None:
    call, kind, message = BAD[name]
    with pytest.raises(kind, match=message):
        call()
