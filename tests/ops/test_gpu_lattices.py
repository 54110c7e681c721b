"""Control lattices in the GPU kernels against the reference: many tiles and windows, and the order of sums."""

from typing import Any

import pytest
import torch
from torch import Tensor

import stn
from stn.ops import gpu
from stn.ops.dispatch import kernels_for
from stn.ops.reference import sample as oracle
from stn.ops.rules import Lattice
from stn.ops.rules.lattice import is_served
from stn.ops.sampling import named
from tests.helpers import noise

pytest.importorskip("triton")
ON_DEVICE = torch.cuda.is_available()
DEVICE = pytest.param("cuda", marks=pytest.mark.gpu) if ON_DEVICE else "cpu"
on_each_device = pytest.mark.parametrize("device", (DEVICE,))
HOW = named("bilinear", "border", False)


@pytest.fixture(autouse=True)
def own_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stn.ops.gpu.launch._plans", {})


def sized(monkeypatch: pytest.MonkeyPatch, **numbers: int) -> None:
    """Set the sizes of blocks, or the most rows of control points in a program."""
    for name, number in numbers.items():
        monkeypatch.setattr(f"stn.ops.gpu.{'launch' if name == 'ROWS' else 'programs'}.{name}", number)


def inputs(out: tuple[int, ...], shape: tuple[int, ...], device: str, reach: float = 0.2) -> tuple[Tensor, Tensor, Tensor]:
    """Return an image with two channels, control points (1, 1, *shape, d), and the gradient of the result."""
    image, at = noise(1, 2, *(n + 2 for n in out)), reach * noise(1, 1, *shape, len(out), seed=1)
    return image.to(device), at.to(device), noise(1, 1, 2, *out, seed=2).to(device)


def both(rule: Lattice, image: Tensor, at: Tensor, weight: Tensor) -> tuple[list[Any], list[Any]]:
    """Return value and gradients by the kernels, and by the reference."""
    zero = torch.zeros((), dtype=torch.float64, device=image.device)
    assert gpu.supports(rule, image, at, HOW)
    ours = gpu.sample(rule, image, at, zero, HOW), *gpu.gradient(rule, weight, image, at, zero, HOW, (True, True))
    exact = image.detach().requires_grad_(), at.detach().requires_grad_()
    value = oracle(rule, *exact, zero, HOW)
    return list(ours), [value, *torch.autograd.grad(value, exact, weight)]


@on_each_device
@pytest.mark.parametrize(
    "out, shape, degree, align_corners, extent",
    (
        ((9, 70), (3, 5), 1, False, 1.0),  # three tiles across, the last with few pixels
        ((9, 65), (5, 33), 1, True, 1.0),  # every other pixel lies on a control point, and windows begin there
        ((4, 101), (2, 60), 1, False, 1.0),  # a window that needs all of its 21 control points
        ((9, 40), (3, 6), 1, False, 0.5),  # half of the pixels lie beyond the control points
        ((6, 40), (1, 2), 1, False, 1.25),  # a single row of control points
        ((5, 36), (2, 1), 1, True, 1.0),  # a single column: the step is zero
        ((5, 33), (7, 40), 1, False, 1.0),  # more control points than pixels: windows longer than tiles
        ((9, 70), (4, 4), 3, False, 1.0),  # one interval
        ((8, 66), (6, 36), 3, False, 1.0),  # the step is one half
        ((5, 33), (5, 36), 3, False, 1.0),  # as dense as the pixels
        ((3, 4, 35), (2, 3, 4), 1, False, 1.0),
        ((4, 3, 34), (4, 5, 9), 3, False, 1.0),
    ),
)
def test_many_tiles(
    out: tuple[int, ...], shape: tuple[int, ...], degree: int, align_corners: bool, extent: float,
    device: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Tiles of 32 pixels across, in which windows begin anywhere, and control points that need several turns of a loop."""
    sized(monkeypatch, ELEMENTS=512 if len(out) == 2 else 1024, LEAST=32, PROGRAMS=1, ROWS=1024)
    assert gpu_tiles(Lattice(out, degree, align_corners, extent), *inputs(out, shape, device)[:2]) > 1
    ours, theirs = both(Lattice(out, degree, align_corners, extent), *inputs(out, shape, device))
    for mine, exact in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, exact, atol=1e-11, rtol=1e-11)


def gpu_tiles(rule: Lattice, image: Tensor, at: Tensor) -> int:
    """Return the number of programs of a gradient."""
    from stn.ops.gpu.launch import plan_of

    plan = plan_of(rule, image, at, torch.zeros((), dtype=torch.float64), HOW)
    return plan.gradients(image.new_empty(plan.out_shape), True, True).programs


@on_each_device
@pytest.mark.parametrize("rows", (8, 64, 4096))
def test_the_rows_of_a_program_do_not_matter(rows: int, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One control point in many turns, and all in one: the last program has points that do not exist."""
    sized(monkeypatch, PROGRAMS=1, ROWS=rows)
    ours, theirs = both(Lattice((11, 9), 3), *inputs((11, 9), (4, 5), device))
    torch.testing.assert_close(ours, theirs, atol=1e-11, rtol=1e-11)


@on_each_device
def test_control_points_gradient_is_the_same_in_every_run(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No sum is read that was not stored: with deterministic algorithms, torch fills new memory with NaN."""
    sized(monkeypatch, PROGRAMS=1, ROWS=1024)
    image, at, weight = inputs((10, 45), (5, 6), device)
    rule, zero, found = Lattice((10, 45), 3), torch.zeros((), device=device), []
    for deterministic in [False] * (20 if ON_DEVICE else 1) + [True]:
        torch.use_deterministic_algorithms(deterministic)
        try:
            found.append(gpu.gradient(rule, weight, image, at, zero, HOW, (False, True))[1])
        finally:
            torch.use_deterministic_algorithms(False)
    assert found[0] is not None and found[0].isfinite().all() and found[0].abs().max() > 0
    assert all(torch.equal(found[0], other) for other in found[1:] if other is not None)


@on_each_device
def test_any_strides_and_dtype_of_control_points(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One lattice for two images, every other one of its columns; and half precision, whose values are exact."""
    sized(monkeypatch, PROGRAMS=1, ROWS=4096)
    image, at, weight = inputs((6, 9), (4, 10), device)
    image, weight = torch.cat([image, -image]), torch.cat([weight, 2 * weight])
    at = at.to(torch.float16)[:, :, :, ::2].expand(2, -1, -1, -1, -1)
    rule, zero = Lattice((6, 9), 3), torch.zeros((), dtype=torch.float64, device=device)
    ours, theirs = both(rule, image, at.double(), weight)
    torch.testing.assert_close(ours, theirs, atol=1e-11, rtol=1e-11)
    torch.testing.assert_close(gpu.sample(rule, image, at, zero, HOW), theirs[0], atol=1e-11, rtol=0)
    half = gpu.gradient(rule, weight, image, at, zero, HOW, (False, True))[1]
    assert half is not None and half.dtype == torch.float16 and half.is_contiguous()
    assert torch.equal(half, ours[2].to(torch.float32).to(torch.float16))


@on_each_device
@pytest.mark.parametrize("dtype", (torch.float32, torch.float16))
def test_images_of_less_precision(dtype: torch.dtype, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The terms of a pixel are in float32, their sums in float64: a control point's are as exact as the largest of them."""
    sized(monkeypatch, PROGRAMS=1, ROWS=4096)
    image, at, weight = inputs((9, 21), (5, 6), device)
    image, weight, rule, zero = image.to(dtype), weight.to(dtype), Lattice((9, 21), 3), torch.zeros((), device=device)
    exact = image.double(), at.requires_grad_()
    value = oracle(rule, *exact, zero.double(), HOW)
    (right,) = torch.autograd.grad(value, at, weight.double())
    got = gpu.sample(rule, image, at.detach(), zero, HOW)
    assert got.dtype == dtype
    assert ((got - value).abs() <= torch.finfo(dtype).eps * value.abs() + 1e-6).all()
    ours = gpu.gradient(rule, weight, image, at.detach(), zero, HOW, (False, True))[1]
    assert ours is not None and (ours - right).abs().max() <= torch.finfo(torch.float32).eps * right.abs().max()


@on_each_device
def test_no_displacement_returns_the_image_bit_for_bit(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sized(monkeypatch, PROGRAMS=1)
    image = noise(1, 1, 13, 17, dtype=torch.float32).to(device)
    for degree in (1, 3):
        still = torch.zeros(1, 1, 4, 5, 2, device=device)
        assert torch.equal(gpu.sample(Lattice((13, 17), degree), image, still, image.new_zeros(()), HOW)[:, 0], image)


class OnDevice:
    """The attributes of an image on a GPU that the dispatch reads."""

    def __init__(self, *shape: int) -> None:
        self.shape, self.dtype, self.ndim, self.device = shape, torch.float32, len(shape), torch.device("cuda")


def test_warps_of_families_use_these_kernels() -> None:
    """Cubic lattices have at least four control points along each axis, as the kernels need; others take the reference."""
    image: Any = OnDevice(1, 1, 9, 9)
    assert is_served(image, (8, 8), (9, 9)) and not is_served(image, (8, 8), (9, 7))
    for degree, family in ((1, stn.Displacement(2)), (3, stn.BSpline(2))):
        at = torch.zeros(1, 1, *family.shape, 2)
        assert kernels_for(Lattice((9, 9), degree), image, at, HOW) is gpu
    assert kernels_for(Lattice((9, 9), 3), image, torch.zeros(1, 1, 5, 3, 2), HOW) is None
    assert kernels_for(Lattice((9, 9), 1), image, torch.zeros(1, 1, 1, 3, 2), HOW) is not None
