"""Warps under torch.compile: one graph for batches of several sizes, for every family and its compositions."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

import stn
from stn.transforms import FAMILIES, family
from tests.helpers import near_identity, noise
from tests.transforms.test_laws import small

OTHER = stn.Displacement(shape=(4, 5))
SHORT = {  # few steps, because a graph contains each of them
    "velocity": stn.Velocity(shape=(4, 4), resolution=7, squarings=1),
    "cpab": stn.CPAB(cells=(3, 3), steps=1),
}


def alone(transform: stn.Family, image: Tensor, theta: Tensor, theirs: Tensor) -> Tensor:
    found: Tensor = transform(theta).sample(image) + theirs[:, :1, None, None]
    return found


def outer(transform: stn.Family, image: Tensor, theta: Tensor, theirs: Tensor) -> Tensor:
    found: Tensor = transform(theta).after(OTHER(theirs)).sample(image)
    return found


def inner_for_all(transform: stn.Family, image: Tensor, theta: Tensor, theirs: Tensor) -> Tensor:
    return OTHER(theirs).after(transform(theta[:1])).points(theirs[:, :2].unsqueeze(1))


COMPOSED = ("affine", "projective", "tps", "bspline", "velocity")  # one of each kind of warp
CASES = [(name, alone) for name in FAMILIES] + [(name, use) for name in COMPOSED for use in (outer, inner_for_all)]


@pytest.mark.parametrize("name, use", CASES)
def test_one_graph_for_three_sizes_of_batch(name: str, use: Callable[..., Tensor]) -> None:
    """For a warp, for compositions in both orders, and for one warp that serves a whole batch."""
    transform = SHORT[name] if name in SHORT else small(name, 2)

    def run(image: Tensor, theta: Tensor, theirs: Tensor) -> Tensor:
        return use(transform, image, theta, theirs)

    torch.compiler.reset()
    compiled = torch.compile(run, fullgraph=True, dynamic=True, backend="aot_eager")
    graphs = torch._dynamo.utils.counters["stats"]
    for n in (9, 11, 14):  # differs from every other length, because torch merges equal lengths into one symbol
        image = noise(n, 2, 12, 13)
        theta = near_identity(transform, n, strength=0.05).requires_grad_()
        theirs = (0.05 * noise(n, OTHER.num_params, seed=1)).requires_grad_()
        before = graphs["unique_graphs"]
        got, expected = (f(image, theta, theirs) for f in (compiled, run))
        assert n == 9 or graphs["unique_graphs"] == before
        torch.testing.assert_close(got, expected, atol=1e-11, rtol=0)
        gradients = [torch.autograd.grad(out.square().sum(), (theta, theirs)) for out in (got, expected)]
        torch.testing.assert_close(*gradients, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", ("displacement", "bspline", "tps"))
def test_an_inverse_by_iteration_is_one_graph(name: str) -> None:
    transform = small(name, 2)

    def run(image: Tensor, theta: Tensor) -> Tensor:
        return transform(theta).inverse().sample(image)

    image, theta = noise(4, 2, 12, 13), near_identity(transform, 4, strength=0.05).requires_grad_()
    torch.compiler.reset()
    got = torch.compile(run, fullgraph=True, backend="aot_eager")(image, theta)
    expected = run(image, theta)
    torch.testing.assert_close(got, expected, atol=1e-9, rtol=0)
    gradients = [torch.autograd.grad(out.square().sum(), theta)[0] for out in (got, expected)]
    torch.testing.assert_close(*gradients, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("name", ("affine", "projective"))
def test_an_inverse_matrix_is_found_where_no_number_can_be_seen(name: str) -> None:
    """A graph cannot raise an error that depends on values. A singular matrix gives NaN there, as with check=False."""
    transform = family(name)

    def run(theta: Tensor) -> Tensor:
        return transform(theta).inverse().grid((3, 4))

    theta = near_identity(transform, 3, strength=0.1)
    expected = run(theta)
    gradient = torch.autograd.functional.jacobian(run, theta)
    torch.compiler.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    traced = make_fx(run, tracing_mode="symbolic")(theta)
    for function in (compiled, traced, torch.func.vmap(lambda t: run(t[None])[0])):
        torch.testing.assert_close(function(theta), expected, atol=1e-12, rtol=0)
        broken = torch.cat([theta[:2], torch.zeros_like(theta[:1])])
        assert torch.equal(function(broken).isnan().flatten(1).all(dim=1), torch.tensor([False, False, True]))
    torch.testing.assert_close(torch.func.jacrev(run)(theta), gradient, atol=1e-12, rtol=0)
    torch.testing.assert_close(torch.func.jacfwd(run)(theta), gradient, atol=1e-12, rtol=0)
    with pytest.raises(stn.InputError, match="must not be singular; it is singular at sample 2"):
        run(broken)
