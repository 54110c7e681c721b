"""`Warp.apply`: an image, its mask, its points and its boxes move together, for every family."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

import stn
from stn.grid import lattice, normalized_to_pixel
from stn.transforms import FAMILIES, family
from tests.helpers import near_identity, noise, seeded

PLANE_ONLY = {"corners", "tps"}
IN, OUT = (256, 240), (224, 256)
SOLIDS = [name for name in FAMILIES if name not in PLANE_ONLY]


def moderate(name: str, ndim: int, n: int, *, seed: int = 0) -> stn.Warp:
    """Return warps that move points by some twentieths of the image, without folds."""
    of = family(name, ndim)
    strength = {"displacement": 0.03 if ndim == 2 else 0.01, "projective": 0.07}.get(name, 0.08)
    return of(near_identity(of, n, strength=strength, seed=seed))


def blobs(points: Tensor, size: tuple[int, ...], width: float) -> Tensor:  # (N, P, d) pixels -> (N, P, *size)
    """Draw a Gaussian spot at each point."""
    xy = normalized_to_pixel(lattice(size, dtype=points.dtype), size)
    off = xy - points.view(*points.shape[:-1], *(1,) * len(size), -1)
    return torch.exp(-off.square().sum(dim=-1) / (2 * width**2))


def peaks(image: Tensor) -> Tensor:  # (N, P, *size) -> (N, P, d)
    """Return the peak of each spot, x first: that of the quadratic through the logarithms around the brightest pixel.

    A warp does not move the peak of a spot away from its center, unlike its center of mass.
    """
    d, found = image.ndim - 2, []
    for spot in image.flatten(0, 1):
        top = torch.tensor(np.unravel_index(int(spot.argmax()), spot.shape))
        around = spot[tuple(slice(int(n) - 1, int(n) + 2) for n in top)].log()
        steps = torch.eye(d, dtype=torch.int64)

        def at(step: Tensor, around: Tensor = around) -> Tensor:
            return around[tuple(step + 1)]

        def mixed(a: Tensor, b: Tensor, at: Callable[[Tensor], Tensor] = at) -> Tensor:
            a, b = (a, b) if (a != b).any() else (a, 0 * b)  # the diagonal follows
            return (at(a + b) - at(a - b) - at(b - a) + at(-a - b)) / 4

        slope = torch.stack([(at(e) - at(-e)) / 2 for e in steps])
        rows = [[mixed(a, b) for a in steps] for b in steps]
        bend = torch.stack([torch.stack(row) for row in rows])
        for k, e in enumerate(steps):
            bend[k, k] = at(e) - 2 * at(0 * e) + at(-e)
        found.append((top - torch.linalg.solve(bend, slope)).flip(0))
    return torch.stack(found).view(*image.shape[:2], d)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_spot_and_a_coordinate_arrive_together(name: str) -> None:
    """Within 0.05 pixels, and a point that is drawn and moved comes back within 0.01."""
    warp = moderate(name, 2, 2)
    points = torch.tensor([70.0, 80.0]) + torch.tensor([100.0, 90.0]) * torch.rand(2, 5, 2, generator=seeded()).double()
    image = blobs(points, IN, 3.0)
    out = warp.apply(image=image, points=points, size=OUT, mode="bspline")
    assert out.inside is not None and out.inside.all() and out.image is not None and out.points is not None
    assert out.image.shape == (2, 5, *OUT) and (out.points - points).norm(dim=-1).max() > 3
    assert (out.points - peaks(out.image)).norm(dim=-1).max() < 0.05
    back = warp.points(out.points, pixels=(IN, OUT))
    assert (back - points).norm(dim=-1).max() < 0.01


@pytest.mark.parametrize("name", SOLIDS)
def test_in_volumes(name: str) -> None:
    warp, size = moderate(name, 3, 1), (72, 76, 80)
    points = 26 + 22 * torch.rand(1, 2, 3, generator=seeded()).double()
    out = warp.apply(image=blobs(points, size, 3.0), points=points, mode="bspline")
    assert out.image is not None and out.points is not None
    assert (out.points - peaks(out.image)).norm(dim=-1).max() < 0.05
    back = warp.points(out.points, pixels=(size, size))
    assert (back - points).norm(dim=-1).max() < 0.01


# ---- masks ----


def extent(mask: Tensor) -> Tensor:  # (H, W) bool -> (4,)
    rows, columns = mask.any(dim=1).nonzero().flatten(), mask.any(dim=0).nonzero().flatten()
    return torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).double()


def filled(boxes: Tensor, size: tuple[int, int], angle: float = 0.0) -> Tensor:  # (N, B, 4) -> (N, B, H, W) bool
    xy = normalized_to_pixel(lattice(size, dtype=boxes.dtype), size) + 0.5
    center, half = (boxes[..., :2] + boxes[..., 2:]) / 2, (boxes[..., 2:] - boxes[..., :2]) / 2
    off = xy - center[..., None, None, :]
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=boxes.dtype)
    return ((off @ turn).abs() <= half[..., None, None, :]).all(dim=-1)


BOXES = torch.tensor([[60.0, 70.0, 130.0, 100.0], [150.0, 10.0, 235.0, 80.0], [5.0, 180.0, 60.0, 250.0]]).double()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_box_and_its_mask_arrive_together(name: str) -> None:
    """The box is the extent of the filled mask to a pixel, and the visible share that of the mask's pixels."""
    warp = moderate(name, 2, 2, seed=1)
    shift = stn.Translation()(torch.tensor([[0.25, -0.1], [-0.25, 0.2]]).double())
    warp = warp @ shift  # the content moves beyond the border
    boxes = BOXES.expand(2, -1, -1)
    mask = filled(boxes, IN)
    out = warp.apply(mask=mask, boxes=boxes, size=OUT, clip=True)
    assert out.mask is not None and out.boxes is not None and out.visible is not None
    assert out.mask.dtype == torch.bool and out.mask.shape == (2, 3, *OUT)
    wide = stn.Affine.from_parts(scale=2.0)  # an output on which everything lies
    whole = (warp @ wide).apply(mask=mask, size=[2 * n for n in OUT]).mask
    assert whole is not None
    share = out.mask.double().sum(dim=(-2, -1)) / whole.double().sum(dim=(-2, -1))
    torch.testing.assert_close(out.visible, share, atol=0.02, rtol=0)
    assert (share < 0.99).any() and (share > 0.5).any()
    for n in range(2):
        for k in range(3):
            if share[n, k] > 0.02:
                assert (out.boxes[n, k] - extent(out.mask[n, k])).abs().max() < 1.1


@pytest.mark.parametrize("name", FAMILIES)
def test_boxes_that_are_not_clipped_return(name: str) -> None:
    """The box around the outline is that of the whole mask; there and back it encloses the first."""
    warp = moderate(name, 2, 2, seed=1)
    shift = stn.Translation()(torch.tensor([[0.25, -0.1], [-0.25, 0.2]]).double())
    boxes = BOXES.expand(2, -1, -1)
    out = (warp @ shift).apply(boxes=boxes, in_size=IN, size=OUT)
    wide = stn.Affine.from_parts(scale=2.0)
    whole = (warp @ shift @ wide).apply(mask=filled(boxes, IN), size=[2 * n for n in OUT]).mask
    assert whole is not None and out.boxes is not None
    middle = torch.tensor([OUT[1] / 2, OUT[0] / 2] * 2)
    for n in range(2):
        for k in range(3):
            assert (out.boxes[n, k] + middle - extent(whole[n, k])).abs().max() < 1.1


@pytest.mark.parametrize("name", ("translation", "rigid", "similarity"))
@pytest.mark.parametrize("angle", (0.0, 0.6, -2.5))
def test_turned_boxes(name: str, angle: float) -> None:
    """Under a similarity of the pixels a turned box is again one, exactly; there and back it is the same."""
    size = (200, 200)
    of = family(name)
    warp = of(near_identity(of, 2, strength=0.2, seed=3))
    assert isinstance(warp, stn.MatrixWarp)
    boxes = torch.tensor([[[80.0, 90.0, 40.0, 20.0, angle], [120.0, 60.0, 10.0, 30.0, angle]]]).double().expand(2, -1, -1)
    out = warp.apply(boxes=boxes, size=size, format="cxcywha")
    assert out.boxes is not None
    first, last = boxes.clone(), out.boxes
    matrix = warp.to_pixel_matrix(size)  # from the image to the output
    scale = torch.linalg.det(matrix[:, :2, :2]).sqrt()[:, None, None]
    torch.testing.assert_close(last[..., 2:4], first[..., 2:4] * scale, atol=1e-8, rtol=0)
    turn = torch.atan2(matrix[:, 1, 0], matrix[:, 0, 0])[:, None]
    torch.testing.assert_close(torch.sin(last[..., 4] - first[..., 4] - turn), torch.zeros(2, 2).double(), atol=1e-8, rtol=0)
    moved = first[..., :2] - 0.5
    moved = torch.cat([moved, torch.ones(2, 2, 1)], dim=-1) @ matrix[:, :2].mT + 0.5
    torch.testing.assert_close(last[..., :2], moved, atol=1e-8, rtol=0)
    back = warp.inverse().apply(boxes=last, size=size, format="cxcywha").boxes
    assert back is not None
    torch.testing.assert_close(back[..., :4], first[..., :4], atol=1e-7, rtol=0)


@pytest.mark.parametrize("name", ("affine", "projective", "bspline", "cpab"))
def test_a_turned_box_encloses_its_moved_outline(name: str) -> None:
    """And touches it: the mask in the axes of the box reaches each side."""
    warp = moderate(name, 2, 1, seed=4)
    box = torch.tensor([[[120.0, 128.0, 90.0, 50.0, 0.5]]]).double()
    corners = torch.cat([box[..., :2] - box[..., 2:4] / 2, box[..., :2] + box[..., 2:4] / 2], dim=-1)
    out = warp.apply(mask=filled(corners, IN, 0.5), boxes=box, size=OUT, format="cxcywha")
    assert out.mask is not None and out.boxes is not None
    cx, cy, w, h, a = out.boxes[0, 0].tolist()
    y, x = out.mask[0, 0].nonzero().double().unbind(dim=1)
    along = (x + 0.5 - cx) * math.cos(a) + (y + 0.5 - cy) * math.sin(a)
    across = -(x + 0.5 - cx) * math.sin(a) + (y + 0.5 - cy) * math.cos(a)
    for found, side in ((along, w), (across, h)):
        assert abs(found.max() - side / 2) < 1.6 and abs(found.min() + side / 2) < 1.6  # pixels, at sharp corners


def test_formats_agree() -> None:
    warp = moderate("affine", 2, 1)
    corners = BOXES[None]
    centers_ = torch.cat([(corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2]], dim=-1)
    for clip in (False, True):
        first = warp.apply(boxes=corners, size=IN, clip=clip)
        second = warp.apply(boxes=centers_, size=IN, clip=clip, format="cxcywh")
        assert first.boxes is not None and second.boxes is not None
        same = torch.cat(
            [second.boxes[..., :2] - second.boxes[..., 2:] / 2, second.boxes[..., :2] + second.boxes[..., 2:] / 2], -1
        )
        torch.testing.assert_close(same, first.boxes)
        torch.testing.assert_close(first.visible, second.visible)


def test_a_box_that_leaves_is_empty() -> None:
    warp = stn.Translation()(torch.tensor([[3.0, 0.0]]))
    out = warp.apply(boxes=BOXES.float(), points=BOXES[:, :2].float(), size=IN, clip=True)
    assert out.boxes is not None and out.visible is not None and out.inside is not None
    assert out.visible.eq(0).all() and (out.boxes[..., 2:] == out.boxes[..., :2]).all() and not out.inside.any()
    assert out.boxes.dtype == torch.float32 and out.boxes.isfinite().all()


def test_a_box_across_the_horizon_is_not_visible() -> None:
    """The plane behind the camera maps to the other side of the output."""
    matrix = torch.tensor([[[1.0, 0, 0], [0, 1, 0], [0.9, 0, 1]]]).double()
    warp = stn.MatrixWarp(matrix).inverse()
    across, before = torch.tensor([[-60.0, 150, 180, 250]]).double(), torch.tensor([[100.0, 100, 140, 150]]).double()
    out = warp.apply(boxes=torch.cat([across, before]), size=IN)
    assert out.visible is not None and out.visible.tolist() == [[0, 1]]
    assert out.boxes is not None and not out.boxes[0, 0].any() and out.boxes[0, 1].all()


LABELS: list[Any] = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", LABELS)
def test_labels_stay_labels(dtype: torch.dtype) -> None:
    most = {torch.uint8: 255, torch.int8: 127, torch.int16: 32767, torch.float32: 2**24 + 0}.get(dtype, 2**31 - 1)
    mask = torch.randint(0, most, (2, 12, 14), generator=seeded()).to(dtype)
    warp = stn.Rigid()(torch.tensor([[0.5, 0.3, 0.0], [0.2, 0.0, 0.5]]))
    out = warp.apply(mask=mask, mask_fill=7, size=(9, 9))
    assert out.mask is not None and out.mask.dtype == dtype and out.mask.shape == (2, 9, 9)
    at = normalized_to_pixel(warp.grid((9, 9)), (12, 14)).round().long()
    x, y = at.unbind(dim=-1)
    known = (x >= 0) & (x < 14) & (y >= 0) & (y < 12)
    n = torch.arange(2).view(2, 1, 1)
    expected = torch.where(known, mask[n, y.clamp(0, 11), x.clamp(0, 13)], torch.tensor(7, dtype=dtype))
    assert torch.equal(out.mask, expected) and (~known).any()


def test_looks_and_padding() -> None:
    image, mask = noise(2, 3, 12, 14), torch.randint(0, 9, (2, 12, 14), generator=seeded())
    points, boxes = 4 + 2 * noise(2, 5, 2), torch.tensor([[2.0, 3.0, 7.0, 8.0]]).double()
    of = stn.Affine()
    theta = near_identity(of, 6, strength=0.2).view(2, 3, -1)
    options: Any = {"padding_mode": "reflection", "align_corners": True}
    out = of(theta).apply(image=image, mask=mask, points=points, boxes=boxes, size=(10, 9), **options)
    shapes = [
        tuple(part.shape)
        for part in (out.image, out.mask, out.points, out.inside, out.boxes, out.visible)
        if part is not None
    ]
    assert shapes == [(2, 3, 3, 10, 9), (2, 3, 10, 9), (2, 3, 5, 2), (2, 3, 5), (2, 3, 1, 4), (2, 3, 1)]
    for k in range(3):
        one = of(theta[:, k]).apply(image=image, mask=mask, points=points, boxes=boxes, size=(10, 9), **options)
        for name in ("image", "mask", "points", "inside", "boxes", "visible"):
            torch.testing.assert_close(getattr(out, name)[:, k], getattr(one, name), atol=1e-10, rtol=0)
    single = of(theta[:1, 0]).apply(image=image, points=points, size=(10, 9))
    assert single.points is not None and single.points.shape == (2, 5, 2)


def test_a_point_without_a_place_is_not_inside() -> None:
    class Folded(stn.Warp):
        """x' = x^2: nothing of the left half of the image is shown."""

        def __init__(self) -> None:
            self.batch, self.ndim, self.dtype, self.device = (1,), 2, torch.float64, torch.device("cpu")

        def map(self, xy: Tensor) -> Tensor:
            return torch.stack([xy[..., 0].square(), xy[..., 1]], dim=-1)

    out = Folded().apply(points=torch.tensor([[4.0, 10.0], [24.0, 10.0]]).double(), size=32)
    assert out.inside is not None and out.inside.tolist() == [[False, True]]


def test_derivatives() -> None:
    """Of points and boxes in theta, points and boxes."""
    of = stn.BSpline(shape=(4, 4))
    theta, points = near_identity(of, 1, strength=0.05).requires_grad_(), (10 + 3 * noise(1, 3, 2)).requires_grad_()
    boxes = torch.tensor([[[4.0, 5.0, 14.0, 12.0]]]).double().requires_grad_()

    def run(theta: Tensor, points: Tensor, boxes: Tensor) -> Any:
        out = of(theta).apply(points=points, boxes=boxes, size=(20, 22), clip=True)
        return out.points, out.boxes, out.visible

    assert gradcheck(run, (theta, points, boxes), fast_mode=True, atol=1e-4)
    away = stn.Affine()
    moved = (away.identity()[None].double() + torch.tensor([[0.1, 0.2, 0.6, -0.1, 0.1, 0.3]])).requires_grad_()

    def share(theta: Tensor) -> Any:
        return away(theta).apply(boxes=boxes.detach(), size=(20, 22), clip=True).visible

    assert gradcheck(share, (moved,))


@pytest.mark.parametrize("of", (stn.Affine(), stn.Projective(), stn.BSpline(shape=(4, 4))), ids=lambda of: type(of).__name__)
def test_under_vmap_and_compile(of: stn.Family) -> None:
    inputs = (near_identity(of, 2, strength=0.05), noise(2, 1, 12, 13), 5 + noise(2, 3, 2), BOXES[:1].expand(2, 1, 4) / 20)

    def run(theta: Tensor, image: Tensor, points: Tensor, boxes: Tensor) -> Any:
        out = of(theta).apply(image=image, points=points, boxes=boxes, size=(9, 10), clip=True)
        return out.image, out.points, out.inside, out.boxes, out.visible

    expected = run(*inputs)
    mapped = torch.func.vmap(lambda *one: tuple(part[0] for part in run(*(part[None] for part in one))))(*inputs)
    torch.compiler.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")(*inputs)
    for found in (mapped, compiled):
        for part, right in zip(found, expected, strict=True):
            torch.testing.assert_close(part, right, atol=1e-9, rtol=0)


# ---- outlines ----


def test_areas_are_those_of_many_points() -> None:
    """Of triangles and stars that overlap an image in every way."""
    from stn.transforms.outlines import area, area_within, corners_within

    polygons = noise(24, 7, 2) * torch.tensor([8.0, 6.0]) + torch.tensor([5.0, 4.0])
    angle = (polygons - polygons.mean(dim=1, keepdim=True)).flip(-1)
    order = torch.atan2(angle[..., 0], angle[..., 1]).argsort(dim=1)
    polygons = polygons.gather(1, order.unsqueeze(-1).expand(-1, -1, 2))  # in order around the center: no edges cross
    xy = (lattice((300, 300), dtype=torch.float64).flatten(0, 1) + 1) / 2 * torch.tensor([12.0, 9.0])
    a, b = polygons.unsqueeze(2), polygons.roll(-1, 1).unsqueeze(2)
    crosses = (a[..., 1] > xy[:, 1]) != (b[..., 1] > xy[:, 1])
    at = a[..., 0] + (xy[:, 1] - a[..., 1]) / (b[..., 1] - a[..., 1]) * (b[..., 0] - a[..., 0])
    inside = (crosses & (at > xy[:, 0])).sum(dim=1) % 2 == 1
    share = inside.double().mean(dim=1) * 108
    torch.testing.assert_close(area_within(polygons, 12, 9).abs(), share, atol=0.2, rtol=0)
    assert (share > 1).sum() > 12 and (area(polygons) >= area_within(polygons, 12, 9) - 1e-9).all()
    points, known = corners_within(polygons, 12, 9)
    for i in range(24):
        if share[i] > 1:
            seen = xy[inside[i]]
            low, high = points[i][known[i]].amin(dim=0), points[i][known[i]].amax(dim=0)
            assert (seen >= low - 1e-9).all() and (seen <= high + 1e-9).all()
            assert (seen.amin(dim=0) - low).max() < 0.6 and (high - seen.amax(dim=0)).max() < 0.6


# ---- sentences ----

WARP = stn.Translation()(torch.zeros(2, 2))
BAD: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "nothing": (WARP.apply, stn.InputError, "one of image, mask, points, boxes must be given; got none"),
    "no size": (
        lambda: WARP.apply(points=torch.zeros(2, 2)),
        stn.InputError,
        "in_size or size must be given with points or boxes alone; got neither",
    ),
    "sizes": (
        lambda: WARP.apply(image=torch.zeros(2, 1, 8, 8), mask=torch.zeros(2, 8, 9)),
        stn.InputError,
        r"mask must have the size \(8, 8\) of image; got \(8, 9\)",
    ),
    "points": (
        lambda: WARP.apply(points=torch.zeros(3, 4, 2), size=8),
        stn.InputError,
        r"points must be \(N, P, 2\) for N = 2 images, or \(P, 2\) for all; got \(3, 4, 2\)",
    ),
    "boxes": (
        lambda: WARP.apply(boxes=torch.zeros(4, 5), size=8),
        stn.InputError,
        r"boxes must be \(N, P, 4\) for N = 2 images, or \(P, 4\) for all; got \(4, 5\)",
    ),
    "format": (
        lambda: WARP.apply(boxes=torch.zeros(4, 4), size=8, format="yxyx"),  # type: ignore[arg-type]  # on purpose
        stn.InputError,
        "format must be one of cxcywh, cxcywha, xywh, xyxy",
    ),
    "volumes": (
        lambda: stn.Translation(3)(torch.zeros(1, 3)).apply(boxes=torch.zeros(4, 4), size=8),
        stn.InputError,
        "boxes must be those of images; got a warp of 3 dimensions",
    ),
    "integers": (
        lambda: WARP.apply(boxes=torch.zeros(4, 4, dtype=torch.int64), size=8),
        TypeError,
        "boxes must have a floating-point dtype; got torch.int64",
    ),
    "complex labels": (
        lambda: WARP.apply(mask=torch.zeros(2, 8, 8, dtype=torch.complex64)),
        TypeError,
        "mask must have a real dtype; got torch.complex64",
    ),
    "flat mask": (
        lambda: WARP.apply(mask=torch.zeros(8, 8)),
        stn.InputError,
        r"mask must be \(N, H, W\) or \(N, C, H, W\); got \(8, 8\)",
    ),
    "option": (
        lambda: WARP.apply(image=torch.zeros(2, 1, 8, 8), interpolation="x"),  # type: ignore[call-arg]  # on purpose
        stn.InputError,
        "options must be one of",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_the_sentence(name: str) -> None:
    call, kind, message = BAD[name]
    with pytest.raises(kind, match=message):
        call()
