"""The operators are registered with torch, and compile to one graph for changing shapes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import stn
from tests.helpers import noise

KNOTS = noise(5, 2, seed=3).clamp(-1, 1)
MATRIX = torch.eye(2, 3, dtype=torch.float64) + 0.2 * noise(2, 2, 2, 3, seed=1)
CALLS: dict[str, tuple[Any, ...]] = {
    "matrix": (MATRIX, torch.zeros(()), (6, 5), "bilinear", "zeros", False),
    "basis": (0.1 * noise(2, 2, 8, 2, seed=1), torch.zeros(()), (6, 5), KNOTS, "bilinear", "border", True),
    "field": (0.3 * noise(2, 2, 6, 5, 2, seed=1), torch.zeros(()), "normalized", True, "bilinear", "reflection", False),
}


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # torch 2.14's own
@pytest.mark.parametrize("rule, channels_last", [*((rule, False) for rule in CALLS), ("matrix", True)])
def test_opcheck(rule: str, channels_last: bool) -> None:
    """This checks the schema, fake kernels with strides, autograd registration, and AOT tracing with dynamic shapes."""
    image = noise(2, 3, 4, 7)
    image = image.contiguous(memory_format=torch.channels_last) if channels_last else image
    where, *rest = CALLS[rule]
    arguments = (image.requires_grad_(), where.clone().requires_grad_(), *rest)
    torch.library.opcheck(getattr(torch.ops.stn, f"{rule}_sample"), arguments)
    grad = noise(2, 2, 3, 6, 5)
    for need in ([True, True], [False, True]):
        backward = (grad, image.detach(), where, rest[0], need, *rest[1:])
        torch.library.opcheck(getattr(torch.ops.stn, f"{rule}_sample_backward"), backward)


SPLINE = stn.ThinPlateSpline(control_points=KNOTS[:3])
LAYERS: dict[str, Callable[..., Tensor]] = {
    "affine": lambda image, theta: stn.affine_sample(image, theta.view(-1, 2, 3)),
    "projective": lambda image, theta: stn.Projective()(torch.cat([theta, theta[:, :2]], dim=1)).sample(image),
    "thin plate": lambda image, theta: SPLINE(theta).sample(image),
    "field": lambda image, theta: stn.grid_sample(image, theta[:, None, None, :2].expand(-1, 4, 5, 2), relative=True),
    "looks": lambda image, theta: stn.Affine()(torch.stack([theta, -theta], dim=1)).sample(image, (3, 4)).mean(dim=1),
    "layer": stn.SpatialTransformer.for_input((2, 12, 12), "affine").double().eval(),
}


def test_one_graph_for_three_shapes() -> None:
    """torch.compile(fullgraph=True, dynamic=True), forward and backward: a new batch size does not compile again."""
    for name, layer in LAYERS.items():
        torch.compiler.reset()
        compilations = torch._dynamo.utils.counters["stats"]
        run = layer if name != "layer" else (lambda image, theta, layer=layer: layer(image))
        compiled = torch.compile(run, fullgraph=True, dynamic=True, backend="aot_eager")
        before = 0
        for n, height, width in ((4, 12, 13), (5, 12, 13), (7, 14, 11)):  # N = C would be one symbol
            image = noise(n, 2, height, width).requires_grad_()
            theta = (0.3 * noise(n, 6, seed=1)).requires_grad_()
            out, expected = compiled(image, theta), run(image, theta)
            torch.testing.assert_close(out, expected, atol=1e-12, rtol=0)
            inputs = (image,) if name == "layer" else (image, theta)
            ours = torch.autograd.grad(out.square().sum(), inputs)
            theirs = torch.autograd.grad(expected.square().sum(), inputs)
            torch.testing.assert_close(ours, theirs, atol=1e-11, rtol=0)
            if n == 5:
                assert compilations["unique_graphs"] == before, name
            before = compilations["unique_graphs"]


def test_the_graph_holds_the_operator() -> None:
    """The graph contains the operator of the kernels, or the reference for calls that no kernel covers."""
    graphs: list[str] = []

    def record(graph: Any, inputs: Any) -> Any:
        graphs.append(str(graph.graph))
        return graph

    theta = torch.eye(2, 3)
    for fill in (0.5, torch.tensor(0.5, requires_grad=True)):  # kernels have no gradient in the fill value
        torch.compiler.reset()
        compiled = torch.compile(lambda image, fill=fill: stn.affine_sample(image, theta, fill_value=fill), backend=record)
        compiled(torch.rand(1, 1, 5, 5))
    assert "stn.matrix_sample" in graphs[0] and "stn.matrix_sample" not in graphs[1] and len(graphs) == 2


def test_vmap_of_the_operator() -> None:
    where, *rest = CALLS["matrix"]
    image = noise(2, 3, 4, 7)
    sample = torch.ops.stn.matrix_sample
    many = torch.stack([where, where - 0.1])
    expected = torch.stack([sample(image, w, *rest) for w in many])
    torch.testing.assert_close(torch.func.vmap(lambda w: sample(image, w, *rest))(many), expected)
