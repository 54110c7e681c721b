"""Autocast does not change coordinates or sampling: every number is the same as without it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import stn
from stn.nn import DenseLocalization
from stn.transforms import FAMILIES, family
from stn.transforms.linear import Linear
from tests.helpers import seeded

DTYPES = (torch.bfloat16, torch.float16)
IMAGE = torch.rand(2, 3, 19, 23, generator=seeded())


def theta_of(transform: stn.Family, strength: float = 0.1) -> Tensor:
    return transform.identity() + strength * torch.randn(2, transform.num_params, generator=seeded())


def equal(measure: Callable[[], Any], dtype: torch.dtype) -> bool:
    before = measure()
    with torch.autocast("cpu", dtype):
        during = measure()
    torch.testing.assert_close(during, before, atol=0, rtol=0, equal_nan=True)
    return True


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FAMILIES)
def test_warps(name: str, dtype: torch.dtype) -> None:
    transform = family(name)
    theta = theta_of(transform)
    warp, other = transform(theta), transform(theta.flip(0))
    xy = torch.rand(7, 2, generator=seeded()) - 0.5
    measures: dict[str, Callable[[], Tensor]] = {
        "made there": lambda: transform(theta).points(xy),
        "points": lambda: warp.points(xy),
        "grid": lambda: warp.grid((5, 6)),
        "composed": lambda: (warp @ other).points(xy),
        "inverse": lambda: warp.inverse().points(xy),
        "jacobian": lambda: warp.jacobian((5, 6)),
        "composed, jacobian": lambda: (warp @ other).jacobian((5, 6)),
        "folds": lambda: warp.fold_share((5, 6)),
        "identity_loss": lambda: stn.nn.identity_loss(warp),
        "off_image_loss": lambda: stn.off_image_loss(warp),
        "sample": lambda: warp.sample(IMAGE, (9, 11)),
        "composed, sample": lambda: (warp @ other).sample(IMAGE, (9, 11)),
        "inverse, sample": lambda: warp.inverse().sample(IMAGE, (9, 11)),
    }
    assert all(equal(measure, dtype) for measure in measures.values())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "options", ({"antialias": True}, {"antialias": "anisotropic"}, {"mode": "bspline"}, {"mode": "lanczos3"})
)
def test_kernels(options: Any, dtype: torch.dtype) -> None:
    look = stn.Affine.from_parts(angle=torch.tensor([0.3, -0.5]), scale=torch.tensor([[3.0, 1.0], [2.0, 4.0]]))
    assert equal(lambda: stn.affine_sample(IMAGE, look.matrix, (9, 11), **options), dtype)
    assert equal(lambda: stn.grid_sample(IMAGE, family("tps")(theta_of(family("tps"))).grid((9, 11)), **options), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ndim", (2, 3))
def test_matrices(ndim: int, dtype: torch.dtype) -> None:
    for kind in (stn.Rigid, stn.Similarity, stn.ExponentialAffine):
        transform: Linear = kind(ndim)
        theta = theta_of(transform)
        assert equal(lambda t=transform, th=theta: t.matrix(th), dtype)  # type: ignore[misc]
    turn = torch.tensor([0.3]) if ndim == 2 else torch.tensor([[0.3, 0.1, -0.2]])
    parts: Any = {"angle": turn, "scale": 0.7, "center": torch.full((1, ndim), 0.2), "ndim": ndim}
    assert equal(lambda: stn.Affine.from_parts(**parts).matrix, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_of_a_layer_of_steps(name: str, dtype: torch.dtype) -> None:
    """Autocast acts on the localization network. Here this has no effect, because its output does not change."""
    layer = stn.InverseCompositionalTransformer(DenseLocalization(64), name, (8, 8), steps=3)
    with torch.no_grad():
        layer.regression.bias.add_(0.05 * torch.randn(layer.family.num_params, generator=seeded()))
    image = IMAGE[:, :1].clone().requires_grad_()

    def gradients(dtype: torch.dtype | None) -> tuple[Tensor, ...]:
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            y = layer(image)
        return (y.detach(), *torch.autograd.grad(y.square().sum(), [image, layer.regression.bias]))

    torch.testing.assert_close(gradients(dtype), gradients(None), atol=0, rtol=0)
