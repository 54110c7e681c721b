"""Inverses by iteration: they find every solution, report where there is none, and never return a worse point."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import stn
from stn.grid import lattice
from tests.helpers import noise, seeded

FIELDS: dict[str, tuple[stn.Family, int]] = {  # name -> family and number of samples: 1,000 in all
    "displacement 3 x 4": (stn.Displacement(shape=(3, 4), align_corners=True), 150),
    "displacement 8 x 8": (stn.Displacement(shape=(8, 8)), 150),
    "displacement 16 x 16": (stn.Displacement(shape=(16, 16)), 100),
    "displacement 5 x 6 x 4": (stn.Displacement(3, shape=(5, 6, 4)), 100),
    "bspline 4 x 4": (stn.BSpline(shape=(4, 4)), 100),
    "bspline 7 x 7": (stn.BSpline(), 150),
    "bspline 4 x 4 x 4": (stn.BSpline(3, shape=(4, 4, 4)), 50),
    "tps 3 x 3": (stn.ThinPlateSpline(control_points=(3, 3)), 100),
    "tps 4 x 4": (stn.ThinPlateSpline(), 100),
}
PIXEL = 2 / 128  # one pixel of an image of 128 pixels


def unfolded(family: stn.Family, count: int, *, seed: int = 0) -> Tensor:  # (count, P)
    """Return parameters for which the smallest determinant of the Jacobian I + s A, linear in theta, is 0.02 to 0.4."""
    theta = noise(count, family.num_params, seed=seed)
    n, d = (49, 2) if family.ndim == 2 else (15, 3)
    places = 1.4 * lattice((n,) * d, align_corners=True, dtype=torch.float64).flatten(0, -2)
    places = torch.cat([places, 0.1 * noise(200, d) + torch.sign(noise(200, d, seed=1))])  # also around the corners
    eye = torch.eye(d, dtype=torch.float64)
    moved = family(theta)._jacobian(places.expand(count, -1, -1)) - eye
    least = torch.logspace(-1.7, -0.4, count, dtype=torch.float64)
    low, step = torch.zeros(count, dtype=torch.float64), 0.04
    for _ in range(3):  # up to the first fold, in steps of 0.04, 0.004 and 0.0004
        fits = torch.ones(count, dtype=torch.bool)
        for _ in range(60 if step == 0.04 else 10):
            trial = low + step
            fits &= torch.linalg.det(eye + trial[:, None, None, None] * moved).amin(dim=-1) > least
            low = torch.where(fits, trial, low)
            if not fits.any():
                break
        step /= 10
    return low.unsqueeze(1) * theta


def missed(warp: stn.Warp, x: Tensor, *, tolerance: float = 0.01) -> Tensor:
    """Return True for points whose inverse is wrong by more than `tolerance` pixels of 128."""
    y = warp.points(x)
    found = warp.inverse().points(y)
    return ~((warp.points(found) - y).norm(dim=-1) / PIXEL <= tolerance)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
@pytest.mark.parametrize("name", FIELDS)
def test_every_solution_is_found(name: str, dtype: torch.dtype) -> None:
    """The fields almost fold. The points include some beyond the border."""
    family, count = FIELDS[name]
    theta = unfolded(family, count)
    assert theta.abs().max() > 0.1
    x = 1.3 * (2 * torch.rand(40, family.ndim, dtype=torch.float64, generator=seeded(1)) - 1)
    assert not missed(family(theta.to(dtype)), x.to(dtype)).any()


@pytest.mark.parametrize("n", (9, 33))
def test_every_solution_in_a_swirl_is_found(n: int) -> None:
    """The center is rotated by up to 6 radians: plain iteration moves away from the solution."""
    xy = lattice((n, n), dtype=torch.float64)
    angle = torch.linspace(0.5, 6, 40, dtype=torch.float64)[:, None, None] * torch.exp(-5 * xy.square().sum(dim=-1))
    turned = stn.Affine.from_parts(angle=angle.flatten()).points(xy.flatten(0, 1).repeat(40, 1).unsqueeze(1))
    warp = stn.Displacement.from_field(turned.view(40, n, n, 2) - xy)
    kept = warp.fold_share((200, 200)) == 0
    assert kept.sum() >= 10
    warp = stn.Displacement.from_field((turned.view(40, n, n, 2) - xy)[kept])
    x = 1.2 * (2 * torch.rand(300, 2, dtype=torch.float64, generator=seeded(1)) - 1)
    assert not missed(warp, x).any()


def plainly(warp: stn.Warp, y: Tensor) -> Tensor:
    """Search with 12 plain steps, each halved if the last one failed, and 4 Newton steps where they help."""
    x, rest = y, y - warp.map(y)
    step = torch.ones_like(rest[..., :1])
    for k in range(16):
        jacobian = warp._jacobian(x)
        flat = (torch.linalg.det(jacobian).abs() < 1e-4)[..., None, None]
        jacobian = torch.where(flat, torch.eye(warp.ndim, dtype=x.dtype), jacobian)
        trial = x + (step * rest if k < 12 else torch.linalg.solve(jacobian, rest))
        left = y - warp.map(trial)
        better = left.norm(dim=-1, keepdim=True) < rest.norm(dim=-1, keepdim=True)
        x, rest = torch.where(better, trial, x), torch.where(better, left, rest)
        step = torch.where(better, step, step / 2)
    return x


@pytest.mark.parametrize("strength", (0.15, 0.3, 0.7))
@pytest.mark.parametrize("name", ("displacement 8 x 8", "bspline 7 x 7", "tps 4 x 4"))
def test_where_a_field_folds_no_point_is_worse_than_by_the_plain_search(name: str, strength: float) -> None:
    family = FIELDS[name][0]
    warp, size = family(strength * noise(4, family.num_params)), (30, 30)
    inverse = warp.inverse()
    assert isinstance(inverse, stn.InverseWarp)
    y = lattice(size, dtype=torch.float64).flatten(0, 1).expand(4, -1, -1)
    off, plain = (((warp.points(x) - y) * 15).norm(dim=-1) for x in (inverse.points(y), plainly(warp, y)))
    assert not ((off > plain + 1e-9) & (off > 1e-3)).any()
    assert (off > 0.01).sum() <= 0.2 * (plain > 0.01).sum()
    assert torch.equal(inverse.solved(size), (off <= 0.01).view(4, 30, 30))
    torch.testing.assert_close(inverse.residual(size), off.amax(dim=-1))


class Squared(stn.Warp):
    """x' = (x + c)^2, y' = y. There are two solutions where x' > 0, and none where x' < 0."""

    def __init__(self, c: Tensor) -> None:  # (N,)
        self.c, self.batch, self.ndim, self.dtype, self.device = c, (len(c),), 2, c.dtype, c.device

    def map(self, xy: Tensor) -> Tensor:
        return torch.stack([(xy[..., 0] + self.c[:, None]).square(), xy[..., 1]], dim=-1)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_it_says_where_there_is_no_solution(dtype: torch.dtype) -> None:
    """Points without a solution have no gradient."""
    c = torch.tensor([0.1, -0.3], dtype=dtype, requires_grad=True)
    inverse = Squared(c).inverse()
    assert isinstance(inverse, stn.InverseWarp)
    exists = lattice((6, 8))[..., 0] > 0
    assert torch.equal(inverse.solved((6, 8)), exists.expand(2, -1, -1))
    assert not inverse.solved((6, 8), align_corners=True)[..., :4].any()
    y = torch.tensor([[-0.5, 0.2], [0.25, 0.2], [0.0, 0.2]], dtype=dtype, requires_grad=True)
    x = inverse.points(y)
    none, once, fold = (torch.autograd.grad(x[:, i, 0].sum(), (y, c), retain_graph=True) for i in range(3))
    assert all(not g.any() for g in none) and all(g.isfinite().all() for g in (*none, *once, *fold))
    torch.testing.assert_close(once[0][1, 0].abs(), torch.tensor(2.0, dtype=dtype))  # two samples of 1 / (2 sqrt(1/4))
    torch.testing.assert_close(once[1], torch.tensor([-1.0, -1.0], dtype=dtype))


@pytest.mark.parametrize("name", ("displacement 3 x 4", "bspline 4 x 4", "tps 3 x 3", "bspline 4 x 4 x 4"))
def test_derivatives_to_second_order(name: str) -> None:
    family = FIELDS[name][0]
    theta = (0.05 * noise(1, family.num_params)).requires_grad_()
    xy = (0.4 * noise(2, family.ndim)).requires_grad_()

    def inverse(theta: Tensor, xy: Tensor) -> Tensor:
        return family(theta).inverse().points(xy)

    assert gradcheck(inverse, (theta, xy), fast_mode=True)
    assert gradgradcheck(inverse, (theta, xy), fast_mode=True)


@pytest.mark.parametrize("name", ("displacement 3 x 4", "bspline 4 x 4", "tps 3 x 3", "displacement 5 x 6 x 4"))
def test_under_transforms_that_see_no_numbers(name: str) -> None:
    family = FIELDS[name][0]
    theta, xy = 0.05 * noise(3, 2, family.num_params), 0.4 * noise(5, family.ndim)

    def run(t: Tensor) -> Tensor:
        return family(t).inverse().points(xy)

    many = torch.func.vmap(run)(theta)
    torch.testing.assert_close(many, torch.stack([run(t) for t in theta]), atol=1e-10, rtol=0)
    tangent = noise(*theta[0].shape, seed=2)
    pushed = torch.func.jvp(run, (theta[0],), (tangent,))[1]
    numeric = (run(theta[0] + 1e-6 * tangent) - run(theta[0] - 1e-6 * tangent)) / 2e-6
    torch.testing.assert_close(pushed, numeric, atol=1e-7, rtol=0)


@pytest.mark.parametrize("name", ("displacement 3 x 4", "bspline 4 x 4", "tps 3 x 3", "displacement 5 x 6 x 4"))
def test_its_jacobian_is_the_inverse_of_the_warps(name: str) -> None:
    family = FIELDS[name][0]
    size = (6, 5, 4)[: family.ndim]
    warp = family(unfolded(family, 3))
    y = lattice(size, dtype=torch.float64).flatten(0, -2).expand(3, -1, -1)
    there = warp._jacobian(warp.inverse().points(y)).unflatten(1, size)
    eye = torch.eye(family.ndim, dtype=torch.float64).expand_as(there)
    torch.testing.assert_close(warp.inverse().jacobian(size) @ there, eye, atol=1e-9, rtol=0)


def test_half_precision_and_not_a_number() -> None:
    family = stn.BSpline()
    theta = 0.05 * noise(2, family.num_params, dtype=torch.float32)
    xy = torch.tensor([[0.3, -0.2], [torch.nan, 0.1], [torch.inf, 0.0], [-0.7, 0.9]])
    found = family(theta).inverse().points(xy)
    assert found[:, [0, 3]].isfinite().all() and found[:, 1].isnan().any(dim=-1).all()
    half = family(theta.half()).inverse().points(xy[:1].half())
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), found[:, :1], atol=2e-3, rtol=0)
