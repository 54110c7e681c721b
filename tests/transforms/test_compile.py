"""Warps under torch.compile: one graph for batches of several sizes, for every family and for what is made of them."""

import pytest
import torch
from torch import Tensor

import stn
from stn.transforms import FAMILIES
from tests.helpers import near_identity, noise
from tests.transforms.test_laws import small

OTHER = stn.BSpline(shape=(4, 5))


@pytest.mark.parametrize("name", FAMILIES)
def test_one_graph_for_three_sizes_of_batch(name: str) -> None:
    transform = small(name, 2)

    def run(image: Tensor, theta: Tensor, theirs: Tensor) -> tuple[Tensor, ...]:
        warp, other = transform(theta), OTHER(theirs)
        inner, outer = warp.after(other), transform(theta[:1]).after(other)
        return inner.sample(image), inner.points(theirs[:, :2].unsqueeze(1)), outer.sample(image), turned(warp).sample(image)

    torch.compiler.reset()
    compiled = torch.compile(run, fullgraph=True, dynamic=True, backend="aot_eager")
    graphs = torch._dynamo.utils.counters["stats"]
    for n in (5, 7, 11):  # none that a family has parameters of: it would be one symbol
        image = noise(n, 2, 12, 13)
        theta = near_identity(transform, n, strength=0.05).requires_grad_()
        theirs = (0.05 * noise(n, OTHER.num_params, seed=1)).requires_grad_()
        before = graphs["unique_graphs"]
        got, expected = (f(image, theta, theirs) for f in (compiled, run))
        assert n == 5 or graphs["unique_graphs"] == before
        torch.testing.assert_close(got, expected, atol=1e-9, rtol=0)
        gradients = [torch.autograd.grad([part.square().sum() for part in out], (theta, theirs)) for out in (got, expected)]
        torch.testing.assert_close(*gradients, atol=1e-8, rtol=1e-8)


def turned(warp: stn.Warp) -> stn.Warp:
    """The inverse, which a matrix refuses where it is singular unless it is told not to look."""
    return warp.inverse(check=False) if isinstance(warp, stn.MatrixWarp) else warp.inverse()
