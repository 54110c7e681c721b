"""A warp of one sample serves a whole batch: the results equal those of the repeated warp."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import stn
from stn.transforms.batches import over_batch
from stn.transforms.warp import ComposedWarp
from tests.helpers import near_identity, noise
from tests.transforms.test_laws import CASES, OUT, SIZE, small

N, K = 3, 2
BOUNDED = [("bounded", 2), ("bounded", 3)]
Make = Callable[[Tensor], stn.Warp]


def family_of(name: str, ndim: int) -> stn.Family:
    return stn.bounded(stn.Similarity(ndim), scale=(0.5, 1.5)) if name == "bounded" else small(name, ndim)


def same(got: Tensor, expected: Tensor) -> None:
    assert got.shape == expected.shape
    torch.testing.assert_close(got, expected, atol=1e-10, rtol=0)


@pytest.fixture(params=[*CASES, *BOUNDED], ids=lambda case: f"{case[0]}-{case[1]}")
def transform(request: pytest.FixtureRequest) -> stn.Family:
    return family_of(*request.param)


def theta_of(transform: stn.Family, *batch: int, seed: int = 0) -> Tensor:
    count = int(torch.tensor(batch).prod())
    return near_identity(transform, count, strength=0.05, seed=seed).view(*batch, -1)


@pytest.mark.parametrize("looks", ((), (K,)))
def test_a_warp(transform: stn.Family, looks: tuple[int, ...]) -> None:
    d = transform.ndim
    theta, image = theta_of(transform, 1, *looks), noise(N, 2, *SIZE[d])
    xy = 0.5 * noise(N, *looks, 5, d, seed=1)
    pairs = [(transform(theta), transform(theta.expand(N, *theta.shape[1:])))]
    for one, all_ in [*pairs, (pairs[0][0].inverse(), pairs[0][1].inverse())]:
        same(one.sample(image), all_.sample(image))
        same(one.sample(image, OUT[d], mode="bicubic"), all_.sample(image, OUT[d], mode="bicubic"))
        same(one.points(xy), all_.points(xy))
        same(one.points(xy[:1]).expand_as(xy), all_.points(xy[:1]))
        same(one.grid(OUT[d]).expand(N, *looks, *OUT[d], d), all_.grid(OUT[d]))
        same(one.jacobian(OUT[d]).expand(N, *looks, *OUT[d], d, d), all_.jacobian(OUT[d]))


@pytest.mark.parametrize("batches", [((1,), (N,)), ((1, K), (N,)), ((1,), (N, K)), ((1, K), (N, 1)), ((1, K), (1,))])
def test_a_composition(transform: stn.Family, batches: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    """Compose in both orders with an affine map, by a formula, and with a spline, point by point."""
    d = transform.ndim
    image, xy = noise(N, 1, *SIZE[d]), 0.5 * noise(4, d, seed=1)
    looks = max(len(batch) for batch in batches) - 1
    whole = (N, K)[: 1 + looks]
    for other in (stn.Affine(d), stn.BSpline(d, shape=(4, 5, 4)[:d])):
        for first, second in (batches, batches[::-1]):
            theta, theirs = theta_of(transform, *first), theta_of(other, *second, seed=1)
            a, b = transform(theta), other(theirs)
            wide_a, wide_b = (f(repeated(t, whole)) for f, t in ((transform, theta), (other, theirs)))
            for got, expected in ((a @ b, wide_a @ wide_b), (b @ a, wide_b @ wide_a)):
                assert (got.batch[0] == 1) == (first[0] == second[0] == 1)
                same(got.sample(image), expected.sample(image))
                same(got.points(xy).expand(*whole, 4, d), expected.points(xy))
                same(got.grid(OUT[d]).expand(*whole, *OUT[d], d), expected.grid(OUT[d]))
                same(got.jacobian(OUT[d]).expand(*whole, *OUT[d], d, d), expected.jacobian(OUT[d]))
                same(got.inverse().points(xy).expand(*whole, 4, d), expected.inverse().points(xy))


def repeated(theta: Tensor, batch: tuple[int, ...]) -> Tensor:  # (.., P) -> (*batch, P)
    return theta.view(*theta.shape[:-1], *(1,) * (len(batch) + 1 - theta.ndim), -1).expand(*batch, -1)


def test_derivatives_are_summed_over_the_batch(transform: stn.Family) -> None:
    d, theta = transform.ndim, theta_of(transform, 1).requires_grad_()
    image, xy = noise(N, 1, *SIZE[d]), 0.4 * noise(N, 3, d)

    def gradients(make: Make) -> list[Tensor]:
        out = [make(theta).sample(image), make(theta).points(xy), make(theta).inverse().points(xy)]
        return [torch.autograd.grad(part.square().sum(), theta)[0] for part in out]

    for got, expected in zip(gradients(transform), gradients(lambda t: transform(t.expand(N, -1))), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-8, rtol=1e-8)


def test_no_points_and_no_samples(transform: stn.Family) -> None:
    d = transform.ndim
    for batch in ((N,), (N, K), (1,), (0,), (0, K)):
        warp = transform(theta_of(transform, *batch)) if all(batch) else transform(torch.zeros(*batch, transform.num_params))
        for each in (warp, stn.InverseWarp(warp), ComposedWarp(warp, warp)):
            assert each.points(torch.zeros(0, d)).shape == (*batch, 0, d)
            assert each.points(torch.zeros(*batch, 0, d)).shape == (*batch, 0, d)
            assert each.points(torch.zeros(4, d)).shape == (*batch, 4, d)
            assert each._jacobian(torch.zeros(*batch, 0, d, dtype=warp.dtype)).shape == (*batch, 0, d, d)
            assert each.jacobian(OUT[d]).shape == (*batch, *OUT[d], d, d)
    one = transform(theta_of(transform, 1))
    assert one.points(torch.zeros(0, 5, d)).shape == (0, 5, d)
    assert one.sample(torch.zeros(0, 1, *SIZE[d])).shape == (0, 1, *SIZE[d])


def test_no_points_have_no_gradient(transform: stn.Family) -> None:
    theta = theta_of(transform, N).requires_grad_()
    transform(theta).points(torch.zeros(0, transform.ndim)).sum().backward()
    assert theta.grad is not None and not theta.grad.any()


def test_parts_of_one_number_warp_any_batch() -> None:
    image = noise(8, 1, 6, 7, dtype=torch.float32)
    turned = stn.Affine.from_parts(angle=0.3)
    torch.testing.assert_close(turned.sample(image), stn.affine_sample(image, turned.matrix[0]))


def test_a_map_is_not_repeated() -> None:
    """Points that all samples share are evaluated once."""
    shapes: list[Any] = []

    def double(xy: Tensor) -> Tensor:
        shapes.append(tuple(xy.shape))
        return 2 * xy

    affine = stn.Affine()
    for batch, lead, seen in (
        ((1,), (5,), (1, 20)),
        ((1, 3), (5, 3), (1, 3, 20)),
        ((5,), (5, 3), (5, 12)),
        ((1,), (5, 3), (1, 60)),
    ):
        xy = noise(*lead, 4, 2)
        same(over_batch(affine(torch.zeros(*batch, 6)), double, xy), 2 * xy)
        assert shapes.pop() == (*seen, 2)
