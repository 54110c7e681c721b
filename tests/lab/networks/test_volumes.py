"""The networks for volumes."""

import pytest
import torch
from torch import nn

import stn
from stn.lab.networks import VOLUME_MODELS, build_volumes
from stn.lab.networks.volumes import VolumeLocalization
from tests.helpers import seeded


@pytest.mark.parametrize("side", (16, 32, 60))
@pytest.mark.parametrize("model", VOLUME_MODELS)
def test_shapes_and_gradients(model: str, side: int) -> None:
    network = build_volumes(model, side, num_classes=7)
    if model == "st-cnn":
        nn.init.normal_(network.get_parameter("transformer.regression.weight"), std=0.01)
    logits = network(torch.rand(2, 1, side, side, side, generator=seeded()))
    assert logits.shape == (2, 7)
    logits.logsumexp(dim=1).sum().backward()
    for key, p in network.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().max() > 0, key


@pytest.mark.parametrize("side", (16, 32, 60))
def test_at_the_start_both_see_the_same(side: int) -> None:
    look, plain = build_volumes("st-cnn", side).eval(), build_volumes("cnn", side).eval()
    plain.get_submodule("classifier").load_state_dict(look.get_submodule("classifier").state_dict())
    x = torch.nn.functional.pad(torch.rand(2, 1, *(side - 4,) * 3, generator=seeded()), (2,) * 6)
    torch.testing.assert_close(look(x), plain(x))
    if side == 32:
        torch.testing.assert_close(plain[0](x), x)
        torch.testing.assert_close(look[0](x), x)


def test_depth_becomes_channels() -> None:
    network = build_volumes("cnn", 32)
    x = torch.rand(2, 1, 32, 32, 32)
    assert torch.equal(network.get_submodule("projection")(x), x[:, 0])


def test_other_families_turn_too() -> None:
    network = build_volumes("st-cnn", 32, stn.Rigid(3)).eval()
    layer = next(iter(network))
    assert isinstance(layer, stn.SpatialTransformer)
    with torch.no_grad():
        layer.regression.bias[2] = torch.pi / 2  # about the z axis
    x = torch.rand(1, 1, 32, 32, 32, generator=seeded())
    torch.testing.assert_close(layer(x), x.transpose(3, 4).flip(3), atol=1e-4, rtol=0)


def test_a_volume_of_any_shape_is_localised() -> None:
    network = VolumeLocalization((2, 9, 20, 33), features=5)
    assert network(torch.rand(3, 2, 9, 20, 33)).shape == (3, 5)


def test_bad_requests() -> None:
    with pytest.raises(stn.InputError, match="model must be one of cnn, st-cnn; got 'st-fcn'"):
        build_volumes("st-fcn")
    with pytest.raises(stn.InputError, match="ndim must be 3 for Affine; got 2"):
        build_volumes("st-cnn", 32, stn.Affine(2))
    with pytest.raises(stn.InputError, match="side must be an integer of at least 16; got 8"):
        build_volumes("cnn", 8)
