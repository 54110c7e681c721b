"""Anti-aliased sampling: compared with resizing, by the contrast of stripes that remains, and by its derivatives."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import skimage.data
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import interpolate

import stn
from stn.ops.averaging import average, averaging
from stn.ops.pyramid import shrunk
from tests.helpers import noise, seeded

ANTIALIAS = (True, "anisotropic")
EYE = torch.eye(2, 3)
LATTICES = ((8, 8), (7, 9), (33, 20), (2, 1), (1, 1), (5, 6, 7), (16, 9, 2))


def turned(angle: float, scale: float = 1.0) -> Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return scale * torch.tensor([[c, -s, 0], [s, c, 0]])


def photographs() -> list[Tensor]:
    found = [torch.from_numpy(getattr(skimage.data, name)()) for name in ("astronaut", "camera", "coffee", "grass", "page")]
    images = [(p if p.ndim == 3 else p.unsqueeze(-1)).permute(2, 0, 1).unsqueeze(0) / 255.0 for p in found]
    return [image[..., : image.shape[2] // 24 * 24, : image.shape[3] // 24 * 24].contiguous() for image in images]


def root_mean_square(difference: Tensor) -> float:
    return difference.square().mean().sqrt().item()


# ---- the pyramid ----


BORDERS = [("zeros", False), ("zeros", True), ("wrap", False)]


@pytest.mark.parametrize("padding_mode, align_corners", BORDERS)
@pytest.mark.parametrize("size", LATTICES)
def test_the_kernel_is_the_oracle(size: tuple[int, ...], padding_mode: str, align_corners: bool) -> None:
    """Value, gradient and second derivative of the kernel equal those of the reference."""
    for dtype, last in itertools.product((torch.float32, torch.float64), (False, True)):
        image = noise(2, 3, *size, dtype=dtype)
        if last:
            image = image.to(memory_format=torch.channels_last if len(size) == 2 else torch.channels_last_3d)
        image.requires_grad_()
        found = []
        how = averaging(align_corners, padding_mode)
        for halve in (lambda i, how=how: shrunk(i, how), lambda i, how=how: average(i, size, how, False)):
            out = halve(image)
            weight = noise(*out.shape, dtype=dtype, seed=1).requires_grad_()
            (gradient,) = torch.autograd.grad(out, image, weight, create_graph=True)
            (second,) = torch.autograd.grad(gradient, weight, torch.ones_like(gradient))
            found.append((out, gradient, second))
        for ours, oracle in zip(*found, strict=True):
            torch.testing.assert_close(ours, oracle, atol=1e-6 if dtype == torch.float32 else 1e-14, rtol=0)
        assert found[0][0].stride() == torch.empty_like(found[0][0]).stride()


@pytest.mark.parametrize("size", ((32, 48), (33, 20), (512, 7), (9, 6)))
def test_a_level_is_a_resized_image(size: tuple[int, int]) -> None:
    image = noise(1, 2, *size)
    for level, coarse in enumerate(stn.Pyramid(image).sizes[1:3], start=1):
        expected = interpolate(stn.Pyramid(image)[level - 1], size=coarse, mode="bilinear", antialias=True)
        torch.testing.assert_close(stn.Pyramid(image)[level], expected, atol=1e-12, rtol=0)


def test_between_aligned_corners_levels_keep_the_corners_and_straight_lines() -> None:
    """The comparison leaves out the border, where half of the triangle is missing."""
    pyramid = stn.Pyramid(torch.linspace(-1, 1, 65).double().expand(1, 1, 65, 65).contiguous(), align_corners=True)
    assert pyramid.sizes[:3] == [(65, 65), (33, 33), (17, 17)] and pyramid.sizes[-1] == (2, 2)
    inner = pyramid[2][0, 0, 2:-2, 2:-2]
    torch.testing.assert_close(inner, torch.linspace(-1, 1, 17).double()[2:-2].expand(13, 13), atol=1e-12, rtol=0)


def test_large_images_on_two_threads() -> None:
    for image in (noise(2, 3, 130, 257, dtype=torch.float32), noise(2, 3, 20, 40, 50, dtype=torch.float32)):
        how = averaging(False, "zeros")
        torch.testing.assert_close(shrunk(image, how), average(image, image.shape[2:], how, False), atol=1e-6, rtol=0)


# ---- values ----


def operators(ndim: int) -> dict[str, Callable[..., Tensor]]:
    """Return each coordinate rule as a function of image, scale and options."""
    eye = torch.eye(ndim, ndim + 1).double()

    def field(image: Tensor, scale: float, size: Any = None, **options: Any) -> Any:
        grid = stn.Affine(ndim)(scale * eye.flatten()[None]).grid(size or image.shape[2:])
        return stn.grid_sample(image, grid.expand(image.shape[0], *grid.shape[1:]), **options)

    def projective(image: Tensor, scale: float, size: Any = None, **options: Any) -> Any:
        matrix = torch.eye(ndim + 1).double()
        matrix[:ndim] *= scale
        return stn.projective_sample(image, matrix, size, **options)

    found: dict[str, Any] = {
        "matrix": lambda image, scale, size=None, **o: stn.affine_sample(image, scale * eye, size, **o),
        "projective": projective,
        "field": field,
    }
    if ndim == 2:
        corners = torch.tensor([[-1.0, -1], [1, -1], [-1, 1], [1, 1]]).double()

        def basis(image: Tensor, scale: float, size: Any = None, **options: Any) -> Any:
            coefficients = torch.zeros(image.shape[0], 7, 2).double()
            coefficients[:, 5, 0] = coefficients[:, 6, 1] = scale - 1
            return stn.thin_plate_sample(image, coefficients, corners, size, **options)

        found["basis"] = basis
    return found


@pytest.mark.parametrize("antialias", ANTIALIAS)
@pytest.mark.parametrize("ndim, rule", [(d, rule) for d in (2, 3) for rule in operators(d)])
def test_where_nothing_is_shrunk_it_is_plain(ndim: int, rule: str, antialias: bool | str) -> None:
    image = noise(2, 3, *(9, 10, 11)[:ndim]).requires_grad_()
    for scale, tolerance in ((1.0, 1e-9), (0.6, 0.0)):
        found = []
        for options in ({}, {"antialias": antialias}):
            out = operators(ndim)[rule](image, scale, **options)
            found.append((out, *torch.autograd.grad(out.square().sum(), image)))
        for ours, plain in zip(*found, strict=True):
            torch.testing.assert_close(ours, plain, atol=tolerance, rtol=0)


@pytest.mark.parametrize("antialias", ANTIALIAS)
@pytest.mark.parametrize("ndim, rule", [(d, rule) for d in (2, 3) for rule in operators(d)])
def test_all_rules_see_the_same(ndim: int, rule: str, antialias: bool | str) -> None:
    image, size = noise(2, 3, *(24, 20, 28)[:ndim]), (9, 8, 7)[:ndim]
    ours = operators(ndim)[rule](image, 0.9, size, antialias=antialias)
    expected = operators(ndim)["matrix"](image, 0.9, size, antialias=antialias)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)
    assert (ours - operators(ndim)[rule](image, 0.9, size)).abs().max() > 0.5


@pytest.mark.parametrize("shrink", (3, 4))
@pytest.mark.parametrize("angle", (0.0, 0.3))
def test_stripes_near_nyquist_vanish(shrink: int, angle: float) -> None:
    x = torch.arange(480.0)
    for period in (2.1, 2.2):
        stripes = (0.5 + 0.5 * torch.sin(2 * math.pi * x / period)).expand(1, 1, 480, 480).contiguous()
        side = 480 * (1 if angle == 0 else 0.7)
        contrast = {}
        for antialias in (False, True, "anisotropic"):
            out = stn.affine_sample(stripes, turned(angle, side / 480), (int(side / shrink),) * 2, antialias=antialias)
            inner = out[..., 8:-8, 8:-8]
            contrast[antialias] = (inner.max() - inner.min()).item()
        assert contrast[True] < 0.01 and contrast["anisotropic"] < 0.01
        assert contrast[False] > (0.07 if angle == 0 and shrink == 4 else 0.9)  # at whole pixels four steps are 8.4 pixels


def test_shrinking_photographs_is_resizing_them() -> None:
    """The RMS difference is at most 2 % of the range of values. For plain sampling it is up to 10 %."""
    worst, plain = 0.0, 0.0
    for image in photographs():
        for shrink in (1.5, 2, 3, 4, 6):
            size = [int(n / shrink) for n in image.shape[2:]]
            expected = interpolate(image, size=size, mode="bilinear", antialias=True)
            worst = max(worst, root_mean_square(stn.affine_sample(image, EYE, size, antialias=True) - expected))
            plain = max(plain, root_mean_square(stn.affine_sample(image, EYE, size) - expected))
    assert worst < 0.02 and plain > 0.08


@pytest.mark.parametrize("level", (1, 2))
def test_a_pixel_averages_over_what_it_covers(level: int) -> None:
    """The weights of an output pixel, s pixels from its neighbors, have the variance of a triangle: s^2 / 6.

    This is exact if only one level is read, as a mean over the positions between the level's pixels.
    """
    s = math.sqrt(1 + 2.5 * (4**level - 1))
    image = torch.zeros(1, 1, 256, 256, dtype=torch.float64, requires_grad=True)
    out = stn.affine_sample(image, s / 8 * torch.eye(2, 3, dtype=torch.float64), (32, 32), antialias=True)
    x, variances = torch.arange(256.0).double(), []
    for pixel in out[0, 0, 16]:
        (weights,) = torch.autograd.grad(pixel, image, retain_graph=True)
        across = weights[0, 0].sum(dim=0)
        variances.append((across * x**2).sum() - (across * x).sum() ** 2)
    assert torch.stack(variances).mean().item() == pytest.approx(s**2 / 6, rel=0.02)


def test_one_axis_alone() -> None:
    """Reduce one axis only. Levels alone blur both axes; taps along the reduced axis keep the other axis sharp."""
    for image, axis in itertools.product(photographs()[:3], (0, 1)):
        size = [n // (4 if i == axis else 1) for i, n in enumerate(image.shape[2:])]
        expected = interpolate(image, size=size, mode="bilinear", antialias=True)
        off = {a: root_mean_square(stn.affine_sample(image, EYE, size, antialias=a) - expected) for a in ANTIALIAS}
        assert off["anisotropic"] < 0.015 and off[True] > 2 * off["anisotropic"]


def test_taps_lie_along_the_longer_axis_however_it_is_turned() -> None:
    """A warp that compresses stripes along their length keeps them. A warp that compresses them across removes them."""
    x = torch.arange(256.0)
    stripes = (0.5 + 0.5 * torch.sin(2 * math.pi * x / 5)).expand(1, 1, 256, 256).contiguous()
    for angle in (0.2, 1.0, 2.0):
        turn = turned(angle)[:, :2]
        for long_axis, kept in ((1, True), (0, False)):
            stretch = torch.eye(2)
            stretch[long_axis, long_axis] = 6.0
            matrix = torch.cat([0.12 * stretch @ turn, torch.zeros(2, 1)], dim=1)  # this stretches the source axes
            out = stn.affine_sample(stripes, matrix, (31, 31), antialias="anisotropic")
            assert ((out.max() - out.min()).item() > 0.6) == kept
            blurred = stn.affine_sample(stripes, matrix, (31, 31), antialias=True)
            assert (blurred.max() - blurred.min()).item() < 0.3


@pytest.mark.parametrize("antialias", ANTIALIAS)
def test_an_image_does_not_depend_on_its_batch(antialias: bool | str) -> None:
    """Levels and taps are determined once for the whole batch, but each image has its own results."""
    image = noise(3, 2, 24, 20)
    theta = torch.stack([EYE, EYE * 3, turned(0.4) * torch.tensor([[4.0], [1.0]])]).double()
    together = stn.affine_sample(image, theta, (8, 9), antialias=antialias)
    for i in range(3):
        alone = stn.affine_sample(image[i : i + 1], theta[i : i + 1], (8, 9), antialias=antialias)
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-12, rtol=0)
    looks = stn.affine_sample(image[:1], theta[None], (8, 9), antialias=antialias)
    torch.testing.assert_close(looks[0, 1:2], stn.affine_sample(image[:1], theta[1:2], (8, 9), antialias=antialias))


def test_a_ready_pyramid() -> None:
    image = noise(2, 3, 24, 20).requires_grad_()
    pyramid = stn.Pyramid(image)
    for antialias, gradient in ((True, "exact"), ("anisotropic", "exact"), (False, "wide")):
        options: Any = {"antialias": antialias, "gradient": gradient}
        given = stn.affine_sample(image, EYE, (7, 6), pyramid=pyramid, **options)
        assert torch.equal(given, stn.affine_sample(image, EYE, (7, 6), **options))
    (gradient_,) = torch.autograd.grad(given.sum(), image)
    assert gradient_.abs().sum() > 0
    with pytest.raises(
        stn.InputError, match="pyramid must be made from the image of this call; got a pyramid of another image"
    ):
        stn.affine_sample(image.detach(), EYE, antialias=True, pyramid=pyramid)
    with pytest.raises(stn.InputError, match="pyramid must be made with align_corners=True, as set in this call; got False"):
        stn.affine_sample(image, EYE, antialias=True, align_corners=True, pyramid=pyramid)


@pytest.mark.parametrize("antialias", ANTIALIAS)
def test_dtypes_masks_and_paddings(antialias: bool | str) -> None:
    image = torch.rand(1, 2, 24, 20, generator=seeded())
    theta = turned(0.2, 1.4) * torch.tensor([[1.0], [2.0]])
    options: Any = {"antialias": antialias, "return_mask": True}
    out, mask = stn.affine_sample(image, theta, (9, 8), **options)
    assert mask.shape == (1, 1, 9, 8) and 0.2 < mask.mean() < 0.8 and mask.max() < 1 + 1e-6
    ones = stn.affine_sample(torch.ones(1, 1, 24, 20), theta, (9, 8), antialias=antialias)
    torch.testing.assert_close(mask, ones, atol=1e-6, rtol=0)
    half = stn.affine_sample(image.half(), theta, (9, 8), antialias=antialias)
    assert half.dtype == torch.float16 and (half.float() - out).abs().max() < 1e-3
    levels = (image * 255).round().to(torch.uint8)
    assert (stn.affine_sample(levels, theta, (9, 8), **options)[0].float() - 255 * out).abs().max() <= 1.01
    both = stn.affine_sample(torch.complex(image, 2 * image), theta, (9, 8), antialias=antialias)
    torch.testing.assert_close(both, torch.complex(out, 2 * out), atol=1e-6, rtol=0)
    for padding_mode in ("border", "reflection", "wrap"):
        constant = torch.full((1, 2, 24, 21), 3.0)
        out = stn.affine_sample(constant, theta, (9, 8), antialias=antialias, padding_mode=padding_mode)
        torch.testing.assert_close(out, torch.full_like(out, 3.0), atol=1e-5, rtol=0)
    filled = stn.affine_sample(constant, theta, (9, 8), antialias=antialias, fill_value=3.0)
    torch.testing.assert_close(filled, torch.full_like(filled, 3.0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("antialias", ANTIALIAS)
def test_stored_pixels_and_displacements(antialias: bool | str) -> None:
    image, theta, size = noise(1, 2, 24, 20), turned(0.2, 1.1).double(), (7, 6)
    for align_corners in (False, True):
        how: Any = {"antialias": antialias, "align_corners": align_corners}
        grid = stn.Affine()(theta.view(1, 6)).grid(size, align_corners=align_corners)
        expected = stn.grid_sample(image, grid, **how)
        pixels = stn.grid.normalized_to_pixel(grid, (24, 20), align_corners=align_corners)
        start = stn.grid.lattice(size, align_corners=align_corners, dtype=torch.float64)
        at = stn.grid.normalized_to_pixel(start, (24, 20), align_corners=align_corners)
        calls = [(pixels, "pixel", False), (grid - start, "normalized", True), (pixels - at, "pixel", True)]
        for field, units, relative in calls:
            out = stn.grid_sample(image, field, units=units, relative=relative, **how)
            torch.testing.assert_close(out, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("antialias", ANTIALIAS)
def test_nothing_and_nowhere(antialias: bool | str) -> None:
    assert stn.affine_sample(torch.zeros(0, 2, 5, 5), torch.zeros(0, 2, 3), antialias=antialias).shape == (0, 2, 5, 5)
    image, theta = noise(1, 1, 16, 16).requires_grad_(), EYE[None].clone()
    for value in (math.nan, math.inf, 1e30, 0.0):
        moved = theta.clone()
        moved[:, 0, 0] = value
        moved.requires_grad_()
        out = stn.affine_sample(image, moved, antialias=antialias)
        assert out.isnan().any() == (value != value)
        if value == value:
            gradients = torch.autograd.grad(out.sum(), (image, moved))
            assert all(g.isfinite().all() for g in gradients)


# ---- derivatives ----


@pytest.mark.parametrize("antialias", ANTIALIAS)
@pytest.mark.parametrize("rule", ("affine", "volume", "projective", "field", "thin plate"))
def test_derivatives(rule: str, antialias: bool | str) -> None:
    """This includes the level and the direction of the taps."""
    size: tuple[int, ...] = (3, 2)
    image = noise(1, 1, *((5, 6, 4) if rule == "volume" else (9, 8))).requires_grad_()
    families: dict[str, stn.Family] = {"affine": stn.Affine(), "volume": stn.Affine(3), "projective": stn.Projective()}
    families["thin plate"] = stn.ThinPlateSpline(control_points=(3, 3))
    family = families.get(rule)
    if family is not None:
        size = (2, 3, 1)[: family.ndim]
        where = (family.identity().double() + 0.1 * noise(family.num_params))[None].requires_grad_()
    else:
        where = (0.8 * noise(1, 3, 2, 2)).requires_grad_()

    def sample(image: Tensor, where: Tensor) -> Any:
        if family is None:
            return stn.grid_sample(image, where, antialias=antialias)
        return family(where).sample(image, size, antialias=antialias)

    assert gradcheck(sample, (image, where), check_forward_ad=True, fast_mode=(rule, antialias) != ("affine", True))
    assert gradgradcheck(sample, (image, where), fast_mode=True)


def test_under_torch_func() -> None:
    image, theta = noise(3, 2, 12, 10), torch.stack([turned(0.1 * i, 1 + i) for i in range(3)]).double()

    def sample(image: Tensor, theta: Tensor) -> Any:
        return stn.affine_sample(image[None], theta[None], (4, 3), antialias=True)[0]

    expected = stn.affine_sample(image, theta, (4, 3), antialias=True)
    torch.testing.assert_close(torch.func.vmap(sample)(image, theta), expected, atol=1e-12, rtol=0)
    jacobian = torch.func.jacrev(sample, argnums=1)(image[1], theta[1])
    forward = torch.func.jacfwd(sample, argnums=1)(image[1], theta[1])
    torch.testing.assert_close(jacobian, forward, atol=1e-12, rtol=0)


def test_compiled() -> None:
    image, theta = noise(2, 2, 12, 10, dtype=torch.float32), torch.stack([EYE, turned(0.2, 2.0)]).requires_grad_()

    def loss(image: Tensor, theta: Tensor) -> Tensor:
        out: Tensor = stn.affine_sample(image, theta, (4, 3), antialias=True)
        return out.square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    (found,) = torch.autograd.grad(compiled(image, theta), theta)
    (expected,) = torch.autograd.grad(loss(image, theta), theta)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_bad_options() -> None:
    image = torch.zeros(1, 1, 4, 4)
    with pytest.raises(stn.InputError, match="antialias must be one of False, True, anisotropic; got 'yes'"):
        stn.affine_sample(image, EYE, antialias="yes")
    with pytest.raises(stn.InputError, match="gradient must be one of exact, wide; got 'broad'"):
        stn.affine_sample(image, EYE, gradient="broad")
