"""The GPU kernels against the reference: on a GPU if there is one, else in Triton's interpreter, on tiny images."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from stn.ops import cpu, gpu
from stn.ops.reference import sample as oracle
from stn.ops.rules import Field, Spline
from tests.helpers import PADDINGS, noise
from tests.ops.test_cpu_kernels import call_of, layout, where

pytest.importorskip("triton")
ON_DEVICE = torch.cuda.is_available()
DEVICE = pytest.param("cuda", marks=pytest.mark.gpu) if ON_DEVICE else "cpu"
pytestmark = [pytest.mark.parametrize("device", (DEVICE,)), pytest.mark.usefixtures("few_programs")]
SIZES: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {2: ((7, 9), (6, 11)), 3: ((5, 6, 7), (3, 4, 5))}


@pytest.fixture
def few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one program per look: the interpreter takes a fifth of a second for each, however much it computes."""
    monkeypatch.setattr("stn.ops.gpu.launch._plans", {})  # plans of other block sizes
    if not ON_DEVICE:
        monkeypatch.setattr("stn.ops.gpu.programs.PROGRAMS", 1)
        monkeypatch.setattr("stn.ops.gpu.launch.ROWS", 4096)
        monkeypatch.setattr("stn.ops.gpu.ordered.TARGETS", 512)


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


class Problem:
    """One call on float64 white noise, with looks that reach beyond the image, by the kernels and by the reference."""

    def __init__(
        self, rule: str, d: int, mode: str, padding_mode: str, align_corners: bool, device: str, *,
        last: bool = False, batch: slice = slice(1), looks: slice = slice(2), dtype: torch.dtype = torch.float64,
    ) -> None:  # fmt: skip
        size, out = SIZES[d]
        self.image = layout(noise(2, 3, *size)[batch].to(dtype), last).to(device)
        self.where = where(rule, d, out)[batch, looks].to(device)
        fill = noise(3, seed=4) if padding_mode == "zeros" else torch.zeros((), dtype=torch.float64)
        self.fill = fill.to(device, torch.promote_types(dtype, torch.float32))
        self.rule, self.sampling = call_of(rule, out, mode, padding_mode, align_corners)
        if isinstance(self.rule, Spline):
            self.rule = Spline(out, self.rule.control_points.to(device))
        assert gpu.supports(self.rule, self.image, self.where, self.sampling)

    def value(self, kernels: Any = gpu) -> Tensor:
        out: Tensor = kernels.sample(self.rule, self.image, self.where, self.fill, self.sampling)
        return out

    def gradient(self, need: tuple[bool, bool] = (True, True), kernels: Any = gpu) -> list[Any]:
        how = self.image, self.where, self.fill, self.sampling
        return list(kernels.gradient(self.rule, self.weight(), *how, need))

    def weight(self) -> Tensor:
        shape = *self.where.shape[:2], self.image.shape[1], *self.rule.out_size(self.where)
        shape = self.image.shape[0], *shape[1:]
        return noise(*shape, seed=2).to(self.image.device, self.image.dtype)

    def oracle(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return value and gradients of the reference, in float64."""
        image, at = (tensor.detach().double().requires_grad_() for tensor in (self.image, self.where))
        out = oracle(self.rule, image, at, self.fill.double(), self.sampling)
        in_image, in_where = torch.autograd.grad(out, (image, at), self.weight().double())
        return out, in_image, in_where


ONE, BOTH = slice(1), slice(2)
EVERY = list(itertools.product(PADDINGS, (False, True)))
# Each rule in 2-D and 3-D, each padding with each alignment in 2-D and 3-D, each layout; not all combinations of these.
CASES: list[tuple[str, int, str, int, bool, slice, slice]] = [
    ("affine", 2, "bilinear", 0, False, BOTH, BOTH), ("affine", 2, "bilinear", 5, True, BOTH, ONE),
    ("projective", 2, "bilinear", 1, False, ONE, BOTH), ("projective", 2, "bilinear", 6, True, BOTH, ONE),
    ("basis", 2, "bilinear", 2, False, ONE, BOTH), ("field", 2, "bilinear", 4, False, ONE, BOTH),
    ("field", 2, "bilinear", 7, True, BOTH, ONE), ("basis", 2, "bicubic", 3, True, ONE, ONE),
    ("affine", 3, "bilinear", 0, False, ONE, ONE), ("affine", 3, "bilinear", 3, True, ONE, ONE),
    ("projective", 3, "bilinear", 5, False, ONE, ONE), ("field", 3, "bilinear", 6, True, ONE, ONE),
    ("affine", 2, "nearest", 4, False, ONE, BOTH), ("affine", 3, "nearest", 1, True, ONE, ONE),
    ("affine", 2, "bicubic", 0, False, ONE, ONE), ("field", 2, "catmull_rom", 7, True, ONE, ONE),
    ("linear", 2, "bilinear", 0, False, BOTH, ONE), ("corners", 2, "bilinear", 5, True, ONE, BOTH),
    ("cubic", 2, "bilinear", 3, False, ONE, BOTH), ("cubic", 2, "bicubic", 6, True, ONE, ONE),
    ("wide", 3, "bilinear", 2, False, ONE, ONE), ("cubic", 3, "bilinear", 7, True, ONE, ONE),
]  # fmt: skip


@pytest.mark.parametrize("rule, d, mode, padding, last, batch, looks", CASES)
def test_value_and_gradients_are_the_oracles(
    rule: str, d: int, mode: str, padding: int, last: bool, batch: slice, looks: slice, device: str
) -> None:
    problem = Problem(rule, d, mode, *EVERY[padding], device, last=last, batch=batch, looks=looks)
    value, in_image, in_where = problem.oracle()
    got = problem.value()
    torch.testing.assert_close(got, value, atol=1e-11, rtol=0)
    assert not last or got[:, 0].is_contiguous(memory_format=torch.channels_last if d == 2 else torch.channels_last_3d)
    ours = problem.gradient()
    torch.testing.assert_close(ours[0], in_image, atol=1e-10, rtol=0)
    torch.testing.assert_close(ours[1], in_where, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("units, relative", (("pixel", False), ("pixel", True), ("normalized", False)))
def test_all_that_a_field_may_hold(units: str, relative: bool, device: str) -> None:
    problem = Problem("field", 2, "bilinear", "zeros", False, device, looks=ONE)
    problem.rule = Field(units, relative)
    problem.where = 4 * problem.where if units == "pixel" else problem.where
    value, in_image, in_where = problem.oracle()
    torch.testing.assert_close(problem.value(), value, atol=1e-11, rtol=0)
    torch.testing.assert_close(problem.gradient(), [in_image, in_where], atol=1e-10, rtol=0)


def test_only_what_is_asked_for_is_computed(device: str) -> None:
    problem = Problem("affine", 2, "bilinear", "zeros", False, device, looks=ONE)
    in_image, in_where = problem.gradient()
    assert problem.gradient((True, False))[1] is None and problem.gradient((False, True))[0] is None
    torch.testing.assert_close(problem.gradient((True, False))[0], in_image)
    assert torch.equal(problem.gradient((False, True))[1], in_where)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize(
    "rule, d, padding, last",
    (("affine", 2, 0, True), ("affine", 2, 3, False), ("field", 3, 5, False), ("cubic", 2, 4, False)),
)
def test_in_order_the_images_gradient_is_the_same(rule: str, d: int, padding: int, last: bool, device: str) -> None:
    """It agrees with the reference and has the same bits in every run. The looks read few pixels, so sums are long."""
    problem = Problem(rule, d, "bilinear", *EVERY[padding], device, last=last, batch=BOTH if d == 2 else ONE, looks=ONE)
    problem.image, problem.fill = problem.image[:, : 2 if last else 1], problem.fill.flatten()[: 2 if last else 1]
    problem.where = 0.3 * problem.where
    first = problem.gradient((True, False))[0]
    torch.testing.assert_close(first, problem.oracle()[1], atol=1e-10, rtol=0)
    assert all(torch.equal(problem.gradient((True, False))[0], first) for _ in range(20 if ON_DEVICE else 1))


@pytest.mark.parametrize("dtype", (torch.float32, torch.float16, torch.bfloat16))
def test_precision(dtype: torch.dtype, device: str) -> None:
    """Half precision is stored as such and summed in float32. theta's gradient is as exact as its own dtype allows."""
    problem = Problem("affine", 2, "bilinear", "zeros", False, device, looks=ONE, dtype=dtype)
    value, in_image, in_where = problem.oracle()
    got, ours = problem.value(), problem.gradient()
    assert got.dtype == ours[0].dtype == dtype and ours[1].dtype == torch.float64
    for mine, exact in ((got, value), (ours[0], in_image)):
        unit = torch.finfo(dtype).eps * exact.abs()
        assert ((mine.double() - exact).abs() <= unit + 1e-6).all()
    torch.testing.assert_close(ours[1], in_where, atol=0, rtol=2e-6)
    problem.where = problem.where.to(torch.bfloat16)
    (gradient,) = problem.gradient((False, True))[1:]
    assert gradient.dtype == torch.bfloat16
    torch.testing.assert_close(gradient.double(), problem.oracle()[2], atol=0.05, rtol=1e-2)


def test_any_strides(device: str) -> None:
    """The strides of an image, of one theta for all, and of an expanded gradient, all of whose entries share one number."""
    problem = Problem("affine", 2, "bilinear", "zeros", True, device, batch=BOTH, looks=ONE)
    expected = problem.value()
    big = torch.zeros(2, 3, 14, 27, dtype=torch.float64, device=device)
    big[:, :, ::2, ::3] = problem.image
    problem.image = big[:, :, ::2, ::3]
    assert torch.equal(problem.value(), expected)
    problem.where = problem.where[:1].expand(2, -1, -1, -1)
    ones = torch.ones((), dtype=torch.float64, device=device).expand_as(expected)
    problem.weight = lambda: ones  # type: ignore[method-assign]  # for this one problem
    in_image, in_where = problem.gradient()
    assert in_image.is_contiguous() and in_where.is_contiguous()
    torch.testing.assert_close([in_image, in_where], list(problem.oracle()[1:]), atol=1e-10, rtol=0)


@pytest.mark.parametrize("flat", (False, True))
def test_many_tiles_and_groups_of_channels(flat: bool, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several programs per look, for pixels and for channels, with numbers that no block size divides."""
    for name, number in {"ELEMENTS": 64, "LEAST": 32, "PROGRAMS": 8, "WASTE": 0 if flat else 99}.items():
        monkeypatch.setattr(f"stn.ops.gpu.programs.{name}", number)
    problem = Problem("projective", 2, "bilinear", "border", False, device, looks=ONE)
    value, in_image, in_where = problem.oracle()
    torch.testing.assert_close(problem.value(), value, atol=1e-11, rtol=0)
    torch.testing.assert_close(problem.gradient(), [in_image, in_where], atol=1e-10, rtol=0)


@pytest.mark.parametrize("rule", ("field", "linear"))
def test_places_of_64_bits(rule: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stn.ops.gpu.launch.MOST", 1)
    problem = Problem(rule, 3, "bilinear", "wrap", False, device, looks=ONE)
    value, in_image, in_where = problem.oracle()
    torch.testing.assert_close(problem.value(), value, atol=1e-11, rtol=0)
    torch.testing.assert_close(problem.gradient(), [in_image, in_where], atol=1e-10, rtol=0)


def test_the_cpus_kernels_say_the_same(device: str) -> None:
    """Values agree within two units in the last place of the largest pixel, theta's gradient within 1e-6 of its size."""
    here = Problem("affine", 2, "bilinear", "reflection", False, device, looks=ONE, dtype=torch.float32)
    there = Problem("affine", 2, "bilinear", "reflection", False, "cpu", looks=ONE, dtype=torch.float32)
    unit = torch.finfo(torch.float32).eps * here.image.abs().max().item()
    assert (here.value().cpu() - there.value(cpu)).abs().max() <= 2 * unit
    (mine, at), (theirs, there_at) = here.gradient(), there.gradient(kernels=cpu)
    assert (mine.cpu() - theirs).abs().max() <= 20 * unit  # up to a dozen terms, in another order
    assert (at.cpu() - there_at).abs().max() <= 1e-6 * there_at.abs().max()
