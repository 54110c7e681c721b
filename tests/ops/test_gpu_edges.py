"""The GPU kernels on unusual input, and their host code: it does not wait, and it launches few kernels."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stn.ops import gpu
from stn.ops.dispatch import kernels_for
from stn.ops.options import parse
from stn.ops.reference import sample as oracle
from stn.ops.rules import Field, Lattice, Matrix, Spline
from stn.ops.sampling import named
from tests.helpers import PADDINGS, noise, ramp
from tests.ops.test_cpu_kernels import call_of, where

pytest.importorskip("triton")
ON_DEVICE = torch.cuda.is_available()
DEVICE = pytest.param("cuda", marks=pytest.mark.gpu) if ON_DEVICE else "cpu"
on_each_device = pytest.mark.parametrize("device", (DEVICE,))
EYE = torch.eye(2, 3, dtype=torch.float64)


@pytest.fixture(autouse=True)
def few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stn.ops.gpu.launch._plans", {})  # plans of other block sizes
    if not ON_DEVICE:
        monkeypatch.setattr("stn.ops.gpu.programs.PROGRAMS", 1)


def affine(image: Tensor, theta: Tensor, *, size: Any = None, mode: str = "bilinear", padding_mode: str = "zeros") -> Tensor:
    """Sample with one look per image."""
    rule, sampling = Matrix(tuple(size or image.shape[2:])), named(mode, padding_mode, False)
    return gpu.sample(rule, image, theta.expand(len(image), 1, *theta.shape[-2:]), image.new_zeros(()), sampling)[:, 0]


@on_each_device
@pytest.mark.parametrize("mode, n", (("bilinear", 49), ("bilinear", 13), ("nearest", 7), ("bicubic", 6)))
def test_the_identity_returns_the_image_bit_for_bit(mode: str, n: int, device: str) -> None:
    image = noise(1, 1, n, n + 4, dtype=torch.float32).to(device)
    assert torch.equal(affine(image, EYE.to(device), mode=mode), image)
    if mode == "bilinear":
        assert torch.equal(affine(image, torch.eye(3, device=device), mode=mode), image)
        still = torch.zeros(1, 1, n, n + 4, 2, device=device)
        found = gpu.sample(Field("normalized", True), image, still, image.new_zeros(()), named(mode, "wrap", True))
        assert torch.equal(found[:, 0], image)


def field_call(image: Tensor, points: Tensor, mode: str, padding_mode: str, fill: float = 0.0) -> Tensor:
    """Sample at stored normalized points (Q, 2); the result is (C, Q)."""
    sampling = named(mode, padding_mode, False)
    grid = points.view(1, 1, 1, -1, 2)
    return gpu.sample(Field(), image, grid, torch.full((), fill, device=image.device), sampling)[0, 0, :, 0]


@on_each_device
@pytest.mark.parametrize("mode, padding_mode", (("bilinear", "zeros"), ("bicubic", "border"), ("nearest", "wrap")))
def test_nan_and_what_is_far_away(mode: str, padding_mode: str, device: str) -> None:
    """NaN gives NaN at its own pixel only. An infinite coordinate gives padding. The kernel reads only the image."""
    image = noise(1, 2, 5, 6).to(device)
    far = [1e6, -1e6, 1e30, -1e30, math.inf, -math.inf]
    points = torch.tensor([[x, 0.2] for x in far] + [[0.1, y] for y in far] + [[0.3, math.nan], [math.nan, math.inf]])
    points = points.double().to(device)
    out = field_call(image, points, mode, padding_mode, fill=0.5 if padding_mode == "zeros" else 0.0)
    assert out[:, -2:].isnan().all() and out[:, :-2].isfinite().all()
    if padding_mode == "zeros":
        assert (out[:, :-2] == 0.5).all()
    if padding_mode == "border":
        ends = field_call(image, torch.tensor([[9.0, 0.2], [0.1, -9.0]], device=device).double(), mode, padding_mode)
        torch.testing.assert_close(out[:, [4, 11]], ends, atol=1e-14, rtol=0)


@on_each_device
def test_pixels_outside_have_exactly_no_gradient(device: str) -> None:
    """This holds with zeros padding for any fill value and any pixels at the edge, and for coordinates that are clamped."""
    image = torch.full((1, 1, 5, 6), math.inf, dtype=torch.float64, device=device)
    points = torch.tensor([[2.5, 0.0], [0.0, -7.0], [1e30, 0.0], [-math.inf, math.inf]]).view(1, 1, 1, 4, 2).to(device)
    fill, grad = torch.tensor(0.1, dtype=torch.float64, device=device), noise(1, 1, 1, 1, 4).to(device)
    for padding_mode, mode in (("zeros", "bilinear"), ("zeros", "bicubic")):
        sampling = named(mode, padding_mode, False)
        in_image, in_points = gpu.gradient(Field(), grad, image, points, fill, sampling, (True, True))
        assert in_image is not None and in_image.abs().max() == 0
        assert in_points is not None and in_points.abs().max() == 0


@on_each_device
@pytest.mark.parametrize("padding_mode", ("zeros", "reflection"))
def test_the_horizon(padding_mode: str, device: str) -> None:
    """Points on the horizon are at infinity; those beyond it agree with the reference. All gradients are finite."""
    image = noise(1, 1, 9, 9).to(device)
    matrix = torch.tensor([[1.0, 0, 0.5], [0, 1, 0], [2.0, 0, 0]], dtype=torch.float64, device=device).view(1, 1, 3, 3)
    sampling, zero = named("bilinear", padding_mode, False), torch.zeros((), dtype=torch.float64, device=device)
    rule = Matrix((9, 9))
    got = gpu.sample(rule, image, matrix, zero, sampling)  # w = 2 x
    torch.testing.assert_close(got, oracle(rule, image, matrix, zero, sampling), atol=1e-9, rtol=0)
    assert padding_mode != "zeros" or got[..., 4].abs().max() == 0
    exact = matrix.clone().requires_grad_()
    (expected,) = torch.autograd.grad(oracle(rule, image, exact, zero, sampling).square().sum(), exact)
    _, found = gpu.gradient(rule, 2 * got, image, matrix, zero, sampling, (False, True))
    assert found is not None and found.isfinite().all() and expected.abs().max() > 0
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-7)


@on_each_device
@pytest.mark.parametrize("padding_mode", PADDINGS)
def test_one_pixel(padding_mode: str, device: str) -> None:
    image = torch.full((1, 1, 1, 1), 3.0, device=device)
    assert torch.equal(affine(image, EYE.to(device), padding_mode=padding_mode), image)
    out = affine(image, 0.3 * EYE.to(device), size=(2, 3), padding_mode=padding_mode)
    torch.testing.assert_close(out, affine_oracle(image, 0.3 * EYE.to(device), (2, 3), padding_mode))


def affine_oracle(image: Tensor, theta: Tensor, size: tuple[int, int], padding_mode: str) -> Tensor:
    zero = image.new_zeros(())
    return oracle(Matrix(size), image, theta.view(1, 1, 2, 3), zero, named("bilinear", padding_mode, False))[:, 0]


@on_each_device
@pytest.mark.parametrize("shape", ((0, 2, 5, 6), (2, 0, 5, 6)))
def test_empty_batches(shape: tuple[int, ...], device: str) -> None:
    image, theta = torch.zeros(shape, device=device), EYE.to(device).expand(shape[0], 3, 2, 3)
    rule, sampling, zero = Matrix((4, 3)), named("bilinear", "zeros", False), torch.zeros((), device=device)
    out = gpu.sample(rule, image, theta, zero, sampling)
    assert out.shape == (shape[0], 3, shape[1], 4, 3)
    in_image, in_theta = gpu.gradient(rule, out, image, theta, zero, sampling, (True, True))
    assert in_image is not None and in_image.shape == shape
    assert in_theta is not None and in_theta.shape == theta.shape and not in_theta.any()


@on_each_device
def test_coordinates_at_4096_pixels(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ramp returns its sampling coordinates: within 1e-8 pixels, where float32 coordinates would be off by 1e-4."""
    monkeypatch.setattr("stn.ops.gpu.programs.ELEMENTS", 1 << 15)  # the interpreter's time depends on the number of programs
    image = 2048 * ramp((8, 4096), align_corners=False)[:, :1].to(device)
    theta = torch.tensor([[0.97, 1e-5, 0.011], [1e-4, 0.9, 0.0]], dtype=torch.float64, device=device)
    got, exact = affine(image, theta, padding_mode="border"), affine_oracle(image, theta, (8, 4096), "border")
    assert (got - exact).abs().max() < 1e-8


@on_each_device
def test_a_large_white_noise_image_is_right_in_float32(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bounds are those of the CPU kernels: value within 2e-6, theta's gradient within a relative error of 1e-6."""
    if not ON_DEVICE:
        monkeypatch.setattr("stn.ops.gpu.programs.ELEMENTS", 1 << 16)
    image = noise(1, 1, 200, 256, dtype=torch.float32).to(device)
    theta = torch.tensor([[0.75, -0.27, 0.01], [0.27, 0.75, -0.02]]).view(1, 1, 2, 3).to(device)
    weight, zero = noise(1, 1, 1, 200, 256, seed=1, dtype=torch.float32).to(device), torch.zeros((), device=device)
    rule, sampling = Matrix((200, 256)), named("bilinear", "zeros", False)
    exact = theta.double().requires_grad_()
    expected = oracle(rule, image.double(), exact, zero, sampling)
    (right,) = torch.autograd.grad(expected, exact, weight.double())
    assert (gpu.sample(rule, image, theta, zero, sampling) - expected).abs().max() < 2e-6
    _, gradient = gpu.gradient(rule, weight, image, theta, zero, sampling, (False, True))
    assert gradient is not None and (gradient - right).abs().max() < 1e-6 * right.abs().max()


# ---- the host code, without a GPU: meta tensors, and kernels that are only counted ----


@pytest.mark.parametrize("rule, d", (("affine", 2), ("projective", 3), ("basis", 2), ("field", 3), ("cubic", 2)))
def test_nothing_waits_for_the_device_and_launches_are_few(rule: str, d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Meta tensors have no values, so any code that reads one raises an error. One launch forward, one or two backward."""
    launched: list[str] = []

    def count(kernel: Any, device: Any, programs: int, *arguments: Any, **constants: Any) -> None:
        launched.append(kernel.fn.__name__)

    monkeypatch.setattr("stn.ops.gpu.launch.run", count)
    monkeypatch.setattr("stn.ops.gpu.ordered.run", count)
    out_size = (6, 5, 4)[:d]
    kind, sampling = call_of(rule, out_size, "bilinear", "zeros", False)
    if isinstance(kind, Spline):
        kind = Spline(out_size, kind.control_points.to("meta"))
    image, at = torch.empty(2, 3, *(7, 8, 9)[:d], device="meta"), where(rule, d, out_size).to("meta")
    out = gpu.sample(kind, image, at, image.new_empty(()), sampling)
    assert out.shape == (2, 2, 3, *out_size) and launched == ["sample_kernel"]
    launched.clear()
    in_image, in_where = gpu.gradient(kind, out, image, at, image.new_empty(()), sampling, (True, True))
    assert in_image is not None and in_image.shape == image.shape
    assert in_where is not None and in_where.shape == at.shape and in_where.dtype == at.dtype
    assert launched == ["gradient_kernel"] + {"field": [], "cubic": ["add_rows"]}.get(rule, ["add_up"])
    torch.use_deterministic_algorithms(True)
    try:
        launched.clear()
        gpu.gradient(kind, out, image, at, image.new_empty(()), sampling, (True, False))
    finally:
        torch.use_deterministic_algorithms(False)
    assert launched == ["list_kernel", "add_kernel"] * 2**d
    with pytest.raises(RuntimeError, match="meta"):
        out.sum().item()


def test_what_is_left_to_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    from stn import Kernel
    from stn.ops.dispatch import KERNELS

    class OnDevice:
        """The attributes of an image on a GPU that the dispatch reads."""

        def __init__(self, *shape: int, dtype: torch.dtype = torch.float32) -> None:
            self.shape, self.dtype, self.ndim, self.device = shape, dtype, len(shape), torch.device("cuda")

    def chosen(image: Any, mode: Any = "bilinear", size: tuple[int, ...] = (4, 4)) -> Any:
        return kernels_for(Matrix(size), image, EYE, parse(mode))

    plane, volume = OnDevice(1, 1, 5, 5), OnDevice(1, 1, 5, 5, 5)
    assert KERNELS["cuda"] is gpu
    assert chosen(plane) is chosen(plane, "bicubic") is chosen(volume) is gpu
    assert chosen(plane, "lanczos3") is chosen(plane, Kernel(torch.exp, 1)) is chosen(volume, "bicubic") is None
    assert chosen(OnDevice(1, 1, 2**15, 2**15)) is chosen(plane, size=(2**15, 2**15)) is None
    assert chosen(OnDevice(1, 1, 5, 5, dtype=torch.complex64)) is None
    monkeypatch.setattr(gpu, "TRITON", False)
    assert chosen(plane) is None


def test_programs_cover_every_pixel_and_channel_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A single image also gives many programs, because its channels are divided."""
    from stn.ops.gpu.programs import LEAST, divide, tile_count

    monkeypatch.undo()
    for size in ((1, 1), (5, 7), (42, 42), (224, 224), (2048, 2048), (3, 4, 5), (96, 96, 96)):
        for looks, channels, last in ((1, 1, False), (256, 1, False), (1, 64, False), (8, 64, True), (2, 3, True)):
            division = divide(size, 1, looks, channels, last=last)
            block = division.block
            pixels = block.across * block.down * block.deep
            groups = -(-channels // division.channels)
            assert division.programs == looks * groups * tile_count(size, block)
            assert division.channels % block.channels == 0 and (groups - 1) * division.channels < channels
            assert tile_count(size, block) * pixels >= math.prod(size)
            assert (
                all(n & (n - 1) == 0 for n in block[1:5])
                and block.even == (channels % block.channels == 0)
                and pixels * block.channels >= LEAST
            )
    assert divide((256, 256), 1, 1, 64).programs >= 1024
    assert divide((256, 256), 1, 1, 64, whole=True).channels == 64


def test_divisions_by_products_are_exact() -> None:
    """For every divisor near a power of two, and the dividends around its multiples, up to 2^31."""
    from stn.ops.gpu.programs import divider

    near = [(1 << k) + step for k in range(31) for step in (-1, 0, 1)]
    for n in [n for n in (*near, 3, 5, 7, 100, 641, 28 * 28, 10**9 + 7) if 1 <= n < 2**31]:
        factor, shift = divider(n) >> 8, (divider(n) >> 1) & 31
        assert 2**31 <= factor < 2**32 and divider(n) % 2 == 1
        last = (2**31 - 1) // n
        for multiple in {0, 1, 2, last // 2, last - 1, last}:
            for i in {multiple * n - 1, multiple * n, multiple * n + 1, multiple * n + n - 1, 2**31 - 1}:
                if 0 <= i < 2**31:
                    assert ((2 * i * factor) >> 32) >> shift == i // n, (i, n)


@on_each_device
def test_affine_coordinates_of_float32_images(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels that alternate return the fraction of a coordinate: within 2e-7 at 4096 pixels, where float32 is off by 1e-4.

    Also if a map reaches beyond the integers that hold coordinates: it is then computed in float64, and NaN stays.
    """
    monkeypatch.setattr("stn.ops.gpu.programs.ELEMENTS", 1 << 15)
    image = (torch.arange(4096) % 2).float().expand(1, 1, 4, 4096).contiguous().to(device)
    usual = torch.tensor([[0.97, 1e-5, 0.011], [1e-4, 0.9, 0.0]], dtype=torch.float64)
    far = torch.tensor([[0.97, 1e5, 0.011], [1e-4, 0.9, 0.0]], dtype=torch.float64)
    for theta in (usual.to(device), far.to(device)):
        got, exact = (affine(image, theta, padding_mode="wrap"), affine_oracle(image.double(), theta, (4, 4096), "wrap"))
        assert (got - exact).abs().max() < (2e-7 if theta.max() < 2 else 2e-6) and exact.std() > 0.2
    lost = usual.to(device).clone()
    lost[0, 1] = math.nan
    assert affine(image, lost, padding_mode="wrap").isnan().all()


def test_numbers_of_64_bits_arrive_whole() -> None:
    import struct

    from stn.ops.gpu.launch import bits

    for number in (1.0, 1 / 3, 224 / 42, math.pi * 1e4, 0.0, 2.0**-40 / 7, 2.0, 1e300):
        assert bits(number) % 2 == 1 and -(2**63) <= bits(number) < 2**63
        assert struct.unpack("d", struct.pack("q", (bits(number) >> 1) & (2**63 - 1))) == (number,)


@pytest.mark.skipif(ON_DEVICE, reason="reads Triton's own function without a device")
def test_other_sizes_compile_no_other_kernel() -> None:
    """Triton ignores `do_not_specialize` for the entries of tuples."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import make_backend
    from triton.runtime import jit

    from stn.grid import axes
    from stn.ops.gpu.launch import lattice_bits, scale, steps_of
    from stn.ops.gpu.programs import divide

    if not hasattr(jit, "native_specialize_impl"):
        pytest.skip("another version of Triton")
    backend, kinds = make_backend(GPUTarget("cuda", 90, 32)), set()
    for n in (1, 2, 3, 16, 17, 64, 100, 1000):
        extents, shape = axes((n + 1, n + 2), (4 * n, 3 * n), False), (1, 1, n, n + 1, 2)
        steps = steps_of(Lattice((4 * n, 3 * n), 1), extents, shape)
        numbers = divide((4 * n, 3 * n), n, n, n).dividers, scale(extents) + lattice_bits(steps, shape)
        kinds.add(str(jit.native_specialize_impl(backend, numbers, False, True, True)))
    assert len(kinds) == 1


def test_kernels_read_no_number_of_a_tensor_on_the_host() -> None:
    """The host does not copy a number to itself either, which would also wait for the device."""
    for file in Path(gpu.__file__).parent.glob("*.py"):
        text = file.read_text()
        assert not [
            word for word in (".item()", ".tolist()", ".cpu()", ".numpy()", "synchronize", "nonzero") if word in text
        ]
