"""The identity start survives loops over a network, and a layer that has lost its image says so."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import stn
from stn.nn import AbstractSpatialTransformer, DenseLocalization, ThetaRegression
from stn.transforms import FAMILIES
from tests.helpers import seeded

WEIGHTS = (nn.Conv2d, nn.Linear)


class Network(nn.Sequential):
    def __init__(self, transform: str = "affine") -> None:
        torch.manual_seed(0)
        layer = stn.SpatialTransformer.for_input((1, 28, 28), transform)
        super().__init__(layer, nn.Conv2d(1, 4, 5), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 24 * 24, 10))

    @property
    def layer(self) -> stn.SpatialTransformer:
        found = self[0]
        assert isinstance(found, stn.SpatialTransformer)
        return found


def by_kind(net: nn.Module) -> None:
    for m in net.modules():
        if isinstance(m, WEIGHTS):
            nn.init.kaiming_normal_(m.weight)


def by_name(net: nn.Module) -> None:
    """As in DCGAN and many networks after it."""
    for name, mean in (("Conv", 0.0), ("Linear", 0.0), ("BatchNorm", 1.0)):
        for m in net.modules():
            if m.__class__.__name__.find(name) != -1:
                nn.init.normal_(m.weight, mean, 0.02)  # type: ignore[arg-type]  # mypy cannot tell what has this name


def by_type(net: nn.Module) -> None:
    def init(m: nn.Module) -> None:
        if type(m) is nn.Linear:
            nn.init.orthogonal_(m.weight)

    net.apply(init)


def resets(net: nn.Module) -> None:
    for m in net.modules():
        if hasattr(m, "reset_parameters"):
            m.reset_parameters()  # type: ignore[operator]  # mypy cannot tell what has this name


def weight_norm(net: nn.Module) -> None:
    for m in list(net.modules()):
        if isinstance(m, nn.Linear):
            parametrizations.weight_norm(m)


def spectral_norm(net: nn.Module) -> None:
    for m in list(net.modules()):
        if isinstance(m, WEIGHTS):
            parametrizations.spectral_norm(m)


LOOPS: dict[str, Callable[[nn.Module], None]] = {
    loop.__name__: loop for loop in (by_kind, by_name, by_type, resets, weight_norm, spectral_norm)
}


@pytest.mark.parametrize("transform", FAMILIES)
@pytest.mark.parametrize("loop", LOOPS)
def test_the_identity_start_survives(loop: str, transform: str) -> None:
    net, x = Network(transform), torch.rand(4, 1, 28, 28, generator=seeded())
    LOOPS[loop](net)
    torch.testing.assert_close(net.layer(x), x, atol=1e-6, rtol=0)
    before = net.layer.regression.weight.clone()
    net(x).square().sum().backward()
    torch.optim.SGD(net.parameters(), lr=1e-4).step()
    assert not torch.equal(net.layer.regression.weight, before)  # and it learns


@pytest.mark.filterwarnings("ignore:.*quantiz")  # torch announces another way
def test_dynamic_quantization_passes_the_regression_by() -> None:
    net, x = Network("similarity").eval(), torch.rand(4, 1, 28, 28, generator=seeded())
    small = torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)
    assert isinstance(small[0].regression, ThetaRegression) and not isinstance(small[-1], nn.Linear)
    torch.testing.assert_close(small[0](x), x, atol=1e-6, rtol=0)


def test_old_names_of_parameters() -> None:
    """Checkpoints of layers whose regression was an nn.Linear load."""
    layer = stn.SpatialTransformer(DenseLocalization(64), "rigid", num_transforms=2)
    linear = nn.Linear(32, 6)
    layer.regression.load_state_dict(linear.state_dict())
    features = torch.rand(2, 32)
    assert torch.equal(layer.regression(features), linear(features))
    layer.regression.reset_parameters()
    assert torch.equal(layer.regression(features), torch.zeros(2, 6))


SCALES: dict[str, tuple[Tensor, str]] = {
    "outside": (torch.tensor([1.0, 0, 1.75, 0, 1.0, 0]), "88 % of the sampling points .* outside"),
    "everywhere": (torch.tensor([3.0, 0, 0, 0, 3.0, 0]), "of the sampling points .* outside"),
    "point": (torch.zeros(6), "100 % of the looks .* smaller than one pixel"),
    "nan": (torch.full((6,), torch.nan), "100 % of the sampling points .* outside"),
}


@pytest.mark.parametrize("kind", (stn.SpatialTransformer, stn.InverseCompositionalTransformer))
@pytest.mark.parametrize("case", SCALES)
def test_a_lost_layer_warns_once(case: str, kind: type[AbstractSpatialTransformer]) -> None:
    bias, sentence = SCALES[case]
    layer, x = kind(DenseLocalization(64)), torch.rand(2, 1, 8, 8)
    if isinstance(layer, stn.InverseCompositionalTransformer):
        layer.steps = 1
    layer(x)  # the identity says nothing
    with torch.no_grad():
        layer.regression.bias.copy_(bias)
    layer.eval()(x)  # nor does evaluation
    with pytest.warns(UserWarning, match=sentence) as seen:
        for _ in range(20):
            layer.train()(x)
    assert len(seen) == 1


def test_a_layer_that_goes_astray_later_is_seen() -> None:
    layer, x = stn.SpatialTransformer(DenseLocalization(64), "translation"), torch.rand(2, 1, 8, 8)
    for _ in range(5):
        layer(x)
    with torch.no_grad():
        layer.regression.bias.add_(5)
    with pytest.warns(UserWarning, match="outside the image"):
        for _ in range(3):
            layer(x)


def test_layers_that_are_well_do_not_warn() -> None:
    """Warnings are errors: small regions, many looks, a start beyond the image, one pixel, no image at all."""
    wide = torch.tensor([[3.0, 0, 0], [0, 3.0, 0]])
    tiles = 0.01 * torch.eye(2, 3).expand(3, 2, 3)
    for start, looks in ((wide, 1), (tiles, 3), (None, 2)):
        layer = stn.SpatialTransformer(DenseLocalization(256), "affine", (4, 4), num_transforms=looks, start=start)
        layer(torch.rand(2, 1, 16, 16) if start is not tiles else torch.rand(2, 1, 256, 1))
    stn.SpatialTransformer(DenseLocalization(1))(torch.rand(2, 1, 1, 1))
    stn.SpatialTransformer(DenseLocalization(64))(torch.rand(0, 1, 8, 8))
    lost = stn.SpatialTransformer(DenseLocalization(64), start=torch.tensor([[3.0, 0, 0], [0, 3.0, 0]]))
    with torch.no_grad():
        lost.regression.bias[2] = 1.5
    with pytest.warns(UserWarning, match="outside"):
        lost(torch.rand(2, 1, 8, 8))


def test_no_warning_is_lost_to_a_filter() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        net = Network()
        for p in net.parameters():
            if p.ndim > 1:
                nn.init.normal_(p)  # what no module can hide from
        net(torch.rand(8, 1, 28, 28, generator=seeded()))
    assert len(seen) == 1 and "stn.off_image_loss" in str(seen[0].message)
