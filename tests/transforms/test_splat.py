"""`splat` is the transpose of sampling, and its means are those of softmax splatting."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import stn
from stn.transforms import FAMILIES, family
from tests.helpers import PADDINGS, SIZES, near_identity, noise
from tests.transforms.test_laws import CASES as FAMILY_CASES

IN, OUT = {1: (9,), **{d: SIZES[d][0] for d in (2, 3)}}, {1: (7,), **{d: SIZES[d][1] for d in (2, 3)}}
ALL_MODES = ("nearest", "bilinear", "bicubic", "catmull_rom", "bspline", "lanczos3")


def matrices(d: int, rows: int, *lead: int) -> Tensor:
    """Return maps near the identity that also look outside the image."""
    matrix = torch.eye(rows, d + 1, dtype=torch.float64) + 0.2 * noise(*lead, rows, d + 1, seed=3)
    if rows > d:
        matrix[..., -1, -1] = 1.5
    return matrix


def product(a: Tensor, b: Tensor) -> float:
    return (a * b).sum().item()


def check_transpose(pushed: Callable[[Tensor], Tensor], sampled: Callable[[Tensor], Tensor], u: Tensor, v: Tensor) -> None:
    """<splat(v), u> = <v, sample(u)>, relative to the sum of the terms' sizes."""
    there, back = sampled(u), pushed(v)
    assert there.shape == v.shape and back.shape == u.shape
    scale = product(v.abs(), there.abs())
    assert abs(product(back, u) - product(v, there)) < 1e-12 * scale
    assert scale > 1 and back.abs().max() > 0.1


RULES = [*itertools.product((1, 2, 3), ("affine", "projective", "field", "relative")), (2, "spline")]


@pytest.mark.parametrize("d, rule", RULES)
@pytest.mark.parametrize("padding_mode, align_corners", list(itertools.product(PADDINGS, (False, True))))
def test_it_is_the_transpose(d: int, rule: str, padding_mode: str, align_corners: bool) -> None:
    for mode in ALL_MODES if d < 3 else ALL_MODES[:3]:
        check_rule(d, rule, {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners})


def check_rule(d: int, rule: str, how: Any) -> None:
    size, out = IN[d], OUT[d]
    u, v = noise(2, 3, *size), noise(2, 3, *out, seed=1)
    if rule in ("affine", "projective"):
        function: Any = stn.affine_sample if rule == "affine" else stn.projective_sample
        m = matrices(d, d + (rule == "projective"), 2)
        check_transpose(lambda v: stn.splat(v, m, size, **how), lambda u: function(u, m, out, **how), u, v)
    elif rule == "spline":
        spline = stn.ThinPlateSpline()
        warp = spline(near_identity(spline, 2))
        check_transpose(lambda v: stn.splat(v, warp, size, **how), lambda u: warp.sample(u, out, **how), u, v)
    else:
        how |= {"units": "pixel", "relative": True} if rule == "relative" else {}
        field = (3.0 if rule == "relative" else 0.8) * noise(2, *out, d, seed=2)
        check_transpose(lambda v: stn.splat(v, field, size, **how), lambda u: stn.grid_sample(u, field, **how), u, v)


@pytest.mark.parametrize("name, d", FAMILY_CASES)
def test_warps_of_every_family(name: str, d: int) -> None:
    transform = family(name, d)
    warp = transform(near_identity(transform, 6, strength=0.1).view(2, 3, -1))
    u, v = noise(2, 2, *IN[d]), noise(2, 3, 2, *OUT[d], seed=1)
    check_transpose(lambda v: stn.splat(v, warp, IN[d]), lambda u: warp.sample(u, OUT[d]), u, v)
    assert name in FAMILIES


def test_looks_are_added_and_one_place_serves_all() -> None:
    v, m = noise(2, 3, 2, 6, 7), matrices(2, 2, 2, 3)
    got = stn.splat(v, m, (5, 4))
    torch.testing.assert_close(got, sum(stn.splat(v[:, k], m[:, k], (5, 4)) for k in range(3)), atol=1e-13, rtol=0)
    for shared in (m[0, 0], m[:1, 0]):
        each = stn.splat(v[:, 0], m[:1, 0].expand(2, 2, 3), (5, 4))
        assert torch.equal(stn.splat(v[:, 0], shared, (5, 4)), each)
    field = 0.5 * noise(6, 7, 2)
    assert torch.equal(stn.splat(v[:, 0], field, (5, 4)), stn.splat(v[:, 0], field.expand(2, 6, 7, 2), (5, 4)))


def test_sets_of_points() -> None:
    image, points, v = noise(2, 3, 5, 6), 1.2 * noise(2, 8, 2, seed=1).clamp(-1, 1), noise(2, 3, 8, seed=2)
    check_transpose(lambda v: stn.splat(v, points, (5, 6)), lambda u: stn.sample_points(u, points), image, v)
    weights = noise(2, 1, 8, seed=3).exp()
    out = stn.splat(v, points, (5, 6), weights=weights)
    torch.testing.assert_close(out, stn.splat(v * weights, points, (5, 6)), atol=1e-13, rtol=0)
    assert torch.equal(stn.splat(v[..., :0], points[:, :0], (5, 6)), torch.zeros(2, 3, 5, 6, dtype=v.dtype))


@pytest.mark.parametrize("mode", ("bilinear", "bicubic"))
@pytest.mark.parametrize("padding_mode", PADDINGS)
def test_derivatives_in_both(mode: str, padding_mode: str) -> None:
    v, m, field = noise(1, 2, 2, 3), matrices(2, 2, 1), 0.8 * noise(1, 2, 3, 2, seed=5)
    how: Any = {"mode": mode, "padding_mode": padding_mode}
    for where in (m, field):
        inputs = v.clone().requires_grad_(), where.clone().requires_grad_()
        assert gradcheck(lambda v, w: stn.splat(v, w, (3, 4), **how), inputs, check_forward_ad=True)
        assert gradgradcheck(lambda v, w: stn.splat(v, w, (3, 4), **how), inputs)
    warp_theta = near_identity("tps", 1, strength=0.1).requires_grad_()
    assert gradcheck(lambda t: stn.splat(v, stn.ThinPlateSpline()(t), (3, 4), **how), (warp_theta,), fast_mode=True)


def test_derivatives_of_the_mean() -> None:
    v, flow, weights = noise(1, 2, 4, 3), 1.3 * noise(1, 4, 3, 2, seed=1), noise(1, 1, 4, 3, seed=2).exp()
    inputs = [t.requires_grad_() for t in (v, flow, weights)]

    def mean(v: Tensor, flow: Tensor, weights: Tensor) -> Tensor:
        return stn.splat(v, flow, (4, 3), units="pixel", relative=True, reduce="mean", weights=weights)

    assert gradcheck(mean, inputs, check_forward_ad=True)


def softmax_splat(values: Tensor, flow: Tensor, importance: Tensor) -> Tensor:
    """Forward warping of softmax splatting in plain torch: flow (N, 2, H, W) in pixels, importance (N, 1, H, W)."""
    n, c, h, w = values.shape
    share = importance.exp()
    given = torch.cat([values * share, share], dim=1).flatten(2)
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    at = [(flow[:, i] + base).flatten(1) for i, base in enumerate((x, y))]
    low, out = [t.floor() for t in at], torch.zeros_like(given)
    for dx, dy in itertools.product((0, 1), (0, 1)):
        px, py = low[0] + dx, low[1] + dy
        weight = (1 - (at[0] - px).abs()) * (1 - (at[1] - py).abs())
        inside = (px >= 0) & (px < w) & (py >= 0) & (py < h)
        index = (py.clamp(0, h - 1) * w + px.clamp(0, w - 1)).long().unsqueeze(1).expand_as(given)
        out = out.scatter_add(2, index, given * (weight * inside).unsqueeze(1))
    total = out[:, -1:]
    return torch.where(total == 0, 0, out[:, :-1] / torch.where(total == 0, 1, total)).unflatten(2, (h, w))


def test_the_mean_is_softmax_splatting() -> None:
    values, importance = noise(2, 3, 12, 15), noise(2, 1, 12, 15, seed=2)
    flow = (2.5 * noise(2, 2, 12, 15, seed=1)).requires_grad_()
    got, weight = stn.splat(
        values, flow.movedim(1, -1), (12, 15), units="pixel", relative=True, reduce="mean", weights=importance.exp(),
        return_weight=True,
    )  # fmt: skip
    expected = softmax_splat(values, flow, importance)
    torch.testing.assert_close(got, expected, atol=1e-11, rtol=1e-11)
    assert (weight == 0).any() and (weight > 0).any() and bool((got[(weight == 0).expand_as(got)] == 0).all())
    back = noise(2, 3, 12, 15, seed=3)
    gradients = [torch.autograd.grad((out * back).sum(), flow)[0] for out in (got, expected)]
    torch.testing.assert_close(*gradients, atol=1e-9, rtol=1e-9)  # of quotients by small weights


def test_the_same_bits_for_any_number_of_threads() -> None:
    v, flow = noise(1, 3, 160, 170, dtype=torch.float32), 9 * noise(1, 160, 170, 2, dtype=torch.float32, seed=1)
    how: Any = {"units": "pixel", "relative": True, "reduce": "mean"}
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(stn.splat(v, flow, (160, 170), **how))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_kinds_of_numbers_and_layouts() -> None:
    v, m = noise(2, 4, 6, 7), matrices(2, 2, 2)
    wide = stn.splat(v, m, (5, 4))
    last = stn.splat(v.contiguous(memory_format=torch.channels_last), m, (5, 4))
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, wide, atol=1e-13, rtol=0)
    low = stn.splat(v.bfloat16(), m, (5, 4))
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.double(), wide, atol=0.1, rtol=0.02)
    both = stn.splat(torch.complex(v, v.flip(0)), m, (5, 4))
    torch.testing.assert_close(both, torch.complex(wide, stn.splat(v.flip(0), m, (5, 4))), atol=1e-13, rtol=0)


def test_a_kernel_of_your_own() -> None:
    u, v, m = noise(2, 1, 6, 7), noise(2, 1, 5, 5, seed=1), matrices(2, 2, 2)
    bell: Any = stn.Kernel(lambda distance: torch.exp(-2 * distance**2), support=2)
    check_transpose(lambda v: stn.splat(v, m, (6, 7), mode=bell), lambda u: stn.affine_sample(u, m, (5, 5), mode=bell), u, v)


def test_vmap_and_compile() -> None:
    v, m = noise(3, 2, 1, 5, 5), matrices(2, 2, 3, 2)
    expected = torch.stack([stn.splat(*pair, (4, 6)) for pair in zip(v, m, strict=True)])
    got = torch.func.vmap(lambda v, m: stn.splat(v, m, (4, 6)))(v, m)
    torch.testing.assert_close(got, expected, atol=1e-13, rtol=0)

    def gradient(m: Tensor) -> Tensor:
        return torch.func.grad(lambda m: stn.splat(v[0], m, (4, 6)).square().sum())(m)

    compiled = torch.compile(gradient, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(m[0]), gradient(m[0]), atol=1e-12, rtol=0)
    leaf = m[0].clone().requires_grad_()
    stn.splat(v[0], leaf, (4, 6)).square().sum().backward()
    torch.testing.assert_close(leaf.grad, gradient(m[0]), atol=1e-12, rtol=0)


V, M = torch.zeros(2, 3, 4, 5), torch.eye(2, 3)
SENTENCES: list[tuple[Callable[[], Any], str]] = [
    (lambda: stn.splat(V, torch.eye(3, 4), (4, 5)), r"where must be a warp, matrices or points, .*; got \(3, 4\)"),
    (lambda: stn.splat(V, torch.zeros(2, 4, 6, 2), (4, 5)), r"where must be .* \(N, 4, 5, 2\) .*; got \(2, 4, 6, 2\)"),
    (lambda: stn.splat(V, torch.zeros(3, 2, 3), (4, 5)), r"where must be .* N = 2 .*; got \(3, 2, 3\)"),
    (lambda: stn.splat(V[None], M.expand(1, 3, 2, 3), (4, 5)), r"where must be .* K = 2; got \(1, 3, 2, 3\)"),
    (
        lambda: stn.splat(V, stn.Affine(3)(torch.zeros(2, 12)), (4, 5)),
        "where must be a warp of 2 dimensions, like size; got one of 3",
    ),
    (lambda: stn.splat(V, stn.Affine()(torch.zeros(3, 6)), (4, 5)), r"where must be a warp of batch .* got .* \(3,\)"),
    (lambda: stn.splat(V[0], M, (4, 5)), r"values must be \(N, C, H, W\) or \(N, K, C, H, W\), or .*; got \(3, 4, 5\)"),
    (lambda: stn.splat(V.long(), M, (4, 5)), "values must have a floating-point dtype, or a complex one; got torch.int64"),
    (lambda: stn.splat(V, M, (4, 5), reduce="max"), "reduce must be one of mean, sum; got 'max'"),
    (lambda: stn.splat(V, M, (4, 5), weights=V), r"weights must have one channel .* \(2, 1, 4, 5\); got \(2, 3, 4, 5\)"),
    (lambda: stn.splat(V, M, (4, 5), relative=True), "units and relative go with points; got them with a warp or matrices"),
    (lambda: stn.splat(V, M, (4, 5), units="px"), "units must be one of normalized, pixel; got 'px'"),
    (lambda: stn.splat(V, M, (4, 0)), r"size must have positive lengths; got \(4, 0\)"),
]


@pytest.mark.parametrize("call, sentence", SENTENCES, ids=[sentence[:40] for _, sentence in SENTENCES])
def test_sentences(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises((stn.InputError, TypeError), match=sentence):
        call()
