"""Registration: the correlation in windows of any size, a loss for each transform of a chain, and lattices of any shape."""

import itertools

import pytest
import torch
from torch import Tensor

import stn
from stn import InputError
from stn.registration import LocalCorrelation
from stn.registration.problem import unit_parameters
from tests.helpers import seeded
from tests.test_register import photo

SIZES = ((11,), (9, 12), (6, 5, 8), (4, 20, 3))


def by_loops(warped: Tensor, fixed: Tensor, weight: Tensor, window: int) -> Tensor:
    """The same in plain loops over windows, for pairs of one channel in float64."""
    size, found = fixed.shape[2:], []
    a, b, w = warped[0, 0], fixed[0, 0], weight[0, 0]

    def parts(index: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
        here = tuple(slice(max(0, i - window // 2), i + window // 2 + 1) for i in index)
        share, total = w[here], w[here].sum()
        mean_a, mean_b = (share * a[here]).sum() / total, (share * b[here]).sum() / total
        da, db = a[here] - mean_a, b[here] - mean_b
        return tuple((share * product).sum() / total for product in (da * db, da * da, db * db))  # type: ignore[return-value]  # three, as mypy cannot count

    places = list(itertools.product(*map(range, size)))
    every = torch.tensor([[x.item() for x in parts(index)] for index in places], dtype=torch.float64)
    weights = torch.stack([w[index] for index in places])
    flat = 1e-3 * (weights[:, None] * every).sum(dim=0) / weights.sum()
    for index in places:
        c, x, y = parts(index)
        found.append(c / ((x + flat[1]) * (y + flat[2]) + 1e-12).sqrt())
    return 1 - (weights * torch.stack(found)).sum() / weights.sum()


@pytest.mark.parametrize("window", (3, 5))
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_windows_are_those_of_plain_loops(size: tuple[int, ...], window: int) -> None:
    draws = seeded(len(size))
    a, b, w = (torch.rand(1, 1, *size, dtype=torch.float64, generator=draws) for _ in range(3))
    a.requires_grad_()
    found, expected = LocalCorrelation(window)(a, b, w), by_loops(a, b, w, window)
    torch.testing.assert_close(found[0], expected, atol=1e-9, rtol=1e-8)
    for one, other in zip(torch.autograd.grad(found[0], a), torch.autograd.grad(expected, a), strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-6)


def test_windows_have_second_derivatives_and_channels() -> None:
    draws = seeded()
    a, b = (torch.rand(2, 3, 5, 6, dtype=torch.float64, generator=draws) for _ in range(2))
    w, loss = torch.rand(2, 1, 5, 6, dtype=torch.float64, generator=draws), LocalCorrelation(3)
    apart = torch.stack([loss(a[:, k : k + 1], b[:, k : k + 1], w) for k in range(3)]).mean(dim=0)
    torch.testing.assert_close(loss(a, b, w), apart)
    small = torch.rand(1, 1, 4, 4, dtype=torch.float64, generator=draws, requires_grad=True)
    fixed, weight = b[:1, :1, :4, :4], w[:1, :, :4, :4]

    def smooth(x: Tensor) -> Tensor:  # with variances that are no constants, unlike those that the loss adds
        return loss(x, fixed, weight) + x.square().sum()

    (slope,) = torch.autograd.grad(smooth(small).sum(), small, create_graph=True)
    (again,) = torch.autograd.grad(slope.square().sum(), small)
    assert again.isfinite().all() and again.abs().max() > 0.1


@pytest.mark.parametrize("window", (1, 4, 0, -3))
def test_a_window_without_a_middle_is_refused(window: int) -> None:
    with pytest.raises(InputError, match="window must be"):
        LocalCorrelation(window)


def test_each_transform_of_a_chain_has_its_loss() -> None:
    moving = photo(1, 32)
    true = stn.Translation()(torch.tensor([[0.1, -0.05]]))
    fixed = true.sample(moving, padding_mode="border")
    seen: list[str] = []

    def counted(warped: Tensor, fixed: Tensor, weight: Tensor) -> Tensor:
        seen.append("counted")
        return LocalCorrelation(5)(warped, fixed, weight)

    found = stn.register(moving, fixed, ["translation", "bspline"], loss=["ncc", counted], steps=6)
    assert len(seen) == sum(len(losses) for losses in found.stages[1].losses.values()) > 0
    plain = stn.register(moving, fixed, "translation", loss="ncc", steps=6)
    torch.testing.assert_close(found.stages[0].theta, plain.theta, atol=1e-6, rtol=0)


def test_losses_of_another_number_are_refused() -> None:
    image = photo(1, 32)
    with pytest.raises(InputError, match="loss must be one, or as many as the 2 transforms; got 1"):
        stn.register(image, image, ["translation", "affine"], loss=["ncc"])
    with pytest.raises(InputError, match="loss must be one of lncc, mi, mse, ncc; got 'l2'"):
        stn.register(image, image, ["translation", "affine"], loss=["ncc", "l2"])


@pytest.mark.parametrize("make", (stn.BSpline, stn.Velocity))
@pytest.mark.parametrize("ndim", (2, 3))
def test_a_lattice_with_even_sides_has_the_steps_of_an_odd_one(make: type[stn.BSpline], ndim: int) -> None:
    """The middle of all parameters of an even lattice lies at its edge, where a control point moves nothing."""
    units = []
    for n in (6, 7, 8):
        family = make(ndim, shape=n)
        units.append(unit_parameters(family, family.identity()).unique().item())
    assert max(units) < 2 * min(units) and 1 < units[0] < 12


def test_a_fine_even_lattice_finds_a_bend() -> None:
    moving = photo(1, 64)
    true = stn.BSpline(shape=6)(0.05 * torch.randn(1, 72, generator=seeded(3)))
    fixed = true.sample(moving, padding_mode="border")
    found = stn.register(moving, fixed, stn.BSpline(shape=8), loss="mse", bending=1e-5)
    inside = true.grid((64, 64))[0].abs().amax(dim=-1) < 0.9
    error = 32 * (found.warp.grid((64, 64)) - true.grid((64, 64)))[0].norm(dim=-1)[inside]
    assert error.mean() < 0.25
