"""The CPU kernels against the reference, over rules, paddings, layouts, and sizes of several tiles and bands."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradgradcheck

import stn
from stn.ops import cpu, dispatch
from stn.ops.reference import sample as oracle
from stn.ops.rules import Field, Lattice, Matrix, Rule, Spline
from stn.ops.sample import sampled
from stn.ops.sampling import Sampling, named
from tests.helpers import PADDINGS, noise

KNOTS = noise(7, 2, seed=3).clamp(-1, 1)
SIZES: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {2: ((70, 150), (71, 140)), 3: ((40, 9, 11), (5, 6, 8))}


def sample(rule: Rule, image: Tensor, data: Tensor, fill: Tensor, sampling: Sampling) -> Tensor:
    """Sample with the CPU kernels, on the path of every call."""
    kernels: Any = cpu
    assert dispatch.kernels_for(rule, image, data, sampling) is kernels
    return dispatch.sample(rule, image, data, fill, sampling)


def where(rule: str, d: int, out: tuple[int, ...]) -> Tensor:
    """Return two looks at each of two images, which reach beyond the edges."""
    if rule == "field":
        return 0.8 * noise(2, 2, *out, d, seed=1)
    if rule == "basis":
        return 0.02 * noise(2, 2, len(KNOTS) + d + 1, d, seed=1)
    if rule in DEGREES:
        return 0.3 * noise(2, 2, *(4, 5, 4)[:d], d, seed=1)
    matrix = torch.eye(d + (rule == "projective"), d + 1, dtype=torch.float64).repeat(2, 2, 1, 1)
    matrix[..., :d, :] += 0.3 * noise(2, 2, d, d + 1, seed=1)
    matrix[..., d:, :d] = 0.1
    return matrix


def call_of(rule: str, out: tuple[int, ...], *how: Any) -> tuple[Rule, Sampling]:
    """Return the coordinate rule of this name, and the sampling for (mode, padding_mode, align_corners)."""
    if rule == "field":
        return Field("normalized", True), named(*how)
    if rule in DEGREES:
        return Lattice(out, DEGREES[rule], align_corners=rule == "corners", extent=1.2 if rule == "wide" else 1.0), named(
            *how
        )
    knots = KNOTS if len(out) == 2 else torch.cat([KNOTS, KNOTS[:, :1] * KNOTS[:, 1:]], dim=1)
    return Spline(out, knots) if rule == "basis" else Matrix(out), named(*how)


DEGREES = {"linear": 1, "corners": 1, "wide": 1, "cubic": 3}  # of lattices


def layout(image: Tensor, channels_last: bool) -> Tensor:
    form = torch.channels_last if image.ndim == 4 else torch.channels_last_3d
    return image.contiguous(memory_format=form) if channels_last else image


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Use the serial kernels, as other tests do: each kernel takes seconds to compile."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def with_gradients(out: Tensor, image: Tensor, at: Tensor) -> tuple[Tensor, ...]:
    return out, *torch.autograd.grad(out, (image, at), noise(*out.shape, seed=2))


# Rules, modes and layouts are combined only in the last lines of a kernel. So test every rule in one layout and mode, and
# the other modes and layouts with few rules.
COMBINATIONS = [
    (rule, d, "bilinear", False) for rule in ("affine", "projective", "field", "basis", *DEGREES) for d in (2, 3)
]
COMBINATIONS += [("affine", 2, "nearest", False), ("affine", 3, "nearest", False), ("field", 2, "nearest", False)]
COMBINATIONS += [("basis", 2, "bilinear", True), ("cubic", 2, "bilinear", True), ("cubic", 2, "bicubic", False)]
COMBINATIONS += [("affine", 2, "bilinear", True), ("affine", 3, "bilinear", True), ("affine", 2, "nearest", True)]
COMBINATIONS += [("affine", d, "bicubic", last) for d in (2, 3) for last in (False, True)] + [("field", 2, "bicubic", False)]
COMBINATIONS += [("affine", d, "bspline", last) for d in (2, 3) for last in (False, True)]
COMBINATIONS += [(rule, 2, mode, False) for rule in ("projective", "field", "basis") for mode in ("bspline", "lanczos3")]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("rule, d, mode, channels_last", COMBINATIONS)
def test_value_and_gradients_are_the_oracles(rule: str, d: int, mode: str, channels_last: bool) -> None:
    size, out = SIZES[d]
    for padding_mode, align_corners in itertools.product(PADDINGS, (False, True)):
        image, at = layout(noise(2, 3, *size), channels_last).requires_grad_(), where(rule, d, out).requires_grad_()
        fill = noise(3, seed=4) if padding_mode == "zeros" else torch.zeros(3, dtype=torch.float64)
        kind, sampling = call_of(rule, out, mode, padding_mode, align_corners)
        assert cpu.supports(kind, image, at, sampling)
        got = sample(kind, image, at, fill, sampling)
        expected = oracle(kind, image, at, fill, sampling)
        torch.testing.assert_close(got, expected, atol=1e-11, rtol=0)
        weight = noise(*got.shape, seed=2)
        ours = torch.autograd.grad(got, (image, at), weight)
        theirs = torch.autograd.grad(expected, (image, at), weight)
        torch.testing.assert_close(ours[0], theirs[0], atol=1e-10, rtol=0)
        tolerance = 1e-8 if mode == "lanczos3" else 1e-9  # the slopes of a table have errors of 1e-11
        torch.testing.assert_close(ours[1], theirs[1], atol=tolerance, rtol=tolerance)
        torch.testing.assert_close(torch.autograd.grad(sample(kind, image, at, fill, sampling), at, weight)[0], ours[1])


@pytest.mark.parametrize("shape", ((2, 3), (9, 12), (60, 130), (5, 4, 6), (1, 2, 1)))
@pytest.mark.parametrize("degree", (1, 3))
def test_lattices_over_many_tiles(shape: tuple[int, ...], degree: int) -> None:
    """Several tiles, blocks and pieces; one lattice for all images; the same bits for one thread and two."""
    if degree == 3:
        shape = tuple(n + 3 for n in shape)
    d, threads, found = len(shape), torch.get_num_threads(), []
    size, out = ((50, 60), (70, 150)) if d == 2 else ((10, 11, 12), (9, 12, 140))
    image, at = noise(2, 1, *size).requires_grad_(), (0.2 * noise(*shape, d, seed=1)).requires_grad_()
    rule, how, weight = Lattice(out, degree), named("bilinear", "border", False), noise(2, 1, 1, *out, seed=2)
    data = rule.canonical(image, at)
    expected = oracle(rule, image, data, torch.zeros((), dtype=torch.float64), how)
    theirs = expected, *torch.autograd.grad(expected, (image, at), weight)
    for count in (1, 2):
        torch.set_num_threads(count)
        try:
            got = sampled(image, rule, at, False, {"padding_mode": "border"})
            assert isinstance(got, Tensor)
            found.append((got.unsqueeze(1), *torch.autograd.grad(got, (image, at), weight.squeeze(1))))
        finally:
            torch.set_num_threads(threads)
        for mine, other in zip(found[-1], theirs, strict=True):
            torch.testing.assert_close(mine, other, atol=1e-9, rtol=1e-9)
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("size, out", (((20, 24), (11, 13)), ((12, 14, 13), (6, 5, 7))))
def test_cubic_rows_that_lie_inside(size: tuple[int, ...], out: tuple[int, ...]) -> None:
    """At scale 0.5 all taps of whole rows are inside the image; at 0.95, only those of parts of rows."""
    d, fill = len(size), noise(2, seed=4)
    for scale, mode in itertools.product((0.5, 0.95), ("bicubic", "catmull_rom", "bspline")):
        image, at = noise(2, 2, *size).requires_grad_(), (scale * where("affine", d, out)).requires_grad_()
        kind, sampling = call_of("affine", out, mode, "zeros", False)
        got, expected = sample(kind, image, at, fill, sampling), oracle(kind, image, at, fill, sampling)
        torch.testing.assert_close(got, expected, atol=1e-11, rtol=0)
        weight = noise(*got.shape, seed=2)
        for ours, theirs in zip(*(torch.autograd.grad(v, (image, at), weight) for v in (got, expected)), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=0)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("channels_last", (False, True))
@pytest.mark.parametrize("d", (2, 3))
def test_any_number_of_channels(d: int, channels_last: bool) -> None:
    """The kernels process channels in groups of eight, four and three."""
    size, out = ((11, 13), (9, 21)) if d == 2 else ((5, 6, 7), (4, 7, 9))
    for channels in (1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 19):
        image = layout(noise(2, channels, *size), channels_last).requires_grad_()
        at, fill = where("affine", d, out).requires_grad_(), noise(channels, seed=4)
        settings = named("bilinear", "zeros", False)
        results = sample(Matrix(out), image, at, fill, settings), oracle(Matrix(out), image, at, fill, settings)
        for got, expected in zip(*(with_gradients(result, image, at) for result in results), strict=True):
            torch.testing.assert_close(got, expected, atol=1e-10, rtol=1e-9)


@pytest.mark.parametrize("shape", ((1, 1, 300, 200), (3, 5, 64, 40), (1, 3, 20, 30, 40)))
def test_the_number_of_threads_changes_no_bit(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stn.ops.cpu.threads.SMALL", 0)
    d = len(shape) - 2
    image = noise(*shape).requires_grad_()
    theta = (torch.eye(d, d + 1, dtype=torch.float64) + 0.2 * noise(shape[0], d, d + 1)).requires_grad_()
    weight, threads, results = noise(*shape, seed=5), torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            out = stn.affine_sample(image, theta)
            results.append((out, *torch.autograd.grad(out, (image, theta), weight)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


COUNT_COMPILATIONS = """
from numba.core import event
compiled = []
class Listener(event.Listener):
    def on_start(self, e): compiled.append(e.data["dispatcher"].py_func.__name__)
    def on_end(self, e): pass
event.register("numba:compile", Listener())
"""


def test_two_threads_run_a_parallel_kernel_with_a_cache_of_its_own(tmp_path: Path) -> None:
    """Numba's cache does not distinguish the serial from the parallel kernel. A parallel loop calls Numba's scheduler."""
    (tmp_path / "small.py").write_text(
        """
import numpy as np
from numba import prange
from stn.ops.cpu.compiling import compiled
def fill(out):
    for i in prange(len(out)):
        out[i] = i
for parallel in (False, True):
    out = np.zeros(9)
    compiled(fill, parallel)(out)
    assert (out == range(9)).all()
def calls_the_scheduler(parallel):
    return "sched" in "".join(compiled(fill, parallel).inspect_asm().values())
"""
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    for code, said in (
        ("len(compiled), small.calls_the_scheduler(False), small.calls_the_scheduler(True)", ["2", "False", "True"]),
        ("len(compiled)", ["0"]),  # a second process finds both in the cache
    ):
        command = [sys.executable, "-c", f"{COUNT_COMPILATIONS}import small; print({code})"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=100)
        assert done.stdout.split() == said, done
    indices = [path.name for path in tmp_path.rglob("*.nbi")]
    assert len(indices) == 2 and sum("fill_parallel" in name for name in indices) == 1, indices


def test_a_system_without_fork_has_the_kernels_too() -> None:
    """Simulate Windows, as far as that is possible on another system."""
    code = """
import os, numba, torch
del os.register_at_fork, os.fork
import stn
from stn.io.files import alive
image, theta = torch.rand(2, 3, 300, 300), torch.eye(2, 3).repeat(2, 1, 1).requires_grad_()
stn.affine_sample(image, theta).sum().backward()
print(theta.grad.shape, alive(1))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout.strip() == "torch.Size([2, 2, 3]) True", out.stderr


def test_forked_workers_may_warp_after_their_parent_has() -> None:
    """OpenMP fails in a forked child, so the serial kernels run there. The test uses a separate process."""
    code = """
import torch, stn
from torch.utils.data import DataLoader
torch.set_num_threads(2)
images = torch.rand(8, 3, 128, 128, dtype=torch.float64)
theta = torch.tensor([[0.8, 0.2, 0.1], [-0.2, 0.8, 0.0]])
whole = stn.affine_sample(images, theta)
class Warped(torch.utils.data.Dataset):
    def __len__(self): return 8
    def __getitem__(self, i):
        return stn.affine_sample(images[i : i + 1], theta)[0]
batches = list(DataLoader(Warped(), batch_size=4, num_workers=2, multiprocessing_context="fork"))
assert torch.equal(torch.cat(batches), whole)
print("done")
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert out.stdout.strip() == "done", out.stderr


def test_a_second_process_compiles_nothing() -> None:
    code = (
        COUNT_COMPILATIONS
        + """
import torch, stn
image = torch.rand(4, 1, 20, 20, requires_grad=True)
theta = torch.eye(2, 3).repeat(4, 1, 1).requires_grad_()
stn.affine_sample(image, theta).sum().backward()
from stn.ops.cpu.compiling import counts
print(len(compiled), *counts())
"""
    )
    outs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True) for _ in range(2)]
    # Three kernels, the three that they call, two stages, the loop over chunks: all found.
    assert outs[1].stdout.split() == ["0", "9", "0"], outs[1]


@pytest.mark.parametrize("rule", ("affine", "basis", "field"))
def test_functional_transforms(rule: str) -> None:
    """torch.func gives the same results over the kernels and over the reference."""
    kind, sampling = call_of(rule, (3, 4), "bilinear", "zeros", False)
    image, fill = noise(2, 2, 4, 5), torch.zeros((), dtype=torch.float64)
    at = where(rule, 2, (3, 4))

    def energy(image: Tensor, at: Tensor, fast: bool) -> Tensor:
        out = sample(kind, image, at, fill, sampling) if fast else oracle(kind, image, at, fill, sampling)
        return out.square().sum()

    f = torch.func
    transforms: list[Any] = [
        lambda fast: f.jvp(lambda a: energy(image, a, fast), (at,), (torch.ones_like(at),))[1],
        lambda fast: f.jacrev(lambda a: energy(image, a, fast))(at),
        lambda fast: f.hessian(lambda a: energy(image, a, fast))(at),
        lambda fast: f.hessian(lambda i: energy(i, at, fast))(image),
        lambda fast: f.vmap(lambda a: energy(image, a, fast))(torch.stack([at, 2 * at, at - 0.1])),
        lambda fast: f.vmap(lambda i: energy(i, at, fast), in_dims=1)(torch.stack([image, 2 * image], dim=1)),
        lambda fast: f.vmap(f.grad(lambda a: energy(image, a, fast)))(torch.stack([at, 2 * at])),
        lambda fast: f.vmap(f.grad(lambda i, a: energy(i, a, fast)))(torch.stack([image, -image]), torch.stack([at, at])),
    ]
    for transform in transforms:
        torch.testing.assert_close(transform(True), transform(False), atol=1e-10, rtol=1e-10)


def test_vmap_refuses_to_map_the_fill_value() -> None:
    image, fills = noise(2, 2, 4, 5), noise(2)
    theta = torch.eye(2, 3, dtype=torch.float64)
    sampling = named("bilinear", "zeros", False)
    look = theta.expand(2, 1, 2, 3)
    with pytest.raises(
        stn.InputError, match="fill_value must not be mapped by vmap, because the whole call shares it; got one mapped"
    ):
        torch.func.vmap(lambda f: sample(Matrix((3, 4)), image, look, f, sampling))(fills)


def test_second_derivatives_with_channels_last() -> None:
    image = layout(noise(1, 2, 4, 5), True).requires_grad_()
    theta = where("affine", 2, (3, 2))[:1, 0].clone().requires_grad_()
    assert gradgradcheck(lambda i, t: stn.affine_sample(i, t, (3, 2)), (image, theta))


def test_only_what_is_asked_for_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    from stn.ops.cpu import launch

    asked: list[str] = []
    for name in ("image_gradient", "coordinates_gradient"):
        function = getattr(launch, name)

        def record(*arguments: Any, name: str = name, function: Any = function) -> Any:
            asked.append(name)
            return function(*arguments)

        monkeypatch.setattr(launch, name, record)
    image, theta = noise(1, 1, 5, 5), torch.eye(2, 3, dtype=torch.float64)
    stn.affine_sample(image, theta.clone().requires_grad_()).sum().backward()
    assert asked == ["coordinates_gradient"]
    stn.affine_sample(image.requires_grad_(), theta).sum().backward()
    assert asked == ["coordinates_gradient", "image_gradient"]


@pytest.mark.usefixtures("one_thread")
def test_a_large_white_noise_image_is_right_in_float32() -> None:
    """Against a float64 reference at 1024 pixels: value within 2e-6, theta's gradient within a relative error of 1e-6."""
    image = noise(1, 1, 1024, 1024, dtype=torch.float32)
    theta = torch.tensor([[[0.75, -0.27, 0.01], [0.27, 0.75, -0.02]]]).requires_grad_()
    weight = noise(1, 1, 1024, 1024, dtype=torch.float32, seed=1)
    out = stn.affine_sample(image, theta)
    (gradient,) = torch.autograd.grad(out, theta, weight)
    exact = theta.detach().double().requires_grad_()
    how = Matrix((1024, 1024)), image.double(), exact.unsqueeze(1), torch.zeros(()), named("bilinear", "zeros", False)
    expected = oracle(*how)
    (right,) = torch.autograd.grad(expected, exact, weight[:, None].double())
    assert (out - expected[:, 0]).abs().max() < 2e-6
    assert (gradient - right).abs().max() < 1e-6 * right.abs().max()
