"""Every unusual but legal input has a defined result."""

import math
from typing import Any

import pytest
import torch

import stn
from tests.helpers import MODES, PADDINGS, RULES, noise

EYE = torch.eye(2, 3, dtype=torch.float64)


@pytest.mark.parametrize("mode, padding_mode, align_corners", RULES)
def test_nan_gives_nan_there_and_nowhere_else(mode: str, padding_mode: str, align_corners: bool) -> None:
    image, grid = noise(1, 2, 5, 6), 0.5 * noise(1, 4, 4, 2, seed=1)
    grid[0, 1, 2, 0] = math.nan
    options: Any = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    out = stn.grid_sample(image, grid, **options)
    lost = torch.zeros(4, 4, dtype=torch.bool)
    lost[1, 2] = True
    assert torch.equal(out.isnan(), lost.expand(1, 2, 4, 4))
    theta = EYE.clone()
    theta[0, 0] = math.nan
    assert stn.affine_sample(image, theta, **options).isnan().all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("far", (1e6, 1e30, math.inf, -1e30, -math.inf))
def test_far_away_is_padding(far: float, mode: str) -> None:
    image, grid = noise(1, 1, 5, 6), torch.full((1, 1, 1, 2), far, dtype=torch.float64)
    assert stn.grid_sample(image, grid, mode=mode).item() == 0
    assert stn.grid_sample(image, grid, mode=mode, fill_value=0.5).item() == 0.5
    corner = image[0, 0, -1, -1] if far > 0 else image[0, 0, 0, 0]
    assert stn.grid_sample(image, grid, mode=mode, padding_mode="border").item() == pytest.approx(corner.item())
    for padding_mode in ("reflection", "wrap"):
        assert stn.grid_sample(image, grid, mode=mode, padding_mode=padding_mode).isfinite().all()


@pytest.mark.parametrize("mode, padding_mode, align_corners", RULES)
def test_one_pixel(mode: str, padding_mode: str, align_corners: bool) -> None:
    options: Any = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    image = torch.full((1, 1, 1, 1), 3.0)
    out = stn.affine_sample(image, 0.01 * EYE, (4, 5), **options)
    if padding_mode != "zeros":
        torch.testing.assert_close(out, torch.full((1, 1, 4, 5), 3.0))
    assert torch.equal(stn.affine_sample(image, EYE, **options), image)
    whole = noise(1, 1, 4, 6)
    assert stn.affine_sample(whole, EYE, (1, 1), mode="bilinear").item() == pytest.approx(
        whole[0, 0, 1:3, 2:4].mean().item()
    )


@pytest.mark.parametrize("shape", ((0, 2, 5, 6), (2, 0, 5, 6), (0, 1, 3, 4, 5)))
def test_empty_batches(shape: tuple[int, ...]) -> None:
    d = len(shape) - 2
    image = torch.rand(shape, requires_grad=True)
    size = (3, 4, 2)[:d]
    theta = torch.eye(d, d + 1).expand(shape[0], d, d + 1)
    assert stn.affine_sample(image, theta, size).shape == (*shape[:2], *size)
    assert stn.affine_sample(image, theta.unsqueeze(1).expand(-1, 3, -1, -1), size).shape == (shape[0], 3, shape[1], *size)
    out = stn.grid_sample(image, torch.zeros(shape[0], *size, d))
    assert out.shape == (*shape[:2], *size)
    out.sum().backward()
    assert image.grad is not None and image.grad.shape == shape


@pytest.mark.parametrize("mode", MODES)
def test_looks_are_as_if_sampled_one_by_one(mode: str) -> None:
    image, theta = noise(2, 3, 7, 5), noise(2, 4, 2, 3, seed=1)
    looks = stn.affine_sample(image, theta, (4, 6), mode=mode)
    assert looks.shape == (2, 4, 3, 4, 6)
    grids = noise(2, 4, 4, 6, 2, seed=2)
    sampled = stn.grid_sample(image, grids, mode=mode)
    for k in range(4):
        torch.testing.assert_close(looks[:, k], stn.affine_sample(image, theta[:, k], (4, 6), mode=mode))
        torch.testing.assert_close(sampled[:, k], stn.grid_sample(image, grids[:, k], mode=mode))
    shared = stn.affine_sample(image, theta[0, 0], (4, 6), mode=mode)
    torch.testing.assert_close(shared, stn.affine_sample(image, theta[:1, 0].expand(2, 2, 3), (4, 6), mode=mode))


def test_a_single_look_keeps_its_dimension() -> None:
    image = noise(2, 3, 7, 5)
    assert stn.affine_sample(image, EYE.expand(2, 1, 2, 3), (4, 6)).shape == (2, 1, 3, 4, 6)
    assert stn.grid_sample(image, torch.zeros(2, 1, 4, 6, 2)).shape == (2, 1, 3, 4, 6)


def test_looks_do_not_copy_the_image() -> None:
    """The image has 64 MiB and the looks are tiny. A copy for each of 16 looks would take 1 GiB."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        stn.affine_sample(torch.zeros(1, 16, 1024, 1024), torch.eye(2, 3).expand(1, 16, 2, 3), (4, 4))
    allocated = sum(max(event.self_cpu_memory_usage, 0) for event in profile.key_averages())
    assert 64 << 20 <= allocated < 80 << 20  # the image itself and little else


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16))
def test_half_precision_is_right_at_any_size(dtype: torch.dtype) -> None:
    """torch's own CPU kernel is wrong beyond 32767 pixels, and so are coordinates in half precision."""
    image = noise(1, 1, 300, 400, dtype=torch.float32).to(dtype)
    theta = torch.tensor([[0.7, -0.2, 0.1], [0.3, 0.8, -0.1]])
    exact = stn.affine_sample(image.double(), theta)
    error = 1e-6  # of the arithmetic in float32; the result is then rounded once, to the nearest number
    out = stn.affine_sample(image, theta)
    assert out.dtype == dtype
    assert ((exact - error).to(dtype) <= out).all() and (out <= (exact + error).to(dtype)).all()


def test_dtypes_mix_and_the_image_decides() -> None:
    image = noise(1, 1, 5, 5, dtype=torch.float32)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        assert stn.affine_sample(image, EYE.to(dtype)).dtype == torch.float32
        assert torch.equal(stn.affine_sample(image.to(dtype), EYE.float()), image.to(dtype))


def test_strides_do_not_matter() -> None:
    image, theta = noise(2, 3, 8, 9), noise(2, 2, 3, seed=1)
    expected = stn.affine_sample(image, theta, (4, 5))
    last = stn.affine_sample(image.to(memory_format=torch.channels_last), theta, (4, 5))
    torch.testing.assert_close(last, expected, atol=1e-14, rtol=0)
    assert last.is_contiguous(memory_format=torch.channels_last)
    big = torch.zeros(2, 3, 16, 18, dtype=torch.float64)
    big[:, :, ::2, ::2] = image
    assert torch.equal(stn.affine_sample(big[:, :, ::2, ::2], theta, (4, 5)), expected)
    mirrored = theta * torch.tensor([[-1.0], [1.0]], dtype=torch.float64)  # the flipped image at x is the image at -x
    torch.testing.assert_close(stn.affine_sample(image.flip(3), mirrored, (4, 5)), expected, atol=1e-13, rtol=0)


def test_fill_values_keep_the_precision_of_the_image() -> None:
    assert stn.affine_sample(torch.zeros(1, 1, 3, 3).double(), 9 * EYE, fill_value=0.1)[0, 0, 0, 0].item() == 0.1
    assert stn.affine_sample(torch.zeros(1, 1, 3, 3).double(), 9 * EYE, fill_value=[0.1])[0, 0, 0, 0].item() == 0.1


def test_fill_values_for_each_channel() -> None:
    image, theta = noise(2, 3, 6, 6), torch.tensor([[1.0, 0, 5.0], [0, 1, 0]])
    assert stn.affine_sample(image, theta, fill_value=[1.0, 2.0, 3.0])[0, :, 0, 0].tolist() == [1, 2, 3]
    assert stn.affine_sample(image, theta, fill_value=torch.tensor([1.0, 2.0, 3.0]))[1, :, 5, 5].tolist() == [1, 2, 3]
    out = stn.affine_sample(image, EYE * 1.2, fill_value=9.0)
    ones = stn.affine_sample(torch.ones_like(image), EYE * 1.2)
    torch.testing.assert_close(out, stn.affine_sample(image, EYE * 1.2) + 9.0 * (1 - ones))


@pytest.mark.parametrize("padding_mode", PADDINGS)
def test_beyond_the_horizon(padding_mode: str) -> None:
    """Points are mapped as in scikit-image: (A x + t) / w, whatever the sign of w."""
    image = noise(1, 1, 16, 16)
    matrix = torch.tensor([[1.0, 0.2, 0.1], [0, 1.0, -0.1], [1.7, 0.3, 0.31]], dtype=torch.float64)
    from skimage.transform import ProjectiveTransform

    from stn.grid import lattice

    points = ProjectiveTransform(matrix.numpy())(lattice((16, 16), dtype=torch.float64).view(-1, 2).numpy())
    grid = torch.from_numpy(points).view(1, 16, 16, 2)
    assert grid.abs().max() > 5
    expected = stn.grid_sample(image, grid, padding_mode=padding_mode)
    got = stn.projective_sample(image, matrix, padding_mode=padding_mode)
    torch.testing.assert_close(got, expected, atol=1e-9, rtol=0)


def test_inputs_are_not_changed() -> None:
    image, theta, grid = noise(1, 1, 4, 4), noise(1, 2, 3), noise(1, 3, 3, 2)
    before = [t.clone() for t in (image, theta, grid)]
    stn.affine_sample(image, theta)
    stn.grid_sample(image, grid, relative=True)
    assert all(torch.equal(a, b) for a, b in zip(before, (image, theta, grid), strict=True))
