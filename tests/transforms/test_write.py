"""`Warp.write`: patches lie where the looks of a warp are, and what is outside them stays."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

import stn
from stn.grid import lattice
from stn.transforms import FAMILIES, family
from tests.helpers import near_identity, noise

CANVAS, PATCH = (20, 24), (5, 6)
PLANE_ONLY = {"corners", "tps"}
CASES = [(name, ndim) for ndim in (2, 3) for name in FAMILIES if ndim == 2 or name not in PLANE_ONLY]


def smooth(*shape: int, size: tuple[int, ...]) -> Tensor:
    """Return images of slow waves, which two interpolations change by 0.013 at most at 24 pixels, 0.035 at 14."""
    xy = lattice(size, dtype=torch.float64)
    count = 1
    for n in shape:
        count *= n
    waves = torch.linspace(0.5, 1.5, count, dtype=torch.float64)
    return torch.stack([torch.cos(w * xy.sum(dim=-1) + w) for w in waves]).view(*shape, *size)


def boxes() -> Tensor:
    """Two boxes of whole pixels in each of two images, of the size of a patch; the first two overlap."""
    corners = torch.tensor([[[3, 4], [6, 7]], [[0, 0], [15, 15]]], dtype=torch.float64)
    return torch.cat([corners, corners + torch.tensor([6.0, 5.0])], dim=-1)


def test_patches_on_whole_pixels_are_assignments() -> None:
    """Bit for bit the canvas outside, the later patch on top."""
    canvas, patches = noise(2, 3, *CANVAS), noise(2, 2, 3, *PATCH, seed=1)
    warp = stn.from_boxes(boxes(), CANVAS)
    found, mask = warp.write(patches, onto=canvas, return_mask=True)
    expected, seen = canvas.clone(), torch.zeros(2, 1, *CANVAS, dtype=torch.float64)
    for n in range(2):
        for k in range(2):
            x, y = boxes()[n, k, :2].int().tolist()
            expected[n, :, y : y + 5, x : x + 6] = patches[n, k]
            seen[n, :, y : y + 5, x : x + 6] = 1
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(mask, seen, atol=1e-12, rtol=0)
    assert torch.equal(found[mask.expand_as(found) == 0], canvas[mask.expand_as(found) == 0])
    torch.testing.assert_close(warp.write(patches, CANVAS), expected * seen, atol=1e-12, rtol=0)


@pytest.mark.parametrize("align_corners", (False, True))
@pytest.mark.parametrize("reduce", ("over", None))
def test_a_hard_edge_leaves_all_pixels_whose_centers_are_outside(reduce: str | None, align_corners: bool) -> None:
    """Boxes of any size and place: a patch of ones makes ones of the centers that it contains, and of nothing else."""
    generator = torch.Generator().manual_seed(0)
    first = torch.rand(3, 2, 2, generator=generator) * 8
    corners = torch.cat([first, first + 3 + 9 * torch.rand(3, 2, 2, generator=generator)], dim=-1)
    warp, canvas = stn.from_boxes(corners, CANVAS, align_corners=align_corners), -torch.rand(3, 1, *CANVAS)
    found, mask = warp.write(
        torch.ones(3, 2, 1, *PATCH), onto=canvas, edge="hard", reduce=reduce, return_mask=True, align_corners=align_corners
    )
    y, x = (torch.arange(n) + 0.5 for n in CANVAS)
    x0, y0, x1, y1 = (side[..., None, None] for side in corners.unbind(dim=-1))
    inside = (x >= x0) & (x <= x1) & (y[:, None] >= y0) & (y[:, None] <= y1)
    inside = inside[:, :, None] if reduce is None else inside.any(dim=1, keepdim=True)
    below = canvas[:, None] if reduce is None else canvas
    assert torch.equal(mask == 1, inside) and torch.equal(mask != 0, inside)
    assert torch.equal(found, torch.where(inside, 1.0, below))


@pytest.mark.parametrize("name, ndim", CASES)
def test_a_hard_edge_of_every_family(name: str, ndim: int) -> None:
    """Within the edge the patch alone, its border continued; outside the canvas, bit for bit."""
    kind, size = family(name, ndim), (12, 14, 13)[-ndim:]
    warp = kind(near_identity(kind, 2, strength=0.05))
    canvas, patches = noise(2, 2, *size), 2 + noise(2, 2, *size, seed=1)
    found, mask = warp.write(patches.abs(), onto=canvas, edge="hard", return_mask=True)
    inside = (mask == 1).expand_as(found)
    assert set(mask.unique().tolist()) <= {0.0, 1.0} and 0.5 < mask.mean() <= 1
    assert torch.equal(found[~inside], canvas[~inside])
    again = warp.inverse().sample(patches.abs(), size, padding_mode="border")
    torch.testing.assert_close(found[inside], again[inside], atol=1e-9, rtol=0)
    opacity = torch.full((2, 1, *size), 0.25, dtype=torch.float64)
    half = warp.write(patches.abs(), onto=canvas, alpha=opacity, edge="hard")
    torch.testing.assert_close(half, torch.where(inside, 0.25 * again + 0.75 * canvas, canvas), atol=1e-9, rtol=0)


def test_reductions() -> None:
    canvas, patches = noise(2, 3, *CANVAS), noise(2, 2, 3, *PATCH, seed=1)
    warp = stn.Attention()(torch.tensor([[[0.3, 0.1, 0.2], [0.35, 0.2, 0.1]], [[0.2, -0.3, 0], [0.2, 0.5, 0.4]]]).double())
    layers, cover = warp.write(patches, CANVAS, reduce=None, return_mask=True)
    assert layers.shape == (2, 2, 3, *CANVAS) and cover.shape == (2, 2, 1, *CANVAS)
    for k in range(2):
        one, mask = warp[:, k].write(patches[:, k], CANVAS, return_mask=True)
        torch.testing.assert_close(one, layers[:, k], atol=1e-13, rtol=0)
        torch.testing.assert_close(mask, cover[:, k], atol=1e-13, rtol=0)
        torch.testing.assert_close(one, warp[:, k].inverse().sample(patches[:, k], CANVAS), atol=1e-13, rtol=0)
    summed, sums = warp.write(patches, CANVAS, reduce="sum", onto=canvas, return_mask=True)
    torch.testing.assert_close(summed, canvas + layers.sum(dim=1), atol=1e-12, rtol=0)
    torch.testing.assert_close(sums, cover.sum(dim=1), atol=1e-12, rtol=0)
    over, mask = warp.write(patches, onto=canvas, return_mask=True)
    expected = layers[:, 1] + (1 - cover[:, 1]) * (layers[:, 0] + (1 - cover[:, 0]) * canvas)
    torch.testing.assert_close(over, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(mask, 1 - (1 - cover[:, 0]) * (1 - cover[:, 1]), atol=1e-12, rtol=0)
    each = warp.write(patches, onto=canvas, reduce=None)
    torch.testing.assert_close(each, layers + (1 - cover) * canvas.unsqueeze(1), atol=1e-12, rtol=0)
    assert ((cover > 0) & (cover < 1)).any() and (over - summed).abs().max() > 0.5
    torch.testing.assert_close(warp.inverse().sample(patches, CANVAS), layers, atol=1e-13, rtol=0)


def test_opacity() -> None:
    canvas, patches = noise(2, 3, *CANVAS), noise(2, 2, 3, *PATCH, seed=1)
    warp = stn.from_boxes(boxes() + 0.3, CANVAS)
    ones = torch.ones(2, 2, 1, *PATCH, dtype=torch.float64)
    plain = warp.write(patches, onto=canvas, return_mask=True)
    torch.testing.assert_close(warp.write(patches, onto=canvas, alpha=ones, return_mask=True), plain, atol=1e-12, rtol=0)
    nothing = warp.write(patches, onto=canvas, alpha=0 * ones)
    assert torch.equal(nothing, canvas)
    single = warp[:, 0]
    half = single.write(patches[:, 0], onto=canvas, alpha=ones[:, 0] / 2)
    layer, cover = single.write(patches[:, 0], CANVAS, return_mask=True)
    torch.testing.assert_close(half, layer / 2 + (1 - cover / 2) * canvas, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name, ndim", CASES)
def test_a_look_written_back_is_the_image_there(name: str, ndim: int) -> None:
    """Of every family, with looks: inside the looks the image returns, outside it is left bit for bit."""
    size, patch = ((24, 30), (40, 44)) if ndim == 2 else ((14, 15, 16), (20, 21, 22))
    of = family(name, ndim)
    theta = near_identity(of, 4, strength=0.05 if name in ("displacement", "projective") else 0.1, seed=2).view(2, 2, -1)
    part = stn.Affine.from_parts(scale=0.6, ndim=ndim, translation=torch.full((1, ndim), 0.1, dtype=torch.float64))
    warp = part @ of(theta)
    image = smooth(2, 2, size=size)
    looks = warp.sample(image, patch)
    other = noise(2, 2, *size, seed=3)
    found, mask = warp.write(looks, onto=other, return_mask=True)
    whole = (mask == 1).expand_as(found)
    assert 0.1 < whole.double().mean() < 0.8
    torch.testing.assert_close(found[whole], image[whole], atol=4e-2 if ndim == 3 else 2e-2, rtol=0)
    assert (found[whole] - image[whole]).abs().mean() < (1e-2 if ndim == 3 else 2e-3)
    assert torch.equal(found[(mask == 0).expand_as(found)], other[(mask == 0).expand_as(found)])


class Bowed(stn.Warp):
    """x' = sin(1.05 pi / 2 x) / 2: the edge of the look folds back over less than a sixteenth of it."""

    def __init__(self) -> None:
        self.batch, self.ndim, self.dtype, self.device = (1,), 2, torch.float64, torch.device("cpu")

    def map(self, xy: Tensor) -> Tensor:
        return torch.stack([torch.sin(1.05 * torch.pi / 2 * xy[..., 0]) / 2, xy[..., 1]], dim=-1)


def test_what_the_look_does_not_reach_is_left() -> None:
    """No point of the look lies beyond 0.5, a quarter of the canvas from its center."""
    patch = torch.ones(1, 1, 20, 20, dtype=torch.float64)
    found, mask = Bowed().write(patch, 64, return_mask=True)
    assert (found[..., 4:-4, 18:46] > 1 - 1e-12).all() and not found[..., :14].any() and not found[..., 50:].any()
    assert torch.equal(found, mask)


@pytest.mark.parametrize("reduce", ("over", "sum", None))
@pytest.mark.parametrize("name", ("affine", "projective", "bspline", "velocity"))
def test_derivatives(name: str, reduce: str | None) -> None:
    small: dict[str, Any] = {"bspline": stn.BSpline(shape=(4, 4)), "velocity": stn.Velocity(shape=(4, 4), squarings=3)}
    of = small.get(name, family(name))
    theta = near_identity(of, 2, strength=0.05).view(1, 2, -1).requires_grad_()
    part = stn.Affine.from_parts(scale=0.7, translation=torch.tensor([[0.05, 0.1]], dtype=torch.float64))
    inputs = (theta, noise(1, 2, 1, 3, 4).requires_grad_(), noise(1, 1, 6, 7).requires_grad_(), torch.rand(1, 2, 1, 3, 4))
    alpha = inputs[3].double().requires_grad_()

    def run(theta: Tensor, patches: Tensor, onto: Tensor, alpha: Tensor) -> Tensor:
        found = (part @ of(theta)).write(patches, onto=onto, alpha=alpha, reduce=reduce, mode="bicubic")
        assert isinstance(found, Tensor)
        return found

    assert gradcheck(run, (*inputs[:3], alpha), fast_mode=True)


def test_one_warp_for_all_images_and_all_looks() -> None:
    patches = noise(3, 2, 1, *PATCH)
    one = stn.Attention()(torch.tensor([[[0.3, 0.1, 0.2]]]).double())
    found = one.write(patches, CANVAS)
    same = stn.Attention()(torch.tensor([[[0.3, 0.1, 0.2]]]).double().expand(3, 2, 3)).write(patches, CANVAS)
    torch.testing.assert_close(found, same)


def test_under_vmap_and_compile() -> None:
    patches, canvas = noise(2, 2, 1, *PATCH), noise(2, 1, *CANVAS)
    theta = torch.tensor([[[0.3, 0.1, 0.2], [0.35, 0.2, 0.1]], [[0.2, -0.3, 0], [0.2, 0.5, 0.4]]]).double()

    def run(theta: Tensor, patches: Tensor, canvas: Tensor) -> Any:
        return stn.Attention()(theta).write(patches, onto=canvas)

    expected = run(theta, patches, canvas)
    mapped = torch.func.vmap(lambda *parts: run(*(part.unsqueeze(0) for part in parts)).squeeze(0))(theta, patches, canvas)
    torch.testing.assert_close(mapped, expected, atol=1e-12, rtol=0)
    torch.compiler.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")(theta, patches, canvas)
    torch.testing.assert_close(compiled, expected, atol=1e-12, rtol=0)


LOOK = stn.Attention()(torch.tensor([[[0.3, 0.1, 0.2], [0.3, 0.2, 0.1]]]))
PATCHES = torch.zeros(1, 2, 3, 4, 5)
BAD: dict[str, tuple[Callable[[], object], str]] = {
    "shape": (
        lambda: LOOK.write(PATCHES[:, 0], CANVAS),
        r"patches must be \(N, K, C, H, W\) for a warp of batch \(1, 2\), or of one; got \(1, 3, 4, 5\)",
    ),
    "looks": (lambda: LOOK.write(PATCHES.repeat(1, 2, 1, 1, 1), CANVAS), r"patches must be .* got \(1, 4, 3, 4, 5\)"),
    "no size": (lambda: LOOK.write(PATCHES), "size must be given without onto: the size of the canvas; got None"),
    "onto": (
        lambda: LOOK.write(PATCHES, onto=torch.zeros(1, 2, 8, 8)),
        r"onto must be \(N, C, H, W\) with N = 1 and C = 3, like patches; got \(1, 2, 8, 8\)",
    ),
    "two sizes": (
        lambda: LOOK.write(PATCHES, 9, onto=torch.zeros(1, 3, 8, 8)),
        r"size must be that of onto, \(8, 8\), or None; got 9",
    ),
    "alpha": (
        lambda: LOOK.write(PATCHES, CANVAS, alpha=PATCHES),
        r"alpha must be \(1, 2, 1, 4, 5\), one channel for each of the patches; got \(1, 2, 3, 4, 5\)",
    ),
    "reduce": (lambda: LOOK.write(PATCHES, CANVAS, reduce="mean"), "reduce must be one of None, over, sum; got 'mean'"),
    "padding": (lambda: LOOK.write(PATCHES, CANVAS, padding_mode="border"), "padding_mode"),
    "singular": (lambda: stn.Attention()(torch.zeros(1, 2, 3)).write(PATCHES, CANVAS), "must not be singular"),
    "folds": (
        lambda: stn.BSpline()(noise(1, 98)).write(PATCHES[:, 0].double(), CANVAS),
        "the warp must not fold over a patch that is written; it folds at warp 0 of 1",
    ),
    "each look": (
        lambda: LOOK.sample(PATCHES.repeat(1, 2, 1, 1, 1)),
        r"image must begin with \(N, K\) = \(1, 2\) like the warp, an image for each look; got \(1, 4, 3, 4, 5\)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_the_sentence(name: str) -> None:
    call, message = BAD[name]
    with pytest.raises(stn.InputError, match=message):
        call()
