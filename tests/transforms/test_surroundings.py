"""Families keep to the device of their arguments, and can be trained wherever they were made."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor

import stn
from stn.transforms import FAMILIES, family
from tests.helpers import near_identity, noise

CASES = [(name, ndim) for ndim in (2, 3) for name in FAMILIES if ndim == 2 or name != "corners"]
SIZE, OUT = {2: (6, 7), 3: (5, 6, 4)}, {2: (4, 5), 3: (3, 4, 2)}


@pytest.fixture
def default_meta() -> Iterator[None]:
    """Make meta the default device. Its tensors have no values, so using one by mistake raises an error."""
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


def measures(transform: stn.Family, theta: Tensor, image: Tensor) -> dict[str, Tensor]:
    """Return all results of a warp."""
    d = transform.ndim
    warp, points = transform(theta), image.new_zeros(3, d) + 0.25
    found = {
        "points": warp.points(points),
        "grid": warp.grid(OUT[d]),
        "sample": warp.sample(image, OUT[d]),
        "antialias": warp.sample(image, OUT[d], antialias=True, padding_mode="wrap"),
        "anisotropic": warp.sample(image, OUT[d], antialias="anisotropic"),
        "wide": warp.sample(image, OUT[d], gradient="wide", fill_value=0.5),
        "bspline": warp.sample(image, OUT[d], mode="bspline"),
        "Lanczos": warp.sample(image, OUT[d], mode="lanczos3"),
        "mask": warp.sample(image, OUT[d], return_mask=True)[1],
        "jacobian": warp.jacobian(OUT[d]),
        "inverse": warp.inverse().points(points),
        "composed": (warp @ warp).points(points),
    }
    needed = [value for name, value in found.items() if value.requires_grad and name != "inverse"]
    if needed:
        (found["gradient"],) = torch.autograd.grad(sum((v.square().sum() for v in needed), image.new_zeros(())), theta)
    return found


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        assert found[name].device.type == "cpu"
        torch.testing.assert_close(found[name], value, atol=0, rtol=0, msg=name)


@pytest.mark.parametrize("name, ndim", CASES)
def test_the_default_device_is_for_others(name: str, ndim: int) -> None:
    transform, image = family(name, ndim), noise(2, 1, *SIZE[ndim])
    theta = near_identity(transform, 2, strength=0.05).requires_grad_()
    expected = measures(transform, theta, image)
    with torch.device("meta"):
        same(measures(transform, theta, image), expected)
        if transform.identity().is_meta:  # a family made here gives the same results
            same(measures(family(name, ndim), theta, image), expected)


@pytest.mark.usefixtures("default_meta")
def test_set_default_device() -> None:
    image, theta = torch.rand(2, 3, 9, 8, device="cpu"), torch.eye(2, 3, device="cpu")
    out = stn.affine_sample(image, theta, antialias=True, fill_value=(1.0, 2.0, 3.0))
    assert out.device.type == "cpu" and torch.equal(out, image)
    spline = stn.bounded(stn.ThinPlateSpline(), offsets=(-1.0, 1.0))
    assert spline(torch.zeros(2, 32, device="cpu")).sample(image).equal(image)
    assert stn.ThinPlateSpline(parameters="positions").identity().is_meta  # as for every family
    pyramid = stn.Pyramid(image)
    assert all(pyramid[level].device.type == "cpu" for level in range(len(pyramid)))


MADE: dict[str, Callable[[], AbstractContextManager[Any]]] = {"inference": torch.inference_mode, "no_grad": torch.no_grad}


@pytest.mark.parametrize("name, ndim", CASES)
def test_made_and_first_used_in_inference_mode(name: str, ndim: int) -> None:
    """Cached tensors of a family can take part in training afterwards."""
    image = noise(2, 1, *SIZE[ndim])
    reference = family(name, ndim)
    theta = near_identity(reference, 2, strength=0.05).requires_grad_()
    expected = measures(reference, theta, image)
    for made in MADE.values():
        with made():
            transform = family(name, ndim)
            warp = transform(theta.detach())
            warp.sample(image)
            warp.inverse().points(torch.zeros(2, ndim, dtype=torch.float64))
        same(measures(transform, theta, image), expected)


def test_points_and_bounds_from_inference_mode() -> None:
    with torch.inference_mode():
        spline = stn.ThinPlateSpline(control_points=noise(6, 2).clamp(-1, 1))
        limited = stn.bounded(stn.Similarity(), scale=(0.5, 2.0))
    for transform in (spline, limited):
        theta = transform.identity().expand(2, -1).clone().requires_grad_()
        transform(theta).sample(torch.rand(2, 1, 5, 6)).sum().backward()
        assert theta.grad is not None and theta.grad.abs().max() > 0


def test_a_family_keeps_points_of_its_own() -> None:
    points = noise(6, 2).clamp(-1, 1)
    spline, theta = stn.ThinPlateSpline(control_points=points), 0.1 * noise(1, 12, seed=1)
    expected = spline(theta).points(torch.zeros(2, dtype=torch.float64))
    points.zero_()
    assert torch.equal(spline(theta).points(torch.zeros(2, dtype=torch.float64)), expected)


def test_copies_for_a_device_are_made_outside_of_inference_mode() -> None:
    spline = stn.ThinPlateSpline()
    with torch.inference_mode():
        copies = spline._constants.on(torch.device("meta"))
    assert not any(copy.is_inference() for copy in copies)


@pytest.mark.parametrize("dtype", (torch.float64, torch.float16, torch.bfloat16))
@pytest.mark.parametrize("name", FAMILIES)
def test_default_dtypes(name: str, dtype: torch.dtype) -> None:
    """The arguments determine the precision, whatever torch's default dtype is."""
    reference, image = family(name), noise(2, 1, 6, 7, dtype=torch.float32)
    theta = near_identity(reference, 2, strength=0.05, dtype=torch.float32)
    expected = measures(reference, theta, image)
    torch.set_default_dtype(dtype)
    try:
        found = measures(family(name), theta, image)
        assert family(name).identity().dtype == dtype or name == "tps"
    finally:
        torch.set_default_dtype(torch.float32)
    same(found, expected)
