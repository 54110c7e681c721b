"""torch.compile takes a whole layer as one graph, forward and backward, and under autocast."""

import pytest
import torch
from torch import Tensor

import stn
from stn.nn import AbstractSpatialTransformer, DenseLocalization
from stn.ops.options import SamplingOptions
from tests.helpers import seeded

MIDDLE = torch.tensor([[0.6, 0.0, 0.1], [0.0, 0.6, 0.0]])


@pytest.mark.parametrize("name", ("affine", "projective", "tps", "bspline"))
def test_looks_from_a_start(name: str) -> None:
    check(stn.SpatialTransformer(DenseLocalization(12 * 14), name, (8, 9), num_transforms=2, start=MIDDLE))


@pytest.mark.parametrize("start", (None, MIDDLE))
def test_steps(start: Tensor | None) -> None:
    check(stn.InverseCompositionalTransformer(DenseLocalization(8 * 9), "affine", (8, 9), steps=2, start=start))


@pytest.mark.parametrize("kind", ("aspect", "fixed", "bounded"))
def test_parts_and_shapes_of_families(kind: str) -> None:
    made = {
        "aspect": stn.Rigid(aspect=2.0),
        "fixed": stn.fixed(stn.Similarity(), scale=0.9, translation=(None, 0.0)),
        "bounded": stn.bounded(stn.AnisotropicScale(), scale=[(0.5, 1.5), (0.9, 1.1)]),
    }
    check(stn.SpatialTransformer(DenseLocalization(12 * 14), made[kind], (8, 9)))


def test_steps_that_share_a_pyramid() -> None:
    options: SamplingOptions = {"antialias": True, "padding_mode": "reflection"}
    check(stn.InverseCompositionalTransformer(DenseLocalization(8 * 9), "affine", (8, 9), steps=2, **options))


def test_an_exported_layer_returns_the_same() -> None:
    layer = stn.InverseCompositionalTransformer(DenseLocalization(8 * 9), "rigid", (8, 9), steps=2, padding_mode="border")
    with torch.no_grad():
        layer.regression.bias.add_(0.05 * torch.randn(layer.regression.bias.shape, generator=seeded()))
    x = torch.rand(2, 1, 12, 14, generator=seeded())
    torch.testing.assert_close(torch.export.export(layer, (x,)).module()(x), layer(x))


def check(layer: AbstractSpatialTransformer) -> None:
    with torch.no_grad():
        layer.regression.bias.add_(0.05 * torch.randn(layer.regression.bias.shape, generator=seeded()))
    x = torch.rand(2, 1, 12, 14, generator=seeded())
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    plain, whole = (
        (run(x), *torch.autograd.grad(run(x).square().sum(), layer.regression.bias)) for run in (layer, compiled)
    )
    torch.testing.assert_close(whole, plain)
    assert plain[1].abs().max() > 0
    with torch.autocast("cpu", torch.bfloat16):  # here torch compiles a backward pass that rounds
        torch.testing.assert_close(compiled(x), layer(x))
