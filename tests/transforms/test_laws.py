"""Laws that every family obeys, over families and dimensions."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import stn
from stn.grid import lattice, normalized_to_pixel
from stn.transforms import FAMILIES, family
from tests.helpers import near_identity, noise, ramp

SIZE, OUT = {1: (9,), 2: (7, 9), 3: (5, 6, 7)}, {1: (13,), 2: (6, 5), 3: (4, 5, 3)}
ABSENT = {1: {"corners", "tps", "rigid", "similarity"}, 2: set[str](), 3: {"corners"}}
CASES = [(name, ndim) for ndim in (1, 2, 3) for name in FAMILIES if name not in ABSENT[ndim]]
SMALL: dict[str, Callable[[int], stn.Family]] = {  # families with few parameters, so that each can be differentiated
    "tps": lambda d: stn.ThinPlateSpline(d, control_points=(2, 3, 2)[:d] if d == 3 else None),
    "bspline": lambda d: stn.BSpline(d, shape=(4, 5, 4)[:d]),
    "displacement": lambda d: stn.Displacement(d, shape=(3, 4, 2)[:d]),
    "velocity": lambda d: stn.Velocity(d, shape=(4,) * d, resolution=7, squarings=3),
    "cpab": lambda d: stn.CPAB(d, cells=(3, 3, 2)[:d], steps=2),
}
pytestmark = pytest.mark.parametrize("name, ndim", CASES)


def small(name: str, ndim: int) -> stn.Family:
    return SMALL[name](ndim) if name in SMALL else family(name, ndim)


def start(transform: stn.Family, n: int, *, strength: float = 0.1, seed: int = 0) -> Tensor:
    return near_identity(transform, n, strength=strength, seed=seed)


def inside(points: Tensor, size: tuple[int, ...], align_corners: bool) -> Tensor:
    pixels = normalized_to_pixel(points, size, align_corners=align_corners)
    return ((pixels >= 0) & (pixels <= torch.tensor(size[::-1]) - 1)).all(dim=-1)


@pytest.mark.parametrize("align_corners", (False, True))
def test_the_identity_returns_the_image(name: str, ndim: int, align_corners: bool) -> None:
    transform = family(name, ndim)
    theta = transform.identity()
    assert theta.shape == (transform.num_params,)
    for n in range(1, 66) if ndim == 2 else (1, 2, 5, 8):
        image = noise(2, 1, n, *(66 - n, 7)[: ndim - 1], dtype=torch.float32, seed=n)
        out = transform(theta.expand(2, -1)).sample(image, align_corners=align_corners)
        assert torch.equal(out, image)


@pytest.mark.parametrize("align_corners", (False, True))
def test_images_agree_with_points(name: str, ndim: int, align_corners: bool) -> None:
    """Sampling a ramp gives the source points themselves, wherever these are inside the image."""
    size, out = SIZE[ndim], OUT[ndim]
    transform = family(name, ndim)
    warp = transform(start(transform, 4))
    image = ramp(size, align_corners=align_corners).expand(4, *(-1,) * (ndim + 1))
    sampled = warp.sample(image, out, align_corners=align_corners).movedim(1, -1)
    target = lattice(out, align_corners=align_corners, dtype=torch.float64)
    points = warp.points(target.flatten(0, -2)).unflatten(1, out)
    seen = inside(points, size, align_corners)
    assert seen.float().mean() > 0.3
    torch.testing.assert_close(sampled[seen], points[seen], atol=1e-12, rtol=0)
    assert (points - target).abs().max() > 0.05  # not the identity


@pytest.mark.parametrize("align_corners", (False, True))
def test_the_grid_is_what_sample_uses(name: str, ndim: int, align_corners: bool) -> None:
    transform = family(name, ndim)
    warp, image = transform(start(transform, 3)), noise(3, 2, *SIZE[ndim])
    options: Any = {"mode": "bicubic", "padding_mode": "reflection", "align_corners": align_corners}
    grid = warp.grid(OUT[ndim], align_corners=align_corners)
    assert grid.shape == (3, *OUT[ndim], ndim)
    got = warp.sample(image, OUT[ndim], **options)
    torch.testing.assert_close(got, stn.grid_sample(image, grid, **options), atol=1e-10, rtol=0)


def test_looks(name: str, ndim: int) -> None:
    transform, image = small(name, ndim), noise(2, 3, *SIZE[ndim])
    theta = start(transform, 8).view(2, 4, -1)
    warp = transform(theta)
    out = warp.sample(image, OUT[ndim])
    assert out.shape == (2, 4, 3, *OUT[ndim]) and warp.grid(OUT[ndim]).shape == (2, 4, *OUT[ndim], ndim)
    for k in range(4):
        one = transform(theta[:, k])
        torch.testing.assert_close(out[:, k], one.sample(image, OUT[ndim]), atol=1e-12, rtol=0)
        torch.testing.assert_close(warp.grid(OUT[ndim])[:, k], one.grid(OUT[ndim]), atol=1e-13, rtol=0)


def test_point_sets_of_any_shape(name: str, ndim: int) -> None:
    transform = small(name, ndim)
    warp = transform(start(transform, 3))
    shared = noise(5, ndim)
    each = warp.points(shared)
    assert each.shape == (3, 5, ndim)
    torch.testing.assert_close(warp.points(shared[0]), each[:, 0])
    torch.testing.assert_close(warp.points(shared.expand(3, 5, ndim)), each)
    torch.testing.assert_close(warp.points(shared.view(1, 5, 1, 1, ndim)), each.view(3, 5, 1, 1, ndim))
    torch.testing.assert_close(warp.points(shared[:3].unsqueeze(1)), each[range(3), range(3)].unsqueeze(1))


def test_the_inverse_undoes(name: str, ndim: int) -> None:
    """The tolerance is 1e-5 for a formula or an iteration, and 0.1 pixel of 100 for a flow; its inverse is another flow."""
    transform = family(name, ndim)
    warp = transform(start(transform, 4, strength=0.05))
    xy = 0.8 * (2 * torch.rand(50, ndim, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 1)
    tolerance = 0.1 / 50 if name in ("velocity", "cpab") else 1e-5
    for product in (warp.inverse() @ warp, warp @ warp.inverse()):
        torch.testing.assert_close(product.points(xy), xy.expand(4, -1, -1), atol=tolerance, rtol=0)
    assert (warp.points(xy) - xy).abs().max() > 0.02
    again = warp.inverse().inverse()
    torch.testing.assert_close(again.points(xy), warp.points(xy), atol=1e-12, rtol=0)


def test_composition(name: str, ndim: int) -> None:
    transform = stn.Displacement(ndim, shape=(3, 4, 2)[:ndim]) if name == "displacement" else family(name, ndim)
    others = [stn.Affine(ndim), small("bspline", ndim)]
    image, xy = noise(3, 2, *SIZE[ndim]), 0.7 * noise(6, ndim, seed=3).clamp(-1, 1)
    a = transform(start(transform, 3))
    for other in others:
        b = other(start(other, 3, seed=1))
        for outer, inner in ((a, b), (b, a)):
            both = outer @ inner
            expected = outer.points(inner.points(xy))
            torch.testing.assert_close(both.points(xy), expected, atol=1e-13, rtol=0)
            grid = both.grid(OUT[ndim])
            torch.testing.assert_close(both.sample(image, OUT[ndim]), stn.grid_sample(image, grid), atol=1e-11, rtol=0)
            torch.testing.assert_close(both.inverse().points(both.points(xy)), xy.expand(3, -1, -1), atol=1e-2, rtol=0)


def test_composition_with_looks(name: str, ndim: int) -> None:
    transform, affine = small(name, ndim), stn.Affine(ndim)
    theta = start(transform, 6).view(2, 3, -1)
    several, one = transform(theta), affine(start(affine, 2, seed=1))
    xy = 0.5 * noise(4, ndim)
    for k in range(3):
        look = transform(theta[:, k])
        torch.testing.assert_close((several @ one).points(xy)[:, k], (look @ one).points(xy), atol=1e-13, rtol=0)
        torch.testing.assert_close((one @ several).points(xy)[:, k], (one @ look).points(xy), atol=1e-13, rtol=0)


def test_the_jacobian_is_the_derivative(name: str, ndim: int) -> None:
    """Compare with autograd through `points`, one point at a time, also for a composition."""
    transform, affine, out = small(name, ndim), stn.Projective(ndim), OUT[ndim]
    warp = transform(start(transform, 2))
    for map_ in (warp, affine(start(affine, 2, seed=1)) @ warp):
        got = map_.jacobian(out)
        assert got.shape == (2, *out, ndim, ndim)
        points = lattice(out, dtype=torch.float64).flatten(0, -2)
        for place in (0, 7, 11):
            jacobian = torch.autograd.functional.jacobian(lambda p, m=map_: m.points(p), points[place])
            torch.testing.assert_close(got.flatten(1, ndim)[:, place], jacobian, atol=1e-12, rtol=0)
        determinant = torch.linalg.det(got)
        torch.testing.assert_close(map_.jacobian_determinant(out), determinant, atol=1e-12, rtol=0)
        torch.testing.assert_close(map_.fold_share(out), (determinant <= 0).double().flatten(1).mean(dim=1))


def test_derivatives_in_theta(name: str, ndim: int) -> None:
    transform, image, points = small(name, ndim), noise(1, 1, *(4, 5, 3)[:ndim]), 0.6 * noise(3, ndim)
    theta = start(transform, 1, seed=2).requires_grad_()
    out = (3, 2, 2)[:ndim]

    def sample(theta: Tensor) -> Tensor:
        return transform(theta).sample(image, out, mode="bicubic")

    quick = name in SMALL  # along random directions instead of each parameter
    assert gradcheck(sample, (theta,), check_forward_ad=True, fast_mode=quick)
    assert gradgradcheck(sample, (theta,), fast_mode=quick)
    assert gradcheck(lambda t, p: transform(t).points(p), (theta, points.requires_grad_()), fast_mode=quick)


def test_derivatives_of_the_inverse_and_the_jacobian(name: str, ndim: int) -> None:
    transform, points = small(name, ndim), 0.5 * noise(2, ndim)
    theta = start(transform, 1, strength=0.03, seed=2).requires_grad_()
    quick = name in SMALL
    assert gradcheck(lambda t: transform(t).inverse().points(points), (theta,), atol=1e-4, fast_mode=quick)
    assert gradcheck(lambda t: transform(t).jacobian_determinant((2, 3, 2)[:ndim]), (theta,), fast_mode=quick)


def test_vmap(name: str, ndim: int) -> None:
    transform, image = small(name, ndim), noise(2, 1, *SIZE[ndim])
    theta = start(transform, 6).view(3, 2, -1)
    got = torch.func.vmap(lambda t: transform(t).sample(image, OUT[ndim]))(theta)
    for k in range(3):
        torch.testing.assert_close(got[k], transform(theta[k]).sample(image, OUT[ndim]), atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16, torch.float32))
def test_dtypes(name: str, ndim: int, dtype: torch.dtype) -> None:
    transform = small(name, ndim)
    theta = start(transform, 2).to(dtype)
    image = noise(2, 1, *SIZE[ndim], dtype=torch.float32)
    warp = transform(theta)
    out = warp.sample(image)
    assert out.dtype == torch.float32 and warp.grid(OUT[ndim]).dtype == dtype
    assert warp.jacobian(OUT[ndim]).dtype == torch.float32
    wide = transform(theta.double()).sample(image.double())
    tolerance = {torch.float16: 2e-2, torch.bfloat16: 2e-1, torch.float32: 1e-5}[dtype]  # of a rotation's cosine
    assert (out - wide).abs().max() < tolerance


def test_an_empty_batch(name: str, ndim: int) -> None:
    transform = small(name, ndim)
    warp = transform(torch.zeros(0, transform.num_params))
    assert warp.sample(torch.zeros(0, 3, *SIZE[ndim]), OUT[ndim]).shape == (0, 3, *OUT[ndim])
    assert warp.points(torch.zeros(4, ndim)).shape == (0, 4, ndim)


def test_the_parameters_have_names(name: str, ndim: int) -> None:
    transform = family(name, ndim)
    places = sorted(i for part in transform.parameters.values() for i in part)
    assert places == list(range(transform.num_params)) == list(range(len(transform.identity())))
