"""The benchmark's rectifier against its published formulas, written here in NumPy and plain torch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import stn
from stn import InputError
from stn.models.checkpoints import PREFIX, BenchmarkRectifier, load_benchmark_rectifier
from tests.helpers import seeded

POINTS = 20
CONVOLUTIONS = {0: (64, 1), 4: (128, 64), 8: (256, 128), 12: (512, 256)}  # index in `conv` -> channels out, in


def radial(r: np.ndarray, eps: float = 0.0) -> np.ndarray:
    """Return r^2 log r, and 0 at 0. The benchmark adds 1e-6 to r at pixels, and not at control points."""
    return r**2 * np.log(np.where(r + eps > 0, r + eps, 1.0))


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sqrt(((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=-1))


def published_buffers(size: tuple[int, int], eps: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return inv_delta_C and P_hat."""
    x = np.linspace(-1, 1, POINTS // 2)
    c = np.vstack([np.column_stack([x, np.full_like(x, -1)]), np.column_stack([x, np.full_like(x, 1)])])
    delta = np.zeros((POINTS + 3, POINTS + 3))
    delta[:POINTS] = np.column_stack([np.ones(POINTS), c, radial(distances(c, c))])
    delta[POINTS : POINTS + 2, 3:] = c.T
    delta[POINTS + 2, 3:] = 1
    height, width = size
    rows, columns = np.meshgrid(*((np.arange(-n, n, 2) + 1) / n for n in (height, width)), indexing="ij")
    p = np.column_stack([columns.ravel(), rows.ravel()])
    p_hat = np.column_stack([np.ones(len(p)), p, radial(distances(p, c), eps)])
    return torch.from_numpy(np.linalg.inv(delta)), torch.from_numpy(p_hat)


def published_state(size: tuple[int, int] = (32, 100), channels: int = 1) -> dict[str, Tensor]:
    """Return a checkpoint's rectifier: random weights with its names, and the buffers that its code computes."""
    generator = seeded()
    state = {}
    for place, (after, before) in CONVOLUTIONS.items():
        before = channels if place == 0 else before
        state[f"conv.{place}.weight"] = torch.randn(after, before, 3, 3, generator=generator) / (3 * before**0.5)
        norm = torch.rand(4, after, generator=generator) + 0.5
        for name, value in zip(("weight", "bias", "running_mean", "running_var"), norm, strict=True):
            state[f"conv.{place + 1}.{name}"] = value
        state[f"conv.{place + 1}.num_batches_tracked"] = torch.tensor(7)
    state["localization_fc1.0.weight"] = torch.randn(256, 512, generator=generator) / 512**0.5
    state["localization_fc1.0.bias"] = torch.randn(256, generator=generator) / 10
    state["localization_fc2.weight"] = torch.randn(2 * POINTS, 256, generator=generator) / 300
    x = torch.linspace(-1, 1, POINTS // 2)
    near = torch.cat([torch.stack([x, x * 0 - 0.8], dim=1), torch.stack([x, x * 0 + 0.9], dim=1)])
    state["localization_fc2.bias"] = near.flatten()
    inv_delta_c, p_hat = published_buffers(size, eps=1e-6)
    named = {f"Transformation.LocalizationNetwork.{name}": value for name, value in state.items()}
    named["Transformation.GridGenerator.inv_delta_C"] = inv_delta_c.float()
    named["Transformation.GridGenerator.P_hat"] = p_hat.float()
    return named


def published_positions(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Return the source positions of the control points: (N, F, 2)."""
    own = {name.removeprefix("Transformation.LocalizationNetwork."): value.to(x) for name, value in state.items()}
    for place in CONVOLUTIONS:
        x = F.conv2d(x, own[f"conv.{place}.weight"], padding=1)
        mean, var, weight, bias = (
            own[f"conv.{place + 1}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")
        )
        x = F.relu(F.batch_norm(x, mean, var, weight, bias))
        x = F.max_pool2d(x, 2) if place < 12 else x.mean(dim=(2, 3))
    x = F.relu(F.linear(x, own["localization_fc1.0.weight"], own["localization_fc1.0.bias"]))
    return F.linear(x, own["localization_fc2.weight"], own["localization_fc2.bias"]).unflatten(1, (POINTS, 2))


def published_output(state: dict[str, Tensor], image: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    inv_delta_c, p_hat = (buffer.to(image) for buffer in published_buffers(size))
    positions = published_positions(state, image)
    coefficients = inv_delta_c @ torch.cat([positions, positions.new_zeros(len(image), 3, 2)], dim=1)
    grid = (p_hat @ coefficients).unflatten(1, size)
    return F.grid_sample(image, grid, padding_mode="border", align_corners=align_corners)


def images(*shape: int) -> Tensor:
    """Return images so smooth that rounding in float32 is not visible."""
    return F.avg_pool2d(torch.rand(*shape, generator=seeded(3), dtype=torch.float64), 5, stride=1, padding=2) * 2 - 1


@pytest.mark.parametrize("flaw", (False, True))
@pytest.mark.parametrize(("size", "channels"), (((32, 100), 1), ((24, 80), 3)))
def test_the_warp_is_the_published_one(size: tuple[int, int], channels: int, flaw: bool) -> None:
    state, image = published_state(size, channels), images(3, channels, 32, 100)
    rectifier = load_benchmark_rectifier(state, size, half_pixel_flaw=flaw).double()
    ours, warp = rectifier(image, return_warp=True)
    wanted = published_output(state, image, size, align_corners=flaw)
    assert ours.shape == (3, channels, *size)
    torch.testing.assert_close(ours, wanted, atol=3e-6, rtol=0)  # control points are float32 when positions are given
    assert (ours - published_output(state, image, size, align_corners=not flaw)).abs().max() > 0.01
    assert (
        warp.grid(size) - stn.ThinPlateSpline(control_points=rectifier.family.control_points)(torch.zeros(3, 40)).grid(size)
    ).abs().max() > 0.05  # the random weights bend the image


@pytest.mark.parametrize("parallel", (False, True))
def test_state_dicts_go_both_ways(parallel: bool, tmp_path: Path) -> None:
    state = published_state()
    whole = state | {"FeatureExtraction.ConvNet.conv0_1.weight": torch.zeros(2), "Prediction.bias": torch.zeros(38)}
    if parallel:
        whole = {f"module.{name}": value for name, value in whole.items()}
    torch.save(whole, tmp_path / "TPS-ResNet-BiLSTM-Attn.pth")
    rectifier = load_benchmark_rectifier(tmp_path / "TPS-ResNet-BiLSTM-Attn.pth")
    assert not rectifier.training and not rectifier.half_pixel_flaw
    back = rectifier.state_dict()
    assert {f"Transformation.{name}" for name in back} == state.keys()
    for name, value in back.items():
        assert torch.equal(value, state[f"Transformation.{name}"]) and value.dtype == state[f"Transformation.{name}"].dtype


def test_a_new_rectifier_has_the_published_buffers_and_start() -> None:
    rectifier = BenchmarkRectifier()
    for ours, theirs in zip(rectifier.GridGenerator.buffers(), published_buffers((32, 100)), strict=True):
        torch.testing.assert_close(ours, theirs.float(), atol=5e-6, rtol=1e-5)
    x = np.linspace(-1, 1, 10)
    rising = np.vstack([np.column_stack([x, np.linspace(0, -1, 10)]), np.column_stack([x, np.linspace(1, 0, 10)])])
    looks = rectifier.LocalizationNetwork(torch.rand(2, 1, 32, 100))
    torch.testing.assert_close(looks, torch.from_numpy(rising).float().flatten().expand(2, -1))


def test_it_can_be_trained_on() -> None:
    rectifier = load_benchmark_rectifier(published_state()).train()
    rectifier(images(4, 1, 32, 100).float()).square().sum().backward()
    for key, p in rectifier.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().max() > 0, key


def without(name: str) -> dict[str, Tensor]:
    return {key: value for key, value in published_state().items() if name not in key}


def test_bad_checkpoints(tmp_path: Path) -> None:
    state = published_state()
    with pytest.raises(stn.InputError, match="checkpoint must hold Transformation.LocalizationNetwork's weights; got none"):
        load_benchmark_rectifier({"FeatureExtraction.weight": torch.zeros(1)})
    with pytest.raises(stn.InputError, match=r"missing: LocalizationNetwork.conv.9.bias, .* and 2 more; unexpected: none"):
        load_benchmark_rectifier(without("conv.9"))
    with pytest.raises(stn.InputError, match="missing: none; unexpected: LocalizationNetwork.conv.99.weight"):
        load_benchmark_rectifier(state | {"Transformation.LocalizationNetwork.conv.99.weight": torch.zeros(1)})
    with pytest.raises(
        stn.InputError, match=r"GridGenerator.P_hat must be \(6400, 23\) for size=\(32, 200\); got \(3200, 23\)"
    ):
        load_benchmark_rectifier(state, (32, 200))
    with pytest.raises(stn.InputError, match=r"GridGenerator.P_hat must match .* size=\(100, 32\); it does not"):
        load_benchmark_rectifier(state, (100, 32))
    with pytest.raises(stn.InputError, match="checkpoint must be a file; .*none.pth does not exist"):
        load_benchmark_rectifier(tmp_path / "none.pth")
    torch.save(state, tmp_path / "whole.pth")
    (tmp_path / "half.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:100_000])
    with pytest.raises(stn.InputError, match="must be a complete file of torch.save with tensors only; .*half.pth is not"):
        load_benchmark_rectifier(tmp_path / "half.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(stn.InputError, match="must hold a state dict; .*list.pth holds a list"):
        load_benchmark_rectifier(tmp_path / "list.pth")


FIRST, LAST = (f"{PREFIX}LocalizationNetwork.{name}" for name in ("conv.0.weight", "localization_fc2.bias"))


@pytest.mark.parametrize(
    "held",
    [
        None, [1], "text", torch.zeros(3), {"a": 1}, {3: torch.zeros(3)}, {FIRST: 3},
        {FIRST: torch.zeros(3), LAST: 1},
    ],
    ids=lambda held: type(held).__name__,
)  # fmt: skip
def test_files_that_hold_no_rectifier(held: object, tmp_path: Path) -> None:
    torch.save(held, tmp_path / "other.pth")
    with pytest.raises(InputError, match="checkpoint must hold"):
        load_benchmark_rectifier(tmp_path / "other.pth")


@pytest.mark.parametrize("data", (b"", b"junk", b"PK\x03\x04", b"\x80\x02", b"\x00" * 100))
def test_files_that_are_no_checkpoint(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "other.pth").write_bytes(data)
    with pytest.raises(InputError, match="checkpoint must be a complete file of torch.save"):
        load_benchmark_rectifier(tmp_path / "other.pth")
