"""`Family.fit`: it finds the warp of exact pairs, the minimum of inexact ones, and agrees with OpenCV and scikit-image."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from skimage import transform as skimage_transform
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import stn
from tests.helpers import near_identity, noise

FIT: dict[str, Callable[[], stn.Family]] = {
    "translation": stn.Translation,
    "rigid": stn.Rigid,
    "similarity": stn.Similarity,
    "attention": stn.Attention,
    "a fixed scale": lambda: stn.Attention(scale=0.7),
    "anisotropic_scale": stn.AnisotropicScale,
    "affine": stn.Affine,
    "projective": stn.Projective,
    "corners": stn.MovedCorners,
    "tps": lambda: stn.ThinPlateSpline(control_points=(2, 3)),
    "tps positions": lambda: stn.ThinPlateSpline(control_points=(2, 3), parameters="positions", smoothing=0.1),
    "wide rigid": lambda: stn.Rigid(aspect=2.5),
    "wide similarity": lambda: stn.Similarity(aspect=(3, 4)),
    "Translation 3-D": lambda: stn.Translation(3),
    "Rigid 3-D": lambda: stn.Rigid(3),
    "Similarity 3-D": lambda: stn.Similarity(3),
    "Attention 3-D": lambda: stn.Attention(3),
    "AnisotropicScale 3-D": lambda: stn.AnisotropicScale(3),
    "Affine 3-D": lambda: stn.Affine(3),
    "Projective 3-D": lambda: stn.Projective(3),
    "slices": lambda: stn.Similarity(3, aspect=(30, 20, 25)),
}
COUNT = 12


def scattered(ndim: int, *batch: int, seed: int = 0) -> Tensor:
    return 0.6 * noise(*batch, COUNT, ndim, seed=seed).clamp(-1.5, 1.5)


def warped(family: stn.Family, *batch: int) -> tuple[Tensor, stn.Warp]:
    count = int(np.prod(batch))
    theta = near_identity(family, count, strength=0.15, seed=3)
    return theta, family(theta.view(*batch, -1))


@pytest.mark.parametrize("name", FIT)
@pytest.mark.parametrize("batch", ((3,), (2, 3)))
def test_exact_pairs_give_their_theta(name: str, batch: tuple[int, ...]) -> None:
    family = FIT[name]()
    theta, warp = warped(family, *batch)
    points = scattered(family.ndim)
    found = family.fit(points, warp.points(points))
    assert found.batch == batch and found.theta is not None and type(found) is type(warp)
    torch.testing.assert_close(found.theta.view_as(theta), theta, atol=1e-9, rtol=0)
    assert (theta - family.identity()).abs().max() > 0.1
    single = family.fit(points.float(), warp.points(points).float())
    assert single.dtype == torch.float32 and single.theta is not None
    torch.testing.assert_close(single.theta.double().view_as(theta), theta, atol=1e-4, rtol=0)


@pytest.mark.parametrize("weighted", (False, True))
@pytest.mark.parametrize("name", FIT)
def test_inexact_pairs_give_the_minimum(name: str, weighted: bool) -> None:
    """The gradient of the sum of squares is zero there, in the lengths that the family keeps."""
    family = FIT[name]()
    _, warp = warped(family, 2)
    points = scattered(family.ndim, 2)
    targets = warp.points(points) + 0.05 * noise(*points.shape, seed=5)
    weights = (noise(2, COUNT, seed=6).square() + 0.1) if weighted else None
    found = family.fit(points, targets, weights).theta
    assert found is not None
    aspect = getattr(family, "aspect", None)
    sides = (1.0,) * family.ndim if aspect is None else (aspect, 1.0) if family.ndim == 2 else aspect[::-1]
    shares = torch.ones(2, COUNT, dtype=torch.float64) if weights is None else weights

    def energy(theta: Tensor) -> Tensor:
        rest = (family(theta).points(points) - targets) * torch.tensor(sides, dtype=torch.float64)
        return (shares * rest.square().sum(dim=-1)).sum()

    theta = found.requires_grad_()
    slope = torch.autograd.grad(energy(theta), theta)[0]
    away = theta.detach() + 0.01 * noise(*theta.shape, seed=7)
    assert slope.abs().max() < 1e-8 and energy(theta) < energy(away)
    far = torch.autograd.grad(energy(away.requires_grad_()), away)[0]
    assert far.abs().max() > 1e-3  # the slope is not small everywhere


@pytest.mark.parametrize("name", ("translation", "attention", "anisotropic_scale", "affine", "projective", "tps"))
def test_a_point_without_weight_does_not_count(name: str) -> None:
    family = FIT[name]()
    points, targets = scattered(2, 2), scattered(2, 2) + 0.1 * noise(2, COUNT, 2, seed=1)
    weights = torch.ones(COUNT, dtype=torch.float64)
    weights[4] = 0
    moved = targets.clone()
    moved[:, 4] += 3
    first, second = (family.fit(points, t, weights).theta for t in (targets, moved))
    rest = [i for i in range(COUNT) if i != 4]
    third = family.fit(points[:, rest], targets[:, rest]).theta
    torch.testing.assert_close(first, second, atol=1e-10, rtol=0)
    torch.testing.assert_close(first, third, atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", FIT)
def test_derivatives(name: str) -> None:
    family = FIT[name]()
    theta, warp = warped(family, 1)
    points = scattered(family.ndim, 1)[:, :7]
    targets = (warp.points(points) + 0.05 * noise(*points.shape, seed=5)).detach()
    weights = noise(1, 7, seed=6).square() + 0.1
    inputs = [value.requires_grad_() for value in (points, targets, weights)]

    def run(points: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        found = family.fit(points, targets, weights).theta
        assert found is not None
        return found

    assert gradcheck(run, inputs, check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(run, inputs, fast_mode=True, atol=1e-4)


@pytest.mark.parametrize("name", ("similarity", "affine", "projective", "tps", "Rigid 3-D", "Projective 3-D"))
def test_under_vmap(name: str) -> None:
    family = FIT[name]()
    _, warp = warped(family, 4)
    points = scattered(family.ndim)
    targets = warp.points(points) + 0.03 * noise(4, COUNT, family.ndim, seed=5)

    def run(targets: Tensor) -> Tensor:
        found = family.fit(points, targets).theta
        assert found is not None
        return found

    many = torch.func.vmap(run)(targets)
    torch.testing.assert_close(many.squeeze(1), run(targets), atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", ("similarity", "affine", "projective", "tps"))
def test_compiled(name: str) -> None:
    family = FIT[name]()
    points, targets = scattered(2, 2), scattered(2, 2) + 0.1 * noise(2, COUNT, 2, seed=1)

    def run(points: Tensor, targets: Tensor) -> Tensor:
        return family.fit(points, targets).points(points)

    torch.compiler.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(points, targets), run(points, targets), atol=1e-8, rtol=0)


# ---- other people's code, in pixels: from an output of OUT to an image of IN ----

IN, OUT = (480, 640), (112, 96)


def landmarks(seed: int = 0, scatter: float = 2.0) -> tuple[Tensor, Tensor]:
    """Return points of the output and noisy targets in the image, in pixels."""
    points = torch.tensor([96.0, 112.0], dtype=torch.float64) * torch.rand(
        COUNT, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    turn = torch.tensor([[2.3, -1.1], [1.2, 2.2]], dtype=torch.float64)
    return points, points @ turn.mT + torch.tensor([200.0, 60.0], dtype=torch.float64) + scatter * noise(
        COUNT, 2, seed=seed + 1
    )


def in_pixels(warp: stn.MatrixWarp, align_corners: bool = False) -> np.ndarray:
    return warp.to_pixel_matrix(IN, OUT, convention="opencv-inverse", align_corners=align_corners)[0].numpy()


@pytest.mark.parametrize("align_corners", (False, True))
@pytest.mark.parametrize("seed", range(5))
def test_opencv(seed: int, align_corners: bool) -> None:
    points, targets = landmarks(seed)
    far = 1e6  # no point is an outlier, so that the result is the least squares of all
    options: Any = {"pixels": (IN, OUT), "align_corners": align_corners}
    affine = cv2.estimateAffine2D(points.numpy(), targets.numpy(), ransacReprojThreshold=far, refineIters=100)[0]
    got = in_pixels(stn.Affine().fit(points, targets, **options), align_corners)[:2]
    np.testing.assert_allclose(got, affine, atol=1e-5, rtol=1e-5)
    partial = cv2.estimateAffinePartial2D(points.numpy(), targets.numpy(), ransacReprojThreshold=far, refineIters=100)[0]
    got = in_pixels(stn.Similarity().fit(points, targets, **options), align_corners)[:2]
    np.testing.assert_allclose(got, partial, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("count", (4, COUNT))
@pytest.mark.parametrize("seed", range(5))
def test_homography_of_opencv(seed: int, count: int) -> None:
    """Four exact pairs, and twelve inexact ones, which OpenCV refines in ten steps to the least squared distances."""
    points, targets = landmarks(seed)
    if count == 4:
        points = torch.tensor([[10.0, 12.0], [88.0, 9.0], [84.0, 100.0], [8.0, 95.0]], dtype=torch.float64)
        targets = 4 * points + torch.tensor([60.0, 20.0]) + 20 * noise(4, 2, seed=seed)
    theirs = cv2.findHomography(points.numpy(), targets.numpy(), method=0)[0]
    for family in (stn.Projective(), stn.MovedCorners()):
        ours = in_pixels(family.fit(points, targets, pixels=(IN, OUT)))
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=2e-5)
        first, second = (cv2.perspectiveTransform(points.numpy()[None], matrix)[0] for matrix in (ours, theirs))
        np.testing.assert_allclose(first, second, atol=3e-5)  # pixels
        rest = [np.square(found - targets.numpy()).sum() for found in (first, second)]
        assert rest[0] <= rest[1] and (rest[0] < 1e-12) == (count == 4)


@pytest.mark.parametrize("seed", range(5))
def test_skimage(seed: int) -> None:
    points, targets = landmarks(seed)
    for kind, family in (("euclidean", stn.Rigid()), ("similarity", stn.Similarity())):
        theirs = skimage_transform.estimate_transform(kind, points.numpy(), targets.numpy()).params
        ours = family.fit(points, targets, pixels=(IN, OUT))
        np.testing.assert_allclose(in_pixels(ours), theirs, atol=1e-5, rtol=1e-5)
    points, exact = landmarks(seed, scatter=0.0)
    for kind, other in (("affine", stn.Affine()), ("projective", stn.Projective())):
        theirs = skimage_transform.estimate_transform(kind, points.numpy(), exact.numpy()).params
        np.testing.assert_allclose(in_pixels(other.fit(points, exact, pixels=(IN, OUT))), theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_skimage_in_space(seed: int) -> None:
    points, targets = noise(9, 3, seed=seed), noise(9, 3, seed=seed + 10)
    for kind, family in (("euclidean", stn.Rigid(3)), ("similarity", stn.Similarity(3))):
        theirs = skimage_transform.estimate_transform(kind, points.numpy(), targets.numpy()).params
        ours = family.fit(points, targets).square()[0].numpy()
        np.testing.assert_allclose(ours, theirs, atol=1e-8)


def test_a_mirrored_set_is_turned_and_not_mirrored() -> None:
    points = noise(8, 3)
    for targets in (points * torch.tensor([1.0, 1.0, -1.0]), points.flip(-1) + 0.1 * noise(8, 3, seed=1)):
        found = stn.Rigid(3).fit(points, targets).matrix[0, :, :3]
        torch.testing.assert_close(torch.linalg.det(found), torch.ones((), dtype=torch.float64))
        torch.testing.assert_close(found @ found.mT, torch.eye(3, dtype=torch.float64), atol=1e-12, rtol=0)


def test_half_turns() -> None:
    for axis in torch.cat([torch.eye(3, dtype=torch.float64), -torch.eye(3, dtype=torch.float64)]):
        theta = torch.cat([axis * torch.pi * 0.999999, torch.tensor([0.1, 0.2, 0.3])])[None]
        points = noise(6, 3)
        found = stn.Rigid(3).fit(points, stn.Rigid(3)(theta).points(points))
        torch.testing.assert_close(found.theta, theta, atol=1e-6, rtol=0)


# ---- pixels ----


def test_a_similarity_between_other_shapes_has_no_theta() -> None:
    """One of equal shapes has, and it is the theta of the family with that aspect."""
    points, targets = landmarks()
    assert stn.Similarity().fit(points, targets, pixels=(IN, OUT)).theta is None
    square = stn.Similarity().fit(points, targets, pixels=((200, 200), (112, 112)))
    assert square.theta is not None
    torch.testing.assert_close(stn.Similarity()(square.theta).matrix, square.matrix)
    wide = stn.Similarity(aspect=(200, 400))
    found = wide.fit(points, targets, pixels=((200, 400), (50, 100)))
    assert found.theta is not None
    torch.testing.assert_close(wide(found.theta).matrix, found.matrix)
    assert stn.Rigid(aspect=2).fit(points, targets, pixels=((200, 400), (50, 100))).theta is None
    assert stn.Rigid(aspect=2).fit(points, targets, pixels=((200, 400), (200, 400))).theta is not None
    assert stn.Translation().fit(points, targets, pixels=(IN, OUT)).theta is None
    assert stn.Affine().fit(points, targets, pixels=(IN, OUT)).theta is not None


@pytest.mark.parametrize("align_corners", (False, True))
@pytest.mark.parametrize("name", ("rigid", "similarity", "translation", "attention", "affine", "projective", "tps"))
def test_pixels_of_points_agree_with_a_fit_in_pixels(name: str, align_corners: bool) -> None:
    points, targets = landmarks(scatter=0.0)
    warp = FIT[name]().fit(points, targets, pixels=(IN, OUT), align_corners=align_corners)
    got = warp.points(points, pixels=(IN, OUT), align_corners=align_corners)[0]
    if name in ("affine", "projective", "tps"):
        torch.testing.assert_close(got, targets, atol=1e-8, rtol=0)
    assert (got - targets).square().mean().sqrt() < {"translation": 150, "rigid": 80, "attention": 100}.get(name, 8)
    back = warp.inverse().points(got, pixels=(OUT, IN), align_corners=align_corners)[0]
    torch.testing.assert_close(back, points, atol=1e-3, rtol=0)


# ---- sentences ----

LINE = torch.linspace(-1, 1, 8, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.5], dtype=torch.float64)
SPACE_LINE = torch.cat([LINE, LINE[:, :1]], dim=1)
SAME = torch.zeros(8, 2)
BAD: dict[str, tuple[Callable[[], object], str]] = {
    "few": (lambda: stn.Affine().fit(LINE[:2], LINE[:2]), "points must be at least 3 for Affine; got 2"),
    "few corners": (
        lambda: stn.Projective(3).fit(SPACE_LINE[:4], SPACE_LINE[:4]),
        "must be at least 5 for Projective; got 4",
    ),
    "few offsets": (lambda: stn.ThinPlateSpline().fit(LINE, LINE), "points must be at least 16 for ThinPlateSpline; got 8"),
    "line": (
        lambda: stn.Affine().fit(torch.stack([noise(8, 2), LINE]), noise(8, 2)),
        r"must determine the Affine; they coincide, lie on one line or have no weight at sample 1 of \(2,\)",
    ),
    "line in float32": (lambda: stn.Affine().fit(LINE.float(), noise(8, 2).float()), "must determine the Affine"),
    "homography": (lambda: stn.Projective().fit(LINE, noise(8, 2)), "must determine the Projective"),
    "onto a line": (lambda: stn.Projective().fit(noise(4, 2), LINE[:4]), "must determine the Projective"),
    "three of four": (
        lambda: stn.Projective().fit(torch.cat([LINE[:3], torch.tensor([[0.3, 0.9]])]).float(), noise(4, 2).float()),
        "must determine the Projective",
    ),
    "turn": (lambda: stn.Rigid(3).fit(SPACE_LINE, SPACE_LINE), "must determine the Rigid"),
    "equal points": (lambda: stn.Similarity().fit(SAME + 0.3, noise(8, 2)), "must determine the Similarity"),
    "equal targets": (lambda: stn.Similarity().fit(noise(8, 2), SAME + 0.3), "must determine the Similarity"),
    "axis": (lambda: stn.AnisotropicScale().fit(LINE * torch.tensor([1.0, 0]), LINE), "determine the AnisotropicScale"),
    "attention": (lambda: stn.Attention().fit(SAME + 0.3, LINE.float()), "must determine the Attention"),
    "no weight": (lambda: stn.Translation().fit(LINE, LINE, torch.zeros(8)), "must determine the Translation"),
    "not a number": (lambda: stn.Affine().fit(noise(8, 2) * torch.nan, LINE), "must determine the Affine"),
    "not a number 3-D": (lambda: stn.Rigid(3).fit(noise(8, 3) * torch.nan, SPACE_LINE), "must determine the Rigid"),
    "infinite": (lambda: stn.Projective().fit(noise(8, 2) / 0, LINE), "must determine the Projective"),
    "spline": (lambda: stn.ThinPlateSpline(control_points=(2, 2)).fit(SAME, SAME), "determine the ThinPlateSpline"),
    "family": (
        lambda: stn.BSpline().fit(LINE, LINE),
        "must be one of Translation, .* least squares; got BSpline: see stn.reg",
    ),
    "exponential": (lambda: stn.ExponentialAffine().fit(LINE, LINE), "least squares; got ExponentialAffine"),
    "bounded": (lambda: stn.bounded(stn.Translation(), translation=(-1, 1)).fit(LINE, LINE), "got Bounded"),
    "points": (
        lambda: stn.Affine().fit(torch.zeros(8, 3), LINE),
        r"points must be \(P, 2\), \(N, P, 2\) or .*; got \(8, 3\)",
    ),
    "targets": (lambda: stn.Affine().fit(LINE, LINE[:7]), "as many, one target for each point; got 8 and 7"),
    "weights": (lambda: stn.Affine().fit(LINE, LINE, torch.ones(7)), r"weights must be \(8,\), \(N, 8\) or .*; got \(7,\)"),
    "batches": (
        lambda: stn.Affine().fit(LINE.expand(2, 8, 2), LINE.expand(3, 8, 2)),
        r"points, targets and weights must have the same batch, or a batch of 1; got \(2,\), \(3,\)",
    ),
    "pixels": (
        lambda: stn.Affine().fit(LINE, LINE, pixels=(480, 640)),  # type: ignore[arg-type]  # on purpose
        r"pixels must be \(in_size, out_size\), the size \(H, W\) of the image and of the output; got \(480, 640\)",
    ),
    "pixels of points": (
        lambda: stn.Affine()(torch.eye(2, 3).view(1, 6)).points(LINE, pixels=((4, 5), (4, 5, 6))),
        r"pixels\[1\] must have 2 lengths; got \(4, 5, 6\)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_the_sentence(name: str) -> None:
    call, message = BAD[name]
    with pytest.raises(stn.InputError, match=message):
        call()


def test_types() -> None:
    with pytest.raises(TypeError, match="targets must have a floating-point dtype; got torch.int64"):
        stn.Affine().fit(LINE, torch.ones(8, 2, dtype=torch.int64))
