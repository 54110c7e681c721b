"""Parts of families: the other parameters are theta, and everything else stays as it is."""

import math
from typing import Any

import pytest
import torch

import stn
from stn.nn import DenseLocalization
from stn.transforms import FAMILIES, Family, family
from tests.helpers import near_identity, noise, seeded

SIZE = (5, 6)
HELD: dict[str, tuple[Family, dict[str, Any]]] = {
    "rotation only": (stn.Rigid(), {"translation": 0.0}),
    "rotation only, of a wide image": (stn.Rigid(aspect=2.0), {"translation": 0.0}),
    "shift along x": (stn.Translation(), {"translation": (None, 0.0)}),
    "shear only": (stn.Affine(), {"matrix": (1.0, None, 0.0, 1.0), "translation": 0}),
    "one scale": (stn.AnisotropicScale(), {"scale": [1.0, None]}),
    "a crop of a strip": (stn.AnisotropicScale(), {"scale": (1.0, 0.25)}),
    "about z": (stn.Rigid(3), {"angle": (0.0, 0.0, None)}),
    "no perspective along y": (stn.Projective(), {"perspective": (None, 0.0)}),
    "upper edge": (stn.MovedCorners(), {"offsets": [None] * 4 + [0.0] * 4}),
    "some control points": (stn.ThinPlateSpline(), {"offsets": [None] * 8 + [0.0] * 24}),
}


@pytest.mark.parametrize("case", HELD)
def test_theta_is_what_is_left(case: str) -> None:
    whole, values = HELD[case]
    part = stn.fixed(whole, **values)
    assert 0 < part.num_params < whole.num_params == len(whole.identity())
    assert sorted(i for places in part.parameters.values() for i in places) == list(range(part.num_params))
    theta = near_identity(part, 3)
    full = whole.identity().double().repeat(3, 1)
    for name, places in whole.parameters.items():
        value = values.get(name, [None] * len(places))
        each = value if isinstance(value, list | tuple) else [value] * len(places)
        free = iter(part.parameters.get(name, ()))
        for place, number in zip(places, each, strict=True):
            full[:, place] = theta[:, next(free)] if number is None else number
    size = (*SIZE, 4)[: whole.ndim]
    assert torch.equal(part(theta).grid(size), whole(full).grid(size))
    looks = part(theta.unsqueeze(0)).grid(size)
    torch.testing.assert_close(looks[0], whole(full).grid(size))


@pytest.mark.parametrize("case", HELD)
def test_layers_start_train_and_learn_only_that(case: str) -> None:
    whole, values = HELD[case]
    if whole.ndim == 3:
        pytest.skip("the layers here are for images")
    part, x = stn.fixed(whole, **values), torch.rand(2, 1, 16, 16, generator=seeded())
    quarter = torch.tensor([[0.5, 0.0, 0.5], [0.0, 0.5, -0.5]])
    for start in (None, quarter):
        layer = stn.SpatialTransformer(DenseLocalization(256), part, (8, 8), start=start)
        identity = stn.SpatialTransformer(DenseLocalization(256), whole, (8, 8), start=start)
        if case != "a crop of a strip":
            torch.testing.assert_close(layer(x), identity(x), atol=1e-6, rtol=0)
        layer(x).square().sum().backward()
        assert layer.regression.bias.grad is not None and layer.regression.bias.grad.abs().sum() > 0
        assert layer.regression.bias.shape == (part.num_params,)


def test_bounds_and_held_values_in_either_order() -> None:
    bounds = {"scale": (0.5, 1.5), "angle": (-0.5, 0.5), "translation": [(-0.1, 0.1), (-0.2, 0.3)]}
    one = stn.fixed(stn.bounded(stn.Similarity(), **bounds), scale=0.8, translation=(None, 0.0))  # type: ignore[arg-type]  # mixed
    two = stn.bounded(
        stn.fixed(stn.Similarity(), scale=0.8, translation=(None, 0.0)), angle=(-0.5, 0.5), translation=[(-0.1, 0.1)]
    )
    theta = 3 * noise(4, 2)
    assert torch.equal(one(theta).grid(SIZE), two(theta).grid(SIZE)) and one.parameters == two.parameters
    matrix = one(torch.tensor([[9.0, 9.0]])).matrix[0]
    torch.testing.assert_close(matrix[:, :2].det(), torch.tensor(0.64))  # the held scale, not a bounded one
    torch.testing.assert_close(matrix[:, 2], torch.tensor([0.1, 0.0]))
    assert math.isclose(math.atan2(matrix[1, 0], matrix[0, 0]), 0.5, abs_tol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_bounds_of_each_number(name: str) -> None:
    """Each stays in its own range, and the identity and its slope are unchanged."""
    plain = family(name)
    key, places = next(iter(plain.parameters.items()))
    start = plain.identity()[list(places)].tolist()
    each = [None if i % 3 == 2 else (s - 0.1 * (i + 1), s + 0.2) for i, s in enumerate(start)]
    limited = stn.bounded(plain, **{key: each})
    assert torch.equal(limited.constrain(plain.identity()), plain.identity())
    far = limited.constrain(plain.identity() + 99.0)[list(places)]
    near = limited.constrain(plain.identity() - 99.0)[list(places)]
    for i, s in enumerate(start):
        expected = (s + 99.0, s - 99.0) if i % 3 == 2 else (s + 0.2, s - 0.1 * (i + 1))
        assert (far[i].item(), near[i].item()) == pytest.approx(expected, abs=1e-5)
    slope = torch.func.jacrev(limited.constrain)(plain.identity())
    torch.testing.assert_close(slope, torch.eye(plain.num_params))


def test_registration_finds_the_free_parameters() -> None:
    image = torch.exp(-4 * (stn.grid.lattice((48, 48)) - 0.2).square() @ torch.tensor([1.0, 3.0])).view(1, 1, 48, 48)
    moving = stn.Translation()(torch.tensor([[0.2, 0.0]])).sample(image)
    along_x = stn.fixed(stn.Translation(), translation=(None, 0.0))
    found = stn.register(moving, image, along_x)
    torch.testing.assert_close(found.theta, torch.tensor([[-0.2]]), atol=5e-3, rtol=0)
    assert found.family == along_x


TEXT: Any = "0"
TWO: Any = 2
WRONG: dict[str, tuple[Any, str]] = {
    "a name": (lambda: stn.fixed(stn.Rigid(), scale=1.0), "values must be one of angle, translation; got 'scale'"),
    "a number of them": (lambda: stn.fixed(stn.Rigid(), translation=(0.0,)), "translation must be a number, or 2 of them"),
    "text": (lambda: stn.fixed(stn.Rigid(), angle=TEXT), "angle must be a number, or 1 of them; got '0'"),
    "a truth": (lambda: stn.fixed(stn.Rigid(), angle=True), "angle must be a number"),
    "infinite": (lambda: stn.fixed(stn.Rigid(), angle=math.nan), "angle must be finite, or None .*; got nan"),
    "all": (lambda: stn.fixed(stn.Translation(), translation=0.0), "values must leave some of the 2 parameters to theta"),
    "bounded": (
        lambda: stn.Fixed(stn.bounded(stn.Rigid()), {"angle": 0.0}),
        "family must not be bounded; .* stn.fixed does",
    ),
    "bounds": (lambda: stn.bounded(stn.Affine(), matrix=[(0, 2)]), r"matrix must be bounds \(low, high\), or 4 of them"),
    "a bound": (lambda: stn.bounded(stn.Rigid(), translation=[(-1, 1), TWO]), "for each number, or None; got 2"),
    "outside": (
        lambda: stn.bounded(stn.AnisotropicScale(), scale=[(0.5, 1.5), (1.2, 2.0)]),
        r"scale must be bounds .* on both sides of the identity's value \[1.0\]; got \(1.2, 2.0\)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_gets_a_sentence(case: str) -> None:
    make, text = WRONG[case]
    with pytest.raises(stn.InputError, match=text):
        make()
