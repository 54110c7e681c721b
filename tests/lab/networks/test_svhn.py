"""The networks for house numbers."""

import pytest
import torch
from torch import nn

import stn
from stn.lab.networks import SVHN_MODELS, build_svhn, num_parameters
from stn.models.blocks import channels_last
from stn.nn import SpatialTransformer
from tests.helpers import seeded

LOOKS = {"cnn": 0, "st-cnn-single": 1, "st-cnn-multi": 4}


def small(model: str, side: int = 32) -> nn.Sequential:
    torch.manual_seed(0)
    return build_svhn(model, side, width=0.125)


def looks(network: nn.Module) -> list[SpatialTransformer]:
    return [module for module in network.modules() if isinstance(module, SpatialTransformer)]


@pytest.mark.parametrize("side", (16, 64))
@pytest.mark.parametrize("model", SVHN_MODELS)
def test_shapes(model: str, side: int) -> None:
    network = small(model, side)
    assert network(torch.rand(2, 3, side, side)).shape == (2, 5, 11)
    assert len(looks(network)) == LOOKS[model]


def test_the_papers_size() -> None:
    sizes = {model: num_parameters(build_svhn(model, 64)) for model in SVHN_MODELS}
    convolutions = 25 * (3 * 48 + 48 * 64 + 64 * 128 + 128 * 160 + 160 * 192 + 3 * 192 * 192)
    norms = 2 * (48 + 64 + 128 + 160 + 4 * 192)
    dense = 2 * (3072 * 3072 + 3072) + 3072 * 55 + 55  # 192 maps of 4x4 are 3072 features
    assert sizes["cnn"] == convolutions + norms + dense
    assert 0 < sizes["st-cnn-multi"] - sizes["cnn"] < sizes["st-cnn-single"] - sizes["cnn"] < 0.05 * sizes["cnn"]


def test_the_papers_order() -> None:
    names = [name for name, _ in small("cnn").named_children()]
    after = "c1 p1 c2 c3 p3 c4 c5 p5 c6 c7 p7 c8".replace("c", "convolution").replace("p", "pool")
    assert names == [*after.split(), "classifier"]
    for layer in looks(small("st-cnn-multi")) + looks(small("st-cnn-single")):
        assert [m.out_features for m in layer.modules() if isinstance(m, nn.Linear)] == [32, 32]
        assert layer.regression.weight.shape == (6, 32)


def test_multi_looks_before_each_of_the_first_four_convolutions() -> None:
    names = [name for name, _ in small("st-cnn-multi").named_children()]
    assert [names[i + 1] for i, name in enumerate(names) if name.startswith("transformer")] == [
        f"convolution{k}" for k in (1, 2, 3, 4)
    ]


@pytest.mark.parametrize("model", SVHN_MODELS[1:])
def test_at_the_start_they_are_the_backbone(model: str) -> None:
    network, backbone = small(model).eval(), small("cnn").eval()
    missing, _ = backbone.load_state_dict(network.state_dict(), strict=False)
    assert not missing
    x = torch.rand(2, 3, 32, 32, generator=seeded())
    torch.testing.assert_close(network(x), backbone(x))
    for layer in looks(network):
        nn.init.normal_(layer.regression.bias)
    assert not torch.allclose(network(x), backbone(x))


@pytest.mark.parametrize("model", SVHN_MODELS)
def test_gradients_reach_every_parameter_in_channels_last(model: str) -> None:
    network = channels_last(small(model))
    for layer in looks(network):
        nn.init.normal_(layer.regression.weight, std=0.1)
        layer.warns = False
        layer.register_forward_hook(lambda _, args, y: kept.append(y.is_contiguous(memory_format=torch.channels_last)))
    kept: list[bool] = []
    x = torch.rand(8, 3, 32, 32, generator=seeded()).contiguous(memory_format=torch.channels_last)
    network(x).logsumexp(dim=2).sum().backward()
    assert kept == [True] * LOOKS[model]
    for key, p in network.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().max() > 0, key


def test_memory_layout_changes_nothing() -> None:
    network = small("st-cnn-multi").eval()
    for layer in looks(network):
        nn.init.normal_(layer.regression.weight, std=0.1)
    x = torch.rand(2, 3, 32, 32, generator=seeded())
    torch.testing.assert_close(network(x.contiguous(memory_format=torch.channels_last)), network(x))


def test_it_learns_numbers() -> None:
    """Learn numbers of two digits, which a convolution can tell apart, at one of two positions."""
    torch.manual_seed(0)
    network = build_svhn("st-cnn-multi", 16, channels=1, width=0.125, dropout=0.0)
    y = torch.randint(0, 2, (24, 5), generator=seeded())
    x = torch.zeros(24, 1, 16, 16)
    for place in range(5):
        x[:, 0, 4:12, 3 * place : 3 * place + 2] = y[:, place, None, None].float()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(30):
        loss = nn.functional.cross_entropy(network(x).transpose(1, 2), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1 and (network(x).argmax(dim=2) == y).float().mean() > 0.95


def test_bad_requests() -> None:
    with pytest.raises(stn.InputError, match="model must be one of cnn, st-cnn-multi, st-cnn-single; got 'multi'"):
        build_svhn("multi")
    with pytest.raises(stn.InputError, match="side must be a multiple of 16 pixels; got 60"):
        build_svhn("cnn", 60)
    with pytest.raises(stn.InputError, match="side must be an integer of at least 16; got 0"):
        build_svhn("cnn", 0)
    with pytest.raises(stn.InputError, match="width must be positive; got 0"):
        build_svhn("cnn", width=0)
    with pytest.raises(stn.InputError, match="dropout must be at least 0 and less than 1; got 1"):
        build_svhn("cnn", dropout=1)
