"""The networks for traffic signs: equally large, and equal at the start."""

import pytest
import torch
from torch import nn

import stn
from stn.lab.data.signs import sign_views
from stn.lab.networks import SIGN_MODELS, build_signs, num_parameters
from stn.models.blocks import channels_last
from stn.nn import SpatialTransformer
from tests.helpers import seeded

LOOKS = {"cnn": [], "st-cnn-single": [3], "st-cnn-multi": [3, 32, 64]}  # channels that each transformer samples


def small(model: str, side: int = 32) -> nn.Sequential:
    torch.manual_seed(0)
    return build_signs(model, side, num_classes=5, budget=450_000)


def looks(network: nn.Module) -> list[SpatialTransformer]:
    return [module for module in network.modules() if isinstance(module, SpatialTransformer)]


def test_all_have_the_same_number_of_parameters() -> None:
    sizes = [num_parameters(build_signs(model)) for model in SIGN_MODELS]
    assert max(sizes) <= 1.03 * min(sizes) and max(sizes) <= 2_500_000


@pytest.mark.parametrize("model", SIGN_MODELS)
def test_transformers_are_before_the_stages(model: str) -> None:
    network = small(model, 24)
    seen = []
    for layer in looks(network):
        layer.register_forward_hook(lambda _, args, y: seen.append(args[0].shape[1]))
        assert layer.options["padding_mode"] == "border"
    assert network(torch.rand(2, 3, 24, 24)).shape == (2, 5)
    assert seen == LOOKS[model]
    names = [name for name, _ in network.named_children()]
    follow = [names[names.index(name) + 1] for name in names if name.startswith("transformer")]
    assert follow == ["contrast", "stage2", "stage3"][: len(seen)]


@pytest.mark.parametrize("model", SIGN_MODELS[1:])
def test_at_the_start_transformers_change_nothing(model: str) -> None:
    network = small(model).eval()
    plain = nn.Sequential(*(part for name, part in network.named_children() if not name.startswith("transformer")))
    x = torch.rand(2, 3, 32, 32, generator=seeded())
    torch.testing.assert_close(network(x), plain(x))
    for layer in looks(network):
        nn.init.normal_(layer.regression.bias)
        assert not torch.allclose(network(x), plain(x))


@pytest.mark.parametrize("model", SIGN_MODELS)
def test_gradients_reach_every_parameter(model: str) -> None:
    network = channels_last(small(model))
    for layer in looks(network):
        nn.init.normal_(layer.regression.weight, std=0.1)
        layer.warns = False
    network(torch.rand(8, 3, 32, 32, generator=seeded())).square().sum().backward()
    for key, p in network.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().max() > 0, key


def test_exposure_changes_nothing() -> None:
    network, x = small("st-cnn-multi").eval(), torch.rand(2, 3, 32, 32, generator=seeded())
    torch.testing.assert_close(network(0.2 * x + 0.1), network(x))
    assert network(torch.full((1, 3, 32, 32), 0.3)).isfinite().all()


def test_bad_requests() -> None:
    with pytest.raises(stn.InputError, match="model must be one of cnn, st-cnn-multi, st-cnn-single; got 'multi'"):
        build_signs("multi")
    with pytest.raises(stn.InputError, match="side must be a multiple of 8 pixels; got 36"):
        build_signs("cnn", 36)
    with pytest.raises(stn.InputError, match="side must be an integer of at least 16; got 8"):
        build_signs("cnn", 8)
    with pytest.raises(stn.InputError, match="budget must suffice for .* one unit; got 1000"):
        build_signs("cnn", budget=1000)


def test_views_are_near_the_image_and_never_mirrored() -> None:
    """A bright spot right of the middle stays there, and moves by a few pixels."""
    images, labels = torch.zeros(200, 3, 32, 32), torch.arange(200) % 43
    images[:, :, 14:18, 22:26] = 1
    x, y, boxes = sign_views(images, labels, seeded())
    assert torch.equal(y, labels) and boxes is None and x.shape == images.shape and 0 <= x.min() and x.max() <= 1
    place = torch.arange(32) + 0.5
    weights = x[:, 0] / x[:, 0].sum(dim=(1, 2), keepdim=True)
    column, row = (weights.sum(dim=1) * place).sum(dim=1), (weights.sum(dim=2) * place).sum(dim=1)
    assert 19 < column.min() and column.max() < 29 and 11 < row.min() and row.max() < 21
    assert column.std() > 0.5 and row.std() > 0.5 and abs(column.mean() - 24) < 0.5 and abs(row.mean() - 16) < 0.5
    gray = sign_views(torch.full((50, 3, 8, 8), 0.5), labels[:50], seeded()).x
    assert gray[:, 0].flatten(1).std(dim=1).max() < 1e-6 and gray.std() > 0.05  # exposures differ, and the border is padded
