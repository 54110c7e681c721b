"""The meaning of each parameter of the linear families."""

import math
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from scipy.linalg import expm
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import stn
from stn import InputError
from stn.transforms import family
from stn.transforms.homographies import corners_to_matrix
from stn.transforms.parts import matrix_exponential
from tests.helpers import noise


def matrix(name: str, *theta: float) -> Tensor:
    """Return the 3x3 matrix of a warp from its values at four points: it tests `points`, not the stored matrix."""
    corners = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]], dtype=torch.float64)
    moved = family(name)(torch.tensor([theta], dtype=torch.float64)).points(corners)[0]
    source, target = (points.numpy().astype(np.float32) for points in (corners, moved))
    return torch.from_numpy(cv2.getPerspectiveTransform(source, target))


def affine(*rows: list[float]) -> Tensor:
    return torch.tensor([*rows, [0.0, 0.0, 1.0]], dtype=torch.float64)


C, S = math.cos(0.3), math.sin(0.3)


@pytest.mark.parametrize(
    "name, theta, expected",
    [
        ("translation", (0.1, -0.2), affine([1, 0, 0.1], [0, 1, -0.2])),
        ("rigid", (0.3, 0.1, -0.2), affine([C, -S, 0.1], [S, C, -0.2])),
        ("similarity", (0.5, 0.3, 0.1, -0.2), affine([C / 2, -S / 2, 0.1], [S / 2, C / 2, -0.2])),
        ("attention", (0.5, 0.1, -0.2), affine([0.5, 0, 0.1], [0, 0.5, -0.2])),
        ("anisotropic_scale", (0.5, 0.7, 0.1, -0.2), affine([0.5, 0, 0.1], [0, 0.7, -0.2])),
        ("exponential_affine", (0, -0.3, 0, 0.3, 0, 0), affine([C, -S, 0], [S, C, 0])),
        ("affine", (1, 0.2, 0.1, -0.3, 0.9, -0.2), affine([1, 0.2, 0.1], [-0.3, 0.9, -0.2])),
        ("projective", (1, 0.2, 0.1, -0.3, 0.9, -0.2, 0.3, -0.1), None),
    ],
)
def test_parameters(name: str, theta: tuple[float, ...], expected: Tensor | None) -> None:
    if expected is None:
        expected = torch.tensor([*theta, 1.0], dtype=torch.float64).view(3, 3)
    torch.testing.assert_close(matrix(name, *theta), expected, atol=1e-6, rtol=0)


def test_each_family_contains_the_one_before() -> None:
    image, t, angle = noise(1, 2, 8, 8), (0.1, -0.2), 0.4
    c, s = math.cos(angle), math.sin(angle)
    chains: list[list[tuple[str, tuple[float, ...]]]] = [
        [
            ("translation", t),
            ("rigid", (0, *t)),
            ("similarity", (1, 0, *t)),
            ("attention", (1, *t)),
            ("affine", (1, 0, t[0], 0, 1, t[1])),
            ("projective", (1, 0, t[0], 0, 1, t[1], 0, 0)),
        ],
        [
            ("rigid", (angle, *t)),
            ("similarity", (1, angle, *t)),
            ("affine", (c, -s, t[0], s, c, t[1])),
            ("projective", (c, -s, t[0], s, c, t[1], 0, 0)),
        ],
        [("attention", (0.6, *t)), ("similarity", (0.6, 0, *t)), ("affine", (0.6, 0, t[0], 0, 0.6, t[1]))],
    ]
    for chain in chains:
        samples = [family(name)(torch.tensor([theta], dtype=torch.float64)).sample(image) for name, theta in chain]
        for sample in samples[1:]:
            torch.testing.assert_close(sample, samples[0], atol=1e-14, rtol=0)


def test_each_family_contains_the_one_before_in_3d() -> None:
    image, t, w = noise(1, 2, 5, 6, 7), [0.1, -0.2, 0.15], [0.3, -0.5, 0.2]
    r = Rotation.from_rotvec(w).as_matrix()
    rows = [[*row, shift] for row, shift in zip(r.tolist(), t, strict=True)]
    chain: list[tuple[str, list[float]]] = [
        ("rigid", [*w, *t]),
        ("similarity", [1.0, *w, *t]),
        ("affine", [number for row in rows for number in row]),
        ("projective", [*(number for row in rows for number in row), 0.0, 0.0, 0.0]),
    ]
    upright: list[tuple[str, list[float]]] = [
        ("attention", [0.6, *t]),
        ("anisotropic_scale", [0.6, 0.6, 0.6, *t]),
        ("similarity", [0.6, 0.0, 0.0, 0.0, *t]),
    ]
    for families in (chain, upright):
        samples = [family(name, 3)(torch.tensor([theta], dtype=torch.float64)).sample(image) for name, theta in families]
        for sample in samples[1:]:
            torch.testing.assert_close(sample, samples[0], atol=1e-13, rtol=0)


@pytest.mark.parametrize("size", (0.0, 1e-9, 1e-4, 0.05, 0.0999, 0.1001, 1.0, math.pi, 6.0))
def test_rotations_are_scipys(size: float) -> None:
    """This includes angles for which the formula is a series, and angles beyond half a turn."""
    axis = torch.tensor([0.6, -0.48, 0.64], dtype=torch.float64)
    theta = torch.cat([size * axis, torch.zeros(3, dtype=torch.float64)])[None].requires_grad_()
    xyz = noise(20, 3)
    moved = stn.Rigid(3)(theta).points(xyz)
    turned = Rotation.from_rotvec(size * axis.numpy()).apply(xyz.numpy())
    np.testing.assert_allclose(moved[0].detach(), turned, atol=1e-13, rtol=0)
    assert gradcheck(lambda t: stn.Rigid(3)(t).points(xyz[:2]), (theta,))
    assert gradgradcheck(lambda t: stn.Rigid(3)(t).points(xyz[:2]), (theta,))


@pytest.mark.parametrize("scale", (1e-3, 1.0, 8.0))
def test_the_exponential_is_scipys(scale: float) -> None:
    generator = scale * noise(5, 4, 4)
    expected = np.stack([expm(matrix) for matrix in generator.numpy()])
    np.testing.assert_allclose(matrix_exponential(generator).numpy(), expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(matrix_exponential(torch.zeros(4, 4)), torch.eye(4))


def test_a_look_of_fixed_size() -> None:
    look, image = stn.Attention(scale=0.5), noise(2, 1, 8, 8)
    assert look.num_params == 2
    t = torch.tensor([[0.5, -0.5], [0.0, 0.0]], dtype=torch.float64)
    out = look(t).sample(image, (4, 4))
    torch.testing.assert_close(out[0], image[0, :, :4, 4:], atol=1e-14, rtol=0)
    torch.testing.assert_close(out[1], image[1, :, 2:6, 2:6], atol=1e-14, rtol=0)


def test_moved_corners_move() -> None:
    theta = 0.2 * noise(5, 8)
    square = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]], dtype=torch.float64)
    torch.testing.assert_close(stn.MovedCorners()(theta).points(square), square + theta.view(5, 4, 2), atol=1e-13, rtol=0)


def test_corners_on_a_line_spoil_no_other_sample() -> None:
    theta = 0.1 * noise(3, 8)
    square = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]], dtype=torch.float64)
    line = torch.tensor([[-1.0, -1], [0, 0], [0.5, 0.5], [1, 1]], dtype=torch.float64)
    theta[1] = (line - square).flatten()
    warp = stn.MovedCorners()(theta.requires_grad_())
    assert warp.matrix.isfinite().all()
    warp.sample(noise(3, 1, 8, 8)).sum().backward()
    assert theta.grad is not None and theta.grad.isfinite().all()
    with pytest.raises(InputError, match="the warp's matrix must not be singular; it is singular at sample 1 of"):
        warp.inverse()
    inverse = warp.inverse(check=False)
    assert inverse.matrix[1].isnan().all() and inverse.matrix[[0, 2]].isfinite().all()


@pytest.mark.parametrize("name, theta", [("affine", [1.0, 2, 0, 2, 4, 0]), ("attention", [0.0, 0.1, 0.1])])
def test_a_singular_matrix_is_named(name: str, theta: list[float]) -> None:
    transform = family(name)
    rows = transform.identity().repeat(2, 3, 1)
    rows[1, 2] = torch.tensor(theta)
    with pytest.raises(InputError, match=r"must not be singular; it is singular at sample \(1, 2\) of \(2, 3\)"):
        transform(rows).inverse()
    tiny = transform.identity()[None].clone()
    tiny[0, 0] = 1e-3
    transform(tiny).inverse()


def test_parts_2d() -> None:
    angle, scale = torch.tensor([0.3, -0.7], dtype=torch.float64), torch.tensor([0.5, 2.0], dtype=torch.float64)
    center = torch.tensor([0.2, -0.3], dtype=torch.float64)
    warp = stn.Affine.from_parts(angle=angle, scale=scale, shear=0.4, translation=torch.tensor([0.1, 0.0]), center=center)
    for n in range(2):
        c, s = math.cos(angle[n]), math.sin(angle[n])
        turn, shear = torch.tensor([[c, -s], [s, c]], dtype=torch.float64), torch.tensor([[1, 0.4], [0, 1]])
        linear = turn @ shear.double() * scale[n]
        xy = noise(5, 2)
        expected = (xy - center) @ linear.T + center + torch.tensor([0.1, 0.0]).double()
        torch.testing.assert_close(warp.points(xy)[n], expected, atol=1e-7, rtol=0)  # 0.4 in float32
    stretched = stn.Affine.from_parts(angle=angle, scale=torch.tensor([[0.5, 2.0]]), shear=0.75)
    lengths = torch.tensor([[0.5, 2.0 * 1.25]]).double().expand(2, 2)  # of the columns: the shear is applied after the scale
    torch.testing.assert_close(stretched.matrix[:, :, :2].norm(dim=1), lengths, atol=1e-7, rtol=0)
    assert torch.equal(stn.Affine.from_parts().matrix, torch.eye(2, 3)[None])
    several = stn.Affine.from_parts(scale=torch.tensor([0.5, 2.0, 3.0]))  # one per sample, without another batch
    assert torch.equal(several.matrix[:, :, :2], torch.tensor([0.5, 2.0, 3.0])[:, None, None] * torch.eye(2))


def test_parts_3d_and_looks() -> None:
    w = 0.4 * noise(2, 5, 3)
    warp = stn.Affine.from_parts(angle=w, scale=0.7, shear=torch.tensor([0.1, 0.2, 0.3]).double(), ndim=3)
    assert warp.batch == (2, 5) and warp.ndim == 3
    shear = torch.tensor([[1, 0.1, 0.2], [0, 1, 0.3], [0, 0, 1]]).double()
    expected = torch.from_numpy(Rotation.from_rotvec(w[1, 3].numpy()).as_matrix()) @ shear * 0.7
    torch.testing.assert_close(warp.matrix[1, 3, :, :3], expected, atol=1e-7, rtol=0)


def test_parts_are_differentiable() -> None:
    parts = [p.requires_grad_() for p in (0.3 * noise(2), 1 + 0.2 * noise(2, 2), 0.2 * noise(2), noise(2, 2), noise(2, 2))]

    def points(*parts: Tensor) -> Tensor:
        names = ("angle", "scale", "shear", "translation", "center")
        given: Any = dict(zip(names, parts, strict=True))
        return stn.Affine.from_parts(**given).points(noise(3, 2))

    assert gradcheck(points, parts)
    with pytest.raises(InputError, match=r"translation must be \(\.\.\., 2\); got \(2, 3\)"):
        stn.Affine.from_parts(translation=torch.zeros(2, 3))
    with pytest.raises(TypeError, match="angle must have a floating-point dtype"):
        stn.Affine.from_parts(angle=torch.tensor([1]))


def test_an_affine_map_is_a_spline() -> None:
    """Thin-plate splines reproduce affine maps: the offsets A p + t - p cause no bending."""
    spline, image = stn.ThinPlateSpline(), noise(1, 1, 8, 9)
    a = torch.tensor([[0.8, 0.2, 0.1], [-0.3, 0.9, 0.05]], dtype=torch.float64)
    p = spline.control_points
    offsets = p @ a[:, :2].T + a[:, 2] - p
    expected = stn.affine_sample(image, a)
    torch.testing.assert_close(spline(offsets.view(1, -1)).sample(image), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("ndim", (2, 3))
def test_volumes(ndim: int) -> None:
    size = (4, 5, 6)[:ndim]
    image = noise(2, 1, *size)
    t = torch.tensor([0.2, -0.1, 0.3], dtype=torch.float64)[:ndim]
    moved = stn.affine_sample(image, torch.cat([torch.eye(ndim, dtype=torch.float64), t[:, None]], dim=1))
    scaled = stn.affine_sample(image, torch.cat([0.7 * torch.eye(ndim, dtype=torch.float64), t[:, None]], dim=1))
    assert torch.equal(stn.Translation(ndim)(t.expand(2, -1)).sample(image), moved)
    look = torch.cat([torch.tensor([0.7], dtype=torch.float64), t])
    torch.testing.assert_close(stn.Attention(ndim)(look.expand(2, -1)).sample(image), scaled)
    for transform in (stn.Affine(ndim), stn.Projective(ndim)):
        assert torch.equal(transform(transform.identity().expand(2, -1)).sample(image), image)


def test_a_homography_from_its_corners() -> None:
    square = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]], dtype=torch.float64)
    assert torch.equal(corners_to_matrix(square), torch.eye(3, dtype=torch.float64))
    corners = square + 0.3 * noise(6, 4, 2)
    found = corners_to_matrix(corners)
    for moved, ours in zip(corners, found, strict=True):
        theirs = cv2.getPerspectiveTransform(square.numpy().astype(np.float32), moved.numpy().astype(np.float32))
        np.testing.assert_allclose((ours / ours[2, 2]).numpy(), theirs, atol=1e-5)
        assert ours[2] @ torch.ones(3, dtype=torch.float64) != 0
