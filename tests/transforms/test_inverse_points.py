"""`inverse_points`: the points are solutions where it says so, and where it says no, no solution exists."""

import pytest
import torch
from torch import Tensor

import stn
from stn.grid import lattice
from tests.helpers import noise

ONTO: dict[str, tuple[stn.Family, float]] = {  # families whose maps reach every point, also when they fold
    "displacement": (stn.Displacement(shape=(8, 8)), 0.3),
    "fine displacement": (stn.Displacement(shape=(40, 40), align_corners=True), 0.1),
    "bspline": (stn.BSpline(), 0.7),
    "tps": (stn.ThinPlateSpline(), 0.7),
    "displacement 1-D": (stn.Displacement(1), 0.7),
    "displacement 3-D": (stn.Displacement(3, shape=(5, 6, 4)), 0.7),
    "bspline 3-D": (stn.BSpline(3, shape=(4, 5, 4)), 2.0),
    "tps 3-D": (stn.ThinPlateSpline(3, control_points=(2, 3, 2)), 1.5),
}
FLOWS: dict[str, tuple[stn.Family, float]] = {
    "velocity": (stn.Velocity(), 0.3),
    "velocity 3-D": (stn.Velocity(3, resolution=16), 0.2),
    "cpab": (stn.CPAB(), 0.3),
}


def pixels(ndim: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return lattice({1: (60,), 2: (16, 16), 3: (6, 6, 6)}[ndim], dtype=dtype).flatten(0, -2)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
@pytest.mark.parametrize("name", ONTO)
def test_fields_that_fold_have_a_solution_everywhere(name: str, dtype: torch.dtype) -> None:
    """A continuous map with bounded displacements reaches every point, whatever it folds: its degree is one."""
    family, strength = ONTO[name]
    warp = family(strength * noise(3, family.num_params, dtype=dtype))
    assert warp.fold_share((24,) * family.ndim).mean() > 0.01
    y = pixels(family.ndim, dtype)
    x, found = warp.inverse_points(y)
    assert found.all()
    assert ((warp.points(x) - y).norm(dim=-1) < 2e-5).all()


@pytest.mark.parametrize("name", FLOWS)
def test_flows_are_inverted_through_the_warp_itself(name: str) -> None:
    """The flow backwards is exact to its steps only."""
    family, strength = FLOWS[name]
    warp, y = family(strength * noise(2, family.num_params)), pixels(family.ndim)
    assert (warp.points(warp.inverse().points(y)) - y).norm(dim=-1).max() > 1e-6
    x, found = warp.inverse_points(y)
    assert found.all()
    torch.testing.assert_close(warp.points(x), y.expand_as(x), atol=1e-10, rtol=0)


class Waves(stn.Warp):
    """x_i' = sin(c x_i): it reaches [-1, 1] and nothing beyond, and each of its points many times."""

    def __init__(self, c: Tensor, ndim: int) -> None:  # (N,)
        self.c, self.batch, self.ndim, self.dtype, self.device = c, (len(c),), ndim, c.dtype, c.device

    def map(self, xy: Tensor) -> Tensor:
        return torch.sin(self.c[:, None, None] * xy)


class Bowl(stn.Warp):
    """x' = (x^2 + y^2, x y): where |y'| > x' / 2 there is no solution."""

    def __init__(self) -> None:
        self.batch, self.ndim, self.dtype, self.device = (1,), 2, torch.float64, torch.device("cpu")

    def map(self, xy: Tensor) -> Tensor:
        return torch.stack([xy.square().sum(dim=-1), xy.prod(dim=-1)], dim=-1)


def nearest(warp: stn.Warp, y: Tensor) -> Tensor:  # (P, d) -> (N, P)
    """Return the distance from y to the nearest image of a dense grid on [-3, 3]."""
    count = {1: 4001, 2: 401, 3: 61}[warp.ndim]
    xs = 3 * lattice((count,) * warp.ndim, align_corners=True, dtype=y.dtype).flatten(0, -2)
    images = warp.points(xs)
    return torch.stack([torch.cat([torch.cdist(part, image).amin(dim=-1) for part in y.split(64)]) for image in images])


@pytest.mark.parametrize(
    "warp",
    (
        Waves(torch.tensor([1.0, 4.0], dtype=torch.float64), 1),
        Waves(torch.tensor([1.5, 3.0], dtype=torch.float64), 2),
        Waves(torch.tensor([1.5], dtype=torch.float64), 3),
        Bowl(),
        Bowl() @ stn.BSpline()(0.5 * noise(2, 98)),
        stn.Displacement()(0.3 * noise(1, 128)) @ Bowl(),
    ),
    ids=lambda warp: f"{type(warp).__name__} {warp.ndim}-D",
)
def test_where_it_says_no_there_is_none(warp: stn.Warp) -> None:
    """A point that lies further from the image of a dense grid than its spacing explains has no solution."""
    y = 1.3 * pixels(warp.ndim)
    x, found = warp.inverse_points(y)
    off, gap = (warp.points(x) - y).norm(dim=-1), nearest(warp, y)
    assert 0.1 < found.double().mean() < 0.95
    assert torch.equal(found, off <= 1e-3)
    assert (gap[~found] > 1e-3).all()


def test_the_best_point_of_the_search_is_kept() -> None:
    """Also with gradients: derivatives come from Newton steps of no length, which cannot leave the point."""
    family = stn.Displacement(shape=(40, 40))
    theta = (0.1 * noise(1, family.num_params, dtype=torch.float32)).requires_grad_()
    y = pixels(2, torch.float32)
    plain, traced = (family(t).inverse().points(y) for t in (theta.detach(), theta))
    assert torch.equal(plain, traced)
    traced.sum().backward()
    assert theta.grad is not None and theta.grad.isfinite().all()


def test_pixels_batches_and_looks() -> None:
    family, sizes = stn.BSpline(), ((30, 40), (20, 24))
    warp = family(0.05 * noise(2, 3, 98, dtype=torch.float32))
    out = torch.tensor([[3.0, 5.0], [20.0, 11.5]])
    there = warp.points(out, pixels=sizes)
    back, found = warp.inverse_points(there, pixels=sizes)
    assert back.shape == (2, 3, 2, 2) and found.shape == (2, 3, 2) and found.all()
    torch.testing.assert_close(back, out.expand_as(back), atol=1e-3, rtol=0)
    assert warp.inverse_points(torch.rand(5, 2))[0].shape == (2, 3, 5, 2)
    assert warp.inverse_points(torch.rand(2))[1].shape == (2, 3)
    one = stn.Rigid()(torch.tensor([[0.3, 0.1, 0.0]]))
    points, exists = one.inverse_points(torch.rand(4, 6, 2))
    assert points.shape == (4, 6, 2) and exists.all()
    assert stn.Velocity()(0.1 * noise(1, 98)).inverse_points(noise(4, 3, 2))[0].shape == (4, 3, 2)
    assert warp.inverse_points(torch.zeros(0, 2))[0].shape == (2, 3, 0, 2)


def test_points_without_a_meaning_and_points_on_a_horizon() -> None:
    warp = stn.BSpline()(0.05 * noise(1, 98))
    found = warp.inverse_points(torch.tensor([[torch.nan, 0.0], [0.2, 0.1], [torch.inf, 0.0]]))[1]
    assert found.tolist() == [[False, True, False]]
    view = stn.MatrixWarp(torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.0, 1.0]]]))  # x = 2 is its horizon
    assert view.inverse_points(torch.tensor([[2.0, 0.0], [0.5, 0.2]]))[1].tolist() == [[False, True]]


def test_derivatives_are_those_of_the_implicit_function() -> None:
    family = stn.Velocity(shape=(4, 4))
    theta, y = (0.1 * noise(1, family.num_params)).requires_grad_(), (0.4 * noise(3, 2)).requires_grad_()
    assert torch.autograd.gradcheck(lambda t, y: family(t).inverse_points(y)[0], (theta, y), fast_mode=True)


def test_what_cannot_be_asked() -> None:
    warp = stn.BSpline()(torch.zeros(1, 98))
    with pytest.raises(stn.InputError, match="tolerance must be positive; got 0"):
        warp.inverse_points(torch.zeros(2), tolerance=0)
    with pytest.raises(stn.InputError, match=r"xy must be \(..., 2\); got \(3,\)"):
        warp.inverse_points(torch.zeros(3))
