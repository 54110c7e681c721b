"""Calls on tensors on the CPU stay there, whatever torch's default device is."""

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor

import stn
from stn.lab.networks.colocalization import boxes_of
from stn.lab.networks.parts import build_parts
from stn.nn import AbstractSpatialTransformer, DenseLocalization, SharedTrunkTransformer, identity_loss, look_diagnostics
from stn.registration.problem import bent, unit_parameters
from stn.transforms import FAMILIES, family
from stn.transforms.linear import Linear
from tests.helpers import near_identity, noise, seeded

T = TypeVar("T", bound=AbstractSpatialTransformer)
LINEAR = [name for name in FAMILIES if isinstance(family(name), Linear)]


def same(measure: Callable[[], Any]) -> bool:
    """Run with meta as the default device. A meta tensor has no values, so its use by mistake changes the result."""
    expected = measure()
    with torch.device("meta"):
        found = measure()
    torch.testing.assert_close(found, expected, atol=0, rtol=0, equal_nan=True)
    return True


@pytest.mark.parametrize("ndim", (2, 3))
@pytest.mark.parametrize("name", LINEAR)
def test_matrices(name: str, ndim: int) -> None:
    if name == "corners" and ndim == 3:
        pytest.skip("in 2-D")
    transform, points = family(name, ndim), noise(5, ndim)
    assert isinstance(transform, Linear)
    theta = near_identity(transform, 2, strength=0.1)
    warp, size = transform(theta), (6, 5, 4)[:ndim]
    assert isinstance(warp, stn.MatrixWarp)
    pixels = warp.to_pixel_matrix(size)
    measures: dict[str, Callable[[], Any]] = {
        "made there": lambda: transform(theta).matrix,
        "points": lambda: warp.points(points),
        "grid": lambda: warp.grid(size),
        "composed": lambda: (warp @ warp).grid(size),
        "inverse": lambda: warp.inverse().grid(size),
        "inverse, unchecked": lambda: warp.inverse(check=False).grid(size),
        "jacobian": lambda: warp.jacobian(size),
        "determinant": lambda: warp.jacobian_determinant(size),
        "pixels": lambda: warp.to_pixel_matrix(size, convention="scipy"),
        "from pixels": lambda: stn.from_pixel_matrix(pixels, size).matrix,
        "off_image_loss": lambda: stn.off_image_loss(warp),
        "identity_loss": lambda: identity_loss(warp),
        "diagnostics": lambda: look_diagnostics(warp),
        "bending": lambda: bent(warp),
        "gradient": lambda: torch.autograd.grad(stn.off_image_loss(transform(4 * given)), given),
        "units": lambda: unit_parameters(transform, theta[0]),
    }
    given = theta.requires_grad_()
    assert all(same(measure) for measure in measures.values())


@pytest.mark.parametrize("ndim", (2, 3))
def test_parts_of_affine_maps(ndim: int) -> None:
    turn = torch.tensor([0.3]) if ndim == 2 else torch.tensor([[0.3, 0.1, -0.2]])
    parts: Any = {"angle": turn, "scale": 0.7, "shear": 0.1, "center": torch.full((1, ndim), 0.2), "ndim": ndim}
    assert same(lambda: stn.Affine.from_parts(**parts).matrix)


def test_boxes() -> None:
    warp = stn.Affine()(near_identity("affine", 2))
    assert same(lambda: boxes_of(warp))


def moved(layer: T) -> T:
    with torch.no_grad():
        for p in layer.regression.parameters():
            p.add_(0.03 * torch.randn(p.shape, generator=seeded()))
    return layer.eval()


def trunk() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3, padding=1), torch.nn.BatchNorm2d(3)).eval()


@pytest.mark.parametrize("name", LINEAR)
def test_layers(name: str) -> None:
    """Test theta, warps and a reset, and a network that is run once to find the shape of its features."""
    start = torch.tensor([[0.5, 0.0, 0.1], [0.0, 0.5, 0.0]])
    layers: list[AbstractSpatialTransformer] = [
        stn.SpatialTransformer(DenseLocalization(64), name, num_transforms=3, start=start),
        stn.SpatialTransformer.for_input((1, 8, 8), name),
        stn.InverseCompositionalTransformer(DenseLocalization(64), name),
        stn.InverseCompositionalTransformer(DenseLocalization(64), name, start=start),
    ]
    x = torch.rand(2, 1, 8, 8, generator=seeded())
    for layer in map(moved, layers):
        assert same(lambda layer=layer: layer.localize(x))  # type: ignore[misc]  # mypy cannot tell the type of a default
        theta = layer.localize(x).flatten(1).detach()
        assert same(lambda layer=layer, theta=theta: layer.composed([theta, theta]).grid((4, 4)))  # type: ignore[misc]  # nor here
        if isinstance(layer, stn.InverseCompositionalTransformer):
            assert same(lambda layer=layer: layer.first_warp(3).grid((4, 4)))  # type: ignore[misc]  # nor here
        with torch.device("meta"):
            layer.reset_to_identity()
        assert torch.equal(layer.regression.bias[: layer.family.num_params], layer.family.identity())
    network = trunk()
    with torch.device("meta"):
        shared = SharedTrunkTransformer.for_input((1, 8, 8), network, name)
        parts = build_parts(3, 16, channels=1, backbone=network)
    assert all(p.device.type == "cpu" for p in [*shared.parameters(), *shared.buffers()])  # on the trunk's device
    assert parts.classifier.weight.device.type == "meta" and parts.backbone is network


@pytest.mark.parametrize("name", LINEAR)
def test_a_layer_made_on_another_device(name: str) -> None:
    """Its parameters are on torch's default device, as those of torch's own modules are."""
    with torch.device("meta"):
        layer = stn.InverseCompositionalTransformer.for_input((1, 8, 8), name, start=torch.eye(2, 3, device="cpu"))
    assert all(p.device.type == "meta" for p in layer.parameters())
    assert layer.start is not None and layer.start.device.type == "cpu"


@pytest.mark.parametrize("layer", ("plain", "steps", "shared"))
@pytest.mark.parametrize("name", LINEAR)
def test_a_step_of_training(name: str, layer: str) -> None:
    made: dict[str, Callable[[], AbstractSpatialTransformer]] = {
        "plain": lambda: stn.SpatialTransformer(DenseLocalization(64), name),
        "steps": lambda: stn.InverseCompositionalTransformer(DenseLocalization(64), name, steps=2),
        "shared": lambda: SharedTrunkTransformer(trunk(), DenseLocalization(192), name),
    }
    network, x = moved(made[layer]()), torch.rand(2, 1, 8, 8, generator=seeded())

    def step() -> tuple[Tensor, ...]:
        y, warp = network(x, return_warp=True)
        loss = y.square().mean() + stn.off_image_loss(warp) + identity_loss(warp)
        return torch.autograd.grad(loss, list(network.regression.parameters()))

    assert same(step)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_a_layer_that_was_made_in_inference_mode_trains(dtype: torch.dtype) -> None:
    """It trains as soon as its parameters are ordinary tensors; its buffers already are."""
    x, start = torch.rand(2, 1, 8, 8, generator=seeded()).to(dtype), torch.eye(2, 3)
    for kind in (stn.SpatialTransformer, stn.InverseCompositionalTransformer):
        layer = kind(DenseLocalization(64), "affine", start=start).to(dtype)
        with torch.inference_mode():
            inside = kind(DenseLocalization(64), "affine", start=start.clone())
            layer(x)
        assert inside.start is not None and not inside.start.is_inference()
        layer.start = inside.start.to(dtype)
        layer(x).sum().backward()
        assert layer.regression.bias.grad is not None
