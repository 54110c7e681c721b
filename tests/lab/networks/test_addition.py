"""The networks for MNIST addition."""

import pytest
import torch
from torch import Tensor

import stn
from stn.lab.networks import ADDITION_MODELS, build_addition, num_parameters
from stn.nn import SpatialTransformer
from tests.helpers import seeded


def images(n: int = 4) -> Tensor:
    return torch.rand(n, 2, 42, 42, generator=seeded())


@pytest.mark.parametrize("transform", ("affine", "projective", "tps"))
@pytest.mark.parametrize("model", ADDITION_MODELS)
def test_shapes_budget_and_gradients(model: str, transform: str) -> None:
    network = build_addition(model, transform)
    assert 0.98 * 400_000 < num_parameters(network) <= 400_000
    layers = [m for m in network.modules() if isinstance(m, SpatialTransformer)]
    assert [layer.num_transforms for layer in layers] == {"st-fcn": [1], "2xst-fcn": [2]}.get(model, [])
    for layer in layers:
        torch.nn.init.normal_(layer.regression.weight, std=0.01)
    logits = network(images())
    assert logits.shape == (4, 19)
    logits.logsumexp(dim=1).sum().backward()
    for key, p in network.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().max() > 0, key


def seen(network: torch.nn.Module, x: Tensor) -> Tensor:
    """Return the classifier's input."""
    inputs: list[Tensor] = []
    hook = network.get_submodule("classifier").register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    network.eval()(x)
    hook.remove()
    return inputs[0]


def test_each_look_sees_both_channels_and_they_join_to_four() -> None:
    x = images()
    two, one = build_addition("2xst-fcn"), build_addition("st-fcn")
    whole = seen(one, x)
    assert whole.shape == (4, 2, 28, 28)
    torch.testing.assert_close(seen(two, x), torch.cat([whole, whole], dim=1))  # at the start, each look is the whole image
    with torch.no_grad():
        two.get_parameter("transformer.regression.bias")[8] += 0.5  # shift the second look
    moved = seen(two, x)
    torch.testing.assert_close(moved[:, :2], whole)
    assert (moved[:, 2:] - whole).abs().amax(dim=(0, 2, 3)).min() > 0.1  # in both channels


def test_the_localisation_sees_both_channels() -> None:
    network = build_addition("2xst-fcn").eval()
    layer = network.get_submodule("transformer")
    assert isinstance(layer, stn.SpatialTransformer)
    torch.nn.init.normal_(layer.regression.weight)
    x = images().requires_grad_()
    layer.localize(x).sum().backward()
    assert x.grad is not None and x.grad.abs().amax(dim=(0, 2, 3)).min() > 0


def test_hidden_units_of_the_localisation_cannot_all_die() -> None:
    """Even after a large step has lowered all of them, some units stay above zero for every image."""
    localization = build_addition("2xst-fcn").get_submodule("transformer.localization")
    with torch.no_grad():
        next(m for m in localization.modules() if isinstance(m, torch.nn.Linear)).bias.sub_(100)
    assert (localization.eval()(images()) > 0).any(dim=1).all()


def test_bad_requests() -> None:
    with pytest.raises(stn.InputError, match="model must be one of 2xst-fcn, cnn, fcn, st-fcn; got '3xst-fcn'"):
        build_addition("3xst-fcn")
