"""The layer: its start, its results, and its training."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import stn
from stn.nn import AbstractSpatialTransformer, DenseLocalization, DigitLocalization, PhotoLocalization, localization_for
from stn.ops.options import reads_levels
from stn.transforms import FAMILIES
from tests.helpers import held, noise, seeded


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("align_corners", (False, True))
def test_it_starts_at_the_identity_by_construction(name: str, align_corners: bool) -> None:
    layer = stn.SpatialTransformer.for_input((3, 21, 34), name, align_corners=align_corners)
    assert layer.regression.weight.abs().max() == 0
    for image in (torch.rand(4, 3, 21, 34), 1e3 * noise(4, 3, 21, 34, dtype=torch.float32)):
        torch.testing.assert_close(layer(image), image, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_it_starts_where_it_is_told(name: str) -> None:
    """The first look is the part of the image given by `start`. Theta then acts as in a layer that receives this part."""
    quarter = torch.tensor([[0.5, 0.0, 0.5], [0.0, 0.5, -0.5]])  # the upper right quarter
    layer = stn.SpatialTransformer(DenseLocalization(256), name, (8, 8), start=quarter)
    image = torch.rand(2, 1, 16, 16, generator=seeded())
    torch.testing.assert_close(layer(image), image[..., :8, 8:], atol=1e-6, rtol=0)
    with torch.no_grad():
        layer.regression.bias.add_(0.1 * torch.randn(layer.family.num_params, generator=seeded()))
    _, warp = layer(image, return_warp=True)
    points = 0.3 * noise(7, 2, dtype=torch.float32)
    within = layer.family(layer.localize(image)).points(points)
    assert (within - points).abs().max() > 1e-2
    torch.testing.assert_close(warp.points(points), 0.5 * within + quarter[:, 2], atol=1e-6, rtol=1e-6)
    seen = layer.composed([layer.regression(layer.localization(image))])
    torch.testing.assert_close(seen.points(points)[:, 0], warp.points(points))
    assert not [key for key in layer.state_dict() if "start" in key]


def test_each_look_starts_where_it_is_told() -> None:
    corners = torch.tensor([[x, y] for y in (-0.5, 0.5) for x in (-0.5, 0.5)])
    starts = torch.cat([0.5 * torch.eye(2).expand(4, 2, 2), corners.unsqueeze(-1)], dim=-1)
    image = torch.rand(3, 1, 16, 16, generator=seeded())
    tiles = image.unfold(2, 8, 8).unfold(3, 8, 8).flatten(2, 3).movedim(2, 1)  # (3, 4, 1, 8, 8)
    for name in ("translation", "tps", "bspline"):
        layer = stn.SpatialTransformer(DenseLocalization(256), name, (8, 8), num_transforms=4, start=starts)
        y, warp = layer(image, return_warp=True)
        torch.testing.assert_close(y, tiles, atol=1e-6, rtol=0)
        assert warp.batch == (3, 4)
    same = stn.SpatialTransformer(DenseLocalization(256), "tps", (8, 8), num_transforms=4, start=starts[1])
    torch.testing.assert_close(same(image), tiles[:, 1:2].expand(-1, 4, -1, -1, -1), atol=1e-6, rtol=0)
    with pytest.raises(stn.InputError, match=r"start must be .*, or one for each look \(2, 2, 3\); got \(4, 2, 3\)"):
        stn.SpatialTransformer(DenseLocalization(256), num_transforms=2, start=starts)


@pytest.mark.parametrize(
    "shape", ((1, 28, 28), (1, 60, 60), (3, 64, 48), (3, 65, 65), (3, 512, 512), (1, 1, 1), (2, 5, 300))
)
def test_a_layer_for_any_input(shape: tuple[int, int, int]) -> None:
    layer = stn.SpatialTransformer.for_input(shape, size=(8, 10))
    small = max(shape[1:]) <= 64
    assert isinstance(layer.localization, DigitLocalization if small else PhotoLocalization)
    image = torch.rand(2, *shape)
    out = layer(image)
    out.square().sum().backward()
    assert out.shape == (2, shape[0], 8, 10)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    assert sum(p.numel() for p in layer.parameters()) < 500_000


def test_photographs_are_reduced_by_strides_with_batch_norm() -> None:
    localization = localization_for((3, 512, 512))
    convolutions = [m for m in localization if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 5 and all(m.stride == (2, 2) for m in convolutions)
    assert len([m for m in localization if isinstance(m, nn.BatchNorm2d)]) == 5


def test_looks_and_the_warp_on_request() -> None:
    layer = stn.SpatialTransformer(DenseLocalization(3 * 8 * 9), "attention", (4, 5), num_transforms=3)
    x = torch.rand(2, 3, 8, 9)
    y, warp = layer(x, return_warp=True)
    assert y.shape == (2, 3, 3, 4, 5) and warp.batch == (2, 3)
    torch.testing.assert_close(warp.sample(x, (4, 5)), y)
    assert torch.equal(layer(x), y)


@pytest.mark.parametrize("antialias", (True, "anisotropic"))
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_looks_without_aliasing(name: str, antialias: bool | str) -> None:
    """Stripes of three pixels are reduced 4 times. The result is gray; without anti-aliasing it has stripes."""
    stripes = torch.cos(2 * torch.pi / 3 * torch.arange(64)).expand(1, 1, 64, 64).contiguous()
    plain, smooth = (
        stn.SpatialTransformer(DenseLocalization(64 * 64), name, (16, 16), padding_mode="reflection", antialias=option)
        for option in (False, antialias)
    )
    assert smooth(stripes).std() < 0.05 < 0.3 < plain(stripes).std()
    assert f"antialias={antialias!r}" in repr(smooth)
    smooth(stripes).square().sum().backward()
    assert smooth.regression.bias.grad is not None and smooth.regression.bias.grad.isfinite().all()


def test_a_wide_gradient_finds_what_a_plain_one_cannot() -> None:
    """A blob two pixels wide is a quarter of the image away from its target."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    image, target = (torch.exp(-((x - at) ** 2 + (y - 32) ** 2) / 8).view(1, 1, 64, 64) for at in (48, 32))
    off = {}
    for gradient in ("exact", "wide"):
        layer = stn.SpatialTransformer(DenseLocalization(64 * 64), "translation", gradient=gradient)
        bias = layer.regression.bias
        for step in range(120):
            (found,) = torch.autograd.grad((layer(image) - target).square().mean(), bias)
            with torch.no_grad():
                bias.sub_(0.03 * (1 - step / 120) * found / found.norm().clamp_min(1e-12))
        off[gradient] = (32 * bias.detach() - torch.tensor([16.0, 0.0])).norm()  # pixels
    assert off["wide"] < 0.1 and off["exact"] > 15


def test_looks_learn_apart() -> None:
    layer = stn.SpatialTransformer(DenseLocalization(64), "translation", num_transforms=2)
    with torch.no_grad():
        layer.regression.bias.copy_(torch.tensor([0.25, 0, 0, -0.25]))
    x = noise(1, 1, 8, 8, dtype=torch.float32)
    y = layer(x)
    torch.testing.assert_close(y[:, 0, ..., :-1], x[..., 1:])
    torch.testing.assert_close(y[:, 1, :, 1:], x[:, :, :-1])


def test_any_module_localises() -> None:
    layer = stn.SpatialTransformer(nn.Sequential(nn.Flatten(), nn.Linear(16, 7)), "rigid", features=7)
    assert layer(torch.rand(2, 1, 4, 4)).shape == (2, 1, 4, 4)
    with pytest.raises(stn.InputError, match="features must be given .* out_features; got Flatten"):
        stn.SpatialTransformer(nn.Flatten())
    with pytest.raises(stn.InputError, match=r"localization network must return \(N, features\) = \(2, 9\); got \(2, 16\)"):
        stn.SpatialTransformer(nn.Flatten(), features=9)(torch.rand(2, 1, 4, 4))


@pytest.mark.parametrize("norm", (False, True))
@pytest.mark.parametrize("kind", ("dense", "digit"))
def test_a_norm_keeps_units_alive_after_a_large_step(kind: str, norm: bool) -> None:
    """A large step lowers all units, as the first steps of Adam do in layers with thousands of inputs."""
    torch.manual_seed(0)
    made = {
        "dense": lambda: DenseLocalization(16 * 16, (32,), norm=norm),
        "digit": lambda: DigitLocalization((1, 16, 16), norm=norm),
    }
    localization = made[kind]().eval()
    x = torch.rand(64, 1, 16, 16, generator=seeded())
    before = (localization(x) > 0).any(dim=0).float().mean()
    with torch.no_grad():
        for layer in localization:
            if isinstance(layer, nn.Linear):
                layer.weight -= 10
    after = (localization(x) > 0).any(dim=0).float().mean()
    assert before > 0.3 and (after > 0.3 if norm else after == 0)


def test_options_are_checked_when_the_layer_is_made() -> None:
    localization = DenseLocalization(16)
    with pytest.raises(stn.InputError, match="transform must be one of affine, .*; got 'afine'"):
        stn.SpatialTransformer(localization, "afine")
    with pytest.raises(stn.InputError, match="padding_mode must be one of .*; got 'zero'"):
        stn.SpatialTransformer(localization, padding_mode="zero")
    with pytest.raises(stn.InputError, match="antialias must be one of .*; got 'always'"):
        stn.SpatialTransformer(localization, antialias="always")
    with pytest.raises(stn.InputError, match="gradient must be one of .*; got 'far'"):
        stn.SpatialTransformer(localization, gradient="far")
    with pytest.raises(stn.InputError, match="sampling options must be one of .*; got 'pading'"):
        stn.SpatialTransformer(localization, pading="zeros")  # type: ignore[call-arg]  # misspelled on purpose
    with pytest.raises(stn.InputError, match=r"size must have positive lengths; got \(0, 3\)"):
        stn.SpatialTransformer(localization, size=(0, 3))
    with pytest.raises(stn.InputError, match="num_transforms must be an integer of at least 1; got 0"):
        stn.SpatialTransformer(localization, num_transforms=0)
    with pytest.raises(stn.InputError, match=r"in_shape must be \(C, H, W\) or \(C, L\), .*; got \(28,\)"):
        stn.SpatialTransformer.for_input((28,))


def test_an_empty_batch() -> None:
    for shape in ((1, 28, 28), (3, 100, 100)):
        layer = stn.SpatialTransformer.for_input(shape, size=(4, 4), num_transforms=2)
        for mode in (layer.train(), layer.eval()):
            assert mode(torch.zeros(0, *shape)).shape == (0, 2, shape[0], 4, 4)


def test_param_groups() -> None:
    layer = stn.SpatialTransformer.for_input((1, 28, 28))
    network = nn.Sequential(layer, nn.Flatten(), nn.Linear(784, 10))
    rest, localization, regression = stn.param_groups(network, lr=0.1, localization_lr=0.01)
    assert {id(p) for p in held(rest)} == {id(p) for p in network[2].parameters()} and rest["lr"] == 0.1
    assert {id(p) for p in held(localization)} == {id(p) for p in layer.localization.parameters()}
    assert {id(p) for p in held(regression)} == {id(p) for p in layer.regression.parameters()}
    assert localization["lr"] == regression["lr"] == 0.01 and regression["weight_decay"] == 0
    assert len(layer.param_groups(0.1, 0.01)) == 2
    optimizer = torch.optim.AdamW([rest, localization, regression], weight_decay=1.0)
    x = torch.rand(3, 1, 28, 28)
    for _ in range(20):  # the loss is constant: only weight decay could move the look
        (0 * network(x)).sum().backward()
        optimizer.step()
    assert torch.equal(layer.regression.bias, layer.family.identity())


def test_shared_localisation_is_in_one_group_once() -> None:
    shared = DenseLocalization(16)
    network = nn.Sequential(stn.SpatialTransformer(shared), stn.SpatialTransformer(shared))
    groups = stn.param_groups(network, 0.1, 0.01)
    ids = [id(p) for group in groups for p in held(group)]
    assert len(ids) == len(set(ids)) == len(list(network.parameters()))
    torch.optim.AdamW(groups)


@pytest.mark.parametrize("name", FAMILIES)
def test_theta_is_learned_from_the_loss_alone(name: str) -> None:
    """One image is shifted by a quarter of its width, and the layer learns to undo the shift."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    target = torch.exp(-4 * (x**2 + 2 * y**2)).view(1, 1, 32, 32)
    image = stn.affine_sample(target, torch.tensor([[1.0, 0, -0.25], [0, 1.0, 0.2]]))
    torch.manual_seed(0)
    layer = stn.SpatialTransformer.for_input((1, 32, 32), name).eval()
    optimizer = torch.optim.Adam(layer.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = (layer(image) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]


def test_autocast_leaves_theta_alone() -> None:
    layer = stn.SpatialTransformer(DenseLocalization(64), "affine")
    with torch.no_grad():
        layer.regression.bias.copy_(torch.tensor([0.7071, 0.1234, 0.0567, -0.1234, 0.7071, 0.0123]))
    x = torch.rand(2, 1, 8, 8, generator=seeded())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.float32 and torch.equal(y, layer(x))


def test_layers_copy_pickle_and_load() -> None:
    layer = stn.SpatialTransformer.for_input((1, 16, 16), "tps", padding_mode="border").eval()
    with torch.no_grad():
        layer.regression.bias.add_(0.1)
    x = torch.rand(1, 1, 16, 16)
    fresh = stn.SpatialTransformer.for_input((1, 16, 16), "tps", padding_mode="border").eval()
    fresh.load_state_dict(layer.state_dict())
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), fresh):
        assert torch.equal(other(x), layer(x))
    assert "ThinPlateSpline" in repr(layer) and "border" in repr(layer)


@pytest.mark.parametrize("mode", ("nearest", "bilinear", "bicubic", "catmull_rom", "bspline", "lanczos3"))
@pytest.mark.parametrize("kind", (stn.SpatialTransformer, stn.InverseCompositionalTransformer))
def test_layers_copy_and_pickle_whatever_the_kernel(kind: type[AbstractSpatialTransformer], mode: str) -> None:
    """This includes layers that have been called: some kernels are functions without a name."""
    layer = kind(DenseLocalization(64), "rigid", mode=mode, antialias=True, padding_mode="wrap").eval()
    x = torch.rand(2, 1, 8, 8, generator=seeded())
    y, how = layer(x), layer.sampling
    assert how.interpolation.name == mode and how.padding.name == "wrap" and reads_levels(how)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x), y) and other.sampling == how and repr(other) == repr(layer)


class Halved(stn.SpatialTransformer):
    """A user's layer that moves half as far, and returns the mean of its crop."""

    def localize(self, x: Tensor) -> Tensor:
        start = self.family.identity()
        return start + (super().localize(x) - start) / 2

    def forward(self, x: Tensor, *condition: Any, image: Tensor | None = None, return_warp: bool = False) -> Any:
        y, warp = super().forward(x, *condition, image=image, return_warp=True)
        return (y.mean(dim=(2, 3)), warp) if return_warp else y.mean(dim=(2, 3))


def test_a_layer_of_ones_own() -> None:
    plain, own = (kind(DenseLocalization(64), "translation", (8, 8)) for kind in (stn.SpatialTransformer, Halved))
    with torch.no_grad():
        plain.regression.bias.copy_(torch.tensor([0.25, 0.0]))
        own.regression.bias.copy_(torch.tensor([0.5, 0.0]))
    x = torch.rand(2, 1, 8, 8, generator=seeded())
    torch.testing.assert_close(own(x), plain(x).mean(dim=(2, 3)))
    assert own(x, return_warp=True)[1].batch == (2,) and len(stn.param_groups(own, 0.1, 0.01)) == 2
    assert isinstance(Halved.for_input((1, 8, 8)), Halved)


def test_a_type_checker_sees_what_a_call_returns() -> None:
    """mypy checks the annotations in this test."""
    layer, x = stn.SpatialTransformer(DenseLocalization(16)), torch.rand(2, 1, 4, 4)
    one: Tensor = layer(x)
    pair: tuple[Tensor, stn.Warp] = layer(x, return_warp=True)
    either: Tensor | tuple[Tensor, stn.Warp] = layer(x, return_warp=bool(len(x)))
    assert torch.equal(one, layer.forward(x)) and torch.equal(pair[0], one) and isinstance(either, tuple)
    wrong: int = layer(x)  # type: ignore[assignment]  # mypy would see no error here if the call were Any
    del wrong
