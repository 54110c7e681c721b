"""Layers that align in steps, and layers that take theta from the classifier's own features."""

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

import stn
from stn.nn import (
    AbstractSpatialTransformer,
    DenseLocalization,
    DigitLocalization,
    InverseCompositionalTransformer,
    SharedTrunkTransformer,
)
from stn.transforms import FAMILIES, family
from tests.helpers import held, noise, seeded

Y, X = torch.meshgrid(*2 * (torch.linspace(-31 / 32, 31 / 32, 32),), indexing="ij")

T = TypeVar("T", bound=AbstractSpatialTransformer)


def blob(x: float, y: float) -> Tensor:  # (1, 1, 32, 32), centered at (x, y)
    return torch.exp(-12 * ((X - x) ** 2 + (Y - y) ** 2)).view(1, 1, 32, 32)


class Centroid(nn.Module):
    """A fixed localization network that returns the center of mass (N, 2) of an image (N, 1, H, W)."""

    out_features = 2

    def forward(self, x: Tensor) -> Tensor:
        mass = x / x.sum(dim=(1, 2, 3), keepdim=True)
        return torch.stack([(mass * at).sum(dim=(1, 2, 3)) for at in (X, Y)], dim=1)


def moving(layer: T, strength: float = 0.02) -> T:
    with torch.no_grad():
        for p in layer.regression.parameters():
            p.add_(strength * torch.randn(p.shape, generator=seeded()))
    return layer


@pytest.mark.parametrize("name", FAMILIES)
def test_it_starts_at_the_identity(name: str) -> None:
    layer = InverseCompositionalTransformer.for_input((2, 21, 34), name)
    image = torch.rand(3, 2, 21, 34, generator=seeded())
    y, warp = layer(image, return_warp=True)
    torch.testing.assert_close(y, image, atol=1e-6, rtol=1e-6)
    assert warp.batch == (3,) and (warp.grid((5, 5)) - stn.grid.lattice((5, 5))).abs().max() < 1e-6


@pytest.mark.parametrize("name", FAMILIES)
def test_the_image_is_sampled_once_through_the_composed_warp(name: str) -> None:
    """p <- p o dp: the warp of each step follows the earlier ones, and each look samples the image itself."""
    layer = moving(InverseCompositionalTransformer(DenseLocalization(64), name, (8, 8), steps=3)).eval()
    image = torch.rand(2, 1, 12, 15, generator=seeded())
    looks = list(layer.looks(image))
    assert len(looks) == 4
    points = 0.3 * noise(7, 2, dtype=torch.float32)
    so_far = points.expand(2, -1, -1)
    for look, _ in reversed(looks[:-1]):  # the last step's first: it acts on the target
        so_far = family(name)(layer.localize(look)).points(so_far)
    for look, warp in looks:
        torch.testing.assert_close(warp.sample(image, (8, 8)), look)
    y, warp = layer(image, return_warp=True)
    assert torch.equal(y, looks[-1][0])
    torch.testing.assert_close(warp.points(points), so_far, atol=1e-5, rtol=1e-5)
    assert (so_far - points).abs().max() > 1e-3


def test_composition_does_not_blur() -> None:
    """Four shifts by a quarter of a pixel equal one shift by a whole pixel, and leave white noise unchanged."""
    layer = InverseCompositionalTransformer(DenseLocalization(16 * 16), "translation", padding_mode="wrap")
    with torch.no_grad():
        layer.regression.bias.copy_(torch.tensor([2 / 16 / 4, 0.0]))
    x = noise(1, 1, 16, 16, dtype=torch.float32)
    torch.testing.assert_close(layer(x), x.roll(-1, dims=3))


def test_steps_bring_a_blob_to_the_middle() -> None:
    """The localization network always moves half of the remaining distance, so each step halves it."""
    image = torch.cat([blob(0.3, -0.2), blob(-0.25, 0.1)])
    for steps in (1, 2, 4):
        layer = InverseCompositionalTransformer(Centroid(), "translation", steps=steps)
        with torch.no_grad():
            layer.regression.weight.copy_(0.5 * torch.eye(2))
        left = Centroid()(layer(image))
        torch.testing.assert_close(left, Centroid()(image) * 0.5**steps, atol=0.01, rtol=0.1)


def test_a_known_shift_is_learned_from_the_loss() -> None:
    """The regression learns the step length from the pixels alone. A single step of the trained layer misses the target."""
    image, target = torch.cat([blob(0.3, -0.2), blob(-0.3, 0.2), blob(0.1, 0.3)]), blob(0, 0).expand(3, -1, -1, -1)
    layer = InverseCompositionalTransformer(Centroid(), "translation", steps=3)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    before = (layer(image) - target).square().mean()
    for _ in range(60):
        loss = (layer(image) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 1e-3 * before
    _, warp = layer(image, return_warp=True)
    expected = torch.tensor([[0.3, -0.2], [-0.3, 0.2], [0.1, 0.3]])
    torch.testing.assert_close(warp.points(torch.zeros(2)), expected, atol=0.01, rtol=0)
    once = InverseCompositionalTransformer(Centroid(), "translation", steps=1)
    once.load_state_dict(layer.state_dict())
    assert (once(image) - target).square().mean() > 10 * loss


@pytest.mark.parametrize("options", ({}, {"antialias": True}, {"gradient": "wide", "padding_mode": "border"}))
def test_options_and_gradients_of_every_step(options: Any) -> None:
    layer = moving(InverseCompositionalTransformer(DigitLocalization((1, 8, 8)), "affine", (8, 8), steps=2, **options))
    x = torch.rand(4, 1, 24, 24, generator=seeded())
    y, warp = layer(x, return_warp=True)
    torch.testing.assert_close(y, warp.sample(x, (8, 8), **options))
    thetas: list[Tensor] = []
    layer.regression.register_forward_hook(lambda _, __, theta: thetas.append(theta))
    loss = layer(x).square().sum()
    assert len(thetas) == 2 and all(grad.abs().max() > 0 for grad in torch.autograd.grad(loss, thetas, retain_graph=True))
    loss.backward()
    for key, p in layer.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().max() > 0, key
    rest, *_ = stn.param_groups(nn.Sequential(layer, nn.Linear(8, 1)), lr=0.1, localization_lr=0.01)
    assert len(held(rest)) == 2 and "steps=2" in repr(layer)


@pytest.mark.parametrize("name", FAMILIES)
def test_steps_go_out_from_the_start(name: str) -> None:
    """The first look is the part of the image given by `start`. Theta then acts as in a layer that receives this part."""
    quarter = torch.tensor([[0.5, 0.0, 0.5], [0.0, 0.5, -0.5]])  # the upper right quarter
    layer = InverseCompositionalTransformer(DenseLocalization(64), name, (8, 8), steps=3, start=quarter).eval()
    image = torch.rand(2, 1, 16, 16, generator=seeded())
    torch.testing.assert_close(layer(image), image[..., :8, 8:], atol=1e-6, rtol=0)
    alone = InverseCompositionalTransformer(DenseLocalization(64), name, (8, 8), steps=3).eval()
    with pytest.warns(UserWarning, match=r"got one with start \[\[0.5.*, here None"):
        alone.load_state_dict(layer.state_dict())
    black = torch.nn.functional.pad(image[..., :8, 8:], (8, 0, 0, 8))  # everything outside the part is zero
    moving(layer), moving(alone)
    (y, warp), (part, expected) = layer(black, return_warp=True), alone(black[..., :8, 8:], return_warp=True)
    points = 0.3 * noise(7, 2, dtype=torch.float32)
    torch.testing.assert_close(warp.points(points), 0.5 * expected.points(points) + quarter[:, 2], atol=1e-5, rtol=1e-5)
    assert y.shape == part.shape and (expected.points(points) - points).abs().max() > 1e-3


def test_bad_requests() -> None:
    with pytest.raises(stn.InputError, match=r"start must be an affine matrix \(2, 3\); got \(3, 3\)"):
        InverseCompositionalTransformer(DenseLocalization(4), start=torch.eye(3))
    with pytest.raises(TypeError, match="start must have a floating-point dtype; got torch.int64"):
        InverseCompositionalTransformer(DenseLocalization(4), start=torch.eye(2, 3, dtype=torch.int64))
    with pytest.raises(stn.InputError, match="steps must be an integer of at least 1; got 0"):
        InverseCompositionalTransformer(DenseLocalization(4), steps=0)
    with pytest.raises(stn.InputError, match="padding_mode must be one of"):
        InverseCompositionalTransformer(DenseLocalization(4), padding_mode="zero")


def trunk() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2))


@pytest.mark.parametrize("steps", (1, 3))
def test_the_input_is_warped_and_the_same_trunk_reads_it(steps: int) -> None:
    layer = SharedTrunkTransformer(trunk(), DenseLocalization(4 * 6 * 6), "rigid", steps=steps)
    x = torch.rand(3, 1, 12, 12, generator=seeded())
    torch.testing.assert_close(layer(x), layer.trunk(x))  # at the start
    moving(layer, 0.1)
    features, warp = layer(x, return_warp=True)
    torch.testing.assert_close(features, layer.trunk(warp.sample(x)))
    assert (features - layer.trunk(x)).abs().max() > 1e-2 and torch.equal(layer(x), features)
    features.square().sum().backward()
    for key, p in layer.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().max() > 0, key


def test_the_trunk_is_one_and_learns_from_both_readings() -> None:
    torch.manual_seed(0)  # of 40 seeds, one gives a ratio of only 4e-4
    layer = moving(SharedTrunkTransformer(trunk(), DenseLocalization(4 * 6 * 6), "rigid"), 0.1)
    assert sum(key.startswith("trunk.0.weight") for key in layer.state_dict()) == 1
    x = torch.rand(3, 1, 12, 12, generator=seeded())
    layer(x).square().sum().backward()
    warp = layer(x, return_warp=True)[1]
    apart = copy.deepcopy(layer)
    apart.zero_grad()
    apart.trunk(warp.sample(x).detach()).square().sum().backward()
    both, second = (next(network.trunk.parameters()).grad for network in (layer, apart))
    assert both is not None and second is not None and (both - second).abs().max() > 1e-3 * second.abs().max()


def test_the_trunk_learns_at_the_rate_of_the_network() -> None:
    layer = SharedTrunkTransformer(trunk(), DenseLocalization(4 * 6 * 6), "rigid")
    rest, localization, _ = stn.param_groups(layer, lr=0.1, localization_lr=0.01)
    assert {id(p) for p in held(rest)} == {id(p) for p in layer.trunk.parameters()}
    assert {id(p) for p in held(localization)} == {id(p) for p in layer.localization.parameters()}


TRUNKS: dict[str, Callable[[], nn.Module]] = {
    "maps": trunk,
    "small maps": lambda: nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
    "large maps": lambda: nn.Conv2d(1, 3, 3, padding=40),
    "vectors": lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(9), nn.BatchNorm1d(9), nn.Dropout(0.5), nn.Tanh()),
    "tokens": lambda: nn.Sequential(nn.Conv2d(1, 6, 4, stride=4), nn.Flatten(2)),
    "without parameters": lambda: nn.AvgPool2d(2),
}


@pytest.mark.parametrize(
    "sides, options",
    (((12, 12), {}), ((8, 8), {"size": 8, "steps": 2}), ((9, 8), {"size": (9, 8), "start": 0.5 * torch.eye(2, 3)})),
)
@pytest.mark.parametrize("name", TRUNKS)
def test_a_layer_for_any_trunk(name: str, sides: tuple[int, int], options: Any) -> None:
    """The layer starts at the identity and trains. Finding the shape of the features does not change the trunk."""
    torch.manual_seed(0)
    network = TRUNKS[name]()
    network(torch.rand(2, 1, *sides))  # initializes lazy modules
    modes = [module.train(bool(i % 2)).training for i, module in enumerate(network.modules())]
    before = copy.deepcopy(network.state_dict())
    layer = SharedTrunkTransformer.for_input((1, 12, 12), network, "rigid", **options)
    assert layer.trunk is network and [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    x = torch.rand(4, 1, 12, 12, generator=seeded())
    if not options:
        torch.testing.assert_close(layer.eval()(x), network(x))
    layer.train()
    optimizer = torch.optim.SGD(stn.param_groups(layer, lr=0.01, localization_lr=0.01))
    start = copy.deepcopy(layer.state_dict())
    for _ in range(2):  # the regression has zero weights, so the localization network learns from the second step on
        optimizer.zero_grad()
        layer(x).square().mean().backward()
        optimizer.step()
    moved = {key for key, value in layer.state_dict().items() if not torch.equal(value, start[key])}
    assert {"regression.weight", "regression.bias"} <= moved and any(key.startswith("localization") for key in moved)


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float64))
def test_a_layer_is_where_its_trunk_is(dtype: torch.dtype) -> None:
    layer = SharedTrunkTransformer.for_input((1, 12, 12), trunk().to(dtype), start=torch.eye(2, 3))
    assert {p.dtype for p in layer.localization.parameters()} == {dtype}
    assert layer.regression.weight.dtype == torch.promote_types(dtype, torch.float32)
    assert layer(torch.rand(2, 1, 12, 12, dtype=dtype)).dtype == dtype
    far = SharedTrunkTransformer.for_input((1, 12, 12), trunk().to("meta"), start=torch.eye(2, 3))
    assert {t.device.type for t in [*far.parameters(), *far.buffers()]} == {"meta"}


def test_a_trunk_without_features_gets_a_sentence() -> None:
    class Nothing(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return (x,)

    with pytest.raises(stn.InputError, match=r"trunk must return features \(N, ..\); got tuple"):
        SharedTrunkTransformer.for_input((1, 8, 8), Nothing())
    with pytest.raises(stn.InputError, match=r"trunk must return features \(N, ..\) of N = 2 images; got \(128,\)"):
        SharedTrunkTransformer.for_input((1, 8, 8), nn.Flatten(0))
    network = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Dropout())
    with pytest.raises(RuntimeError):
        SharedTrunkTransformer.for_input((1, 8, 8), network)
    assert network.training and network[1].training
