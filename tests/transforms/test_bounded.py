"""Bounds keep parameters within their range, and do not move the identity."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import stn
from tests.helpers import noise

SIMILARITY = {"scale": (0.25, 1.5), "angle": (-0.6, 0.4), "translation": (-0.5, 0.5)}


def test_whatever_comes_stays_within() -> None:
    family = stn.bounded(stn.Similarity(), **SIMILARITY)
    theta = family.constrain(100 * noise(500, 4))
    for name, (low, high) in SIMILARITY.items():
        values = theta[:, list(family.parameters[name])]
        assert low <= values.min() < low + 0.01 and high - 0.01 < values.max() <= high


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_the_identity_is_still_exactly_at_the_start(dtype: torch.dtype) -> None:
    image = noise(2, 1, 31, 17, dtype=dtype)
    for inner in (stn.Similarity(), stn.Affine(), stn.AnisotropicScale(3)):
        bounds = {name: (-0.7, 1.3) for name in inner.parameters}
        family = stn.bounded(inner, **bounds)
        start = family.identity().to(dtype)
        assert torch.equal(family.constrain(start), start)
        slope = torch.func.jacrev(family.constrain)(start)
        assert torch.equal(slope, torch.eye(len(start), dtype=dtype))
        if family.ndim == 2:
            assert torch.equal(family(start.expand(2, -1)).sample(image), image)


def test_what_has_no_bound_is_free() -> None:
    family = stn.bounded(stn.Similarity(), scale=(0.5, 2.0))
    raw = 10 * noise(20, 4)
    theta = family.constrain(raw)
    torch.testing.assert_close(theta[:, 1:], raw[:, 1:], atol=0, rtol=0)
    assert (theta[:, 0] >= 0.5).all() and (theta[:, 0] <= 2).all()


def test_derivatives_and_order() -> None:
    family = stn.bounded(stn.Similarity(), **SIMILARITY)
    raw = (family.identity().double() + 0.3 * noise(3, 4)).requires_grad_()
    assert gradcheck(family.constrain, (raw,)) and gradgradcheck(family.constrain, (raw,))
    steps = family.constrain(torch.linspace(-5, 5, 101).double()[:, None].expand(-1, 4))
    assert (steps.diff(dim=0) > 0).all()


def test_a_layer_takes_it() -> None:
    family = stn.bounded(stn.ThinPlateSpline(), offsets=(-0.2, 0.2))
    layer, image = stn.SpatialTransformer.for_input((1, 28, 28), family), torch.rand(2, 1, 28, 28)
    assert torch.equal(layer(image), image)
    assert "Bounded(ThinPlateSpline" in repr(layer)


@pytest.mark.parametrize(
    "bounds, message",
    [
        ({"size": (0.0, 2.0)}, "bounds must be one of angle, scale, translation; got 'size'"),
        (
            {"scale": (1.0, 2.0)},
            r"scale must be bounds \(low, high\) on both sides of the identity's value \[1.0\]; got",
        ),
        ({"angle": (0.5, -0.5)}, "angle must be bounds"),
    ],
)
def test_bad_bounds(bounds: dict[str, tuple[float, float]], message: str) -> None:
    with pytest.raises(stn.InputError, match=message):
        stn.bounded(stn.Similarity(), **bounds)
