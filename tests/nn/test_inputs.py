"""Inputs of a layer: what the localization network reads, what is sampled, and a theta that the network returns itself."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import stn
from stn.nn import AbstractSpatialTransformer, DenseLocalization
from stn.transforms import FAMILIES, family
from stn.transforms.base import identity_of
from tests.helpers import near_identity, noise, seeded


class Both(nn.Module):
    """Features of an image and of a second input, by a factor."""

    out_features = 6

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 6), nn.Linear(5, 6)

    def forward(self, x: Tensor, code: Tensor, factor: float = 1.0) -> Tensor:
        found: Tensor = self.first(x.flatten(1)) + factor * self.second(code)
        return found


KINDS: dict[str, Callable[..., AbstractSpatialTransformer]] = {
    "plain": lambda *args, **how: stn.SpatialTransformer(*args, **how),
    "steps": lambda *args, **how: stn.InverseCompositionalTransformer(*args, steps=3, **how),
    "shared": lambda *args, **how: stn.SharedTrunkTransformer(nn.Identity(), *args, **how),
}


def moved(layer: AbstractSpatialTransformer) -> AbstractSpatialTransformer:
    nn.init.normal_(layer.regression.weight, std=0.05, generator=seeded())
    return layer.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_further_inputs_go_to_the_localization_network(kind: str) -> None:
    torch.manual_seed(0)
    layer = moved(KINDS[kind](Both(), "affine"))
    x, code = torch.rand(3, 1, 8, 8), torch.rand(3, 5)
    y, warp = layer(x, code, 2.0, return_warp=True)
    assert torch.equal(layer(x, code, 2.0), y) and not torch.equal(layer(x, code), y)
    assert not torch.equal(layer(x, 0 * code, 2.0), y) and warp.batch == (3,)
    torch.testing.assert_close(warp.sample(x), y)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FAMILIES)
def test_localize_here_sample_there(name: str, kind: str) -> None:
    """From a larger copy with more channels: the same warp, and its own size where the layer has none."""
    torch.manual_seed(0)
    for size in (None, (5, 4)):
        layer = moved(KINDS[kind](DenseLocalization(64), name, size if kind == "plain" else None))
        x, large = torch.rand(2, 1, 8, 8), torch.rand(2, 3, 20, 24)
        _, expected = layer(x, return_warp=True)
        y, warp = layer(x, image=large, return_warp=True)
        torch.testing.assert_close(warp.grid((4, 4)), expected.grid((4, 4)))
        torch.testing.assert_close(y, warp.sample(large, layer.size))
        assert y.shape[1:] == (3, *(layer.size or (20, 24)))
    volume, three = torch.rand(2, 1, 4, 4, 4), stn.SpatialTransformer(DenseLocalization(64), stn.Affine(3))
    assert three(torch.rand(2, 64), image=volume).equal(volume)  # what the network reads need not be an image


class Given(nn.Module):
    """Returns what it was made of."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(value)

    def forward(self, x: Tensor) -> Tensor:
        return self.value


@pytest.mark.parametrize("looks", (1, 3))
@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_returns_theta_itself(name: str, looks: int) -> None:
    transform = family(name)
    theta = near_identity(name, 2 * looks, strength=0.05, dtype=torch.float32).unflatten(0, (2, looks))
    given = theta if looks > 1 else theta.squeeze(1)
    x = torch.rand(2, 1, 8, 8)
    for value in (given, theta.flatten(1)):
        layer = stn.SpatialTransformer(Given(value), transform, num_transforms=looks, regress=False)
        y, warp = layer(x, return_warp=True)
        torch.testing.assert_close(y, transform(given).sample(x))
        assert warp.theta is not None and torch.equal(warp.theta, given)
    y.square().sum().backward()
    assert [key for key, p in layer.named_parameters() if p.grad is not None] == ["localization.value"]
    assert [len(group["params"]) for group in stn.param_groups(layer, 0.1, 0.01)] == [1]  # type: ignore[arg-type]  # a list


LATTICES: dict[str, tuple[stn.Family, tuple[int, ...]]] = {
    "bspline": (stn.BSpline(shape=(4, 6)), (4, 6)),
    "displacement": (stn.Displacement(shape=(8, 8)), (8, 8)),
    "velocity": (stn.Velocity(shape=(4, 5)), (4, 5)),
    "cpab": (stn.CPAB(cells=(3, 4)), (2, 3)),
    "cpab, free": (stn.CPAB(cells=(3, 4), boundary="free"), (4, 5)),
    "bounded": (stn.bounded(stn.BSpline(shape=(4, 6)), displacement=(-0.5, 0.5)), (4, 6)),
    "volumes": (stn.BSpline(3, shape=(4, 5, 6)), (4, 5, 6)),
}


@pytest.mark.parametrize("looks", (1, 2))
@pytest.mark.parametrize("name", LATTICES)
def test_a_map_of_a_convolution_is_theta(name: str, looks: int) -> None:
    transform, shape = LATTICES[name]
    d = transform.ndim
    fields = 0.1 * noise(2, looks * d, *shape, dtype=torch.float32)
    layer = stn.SpatialTransformer(Given(fields), transform, num_transforms=looks, regress=False)
    x = torch.rand(2, 1, *(8, 8, 8)[:d])
    _, warp = layer(x, return_warp=True)
    theta = torch.stack([fields[:, k * d : k * d + d].movedim(1, -1).flatten(1) for k in range(looks)], dim=1)
    expected = transform(theta if looks > 1 else theta.squeeze(1))
    assert torch.equal(warp.grid((3,) * d), expected.grid((3,) * d))


def test_half_precision_of_theta_is_raised() -> None:
    layer = stn.SpatialTransformer(Given(torch.zeros(2, 2).half()), "translation", regress=False)
    _, warp = layer(torch.rand(2, 1, 4, 4), return_warp=True)
    assert warp.dtype == torch.float32


def test_steps_with_a_theta_of_the_network() -> None:
    """Two steps of an eighth of the image are one of a quarter."""
    x = torch.rand(2, 1, 16, 16)
    layer = stn.InverseCompositionalTransformer(
        Given(torch.tensor([[0.25, 0.0]]).expand(2, -1).clone()), "translation", steps=2, regress=False
    )
    torch.testing.assert_close(layer(x)[..., :12], x[..., 4:], atol=1e-5, rtol=0)


def call(localization: nn.Module, x: Any = None, **how: Any) -> Callable[[], object]:
    layer = stn.SpatialTransformer(localization, **how)
    return lambda: layer(torch.rand(2, 1, 8, 8) if x is None else x)


DENSE = DenseLocalization(64)
DIGITS = stn.nn.DigitLocalization((1, 8, 8))
WRONG: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "no batch": (call(DENSE, torch.rand(1, 8, 8)), stn.InputError, r"x must be \(N, C, H, W\); .* x.unsqueeze\(0\)"),
    "no channels": (call(DENSE, torch.rand(8, 8)), stn.InputError, r"x must be \(N, C, H, W\); got \(8, 8\)"),
    "a volume": (call(DENSE, torch.rand(1, 1, 4, 4, 4)), stn.InputError, r"x must be \(N, C, H, W\); got \(1, 1, 4"),
    "bytes": (
        call(DENSE, torch.zeros(1, 1, 8, 8).byte()),
        TypeError,
        r"x must have .*; got torch.uint8: pass x.float\(\) / 255",
    ),
    "an array": (call(DENSE, [1.0]), TypeError, "x must be a torch.Tensor; got list"),
    "channels": (
        call(DIGITS, torch.rand(1, 3, 8, 8)),
        stn.InputError,
        r"x must have C = 1 channels, .*; got \(1, 3, 8, 8\)",
    ),
    "theta": (call(Given(torch.rand(2, 5)), regress=False), stn.InputError, r"return theta, \(N, 6\); got \(2, 5\)"),
    "number": (
        call(Given(torch.rand(3, 6)), regress=False),
        stn.InputError,
        r"for N = 2 samples, the batch size of x; got \(3, 6\)",
    ),
    "a map": (
        call(Given(torch.rand(2, 2, 5, 5)), transform="bspline", regress=False),
        stn.InputError,
        r"return theta, \(N, 98\) or \(N, 2, 7, 7\); got \(2, 2, 5, 5\)",
    ),
    "reset": (
        lambda: stn.SpatialTransformer(DENSE, regress=False).reset_to_identity(),
        stn.InputError,
        "regress must be True for a start at the identity",
    ),
    "by place": (lambda: stn.SpatialTransformer(DENSE)(torch.rand(2, 1, 8, 8), True), stn.InputError, "return_warp must be"),
    "image": (
        lambda: stn.SpatialTransformer(DENSE)(torch.rand(2, 1, 8, 8), image=torch.rand(8, 8)),
        stn.InputError,
        r"image must be \(N, C, H, W\)",
    ),
    "image, number": (
        lambda: stn.SpatialTransformer(DENSE)(torch.rand(2, 1, 8, 8), image=torch.rand(3, 1, 8, 8)),
        stn.InputError,
        "the warp must have a batch of N = 3",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_input_gets_a_sentence(case: str) -> None:
    run, error, text = WRONG[case]
    with pytest.raises(error, match=text):
        run()


def test_the_start_of_a_network_of_ones_own() -> None:
    layer = stn.SpatialTransformer(Given(identity_of(stn.Affine(), torch.empty(0))[None].repeat(2, 1)), regress=False)
    x = torch.rand(2, 1, 8, 8)
    assert layer(x).equal(x) and "Affine(ndim=2)" in repr(layer.regression)
