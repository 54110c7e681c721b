"""gradient="wide": the same pixels, and a gradient for theta from a neighborhood larger than a pixel."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import stn
from tests.helpers import noise, seeded

EYE = torch.eye(2, 3)
ANTIALIAS = (False, True, "anisotropic")


def spot(x: float, y: float) -> Tensor:
    """Return a dark image with a round spot centered at pixel (x, y)."""
    row = torch.arange(64.0)
    return torch.exp(-((row - x).square() + (row[:, None] - y).square()) / 32)[None, None]


@pytest.mark.parametrize("antialias", ANTIALIAS)
def test_forward_and_the_images_gradient_are_the_plain_ones(antialias: bool | str) -> None:
    image, theta = noise(2, 3, 20, 24).requires_grad_(), (EYE + 0.3 * torch.randn(2, 2, 3, generator=seeded())).double()
    found = []
    for gradient in ("exact", "wide"):
        out = stn.affine_sample(image, theta.requires_grad_(), (7, 6), antialias=antialias, gradient=gradient)
        found.append((out, *torch.autograd.grad(out, (image, theta), noise(*out.shape, seed=1))))
    exact, wide = found
    assert torch.equal(exact[0], wide[0]) and torch.equal(exact[1], wide[1])
    assert (exact[2] - wide[2]).abs().max() > 0.01


def smoothed(image: Tensor, theta: Tensor) -> Tensor:
    """Return the image of theta's wide gradient: levels 0, 1, .. down to 4 pixels, each with twice the previous weight."""
    pyramid, total, weights = stn.Pyramid(image), torch.zeros(()), 0
    for level, size in enumerate(pyramid.sizes):
        if max(size) >= 4:
            total = total + 2**level * stn.affine_sample(pyramid[level], theta, (5, 6))
            weights += 2**level
    return total / weights


def test_it_is_the_gradient_of_a_smoothed_image() -> None:
    image, theta = noise(2, 3, 20, 24), (EYE + 0.1 * torch.randn(2, 2, 3, generator=seeded())).double().requires_grad_()
    weight = noise(2, 3, 5, 6, seed=1)
    ours = torch.autograd.grad(stn.affine_sample(image, theta, (5, 6), gradient="wide"), theta, weight)
    torch.testing.assert_close(ours, torch.autograd.grad(smoothed(image, theta), theta, weight), atol=1e-10, rtol=0)
    assert gradcheck(smoothed, (image, theta), fast_mode=True)


def test_it_does_not_feel_what_antialiasing_averages_away() -> None:
    """Stripes of three pixels are reduced 8 times. Details finer than a pixel of the result do not enter the gradient."""
    stripes, found = torch.cos(2 * torch.pi / 3 * torch.arange(64)).expand(1, 1, 64, 64).contiguous(), {}
    for antialias in ANTIALIAS:
        theta = (0.97 * EYE).requires_grad_()
        out = stn.affine_sample(stripes, theta, (8, 8), antialias=antialias, gradient="wide", padding_mode="reflection")
        (found[antialias],) = torch.autograd.grad(out, theta, noise(1, 1, 8, 8, dtype=torch.float32))
    assert max(found[True].norm(), found["anisotropic"].norm()) < 0.1 * found[False].norm()


def test_second_derivatives_in_theta_are_those_of_the_smoothed_image() -> None:
    image, theta = noise(1, 1, 9, 10), (EYE + 0.1 * torch.randn(1, 2, 3, generator=seeded())).double().requires_grad_()
    found = []
    for sample in (lambda t: stn.affine_sample(image, t, (5, 6), gradient="wide"), lambda t: smoothed(image, t)):
        weight = noise(1, 1, 5, 6, seed=1)
        (first,) = torch.autograd.grad(sample(theta), theta, weight, create_graph=True)
        found.append(torch.autograd.grad(first, theta, noise(*first.shape, seed=2)))
    torch.testing.assert_close(*found, atol=1e-9, rtol=0)


def test_it_is_exact_and_twice_differentiable_in_the_image() -> None:
    theta = (EYE + 0.1 * torch.randn(1, 2, 3, generator=seeded())).double().requires_grad_()

    def sample(image: Tensor) -> Any:
        return stn.affine_sample(image, theta, (3, 4), antialias=True, gradient="wide")

    image = noise(1, 2, 9, 8).requires_grad_()
    assert gradcheck(sample, image) and gradgradcheck(sample, image)


def test_it_sees_what_lies_twenty_six_pixels_away() -> None:
    """A spot should move right, so the sampling grid moves left.

    All points are whole pixels, so the exact gradient is the same for both axes and does not show the direction.
    """
    places = [(x, y) for x in (18, 18.4, 18.8) for y in (31, 31.4, 31.8)]
    here, there = (torch.cat([spot(x + right, y) for x, y in places]) for right in (0, 26))
    found = {}
    for gradient in ("exact", "wide"):
        theta = torch.zeros(len(places), 2, requires_grad=True)
        loss = (stn.Translation()(theta).sample(here, gradient=gradient) - there).square().sum()
        found[gradient] = torch.autograd.grad(loss, theta)[0]
    assert (found["exact"][:, 0] - found["exact"][:, 1]).abs().max() < 0.1
    assert (found["wide"][:, 0] > 1.5 * found["wide"][:, 1].abs()).all()


def test_without_a_gradient_it_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> Any:
        raise AssertionError("no gradient was asked for")

    monkeypatch.setattr("stn.ops.levels.widened", refuse)
    monkeypatch.setattr("stn.ops.wide.parts_of", refuse)
    image = torch.rand(1, 1, 9, 9, generator=seeded())
    assert torch.equal(stn.affine_sample(image, 2 * EYE, gradient="wide"), stn.affine_sample(image, 2 * EYE))
    with torch.no_grad():
        stn.affine_sample(image, (2 * EYE).requires_grad_(), gradient="wide")


def test_under_torch_func() -> None:
    image, theta, weight = noise(1, 1, 9, 8), (1.2 * EYE).double(), noise(5, 4, seed=3)

    def loss(theta: Tensor, gradient: str = "wide") -> Tensor:
        out: Tensor = stn.affine_sample(image, theta, (5, 4), gradient=gradient)
        return (out * weight).sum()

    variable = theta.clone().requires_grad_()
    expected = torch.autograd.grad(loss(variable), variable)[0]
    torch.testing.assert_close(torch.func.grad(loss)(theta), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(torch.func.jacfwd(loss)(theta), expected, atol=1e-12, rtol=0)


# ---- levels that are added up on one grid ----

KNOTS = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [0.0, 1.0], [0.5, 0.4]])
SAMPLES: dict[str, tuple[Any, Tensor]] = {
    "affine": (lambda image, at, **how: stn.affine_sample(image, at, (40, 44), **how), 1.1 * EYE),
    "projective": (
        lambda image, at, **how: stn.projective_sample(image, at, (40, 44), **how),
        torch.tensor([[1.1, 0.2, 0.0], [-0.1, 0.9, 0.1], [0.1, -0.1, 1.0]]),
    ),
    "thin plate": (
        lambda image, at, **how: stn.thin_plate_sample(image, at, KNOTS, (40, 44), **how),
        0.05 * torch.randn(7, 2, generator=seeded()),
    ),
    "points": (
        lambda image, at, **how: stn.grid_sample(image, at, **how),
        1.1 * torch.randn(1, 40, 44, 2, generator=seeded()).clamp(-1, 1),
    ),
    "displacements": (
        lambda image, at, **how: stn.grid_sample(image, at, relative=True, units="pixel", **how),
        3 * torch.randn(1, 40, 44, 2, generator=seeded()),
    ),
}


def of_each_level(name: str, image: Tensor, at: Tensor, **how: Any) -> Tensor:
    """Return the mean over all levels, each sampled by itself."""
    sample, size = SAMPLES[name][0], torch.tensor(image.shape[:1:-1])
    pyramid = stn.Pyramid(image, padding_mode=how["padding_mode"], align_corners=how["align_corners"])
    used = [k for k, lengths in enumerate(pyramid.sizes) if max(lengths) >= 4]
    total = torch.zeros((), dtype=torch.float64)
    for k in used:
        extents = [
            torch.tensor(lengths[::-1]) - (1 if how["align_corners"] else 0)
            for lengths in (pyramid.sizes[k], size.flip(0).tolist())
        ]
        there = at * extents[0] / extents[1] if name == "displacements" else at
        total = total + 2**k * sample(pyramid[k], there, **how)
    return total / (2 ** len(used) - 1)


@pytest.mark.parametrize("align_corners", (False, True))
@pytest.mark.parametrize("padding_mode", ("zeros", "border", "reflection"))
@pytest.mark.parametrize("name", SAMPLES)
def test_a_few_passes_have_the_gradient_of_all_levels(name: str, padding_mode: str, align_corners: bool) -> None:
    """For a photograph's spectrum, also where the look leaves the image, whose coarse levels reach beyond it."""
    image = torch.nn.functional.interpolate(noise(2, 3, 12, 13), (90, 101), mode="bicubic") + 2
    how: dict[str, Any] = {"padding_mode": padding_mode, "align_corners": align_corners}
    how |= {"fill_value": 0.5} if padding_mode == "zeros" else {}
    sample, at = SAMPLES[name]
    at = at.double().requires_grad_()
    weight = torch.nn.functional.interpolate(noise(2, 3, 5, 5, seed=1), (40, 44), mode="bicubic")
    (got,) = torch.autograd.grad(sample(image, at, gradient="wide", **how), at, weight)
    (wanted,) = torch.autograd.grad(of_each_level(name, image, at, **how), at, weight)
    (plain,) = torch.autograd.grad(sample(image, at, **how), at, weight)
    error, distance = (got - wanted).norm() / wanted.norm(), (plain - wanted).norm() / wanted.norm()
    assert error < 0.25 and error < distance / 2.5


@pytest.mark.parametrize(("size", "passes"), (((80, 88), 2), ((40, 44), 3), ((20, 22), 4)))
def test_nothing_is_sampled_forward_and_few_images_backward(
    size: tuple[int, int], passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Levels that have more than half as many pixels as the output would cost more to add up than to sample."""
    from stn.ops.cpu import launch

    names, run = list[str](), launch.run

    def recorded(plan: Any, name: str, *arguments: Any, **options: Any) -> None:
        names.append(name if plan.size == size else "of levels")
        run(plan, name, *arguments, **options)

    image, theta = noise(2, 3, 90, 101), EYE.double().requires_grad_()
    monkeypatch.setattr(launch, "run", recorded)
    out = stn.affine_sample(image, theta, size, gradient="wide")
    forward = [name for name in names if name != "of levels"]
    names.clear()
    out.sum().backward()
    assert forward == ["forward"] and names == ["coordinates"] * passes


def test_what_is_sampled_may_change_in_place() -> None:
    image, theta = noise(1, 1, 40, 40).requires_grad_(), EYE.double().requires_grad_()
    found = []
    for function in (lambda x: x.mul(2).relu(), lambda x: x.mul_(2).relu_()):
        out = stn.affine_sample(image, theta, gradient="wide")
        found.append(torch.autograd.grad(function(out).sum(), (image, theta)))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
