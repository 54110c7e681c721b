"""The paper's networks."""

import pytest
import torch

import stn
from stn.lab.networks import MODELS, build, num_parameters
from stn.nn import SpatialTransformer
from stn.transforms import FAMILIES


@pytest.mark.parametrize("side", (28, 42, 60))
@pytest.mark.parametrize("model", MODELS)
def test_shapes_and_budget(model: str, side: int) -> None:
    network = build(model, side)
    assert network(torch.rand(2, 1, side, side)).shape == (2, 10)
    assert 0.98 * 400_000 < num_parameters(network) <= 400_000
    assert isinstance(network[0], SpatialTransformer) == model.startswith("st-")


@pytest.mark.parametrize(("model", "side", "share"), (("st-fcn", 60, 0.5), ("st-fcn", 42, 1.0), ("st-cnn", 60, 0.5)))
def test_where_a_network_looks_first(model: str, side: int, share: float) -> None:
    """On 60x60 pixels the first look is the center, where a digit of 28 pixels fills most of the crop."""
    layer = build(model, side)[0]
    image = torch.rand(2, 1, side, side)
    torch.testing.assert_close(layer(image), stn.affine_sample(image, share * torch.eye(2, 3), (56, 56)))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("model", ("st-fcn", "st-cnn"))
def test_every_family_learns(model: str, name: str) -> None:
    network = build(model, 42, name, num_classes=7)
    network(torch.rand(3, 1, 42, 42)).logsumexp(dim=1).sum().backward()
    for key, p in network.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), key
    gradient = network.get_parameter("transformer.regression.weight").grad
    assert gradient is not None and gradient.abs().max() > 0


def test_bad_requests() -> None:
    with pytest.raises(stn.InputError, match="model must be one of cnn, fcn, st-cnn, st-fcn; got 'vit'"):
        build("vit")
    with pytest.raises(stn.InputError, match="side must be one of 28, 42, 60 pixels; got 32"):
        build("cnn", 32)
