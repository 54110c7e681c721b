"""Devices without float64, such as Apple's GPUs: no float64 tensor is made on them. Emulated on the meta device.

The code takes the same way as on such a device: no kernel knows it, so the reference in plain PyTorch runs.
"""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import stn
from stn.ops import context
from stn.transforms import FAMILIES, family

DEVICE = torch.device("meta")
CASES = [(name, d) for d in (2, 3) for name in FAMILIES if (name, d) != ("corners", 3)]
SIZES = {2: (9, 11), 3: (5, 6, 7)}


class NoDouble(TorchDispatchMode):
    """Fails where a float64 tensor comes to be on the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for value in tree_leaves(found):
            if (
                isinstance(value, Tensor)
                and value.device.type == DEVICE.type
                and value.dtype in (torch.float64, torch.complex128)
            ):
                raise TypeError(f"{func} made a tensor of {value.dtype}")
        return found


@pytest.fixture(autouse=True)
def without_double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(context, "SINGLE", ("mps", DEVICE.type))
    with NoDouble():
        yield


def image(d: int, channels: int = 3) -> Tensor:
    return torch.empty(2, channels, *SIZES[d], device=DEVICE, requires_grad=True)


def test_the_mode_finds_float64() -> None:
    with pytest.raises(TypeError, match="made a tensor of torch.float64"):
        torch.zeros(2, device=DEVICE).double()
    torch.zeros(2, dtype=torch.float64, device="cpu")


@pytest.mark.parametrize("double", (False, True))
def test_gpus_of_intel_have_float64_or_not(double: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they lack it, they take the way of all tests of this file."""
    monkeypatch.setattr("torch.xpu.get_device_properties", lambda device: SimpleNamespace(has_fp64=double))
    assert context.coordinate_dtype(torch.device("xpu")) == (torch.float64 if double else torch.float32)
    assert context.coordinate_dtype(torch.device("mps")) == torch.float32
    assert context.coordinate_dtype(torch.device("cuda")) == context.coordinate_dtype(torch.device("cpu")) == torch.float64


@pytest.mark.parametrize("name, d", CASES)
def test_warps(name: str, d: int) -> None:
    transform = family(name, d)
    theta = torch.empty(2, transform.num_params, device=DEVICE, requires_grad=True)
    warp = transform(theta)
    points = torch.empty(2, 5, d, device=DEVICE)
    results = [warp.points(points), warp.grid(SIZES[d]), warp.jacobian_determinant(SIZES[d]), warp.sample(image(d))]
    results += [(warp @ transform(theta)).points(points)]
    for result in results:
        assert result.dtype == torch.float32 and result.device == DEVICE
    (results[3].sum() + results[0].sum()).backward()
    assert theta.grad is not None and theta.grad.dtype == torch.float32


@pytest.mark.parametrize("padding_mode", ("zeros", "border", "reflection", "wrap"))
@pytest.mark.parametrize("mode", ("nearest", "bilinear", "bicubic", "catmull_rom", "bspline", "lanczos3"))
def test_modes(mode: str, padding_mode: str) -> None:
    theta = torch.empty(2, 2, 3, device=DEVICE, requires_grad=True)
    out = stn.affine_sample(image(2), theta, (4, 5), mode=mode, padding_mode=padding_mode)
    out.sum().backward()
    assert out.dtype == torch.float32


OTHERS: dict[str, Callable[[], Any]] = {
    "anti-aliasing": lambda: stn.affine_sample(image(2), torch.empty(2, 2, 3, device=DEVICE), (3, 3), antialias=True),
    "half precision": lambda: stn.affine_sample(image(2).half(), torch.empty(2, 2, 3, device=DEVICE).half()),
    "bytes": lambda: stn.affine_sample(
        torch.empty(1, 3, 9, 9, dtype=torch.uint8, device=DEVICE), torch.empty(2, 3, device=DEVICE)
    ),
    "pixel matrices": lambda: stn.from_pixel_matrix(torch.empty(2, 2, 3, device=DEVICE), (9, 11)),
    "boxes": lambda: stn.from_boxes(torch.empty(2, 3, 4, device=DEVICE), (9, 11)).sample(image(2), (4, 4)),
    "signals": lambda: stn.Affine(1)(torch.empty(2, 2, device=DEVICE)).sample(torch.empty(2, 3, 30, device=DEVICE)),
    "a fill value": lambda: stn.affine_sample(image(2), torch.empty(2, 2, 3, device=DEVICE), fill_value=0.5),
}


@pytest.mark.parametrize("name", OTHERS)
def test_operators(name: str) -> None:
    OTHERS[name]()


@pytest.mark.parametrize("transform", ("affine", "tps", "projective", "bspline"))
def test_layers(transform: str) -> None:
    layer = stn.SpatialTransformer.for_input((3, 32, 32), transform).to_empty(device=DEVICE)
    network = nn.Sequential(layer, nn.Flatten())
    network(torch.empty(2, 3, 32, 32, device=DEVICE)).sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in network.parameters())
