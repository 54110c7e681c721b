"""One theta, grid or set of coefficients for a whole batch, with or without looks; and empty batches."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import stn
from tests.helpers import noise

KNOTS = noise(5, 2, seed=3).clamp(-1, 1)
CALLS: dict[str, tuple[Callable[..., Any], Tensor]] = {
    "affine": (stn.affine_sample, torch.eye(2, 3, dtype=torch.float64) + 0.2 * noise(2, 3, seed=1)),
    "projective": (stn.projective_sample, torch.eye(3, dtype=torch.float64) + 0.1 * noise(3, 3, seed=1)),
    "thin plate": (lambda i, w, **o: stn.thin_plate_sample(i, w, KNOTS, **o), 0.1 * noise(8, 2, seed=1)),
    "grid": (stn.grid_sample, noise(4, 5, 2, seed=1)),
}


@pytest.mark.parametrize("options", ({}, {"antialias": True}, {"return_mask": True}), ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_one_serves_a_batch(name: str, options: dict[str, Any]) -> None:
    sample, where = CALLS[name]
    image = noise(3, 2, 6, 7)
    each = where.expand(3, *where.shape)
    expected = sample(image, each, **options)
    forms = [where[None]] if name == "grid" else [where, where[None]]
    for one in forms:
        one = one.clone().requires_grad_()
        out = sample(image, one, **options)
        torch.testing.assert_close(out, expected, atol=0, rtol=0)
        first = out[0] if isinstance(out, tuple) else out
        (gradient,) = torch.autograd.grad(first.square().sum(), one)
        many = each.clone().requires_grad_()
        theirs = sample(image, many, **options)
        theirs = theirs[0] if isinstance(theirs, tuple) else theirs
        (each_gradient,) = torch.autograd.grad(theirs.square().sum(), many)
        torch.testing.assert_close(gradient.view(where.shape), each_gradient.sum(dim=0))
    looks = torch.stack([where, where.flip(0), where / 2])[None]
    torch.testing.assert_close(sample(image, looks, **options), sample(image, looks.expand(3, *looks.shape[1:]), **options))


def test_two_are_not_one_for_three() -> None:
    image = noise(3, 2, 6, 7)
    for name, (sample, where) in CALLS.items():
        with pytest.raises(stn.InputError, match=r"with N = 3, the batch size of image, or N = 1; got \(2, "):
            sample(image, where.expand(2, *where.shape))
        assert sample(image[:0], where[None]).shape[0] == 0, name


def test_axes_in_doubt_are_said_to_be_read_as_they_are() -> None:
    image, field = noise(2, 1, 9, 2), torch.zeros(2, 2, 9, 2)
    with pytest.warns(UserWarning, match=r"grid of shape \(2, 2, 9, 2\) is read as \(N, \*size, 2\).*movedim\(1, -1\)"):
        assert stn.grid_sample(image, field).shape == (2, 1, 2, 9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stn.grid_sample(image, torch.zeros(2, 9, 2, 2))
        stn.grid_sample(noise(2, 1, 6, 7), field)
        stn.Displacement(shape=(2, 9))(torch.zeros(2, 36)).sample(image, (2, 5))  # a family's axes are never ambiguous
        stn.BSpline()(torch.zeros(2, 98)).sample(image, (2, 9))


def test_a_minus_that_is_still_to_come() -> None:
    """torch stores the sign of `x.conj().imag` as a flag apart from the data. A kernel that ignored it would be wrong."""
    image, theta = noise(1, 2, 6, 7), torch.eye(2, 3, dtype=torch.float64) + 0.2 * noise(2, 3, seed=1)

    def pending(values: Tensor) -> Tensor:
        minus = torch.complex(torch.zeros_like(values), -values).conj().imag
        assert minus.is_neg() and torch.equal(minus, values)
        return minus

    for name, (sample, where) in CALLS.items():
        where = where[None]
        for mode in ("bilinear", "bspline"):
            expected = sample(image, where, mode=mode)
            torch.testing.assert_close(sample(pending(image), pending(where), mode=mode), expected, atol=0, rtol=0, msg=name)
    leaf = theta.clone().requires_grad_()
    out = stn.affine_sample(image, leaf)
    weight = noise(*out.shape, seed=2)
    ours, theirs = (torch.autograd.grad(out, leaf, w, retain_graph=True)[0] for w in (pending(weight), weight))
    assert torch.equal(ours, theirs)
    shrunk = [stn.affine_sample(i, 3 * theta, antialias=True) for i in (pending(image), image)]
    assert torch.equal(*shrunk)
    fill = torch.tensor(2.0, dtype=torch.float64)
    assert torch.equal(*[stn.affine_sample(image, 2 * theta, fill_value=f) for f in (pending(fill), fill)])


def test_sizes_and_numbers_of_numpy() -> None:
    image, eye = noise(2, 3, 6, 6), torch.eye(2, 3)
    numbers: Any = np.int64(4), np.int32(5)
    assert stn.affine_sample(image, eye, numbers).shape[2:] == (4, 5)
    assert stn.affine_sample(image, eye, 4).shape[2:] == (4, 4)
    fills: list[Any] = [np.array(0.5), np.float32(0.5), np.array([0.5] * 3), [np.float32(0.5)] * 3, torch.tensor(0.5)]
    expected = stn.affine_sample(image, 2 * eye, fill_value=0.5)
    for fill in fills:
        assert torch.equal(stn.affine_sample(image, 2 * eye, fill_value=fill), expected)
