"""Warps of signals (N, C, L): time warping, layers and registration in one dimension."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import stn
from stn.transforms import FAMILIES, family
from tests.helpers import near_identity, noise

PRESENT = [name for name in FAMILIES if name not in ("corners", "tps", "rigid", "similarity")]


def bumps(length: int, *at: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return a smooth signal (1, 1, length) with a bump of another height at each place."""
    x = stn.grid.lattice((length,), dtype=dtype)[:, 0]
    parts = [(1 + i) * torch.exp(-(((x - place) / 0.12) ** 2)) for i, place in enumerate(at)]
    return torch.stack(parts).sum(dim=0).view(1, 1, -1)


def dtan(signal: Tensor, nodes: Tensor, steps: int) -> Tensor:
    """The warp of DTAN (Shapira Weber et al. 2019) in plain torch, from the velocity at the ends of equal cells of [0, 1].

    It is affine in each cell, and its flow over a short time has a closed form. Then comes linear interpolation.
    """
    cells, length = nodes.shape[1] - 1, signal.shape[-1]
    slope = nodes.diff(dim=1) * cells
    offset = nodes[:, :-1] - slope * torch.arange(cells) / cells
    grow = (slope / steps).exp()
    shift = offset * torch.where(slope.abs() < 1e-9, 1 / steps, (grow - 1) / slope)
    x = torch.linspace(0, 1, length, dtype=signal.dtype).expand(len(nodes), -1)
    for _ in range(steps):
        cell = (x * cells).floor().long().clamp(0, cells - 1)
        x = grow.gather(1, cell) * x + shift.gather(1, cell)
    at = (x * (length - 1)).clamp(0, length - 1)
    low = at.detach().floor().long().clamp(max=length - 2)
    share = (at - low).unsqueeze(1)
    left, right = (signal.gather(2, (low + i).unsqueeze(1).expand_as(signal)) for i in (0, 1))
    return left * (1 - share) + right * share


def test_the_warp_of_dtan() -> None:
    signal = torch.cat([bumps(64, -0.5, 0.2), bumps(64, 0.0, 0.6)], dim=1).expand(4, -1, -1)
    nodes = torch.nn.functional.pad(0.25 * noise(4, 7), (1, 1))  # 8 cells, at rest at both ends
    time_warp = stn.CPAB(1, cells=8, steps=256)
    theta = (2 * nodes[:, 1:-1]).requires_grad_()  # [-1, 1] is twice as long as [0, 1]
    got = time_warp(theta).sample(signal, padding_mode="border", align_corners=True)
    given = nodes.clone().requires_grad_()
    expected = dtan(signal, given, 4096)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    assert (expected - signal).abs().max() > 0.3
    weight = noise(4, 2, 64, seed=1)
    (in_theta,) = torch.autograd.grad((got * weight).sum(), theta)
    (in_nodes,) = torch.autograd.grad((expected * weight).sum(), given)
    size = in_nodes.abs().max().item()
    torch.testing.assert_close(2 * in_theta, in_nodes[:, 1:-1], atol=1e-3 * size, rtol=0)


def test_numbers_of_theta() -> None:
    expected = {"translation": 1, "attention": 2, "anisotropic_scale": 2, "affine": 2, "exponential_affine": 2}
    expected |= {"projective": 3, "bspline": 7, "displacement": 8, "velocity": 7, "cpab": 3}
    assert {name: family(name, 1).num_params for name in PRESENT} == expected
    assert stn.Affine(1)(torch.tensor([[0.5, 0.25]])).points(torch.tensor([1.0])).tolist() == [[0.75]]
    for name in ("rigid", "similarity", "corners", "tps"):
        with pytest.raises(stn.InputError, match="ndim must be"):
            family(name, 1)


@pytest.mark.parametrize("name", ("velocity", "cpab"))
def test_flows_never_fold_and_invert(name: str) -> None:
    transform = family(name, 1)
    theta = near_identity(transform, 16, strength=0.6)
    warp, x = transform(theta), torch.linspace(-1, 1, 101, dtype=torch.float64).unsqueeze(1)
    assert (warp.points(x).diff(dim=1) > 0).all() and (warp.jacobian_determinant(64) > 0).all()
    back = transform(-theta).points(warp.points(x))
    # Fourth-order steps over kinks of the velocity, or two of them for a smooth one: 0.01 half widths at this strength.
    torch.testing.assert_close(back, x.expand(16, -1, -1), atol=3e-2, rtol=0)
    small = transform(theta / 4)
    torch.testing.assert_close((small.inverse() @ small).points(x), x.expand(16, -1, -1), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", PRESENT)
def test_files(name: str, tmp_path: Path) -> None:
    transform, signal = family(name, 1), noise(3, 2, 20)
    warp = transform(near_identity(transform, 3))
    warp.save(tmp_path / "warp.pt")
    assert torch.equal(stn.load_warp(tmp_path / "warp.pt").sample(signal), warp.sample(signal))


def test_matrices_in_samples() -> None:
    warp = stn.Affine(1)(torch.tensor([[0.5, 0.25]]))
    matrix = warp.to_pixel_matrix(32, 16, convention="scipy")
    again = stn.from_pixel_matrix(matrix[:, :1].float(), (32,), (16,), convention="scipy")
    torch.testing.assert_close(again.matrix, warp.matrix)


# ---- layers ----


@pytest.mark.parametrize("transform", (stn.Affine(1), stn.CPAB(1, cells=6), stn.BSpline(1), "translation"))
@pytest.mark.parametrize("layer_type", (stn.SpatialTransformer, stn.InverseCompositionalTransformer))
def test_layers_start_as_the_identity_and_learn(layer_type: Any, transform: Any) -> None:
    torch.manual_seed(0)
    layer, x = layer_type.for_input((2, 50), transform), noise(3, 2, 50, dtype=torch.float32)
    y, warp = layer(x, return_warp=True)
    assert torch.equal(y, x) and warp.ndim == 1
    y.square().sum().backward()
    assert layer.regression.bias.grad.abs().max() > 0
    again = layer_type.for_input((2, 50), transform)
    again.load_state_dict(layer.state_dict())
    crop = layer_type.for_input((2, 50), transform, 20, start=torch.tensor([[0.5, 0.2]]), antialias=True)
    assert crop(x).shape == (3, 2, 20)


def test_a_layer_with_a_trunk_and_one_with_looks() -> None:
    x = noise(3, 2, 50, dtype=torch.float32)
    trunk = nn.Sequential(nn.Conv1d(2, 4, 5, stride=2), nn.ReLU())
    assert stn.SharedTrunkTransformer.for_input((2, 50), trunk, stn.Affine(1))(x).shape == (3, 4, 23)
    looks = stn.SpatialTransformer.for_input((2, 50), stn.Attention(1), 16, num_transforms=3)
    assert looks(x).shape == (3, 3, 2, 16)
    with pytest.raises(stn.InputError, match=r"x must be \(N, C, L\); got \(2, 50\), which lacks the batch"):
        looks(x[0])


def test_the_localization_network_of_signals() -> None:
    for length in (3, 64, 2000):
        network = stn.nn.localization_for((3, length))
        assert isinstance(network, stn.nn.SignalLocalization)
        assert network(torch.rand(2, 3, length)).shape == (2, network.out_features)
    with pytest.raises(stn.InputError, match=r"in_shape must be \(C, L\), positive integers; got \(3, 4, 5\)"):
        stn.nn.SignalLocalization((3, 4, 5))


@pytest.mark.parametrize("lowering", ("grid_sample", "gather"))
def test_export_of_a_layer(lowering: str) -> None:
    torch.manual_seed(0)
    layer, x = stn.SpatialTransformer.for_input((2, 40), stn.CPAB(1), 30, padding_mode="border"), torch.rand(2, 2, 40)
    with torch.no_grad():
        layer.regression.weight.normal_(std=0.1)
    layer.eval()
    program = stn.export.to_program(layer, x, lowering=lowering)
    torch.testing.assert_close(program.module()(x), layer(x), atol=1e-5, rtol=0)


# ---- registration ----


@pytest.mark.parametrize("loss", ("ncc", "mse", "lncc", "mi"))
def test_registration_finds_a_shift_and_a_scale(loss: str) -> None:
    moving = bumps(128, -0.4, 0.1, 0.5, dtype=torch.float32)
    true = stn.Affine(1)(torch.tensor([[0.9, 0.1]]))
    fixed = true.sample(moving, padding_mode="border")
    found = stn.register(moving, fixed, stn.Affine(1), loss=loss)
    tolerance = {"mi": 0.02, "lncc": 0.01}.get(loss, 0.004)  # half widths: 0.26 samples
    x = torch.linspace(-0.8, 0.8, 21).unsqueeze(1)
    assert (found.warp.points(x) - true.points(x)).abs().max() < tolerance
    assert (true.points(x) - x).abs().max() > 0.1


TIME_WARPS: dict[stn.Family, float] = {
    stn.CPAB(1, cells=5): 0.05,
    stn.Velocity(1, shape=(13,)): 0.25,
    stn.BSpline(1, shape=13): 0.25,
}  # share of error


@pytest.mark.parametrize("transform", TIME_WARPS, ids=lambda family: type(family).__name__)
def test_registration_finds_a_time_warp(transform: stn.Family) -> None:
    """The true warp is in the first family; the others come close to it."""
    rough = noise(1, 1, 20, dtype=torch.float32)
    moving = stn.affine_sample(rough, torch.eye(1, 2), 128, mode="bspline", padding_mode="reflection").expand(2, -1, -1)
    true = stn.CPAB(1, cells=5)(torch.tensor([[0.12, -0.05, 0.1, -0.1], [-0.1, 0.1, 0.05, 0.1]]))
    fixed = true.sample(moving, padding_mode="border")
    found = stn.register(moving, fixed, transform, loss="mse")
    x = torch.linspace(-0.7, 0.7, 21).unsqueeze(1)
    before = (true.points(x) - x).abs().mean()
    assert (found.warp.points(x) - true.points(x)).abs().mean() < TIME_WARPS[transform] * before
    assert found.image.shape == fixed.shape and before > 0.05
