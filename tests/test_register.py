"""Registration finds the warp between two images. The error is measured at points, never by the similarity of the images."""

import math
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import stn
from stn.grid import axis, lattice
from stn.registration import LOSSES
from stn.registration.descent import Descent
from stn.transforms import Family, Warp
from tests.helpers import near_identity, seeded

SIDE = 64


def photo(n: int, side: int = SIDE, ndim: int = 2, seed: int = 0) -> Tensor:
    """Return images in [0, 1] with structure at several scales: noise of several resolutions."""
    mode = "bicubic" if ndim == 2 else "trilinear"
    total = torch.zeros(())
    for cells in [n for n in (4, 8, 16, 32) if 4 * n <= side]:
        octave = torch.rand(n, 1, *(cells,) * ndim, generator=seeded(seed + cells)) / cells**0.5
        total = total + F.interpolate(octave, size=(side,) * ndim, mode=mode)
    return (total - total.min()) / (total.max() - total.min())


def pair(true: Warp, ndim: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return a moving image and its warp by `true`, both cut from a larger image."""
    wide, margin = photo(true.batch[0], 2 * SIDE if ndim == 2 else SIDE, ndim, seed), 2
    size = tuple(n // margin for n in wide.shape[2:])
    inner = lattice(size)
    moving = stn.grid_sample(wide, (inner / margin).expand(len(wide), *inner.shape))
    return moving, stn.grid_sample(wide, true.grid(size) / margin)


def target_error(found: Warp, true: Warp, side: int = SIDE) -> Tensor:
    """Return the mean distance (N,) in pixels between the two warps, at points of the inner three quarters of the image."""
    points = 0.75 * lattice((9,) * true.ndim).flatten(0, -2)
    return ((found.points(points) - true.points(points)) * side / 2).norm(dim=-1).mean(dim=-1)


def still(warp: Warp, true: Family) -> Warp:
    return true(true.identity().expand(warp.batch[0], -1))


AFFINE = stn.Affine.from_parts(
    angle=torch.tensor([math.radians(20), -0.25]),
    translation=torch.tensor([[-0.3, 0.1], [0.15, 0.3]]),  # 15 % of the image's width is 0.3
    scale=torch.tensor([[1.1, 0.95], [0.9, 1.0]]),
)


@pytest.mark.parametrize("loss", LOSSES)
def test_affine_from_afar(loss: str) -> None:
    """Rotations by 20 degrees and shifts by 15 % are recovered to a tenth of a pixel."""
    moving, fixed = pair(AFFINE)
    assert target_error(still(AFFINE, stn.Affine()), AFFINE).min() > 5
    found = stn.register(moving, fixed, "affine", loss=loss)
    assert target_error(found.warp, AFFINE).max() < 0.1
    assert found.theta.shape == (2, 6) and found.image.shape == fixed.shape


@pytest.mark.parametrize(
    "family, strength, pixels",
    [
        (stn.Rigid(), 0.15, 0.1),
        (stn.Similarity(), 0.1, 0.1),
        (stn.ThinPlateSpline(), 0.06, 0.3),
        (stn.BSpline(shape=(5, 5)), 0.06, 0.3),
        (stn.Velocity(shape=(5, 5), resolution=32, squarings=4), 0.08, 0.3),
    ],
)
def test_each_family_finds_its_own(family: Family, strength: float, pixels: float) -> None:
    true = family(near_identity(family, 2, strength=strength, dtype=torch.float32))
    moving, fixed = pair(true)
    error = target_error(stn.register(moving, fixed, family).warp, true)
    assert error.max() < pixels and error.max() < target_error(still(true, family), true).min() / 4


@pytest.mark.parametrize("family", [stn.Rigid(3), stn.BSpline(3, shape=(4, 4, 4))])
def test_volumes(family: Family) -> None:
    true = family(near_identity(family, 1, strength=0.1, dtype=torch.float32))
    moving, fixed = pair(true, ndim=3)
    found = stn.register(moving, fixed, family)
    error, before = (target_error(warp, true, SIDE // 2) for warp in (found.warp, still(true, family)))
    assert error.max() < 0.3 and error.max() < before.min() / 4


def turned(ndim: int, size: tuple[int, ...], spacing: tuple[float, ...], degrees: float, scale: float) -> stn.MatrixWarp:
    """A turn about the middle of an image (of a volume about x), in lengths: made without any family."""
    angle, unit = math.radians(degrees), torch.tensor(spacing[::-1], dtype=torch.float64)
    turn = torch.eye(ndim, dtype=torch.float64)
    turn[-2:, -2:] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    a = scale * turn * unit / unit[:, None]
    middle = (torch.tensor(size[::-1], dtype=torch.float64) - 1) / 2
    matrix = torch.cat([a, (middle - a @ middle + 1.5)[:, None]], dim=1)  # and 1.5 pixels further
    return stn.from_pixel_matrix(matrix, size, convention="opencv-inverse")


def corner_error(found: Warp, true: Warp, size: tuple[int, ...]) -> float:
    """Pixels."""
    corners = stn.grid.lattice((2,) * len(size), align_corners=True, dtype=torch.float64).flatten(0, -2)
    half = torch.tensor(size[::-1]) / 2
    return ((found.points(corners) - true.points(corners)) * half).norm(dim=-1).max().item()


SHAPED = {
    "wide": ((64, 128), (1.0, 1.0)),
    "tall": ((128, 64), (1.0, 1.0)),
    "slices 3 mm apart": ((24, 40, 56), (3.0, 1.0, 1.0)),
}


@pytest.mark.parametrize("name, scale", (("rigid", 1.0), ("similarity", 0.95)))
@pytest.mark.parametrize("shape", SHAPED)
def test_turns_of_what_is_not_square(shape: str, name: str, scale: float) -> None:
    size, spacing = SHAPED[shape]
    true = turned(len(size), size, spacing, 15 if len(size) == 2 else 8, scale)
    wide = tuple(2 * n for n in size)
    mode = "bicubic" if len(size) == 2 else "trilinear"
    scene = F.interpolate(photo(1, 64 if len(size) == 3 else 128, len(size)), size=wide, mode=mode)
    inner = lattice(size, dtype=torch.float64)
    moving = stn.grid_sample(scene, (inner / 2)[None].float())
    fixed = stn.grid_sample(scene, (true.grid(size) / 2).float())
    found = stn.register(moving, fixed, name, spacing=spacing)
    assert corner_error(found.warp, true, size) < 0.1
    torch.testing.assert_close(found.family(found.theta).grid((4,) * len(size)), found.warp.grid((4,) * len(size)))
    square = stn.register(moving, fixed, name, spacing=[1 / n for n in size])
    assert corner_error(square.warp, true, size) > 1


def test_what_each_loss_is_for() -> None:
    """Each loss handles one change: contrast, uneven light, and another kind of image. Plain differences fail each time."""
    true = stn.Affine.from_parts(angle=torch.tensor([0.12, -0.1]), translation=torch.tensor([[0.1, 0.0], [-0.05, 0.1]]))
    moving, fixed = pair(true)
    shaded = fixed * (0.6 + 0.4 * axis(SIDE, dtype=fixed.dtype).cos() ** 4)
    other = (fixed - 0.5).square()  # a change that is not monotonic in brightness
    for changed, loss, limit in ((2 * fixed - 0.3, "ncc", 0.1), (shaded, "lncc", 0.2), (other, "mi", 0.2)):
        assert target_error(stn.register(moving, changed, loss=loss).warp, true).max() < limit, loss
        assert target_error(stn.register(moving, changed, loss="mse").warp, true).max() > 2 * limit, loss


def test_a_pair_of_a_batch_is_registered_as_if_alone() -> None:
    moving, fixed = pair(AFFINE)
    together = stn.register(moving, fixed).theta
    apart = torch.cat([stn.register(moving[i : i + 1], fixed[i : i + 1]).theta for i in range(2)])
    torch.testing.assert_close(together, apart, atol=2e-3, rtol=0)


def test_a_second_warp_after_a_first() -> None:
    """Register with an affine map, then refine with a spline."""
    bend = stn.BSpline(shape=(5, 5))
    true = AFFINE @ bend(near_identity(bend, 2, strength=0.1, dtype=torch.float32))
    moving, fixed = pair(true)
    first = stn.register(moving, fixed)
    second = stn.register(moving, fixed, bend, start=first.warp)
    assert target_error(second.warp, true).max() < 0.3 < target_error(first.warp, true).min()


def test_the_loss_falls_and_is_reported() -> None:
    moving, fixed = pair(AFFINE)
    seen: list[tuple[int, int]] = []
    found = stn.register(moving, fixed, levels=2, steps=30, report=lambda level, step, _: seen.append((level, step)))
    assert list(found.losses) == [1, 0]
    assert seen == [(level, step) for level, losses in found.losses.items() for step in range(len(losses))]
    assert all(min(losses) < losses[0] and len(losses) <= 30 for losses in found.losses.values())


def test_the_descent_meets_a_narrow_valley() -> None:
    """One quadratic is a thousand times steeper in one direction than in another; one starts at its minimum."""
    valley = torch.tensor([1.0, 30.0, 1000.0], dtype=torch.float64)
    goal = torch.tensor([[0.3, -0.2, 0.4], [0.0, 0.0, 0.0]], dtype=torch.float64)
    descent = Descent(torch.zeros(2, 3, dtype=torch.float64), most=0.1, least=1e-7)
    for _ in range(60):
        away = descent.trial - goal
        descent.update((valley * away.square()).sum(dim=1), 2 * valley * away)
    assert descent.at_rest.all()
    torch.testing.assert_close(descent.x, goal, atol=1e-6, rtol=0)


def of_kind(kind: str, image: Tensor) -> Any:  # (1, 1, H, W)
    array = (255 * image[0, 0]).round().byte().numpy()
    if kind == "bytes":
        return torch.from_numpy(array)[None, None]
    if kind == "PIL":
        return Image.fromarray(array)
    return {"uint8": array, "float64": array / 255.0, "HWC": np.stack([array, 255 - array, array], axis=-1)}[kind]


@pytest.mark.parametrize("kind", ("uint8", "float64", "HWC", "PIL", "bytes"))
def test_arrays_and_pictures_come_back_as_they_were(kind: str) -> None:
    moving, fixed = (image[:1] for image in pair(AFFINE))
    given = of_kind(kind, moving)
    found = stn.register(given, of_kind(kind, fixed), levels=3)
    assert type(found.image) is type(given) and np.asarray(found.image).dtype == np.asarray(given).dtype
    assert np.asarray(found.image).shape == np.asarray(given).shape
    points = 0.75 * lattice((9, 9)).flatten(0, -2)
    apart = (found.warp.points(points) - AFFINE.points(points)[:1]) * SIDE / 2
    assert apart.norm(dim=-1).mean() < 0.2


@pytest.mark.parametrize(
    "moving, fixed, options, sentence",
    [
        (
            torch.rand(1, 1, 8, 8),
            torch.rand(2, 1, 8, 8),
            {},
            "moving must have the batch size, channels and number of dimensions of fixed .*; got ",
        ),
        (torch.rand(1, 1, 8, 8), torch.full((1, 1, 8, 8), math.nan), {}, "fixed must be finite; got 64 pixels that are not"),
        (np.zeros((4, 4, 4, 4)), np.zeros((4, 4)), {}, r"moving must be \(H, W\), .*; got \(4, 4, 4, 4\)"),
        (
            np.zeros((4, 4), dtype=complex),
            np.zeros((4, 4)),
            {},
            "moving must be an array of real numbers; got .* complex128",
        ),
        ([[0.0]], [[0.0]], {}, "moving must be a torch.Tensor, a numpy array or a PIL image; got list"),
        (np.eye(8), np.eye(8), {"loss": "l2"}, "loss must be one of lncc, mi, mse, ncc; got 'l2'"),
        (np.eye(8), np.eye(8), {"transform": "afine"}, "transform must be one of affine, .*; got 'afine'"),
        (np.eye(8), np.eye(8), {"transform": stn.Affine(3)}, "ndim must be 2 for a family for these images; got 3"),
        (np.eye(8), np.eye(8), {"steps": 0}, "steps must be an integer of at least 1; got 0"),
        (np.eye(8), np.eye(8), {"levels": 0}, "levels must be an integer of at least 1; got 0"),
        (np.eye(8), np.eye(8), {"bending": -1}, "bending must not be negative; got -1"),
    ],
)
def test_bad_requests_end_with_a_sentence(moving: Any, fixed: Any, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(stn.InputError, match=sentence):
        stn.register(moving, fixed, **options)


def test_where_one_descent_ends_in_a_wrong_valley_the_best_of_many_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many parts of a page of text are similar. Of three distant transforms, a single descent finds only one."""
    page = torch.from_numpy(skimage.data.page()).float()[None, None] / 255
    wide = F.interpolate(page, (256, 256), mode="bilinear", antialias=True).expand(3, -1, -1, -1)
    angle, shift = torch.tensor([0.3, -0.3, 0.33]), torch.tensor([[-0.3, 0.2], [0.3, 0.3], [0.2, -0.3]])
    true = stn.Affine.from_parts(angle=angle, translation=shift, scale=torch.tensor([[1.1, 0.9]]))
    inner = lattice((128, 128)) / 2
    moving, fixed = stn.grid_sample(wide, inner.expand(3, -1, -1, -1)), stn.grid_sample(wide, true.grid((128, 128)) / 2)
    assert target_error(stn.register(moving, fixed, "affine").warp, true, 128).max() < 0.2
    monkeypatch.setattr("stn.registration.search.STARTS", 1)
    assert target_error(stn.register(moving, fixed, "affine").warp, true, 128).max() > 5


@pytest.mark.parametrize("side, transform, most", ((64, "affine", 32), (256, "affine", 1), (64, "tps", 1)))
def test_many_descents_begin_only_where_they_are_cheap(side: int, transform: str, most: int) -> None:
    """Transforms with few parameters use many descents on a level with few pixels: with one level, the image itself."""
    descents: list[int] = []

    def loss(warped: Tensor, fixed: Tensor, weight: Tensor) -> Tensor:
        descents.append(len(warped))
        return (warped - fixed).square().flatten(1).mean(dim=1)

    image = photo(1, side)
    stn.register(image, image, transform, loss=loss, levels=1, steps=1)
    assert max(descents) == most
