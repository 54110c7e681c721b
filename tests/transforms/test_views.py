"""Parts, copies and flattened looks of a batch of warps do what the same part of the points does."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import stn
from stn.transforms import FAMILIES, Warp, family
from tests.helpers import near_identity

SIZE = (4, 5)


def looks(name: str, seed: int = 0, n: int = 3, k: int = 2) -> Warp:
    transform = family(name)
    warp: Warp = transform(near_identity(transform, n * k, strength=0.05, seed=seed).unflatten(0, (n, k)))
    return warp


def one_each(name: str) -> Warp:
    warp: Warp = family(name)(near_identity(name, 3, strength=0.05))
    return warp


KINDS: dict[str, Callable[[], Warp]] = {
    **{name: (lambda name=name: looks(name)) for name in FAMILIES},  # type: ignore[misc]  # mypy cannot tell the type of a default
    "composed": lambda: looks("tps") @ looks("bspline", seed=1),
    "composed, of one": lambda: looks("affine", n=1, k=1) @ looks("velocity", seed=1),
    "composed, for all looks": lambda: one_each("bspline") @ looks("displacement", seed=1),
    "composed with a matrix": lambda: looks("affine", n=1) @ looks("tps", seed=1),
    "inverse": lambda: looks("bspline").inverse(),
}
PARTS: dict[str, tuple[Any, Callable[[Tensor], Tensor]]] = {
    "one sample": (1, lambda g: g[1:2]),
    "the last": (-1, lambda g: g[-1:]),
    "some": (slice(None, None, 2), lambda g: g[::2]),
    "none": (slice(0, 0), lambda g: g[:0]),
    "by numbers": (torch.tensor([2, 0, 2, 1]), lambda g: g[[2, 0, 2, 1]]),
    "by a mask": (torch.tensor([True, False, True]), lambda g: g[::2]),
    "one look": ((slice(None), 1), lambda g: g[:, 1]),
    "one look of one": ((0, 0), lambda g: g[:1, 0]),
    "both looks": ((slice(1, None), slice(None)), lambda g: g[1:]),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_part_is_that_part_of_the_points(kind: str, part: str) -> None:
    warp, (index, of) = KINDS[kind](), PARTS[part]
    found, expected = warp[index], of(warp.grid(SIZE))
    assert found.batch == tuple(expected.shape[: len(found.batch)]) and expected.ndim == len(found.batch) + 3
    if 0 not in found.batch:
        torch.testing.assert_close(found.grid(SIZE), expected, atol=1e-6, rtol=0)
        image = torch.rand(found.batch[0], 1, 6, 7, dtype=torch.float64)
        torch.testing.assert_close(found.sample(image, SIZE), stn.grid_sample(image, expected), atol=1e-4, rtol=0)
    assert (found.theta is None) == (warp.theta is None)
    if found.theta is not None:
        assert tuple(found.theta.shape[:-1]) == found.batch


@pytest.mark.parametrize("kind", KINDS)
def test_flat_repeated_and_detached(kind: str) -> None:
    warp = KINDS[kind]()
    grid = warp.grid(SIZE)
    torch.testing.assert_close(warp.flatten().grid(SIZE), grid.flatten(0, 1), atol=1e-6, rtol=0)
    assert warp.flatten().batch == (6,) and warp.flatten().flatten().batch == (6,)
    torch.testing.assert_close(warp.repeat(2).grid(SIZE), torch.cat([grid, grid]), atol=1e-6, rtol=0)
    torch.testing.assert_close(warp[1].repeat(3).grid(SIZE), grid[1:2].expand(3, *grid.shape[1:]), atol=1e-6, rtol=0)
    assert [one.batch for one in (warp[i] for i in range(3))] == [(1, 2)] * 3 and len(list(warp)) == 3
    assert type(warp[0]) is type(warp) and warp.batch == (3, 2)  # as it was


@pytest.mark.parametrize("name", FAMILIES)
def test_theta_is_carried_and_detached(name: str) -> None:
    transform, theta = family(name), near_identity(name, 2, strength=0.05).requires_grad_()
    warp = transform(theta)
    assert warp.theta is theta and torch.equal(transform(warp.theta).grid(SIZE), warp.grid(SIZE))
    assert warp.grid(SIZE).requires_grad and not warp.detach().grid(SIZE).requires_grad
    assert torch.equal(warp.detach().grid(SIZE), warp.grid(SIZE))
    assert (warp @ warp).theta is None and (warp @ one_each("tps")[:1]).theta is None
    bounds = {next(iter(transform.parameters)): (-5.0, 5.0)}
    raw = stn.bounded(transform, **bounds)(theta)
    assert raw.theta is theta


def test_a_part_shares_its_numbers_and_its_gradient() -> None:
    theta = near_identity("affine", 3).requires_grad_()
    stn.Affine()(theta)[1].grid(SIZE).sum().backward()
    assert theta.grad is not None and (theta.grad.abs().sum(dim=1) > 0).tolist() == [False, True, False]


def test_parts_that_are_not_there() -> None:
    warp = one_each("affine")
    for index, error, text in (
        (3, IndexError, "index 3 must be less than the length 3"),
        (-4, IndexError, "index -4"),
        ("a", TypeError, "integers, slices and tensors .*; got str"),
        (None, TypeError, "got NoneType"),
        ((0, 0), IndexError, "has no looks to choose from"),
    ):
        with pytest.raises(error, match=text):
            warp[index]  # type: ignore[index]  # of wrong types on purpose
    with pytest.raises(stn.InputError, match="count must be an integer of at least 0; got -1"):
        warp.repeat(-1)


def test_a_type_checker_sees_exact_types() -> None:
    """The annotations are the test: mypy reads this file."""
    matrix: stn.MatrixWarp = family("rigid")(torch.zeros(1, 3))
    product: stn.MatrixWarp = matrix @ matrix
    other: Warp = matrix @ one_each("tps")[:1]
    part: stn.MatrixWarp = product.inverse()[0].detach().flatten().repeat(2)
    held: stn.MatrixWarp = stn.fixed(stn.bounded(stn.Rigid(), angle=(-1, 1)), translation=0.0)(torch.zeros(1, 1))
    image = torch.rand(1, 1, 4, 4)
    sampled: Tensor = matrix.sample(image, 3)
    pair: tuple[Tensor, Tensor] = matrix.sample(image, return_mask=True)
    either: Tensor | tuple[Tensor, Tensor] = matrix.sample(image, return_mask=bool(len(image)))
    assert part.batch == (2,) and held.batch == other.batch == (1,) and sampled.shape[2:] == (3, 3)
    assert isinstance(either, tuple) and torch.equal(pair[0], either[0])
    wrong: int = matrix @ matrix  # type: ignore[assignment]  # mypy would see no error here if the product were Any
    del wrong
