"""Flows: the CPU's kernels against the reference, the operators in torch, and what is not finite."""

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import stn
from stn.ops.flows import FLOWS, Flow, Simplices, Splines
from stn.ops.flows.dispatch import by_kernel, displacements, gradient_by_kernel
from tests.helpers import noise
from tests.ops.test_cpu_kernels import COUNT_COMPILATIONS

# Flow, and the shape of the nodes or control points, slowest axis first. Points lie up to 0.3 half widths beyond the image.
CASES: dict[str, tuple[Flow, tuple[int, ...]]] = {
    "simplices": (Simplices(8), (5, 5)),
    "simplices, few steps": (Simplices(1), (3, 6)),
    "simplices, 3-D": (Simplices(3), (5, 4, 3)),
    "splines": (Splines(2), (7, 7)),
    "splines, many steps": (Splines(5), (4, 6)),
    "splines, 3-D": (Splines(1), (5, 4, 6)),
}
every = pytest.mark.parametrize("name", CASES)


def case(name: str, n: int = 2, points: int = 300, *, strength: float = 0.4) -> tuple[Flow, Tensor, Tensor]:
    flow, shape = CASES[name]
    data = strength * noise(n, *shape, len(shape), seed=1)
    xy = 1.3 * (2 * torch.rand(n, points, len(shape), dtype=torch.float64, generator=torch.Generator().manual_seed(2)) - 1)
    return flow, data, xy


def test_every_flow_has_a_case() -> None:
    assert {type(flow) for flow, _ in CASES.values()} == {*FLOWS}


@every
def test_value_and_gradients_are_the_references(name: str) -> None:
    flow, data, xy = case(name, 2, 700)
    leaves = data.clone().requires_grad_(), xy.clone().requires_grad_()
    expected = flow.displacements(*leaves)
    assert expected.abs().max() > 0.3
    torch.testing.assert_close(by_kernel(flow, data, xy), expected, atol=1e-12, rtol=0)
    weight = noise(*expected.shape, seed=3)
    gradients = torch.autograd.grad(expected, leaves, weight)
    found = gradient_by_kernel(flow, weight, data, xy, (True, True))
    for ours, theirs in zip(found, gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)
    assert gradient_by_kernel(flow, weight, data, xy, (False, False)) == (None, None)


@every
def test_points_for_all_are_those_of_each(name: str) -> None:
    flow, data, xy = case(name, 3)
    shared, repeated = xy[:1], xy[:1].expand(3, -1, -1)
    assert torch.equal(by_kernel(flow, data, shared), by_kernel(flow, data, repeated))
    torch.testing.assert_close(flow.displacements(data, shared), flow.displacements(data, repeated), atol=0, rtol=0)
    weight = noise(*repeated.shape, seed=3)
    in_data, in_xy = gradient_by_kernel(flow, weight, data, shared, (True, True))
    each_data, each_xy = gradient_by_kernel(flow, weight, data, repeated, (True, True))
    assert in_data is not None and each_data is not None and torch.equal(in_data, each_data)
    torch.testing.assert_close(in_xy, None if each_xy is None else each_xy.sum(dim=0, keepdim=True), atol=1e-12, rtol=0)


@every
def test_the_number_of_threads_changes_no_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stn.ops.cpu.threads.SMALL", 0)
    flow, data, xy = case(name, 3, 5000)
    weight, threads, results = noise(*xy.shape, seed=5), torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append((by_kernel(flow, data, xy), *gradient_by_kernel(flow, weight, data, xy, (True, True))))
    finally:
        torch.set_num_threads(threads)
    for one, two in zip(*results, strict=True):
        assert one is not None and two is not None and torch.equal(one, two)


@every
def test_float32_is_as_exact_as_it_can_be(name: str) -> None:
    """Positions are float64 within the kernels: only the data, the points and the result are rounded."""
    flow, data, xy = case(name)
    wide = by_kernel(flow, data.float().double(), xy.float().double())
    found = by_kernel(flow, data.float(), xy.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wide.float(), atol=0, rtol=0)


@every
def test_nothing_to_follow(name: str) -> None:
    flow, data, xy = case(name)
    for n, points in ((0, 4), (2, 0)):
        some, none = data[:n].requires_grad_(), xy[:n, :points]
        out = displacements(flow, some, none)
        assert out.shape == none.shape
        assert torch.autograd.grad(out.sum(), some)[0].eq(0).all()


# ---- what is not finite ----


@every
@pytest.mark.parametrize("bad", (math.nan, math.inf, -math.inf))
def test_what_is_not_finite_spreads_as_in_the_reference(name: str, bad: float) -> None:
    """It neither hangs nor reads other memory, and the other image stays as it was."""
    flow, data, xy = case(name)
    broken = data.clone()
    broken[1].flatten()[3] = bad
    if isinstance(flow, Splines):
        assert by_kernel(flow, broken, xy)[1].isnan().all()
    else:
        broken[1] = bad
        assert not by_kernel(flow, broken, xy)[1].isfinite().any()
    assert torch.equal(by_kernel(flow, broken, xy)[0], by_kernel(flow, data, xy)[0])
    weight = noise(*xy.shape, seed=3)
    found, expected = (gradient_by_kernel(flow, weight, d, xy, (True, True)) for d in (broken, data))
    assert found[0] is not None and expected[0] is not None and torch.equal(found[0][0], expected[0][0])


@every
def test_points_at_infinity_stay_there(name: str) -> None:
    """Their other coordinates, and the gradient in the data, are finite."""
    flow, data, xy = case(name, 1, 20)
    xy[0, 3, 0], xy[0, 4, 1], xy[0, 5] = math.inf, -math.inf, 1e30
    data.requires_grad_()
    out = displacements(flow, data, xy)
    torch.testing.assert_close(xy + out, xy + flow.displacements(data, xy), atol=1e-12, rtol=0)
    assert out.isfinite().all() and (xy + out)[0, 3, 0] == math.inf
    (found,) = torch.autograd.grad(out.sum(), data)
    (expected,) = torch.autograd.grad(flow.displacements(data, xy).sum(), data)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


# ---- inside torch ----


def few(name: str) -> tuple[Flow, Tensor, Tensor]:
    flow, data, xy = case(name, 2, 4)
    return flow, data.requires_grad_(), (0.6 * xy).requires_grad_()


@every
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # torch 2.14's own
def test_opcheck(name: str) -> None:
    flow, data, xy = few(name)
    operator = getattr(torch.ops.stn, f"{flow.name}_flow")
    torch.library.opcheck(operator, (data, xy, *flow.arguments))
    torch.library.opcheck(operator, (data, xy[:1].detach(), *flow.arguments))
    backward, grad = getattr(torch.ops.stn, f"{flow.name}_flow_backward"), noise(*xy.shape)
    for need in ([True, True], [True, False]):
        torch.library.opcheck(backward, (grad, data.detach(), xy.detach(), need, *flow.arguments))


@every
def test_derivatives(name: str) -> None:
    flow, data, xy = few(name)

    def run(data: Tensor, xy: Tensor) -> Tensor:
        return displacements(flow, data, xy)

    assert gradcheck(run, (data, xy), check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(run, (data, xy), fast_mode=True)


@every
@pytest.mark.parametrize("mapped", ((0, None), (None, 0), (0, 0)))
@pytest.mark.parametrize("shared", (False, True))
def test_vmap(name: str, mapped: tuple[int | None, int | None], shared: bool) -> None:
    flow, data, xy = case(name, 2, 5)
    xy = xy[:1] if shared else xy
    given: list[Any] = [
        torch.stack([t, 0.5 * t, t.flip(0)]) if dim == 0 else t for t, dim in zip((data, xy), mapped, strict=True)
    ]

    def run(data: Tensor, xy: Tensor) -> Tensor:
        return displacements(flow, data, xy)

    def gradient(data: Tensor, xy: Tensor) -> tuple[Tensor, ...]:
        return torch.func.grad(lambda d, x: run(d, x).square().sum(), argnums=(0, 1))(data, xy)

    functions: tuple[Callable[..., Any], ...] = (run, gradient)
    for function in functions:
        found = torch.func.vmap(function, in_dims=mapped)(*given)
        for k in range(3):
            one = function(*(t[k] if dim == 0 else t for t, dim in zip(given, mapped, strict=True)))
            for ours, theirs in zip(*((t,) if isinstance(t, Tensor) else t for t in (found, one)), strict=True):
                torch.testing.assert_close(ours[k], theirs, atol=1e-11, rtol=0)


@every
@pytest.mark.parametrize("dim", (None, 0))
def test_vmap_of_the_gradient_in_points_for_all(name: str, dim: int | None) -> None:
    """It has their shape. (Autograd would hide that it has not: it sums what is too large.)"""
    flow, data, xy = case(name, 2, 5)
    grads, points = noise(3, 2, *xy.shape[1:], seed=4), xy[:1] if dim is None else torch.stack([xy[:1]] * 3)
    backward = getattr(torch.ops.stn, f"{flow.name}_flow_backward")

    def gradient(grad: Tensor, points: Tensor) -> Tensor:
        found: Tensor = backward(grad, data, points, [False, True], *flow.arguments)[1]
        return found

    together = torch.func.vmap(gradient, in_dims=(0, dim))(grads, points)
    for one, grad in zip(together, grads, strict=True):
        torch.testing.assert_close(one, gradient(grad, xy[:1]), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "transform", (stn.Velocity(shape=(4, 5)), stn.Velocity(3, shape=(4, 4, 5), resolution=0), stn.CPAB())
)
def test_one_operator_in_one_graph(transform: stn.Family) -> None:
    """A graph holds no steps of its own, and serves batches of any size."""
    torch.compiler.reset()
    graphs: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(graph.code)
        return graph

    def run(image: Tensor, theta: Tensor) -> Tensor:
        return transform(theta).sample(image)

    compiled = torch.compile(run, fullgraph=True, dynamic=True, backend=backend)
    for n in (3, 5, 6):
        image, theta = noise(n, 1, *(8,) * transform.ndim), 0.1 * noise(n, transform.num_params, seed=1)
        torch.testing.assert_close(compiled(image, theta), run(image, theta), atol=1e-12, rtol=0)
    assert len(graphs) == 1 and "_flow" in graphs[0] and "clamp" not in graphs[0]


def test_forked_workers_may_follow_after_their_parent_has() -> None:
    code = """
import torch, stn
from torch.utils.data import DataLoader
torch.set_num_threads(2)
images, warps = torch.rand(8, 1, 90, 90), [stn.CPAB()(0.2 * torch.randn(1, 18)), stn.Velocity()(0.2 * torch.randn(1, 98))]
whole = torch.cat([warp.sample(images) for warp in warps], dim=1)
class Warped(torch.utils.data.Dataset):
    def __len__(self): return 8
    def __getitem__(self, i):
        return torch.cat([warp.sample(images[i : i + 1]) for warp in warps], dim=1)[0]
batches = list(DataLoader(Warped(), batch_size=4, num_workers=2, multiprocessing_context="fork"))
assert torch.equal(torch.cat(batches), whole)
print("done")
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert out.stdout.strip() == "done", out.stderr


def test_a_second_process_compiles_nothing() -> None:
    code = (
        COUNT_COMPILATIONS
        + """
import torch, stn
for family in (stn.CPAB(), stn.Velocity()):
    theta = (0.1 * torch.randn(4, family.num_params)).requires_grad_()
    family(theta).points(torch.rand(5, 2)).sum().backward()
print(len(compiled))
"""
    )
    outs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True) for _ in range(2)]
    assert outs[1].stdout.strip() == "0", outs[1]
