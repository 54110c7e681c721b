"""B-splines, displacement fields and flows compared with scipy's splines and integrators."""

import itertools

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.interpolate import NdBSpline
from scipy.linalg import expm
from torch import Tensor

import stn
from stn.grid import lattice
from tests.helpers import noise


def inside(count: int, ndim: int, seed: int = 1) -> Tensor:
    return 2 * torch.rand(count, ndim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) - 1


@pytest.mark.parametrize("shape", ((4, 4), (7, 5), (5, 4, 6)))
def test_bspline_is_scipys(shape: tuple[int, ...]) -> None:
    d = len(shape)
    theta, xy = 0.2 * noise(1, int(np.prod(shape)) * d), inside(40, d)
    knots = [-1 + (np.arange(n + 4) - 3) * 2 / (n - 3) for n in shape]
    spline = NdBSpline(tuple(knots), theta.view(*shape, d).numpy(), 3)
    expected = xy.numpy() + spline(xy.flip(-1).numpy())
    np.testing.assert_allclose(stn.BSpline(d, shape=shape)(theta).points(xy)[0].numpy(), expected, atol=1e-12)


def test_beyond_the_image_displacements_stay_as_at_its_border() -> None:
    xy = torch.tensor([[1.7, 0.3], [-3.0, -1.2], [0.1, 1.4]], dtype=torch.float64)
    border = xy.clamp(-1, 1)
    for family in (stn.BSpline(), stn.Displacement(align_corners=True)):
        warp = family(0.2 * noise(2, family.num_params))
        torch.testing.assert_close(warp.points(xy) - xy, warp.points(border) - border, atol=1e-14, rtol=0)
        assert (warp.points(border) - border).abs().min() > 1e-3


def test_what_folds_is_counted() -> None:
    mirror = stn.Affine()(torch.tensor([[-0.5, 0, 0, 0, 0.5, 0], [0.5, 0, 0, 0, 0.5, 0]]))
    assert mirror.fold_share((5, 6)).tolist() == [1.0, 0.0]
    field = torch.zeros(1, 4, 8, 2)
    field[:, :, 4:, 0] = -0.5  # two pixels of eight: the right half overlaps the left
    share = stn.Displacement.from_field(field).fold_share((4, 80))
    assert abs(float(share) - 0.125) < 0.03  # between two pixels of eight


@pytest.mark.parametrize("align_corners", (False, True))
def test_a_dense_field_is_itself(align_corners: bool) -> None:
    size, image = (6, 7), noise(2, 3, 6, 7)
    field = 0.2 * noise(2, *size, 2)
    expected = stn.grid_sample(image, field, relative=True, align_corners=align_corners)
    family = stn.Displacement(shape=size, align_corners=align_corners)
    for warp in (family(field.flatten(1)), stn.Displacement.from_field(field, align_corners=align_corners)):
        assert torch.equal(warp.sample(image, align_corners=align_corners), expected)
        torch.testing.assert_close(warp.grid(size, align_corners=align_corners) - lattice(
            size, align_corners=align_corners, dtype=torch.float64), field, atol=1e-14, rtol=0)  # fmt: skip


@pytest.mark.parametrize("ours, theirs", [*itertools.product((False, True), repeat=2)])
@pytest.mark.parametrize("size", ((9, 14), (1, 5), (6, 5, 7)))
def test_a_coarse_field_at_any_size(size: tuple[int, ...], ours: bool, theirs: bool) -> None:
    """Evaluating a whole output at once agrees with evaluating its points, for both corner conventions of both."""
    d = len(size)
    warp = stn.Displacement(d, shape=(3, 4, 2)[:d], align_corners=ours)(0.2 * noise(2, (12, 24)[d - 2] * d))
    image = noise(2, 1, *(8,) * d)
    expected = stn.grid_sample(image, warp.grid(size, align_corners=theirs), align_corners=theirs)
    torch.testing.assert_close(warp.sample(image, size, align_corners=theirs), expected, atol=1e-12, rtol=0)


def exact_flow(velocity: object, xy: Tensor) -> Tensor:
    assert callable(velocity)

    def derivative(_: float, flat: np.ndarray) -> np.ndarray:
        return np.asarray(velocity(torch.from_numpy(flat).view_as(xy))).ravel()

    solution = solve_ivp(derivative, (0, 1), xy.numpy().ravel(), rtol=1e-8, atol=1e-10, max_step=0.02)
    return torch.from_numpy(solution.y[:, -1].copy()).view_as(xy)


@pytest.mark.parametrize("ndim, tolerance", ((2, 3e-3), (3, 1e-2)))
def test_velocity_is_scipys_flow(ndim: int, tolerance: float) -> None:
    family = stn.Velocity(ndim)
    theta, xy = 0.2 * noise(1, family.num_params), 0.9 * inside(60, ndim)
    spline = stn.BSpline(ndim, shape=family.shape)(theta)
    expected = exact_flow(lambda x: spline.points(x)[0] - x, xy)
    assert (expected - xy).norm(dim=-1).max() > 0.1
    assert (family(theta).points(xy)[0] - expected).norm(dim=-1).max() < tolerance
    fine = stn.Velocity(ndim, resolution=(300, 110)[ndim - 2])(theta).points(xy)[0]
    assert (fine - expected).norm(dim=-1).max() < tolerance / 4
    one_step = stn.Velocity(ndim, resolution=(300, 110)[ndim - 2], squarings=0)(theta).points(xy)[0]
    assert (one_step - expected).norm(dim=-1).max() < tolerance


@pytest.mark.parametrize("ndim", (2, 3))
def test_velocity_without_a_lattice_is_scipys_flow(ndim: int) -> None:
    """Also at the border, beyond which the velocity no longer changes."""
    family = stn.Velocity(ndim, resolution=0)
    theta, xy = 0.2 * noise(1, family.num_params), inside(60, ndim)
    spline = stn.BSpline(ndim, shape=family.shape)(theta)
    expected = exact_flow(lambda x: spline.points(x)[0] - x, xy)
    assert (expected - xy).norm(dim=-1).max() > 0.1
    assert (family(theta).points(xy)[0] - expected).norm(dim=-1).max() < 1e-3
    fine = stn.Velocity(ndim, resolution=0, squarings=30)(theta).points(xy)[0]
    assert (fine - expected).norm(dim=-1).max() < 1e-4


def test_flows_are_within_their_errors_at_every_pixel() -> None:
    """Of 16 images, half widths, for theta of a standard deviation of 0.2: the docstrings say so."""
    for family, fine, most in ((stn.CPAB(), stn.CPAB(steps=128), 5e-4), (stn.Velocity(), stn.Velocity(squarings=96), 1e-3)):
        theta = 0.2 * noise(16, family.num_params)
        error = (family(theta).grid((64, 64)) - fine(theta).grid((64, 64))).norm(dim=-1).max()
        assert 1e-5 < error < most


@pytest.mark.parametrize("ndim, boundary", ((2, "fixed"), (2, "free"), (3, "fixed")))
def test_cpab_is_scipys_flow(ndim: int, boundary: str) -> None:
    family = stn.CPAB(ndim, boundary=boundary)
    theta, xy = 0.2 * noise(1, family.num_params), inside(60, ndim)
    fine = stn.CPAB(ndim, boundary=boundary, steps=64)(theta)
    expected = exact_flow(lambda x: fine.velocity(x.unsqueeze(0))[0], xy)
    assert (expected - xy).norm(dim=-1).max() > 0.1
    assert (family(theta).points(xy)[0] - expected).norm(dim=-1).max() < 1e-3
    assert (fine.points(xy)[0] - expected).norm(dim=-1).max() < 1e-4


@pytest.mark.parametrize("ndim", (2, 3))
def test_cpab_is_affine_on_each_simplex_and_continuous(ndim: int) -> None:
    family = stn.CPAB(ndim, cells=(2, 3, 2)[:ndim], boundary="free")
    linear, shift = noise(ndim, ndim), noise(ndim, seed=1)
    axes = [torch.linspace(-1, 1, n + 1, dtype=torch.float64) for n in family.cells]
    nodes = torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], dim=-1)
    xy = inside(50, ndim)
    warp = family((nodes @ linear.T + shift).reshape(1, -1))  # the interpolation of an affine velocity is exact
    torch.testing.assert_close(warp.velocity(xy[None])[0], xy @ linear.T + shift, atol=1e-12, rtol=0)
    rough, step = family(noise(1, family.num_params)), 1e-7
    for direction in torch.eye(ndim, dtype=torch.float64):
        jump = rough.velocity(xy[None] + step * direction) - rough.velocity(xy[None])
        assert jump.abs().max() < 1e-4
    at_nodes = rough.velocity(nodes.view(1, -1, ndim))
    torch.testing.assert_close(at_nodes.flatten(), noise(1, family.num_params).flatten(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("ndim", (2, 3))
def test_an_affine_velocity_flows_to_its_exponential(ndim: int) -> None:
    """CPAB with a free border, the exponential family and scipy's matrix exponential agree in this case."""
    cpab, affine = stn.CPAB(ndim, cells=(1,) * ndim, boundary="free"), stn.ExponentialAffine(ndim)
    rows = 0.15 * noise(ndim, ndim + 1)
    axes = [torch.tensor([-1.0, 1.0], dtype=torch.float64)] * ndim
    nodes = torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], dim=-1)
    xy = 0.3 * inside(30, ndim)
    flow = cpab((nodes @ rows[:, :-1].T + rows[:, -1]).reshape(1, -1)).points(xy)
    exponential = expm(np.vstack([rows.numpy(), np.zeros(ndim + 1)]))
    matrix = affine(rows.view(1, -1))
    np.testing.assert_allclose(matrix.matrix[0].numpy(), exponential[:ndim], atol=1e-12)
    torch.testing.assert_close(flow, matrix.points(xy), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ("velocity", "cpab"))
def test_flows_do_not_fold(name: str) -> None:
    """Draw 200 warps with a standard deviation of 0.2 half widths per node, then of 0.4, which is 20 % of the image."""
    for strength in (0.2, 0.4):
        for seed in range(5):
            family = stn.Velocity() if name == "velocity" else stn.CPAB()
            warp = family(strength * noise(20, family.num_params, seed=seed, dtype=torch.float32))
            assert (warp.fold_share((64, 64)) == 0).all()
            assert (warp.jacobian_determinant((64, 64)) - 1).abs().max() > 0.5


def test_cpab_keeps_the_border_when_it_is_fixed() -> None:
    family = stn.CPAB()
    border = torch.tensor([[-1.0, 0.3], [1, -0.7], [0.2, 1], [0.5, -1], [1, 1]], dtype=torch.float64)
    moved = family(0.4 * noise(3, family.num_params)).points(border)
    torch.testing.assert_close(moved, border.expand(3, -1, -1), atol=1e-14, rtol=0)


@pytest.mark.parametrize("name", ("tps", "bspline", "displacement"))
def test_an_inverse_by_iteration_reports_its_residual(name: str) -> None:
    families = {"tps": stn.ThinPlateSpline(), "bspline": stn.BSpline(), "displacement": stn.Displacement()}
    family, size = families[name], (50, 60)
    gentle, wild = (family(s * noise(2, family.num_params)) for s in (0.03, 1.5))
    assert gentle.fold_share(size).max() == 0 < wild.fold_share(size).min()
    for warp in (gentle, wild):  # beyond the control points both are nearly the identity: each point has a solution
        inverse = warp.inverse()
        assert isinstance(inverse, stn.InverseWarp)
        assert inverse.residual(size).shape == (2,) and inverse.residual(size).max() < 1e-3
        assert inverse.solved(size).all() and inverse.points(noise(5, 2)).isfinite().all()


class Kaleidoscope(stn.Warp):
    """Shows the right half of an image twice, and the left half nowhere."""

    def __init__(self) -> None:
        self.batch, self.ndim = (1,), 2
        self.dtype, self.device = torch.float64, torch.device("cpu")

    def map(self, xy: Tensor) -> Tensor:
        return torch.stack([xy[..., 0].abs(), xy[..., 1]], dim=-1)


def test_the_residual_is_the_distance_of_points_without_a_solution() -> None:
    """From the left half the nearest point is the middle: the outer pixel of 60 lies 29.5 pixels away."""
    inverse, size = Kaleidoscope().inverse(), (50, 60)
    assert isinstance(inverse, stn.InverseWarp)
    torch.testing.assert_close(inverse.residual(size), torch.tensor([29.5], dtype=torch.float64), atol=0.01, rtol=0)
    solved = inverse.solved(size)
    assert not solved[..., :30].any() and solved[..., 30:].all()
