"""`sample_points`, and the attention of Deformable DETR."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import functional as F

import stn
from stn.ops import attention
from tests.helpers import MODES, PADDINGS, SIZES, noise, ramp, seeded


def scattered(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return points, some of them outside the image."""
    return 2.6 * torch.rand(*shape, dtype=dtype, generator=seeded()) - 1.3


@pytest.mark.parametrize("mode, padding_mode, d", list(itertools.product((*MODES, "bspline"), PADDINGS, (1, 2, 3))))
def test_points_are_the_pixels_of_a_grid(mode: str, padding_mode: str, d: int) -> None:
    image, grid = noise(2, 3, *(7, 6, 5)[:d]), scattered(2, *(4, 3, 5)[:d], d)
    options: Any = {"mode": mode, "padding_mode": padding_mode, "return_mask": True}
    out, mask = stn.grid_sample(image, grid, **options)
    got, share = stn.sample_points(image, grid.flatten(1, -2), **options)
    torch.testing.assert_close(got, out.flatten(2), atol=1e-13, rtol=0)
    torch.testing.assert_close(share, mask.flatten(2), atol=1e-13, rtol=0)
    as_they_are, _ = stn.sample_points(image, grid, **options)
    torch.testing.assert_close(as_they_are, out, atol=1e-13, rtol=0)


@pytest.mark.parametrize("d", (2, 3))
@pytest.mark.parametrize("align_corners", (False, True))
def test_a_ramp_gives_the_points(d: int, align_corners: bool) -> None:
    size = SIZES[d][0]
    inside = 0.5 * scattered(9, d)
    found = stn.sample_points(ramp(size, align_corners=align_corners), inside, align_corners=align_corners)
    torch.testing.assert_close(found[0].mT, inside, atol=1e-13, rtol=0)
    pixels = stn.grid.normalized_to_pixel(inside, size, align_corners=align_corners)
    again = stn.sample_points(ramp(size, align_corners=align_corners), pixels, units="pixel")
    torch.testing.assert_close(again, found, atol=1e-13, rtol=0)


def test_one_set_for_all_images_and_none() -> None:
    image, points = noise(3, 2, 5, 6), scattered(4, 2)
    each = stn.sample_points(image, points.expand(3, 4, 2))
    assert torch.equal(stn.sample_points(image, points), each) and torch.equal(stn.sample_points(image, points[None]), each)
    assert each.shape == (3, 2, 4) and each[0].ne(each[1]).any()
    empty, mask = stn.sample_points(image.requires_grad_(), points[:0].requires_grad_(), return_mask=True)
    assert empty.shape == (3, 2, 0) and mask.shape == (3, 1, 0)
    empty.sum().backward()
    assert image.grad is not None and image.grad.abs().max() == 0
    assert stn.sample_points(image.detach(), noise(3, 4, 0, 2)).shape == (3, 2, 4, 0)


def test_derivatives_vmap_and_compile() -> None:
    image, points = noise(2, 1, 4, 5).requires_grad_(), scattered(2, 3, 2).requires_grad_()
    assert gradcheck(lambda i, p: stn.sample_points(i, p, mode="bicubic"), (image, points), check_forward_ad=True)
    sets = scattered(5, 2, 3, 2)
    got = torch.func.vmap(lambda p: stn.sample_points(image, p))(sets)
    expected = torch.stack([stn.sample_points(image, p) for p in sets])
    torch.testing.assert_close(got, expected, atol=1e-13, rtol=0)
    compiled = torch.compile(lambda p: stn.sample_points(image, p), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(sets[0]), expected[0], atol=1e-13, rtol=0)


def test_a_wide_gradient_changes_no_value() -> None:
    image, points = noise(1, 1, 32, 32), (0.5 * scattered(1, 6, 2)).requires_grad_()
    exact, wide = (stn.sample_points(image, points, gradient=name) for name in ("exact", "wide"))
    assert torch.equal(exact, wide)
    gradients = [torch.autograd.grad(out.sum(), points)[0] for out in (exact, wide)]
    assert (gradients[0] - gradients[1]).abs().max() > 0.1


# ---- deformable attention ----

LEVELS = ((9, 12), (5, 6), (3, 3))


def attention_inputs(
    levels: Sequence[tuple[int, int]] = LEVELS, *, n: int = 2, queries: int = 7, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    heads, width, points = 4, 8, 3
    values = noise(n, sum(h * w for h, w in levels), heads, width, dtype=dtype)
    locations = 1.2 * torch.rand(n, queries, heads, len(levels), points, 2, dtype=dtype, generator=seeded(1)) - 0.1
    logits = noise(n, queries, heads, len(levels) * points, dtype=dtype, seed=2)
    return values, locations, logits.softmax(dim=-1).unflatten(-1, (len(levels), points))


def plain_attention(values: Tensor, sizes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
    """The formula of the published code in plain torch, ms_deform_attn_core_pytorch."""
    n, _, heads, width = values.shape
    queries, levels, points = locations.shape[1], locations.shape[3], locations.shape[4]
    parts, grids, sampled = values.split([h * w for h, w in sizes], dim=1), 2 * locations - 1, []
    for level, (h, w) in enumerate(sizes):
        image = parts[level].flatten(2).transpose(1, 2).reshape(n * heads, width, h, w)
        grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)
        sampled.append(F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False))
    shares = weights.transpose(1, 2).reshape(n * heads, 1, queries, levels * points)
    out = (torch.stack(sampled, dim=-2).flatten(-2) * shares).sum(-1).view(n, heads * width, queries)
    return out.transpose(1, 2).contiguous()


@pytest.mark.parametrize("dtype, tolerance", ((torch.float32, 1e-5), (torch.float64, 1e-12)))
def test_deformable_attention_is_the_plain_formula(dtype: torch.dtype, tolerance: float) -> None:
    inputs = [t.requires_grad_() for t in attention_inputs(dtype=dtype)]
    weight = noise(2, 7, 32, dtype=dtype, seed=3)
    found = []
    for function in (stn.multi_scale_deformable_attention, plain_attention):
        out = function(inputs[0], LEVELS, *inputs[1:])
        found.append((out, *torch.autograd.grad((out * weight).sum(), inputs)))
    for got, expected in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, atol=10 * tolerance, rtol=10 * tolerance)
    torch.testing.assert_close(found[0][0], found[1][0], atol=tolerance, rtol=0)
    assert found[0][0].abs().max() > 0.1


def test_deformable_attention_takes_the_sizes_of_the_published_code() -> None:
    values, locations, weights = attention_inputs()
    got = stn.multi_scale_deformable_attention(values, torch.tensor(LEVELS), locations, weights)
    assert torch.equal(got, stn.multi_scale_deformable_attention(values, LEVELS, locations, weights))


def test_deformable_attention_has_derivatives_and_compiles() -> None:
    levels = ((3, 4), (2, 2))
    inputs = [t.requires_grad_() for t in attention_inputs(levels, n=1, queries=2, dtype=torch.float64)]

    def attend(values: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return stn.multi_scale_deformable_attention(values, levels, locations, weights)

    assert gradcheck(attend, inputs, fast_mode=True, check_forward_ad=True)
    compiled = torch.compile(attend, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*inputs), attend(*inputs), atol=1e-13, rtol=0)


def test_deformable_attention_has_the_same_bits_for_any_number_of_threads() -> None:
    inputs = [t.requires_grad_() for t in attention_inputs(queries=300)]  # enough for two threads
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            out = stn.multi_scale_deformable_attention(inputs[0], LEVELS, *inputs[1:])
            found.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_deformable_attention_leaves_out_pixels_without_a_weight() -> None:
    """Points at the centers of pixels next to infinite ones, on the border, outside, and nowhere."""
    values = noise(1, 16, 1, 3, dtype=torch.float32)
    values[0, 6] = torch.inf  # row 1, column 2
    pixels = torch.tensor([[1.0, 1.0], [2.0, 0.0], [-1.0, 2.0], [3.0, 3.5], [-9.0, 0.0], [torch.nan, 0.0]])
    locations = ((pixels + 0.5) / 4).view(1, 6, 1, 1, 1, 2)
    weights = torch.full((1, 6, 1, 1, 1), 2.0)
    out = stn.multi_scale_deformable_attention(values, [(4, 4)], locations, weights)
    torch.testing.assert_close(out, attention.reference(values, [(4, 4)], locations, weights), equal_nan=True)
    torch.testing.assert_close(out[0, :2], 2 * values[0, [5, 2], 0])
    assert (out[0, [2, 4]] == 0).all() and out[0, 5].isnan().all()
    torch.testing.assert_close(out[0, 3], values[0, 15, 0])  # half of it lies outside


def test_deformable_attention_of_nothing_and_in_half_precision() -> None:
    values, locations, weights = attention_inputs()
    for part in (locations[:, :0], locations[..., :0, :]):
        share = torch.zeros(part.shape[:-1], requires_grad=True)
        out = stn.multi_scale_deformable_attention(values, LEVELS, part, share)
        assert out.shape == (2, part.shape[1], 32) and out.abs().sum() == 0
        out.sum().backward()
    half = stn.multi_scale_deformable_attention(values.bfloat16(), LEVELS, locations, weights)
    assert half.dtype == torch.bfloat16
    expected = stn.multi_scale_deformable_attention(values, LEVELS, locations, weights)
    torch.testing.assert_close(half.float(), expected, atol=0.02, rtol=0.02)


VALUES, LOCATIONS, WEIGHTS = attention_inputs()
IMAGE = torch.zeros(2, 3, 4, 5)
SENTENCES: list[tuple[Callable[[], Any], str]] = [
    (lambda: stn.sample_points(IMAGE, torch.zeros(4, 3)), r"points must be \(P, 2\) or \(N, P, 2\) .*; got \(4, 3\)"),
    (lambda: stn.sample_points(IMAGE, torch.zeros(3, 4, 2)), r"points must be .* N = 2 .*; got \(3, 4, 2\)"),
    (lambda: stn.sample_points(IMAGE, torch.zeros(2)), r"points must be .*; got \(2,\)"),
    (lambda: stn.sample_points(IMAGE, torch.zeros(4, 2), units="px"), "units must be one of normalized, pixel; got 'px'"),
    (lambda: stn.sample_points(IMAGE, torch.zeros(4, 2), antialias=True), "antialias must be False for points"),
    (lambda: stn.sample_points(IMAGE, torch.zeros(4, 2, dtype=torch.int64)), "points must have a floating-point dtype"),
    (
        lambda: stn.multi_scale_deformable_attention(VALUES, LEVELS[:2], LOCATIONS, WEIGHTS),
        r"values must be \(N, S, M, D\) with S = 138, the pixels of all sizes; got \(2, 147, 4, 8\)",
    ),
    (
        lambda: stn.multi_scale_deformable_attention(VALUES, LEVELS, LOCATIONS[:, :, :2], WEIGHTS),
        r"with N = 2 and M = 4, like values, and L = 3 levels; got \(2, 7, 2, 3, 3, 2\)",
    ),
    (
        lambda: stn.multi_scale_deformable_attention(VALUES, LEVELS, LOCATIONS, WEIGHTS[:1]),
        r"weights must be \(N, Q, M, L, P\) = \(2, 7, 4, 3, 3\), like locations; got \(1, 7, 4, 3, 3\)",
    ),
    (lambda: stn.multi_scale_deformable_attention(VALUES, [], LOCATIONS, WEIGHTS), r"sizes must be \(H, W\) for each"),
    (
        lambda: stn.multi_scale_deformable_attention(VALUES, [(9,), (5, 6), (3, 3)], LOCATIONS, WEIGHTS),
        r"sizes\[0\] must have 2 lengths; got \(9,\)",
    ),
]


@pytest.mark.parametrize("call, sentence", SENTENCES, ids=[sentence[:40] for _, sentence in SENTENCES])
def test_sentences(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises((stn.InputError, TypeError), match=sentence):
        call()
