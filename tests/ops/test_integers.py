"""Label maps of any integer dtype, which pass through unchanged, and bytes, which are read and written as bytes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

import stn
from stn.ops import dispatch
from tests.helpers import PADDINGS, noise, seeded

LABELS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
THETA = torch.tensor([[1.1, -0.5, 0.1], [0.45, 0.9, -0.2]])
KNOTS = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [0.0, 1.0], [0.3, 0.2]])
OPERATORS: dict[str, Callable[..., Tensor]] = {
    "affine": lambda image, **how: stn.affine_sample(image, THETA, (21, 38), **how),
    "looks": lambda image, **how: stn.affine_sample(
        image, torch.stack([THETA, THETA / 2, -THETA]).repeat(2, 1, 1, 1), **how
    ),
    "projective": lambda image, **how: stn.projective_sample(
        image, torch.cat([THETA, torch.tensor([[0.1, 0.2, 1.0]])]), (21, 38), **how
    ),
    "field": lambda image, **how: stn.grid_sample(image, noise(2, 21, 38, 2, dtype=torch.float32), **how),
    "thin plate": lambda image, **how: stn.thin_plate_sample(
        image, 0.2 * noise(2, 7, 2, dtype=torch.float32), KNOTS, (21, 38), **how
    ),
    "volume": lambda image, **how: stn.grid_sample(image.unsqueeze(2), noise(2, 3, 7, 19, 3, dtype=torch.float32), **how),
}


def labels(*shape: int, dtype: torch.dtype) -> Tensor:
    """Return numbers of all sizes, also those that no floating-point number has."""
    if dtype == torch.bool:
        return torch.rand(shape, generator=seeded()) < 0.5
    limits = torch.iinfo(dtype)
    return torch.randint(limits.min, limits.max, shape, dtype=dtype, generator=seeded())


def without_kernels(monkeypatch: pytest.MonkeyPatch, call: Callable[[], Tensor]) -> Tensor:
    with monkeypatch.context() as without:
        without.delitem(dispatch.KERNELS, "cpu")
        return call()


COMBINATIONS = [(name, torch.int64, False) for name in OPERATORS]  # each compiles a kernel
COMBINATIONS += [("affine", dtype, last) for dtype in LABELS for last in (False, True)]


@pytest.mark.parametrize("name, dtype, last", COMBINATIONS, ids=str)
def test_label_maps_pass_through_unchanged(
    name: str, dtype: torch.dtype, last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of each pixel is sampled as float64. Where it arrives, its label must have arrived."""
    image, numbers = labels(2, 3, 20, 27, dtype=dtype), torch.arange(1.0, 1 + 3 * 20 * 27, dtype=torch.float64)
    places = numbers.view(1, 3, 20, 27).expand(2, -1, -1, -1).contiguous()
    if last and name != "volume":
        image = image.contiguous(memory_format=torch.channels_last)
    high = 1 if dtype == torch.bool else torch.iinfo(dtype).max
    for padding in PADDINGS:
        fill: dict[str, Any] = {"fill_value": [0, high, 1]} if padding == "zeros" else {}
        how = {"mode": "nearest", "padding_mode": padding}
        got, at = OPERATORS[name](image, **how, **fill), OPERATORS[name](places, **how).long()
        each = image.flatten(1).view(2, *(1,) * (at.ndim - 2), -1).expand(*at.shape[:-1], -1)
        wanted = each.gather(-1, (at - 1).clamp_min(0))
        outside = torch.tensor([0, high, 1], dtype=torch.int64).to(dtype)
        outside = outside.view(-1, *(1,) * (3 if name == "volume" else 2)).expand_as(wanted)
        wanted = torch.where(at == 0, outside, wanted)
        assert got.dtype == dtype and torch.equal(got, wanted)
        assert torch.equal(without_kernels(monkeypatch, lambda: OPERATORS[name](image, **how, **fill)), got)  # noqa: B023


def test_scipy_agrees() -> None:
    image, pixels = labels(1, 1, 30, 40, dtype=torch.int32), 45 * torch.rand(1, 9, 50, 2, generator=seeded()) - 3
    got = stn.grid_sample(image, pixels, mode="nearest", units="pixel", fill_value=-7)
    x, y = pixels[0].unbind(-1)
    wanted = ndimage.map_coordinates(image[0, 0].numpy(), np.stack([y, x]), order=0, mode="grid-constant", cval=-7)
    np.testing.assert_array_equal(got[0, 0].numpy(), wanted)


def test_what_is_no_point_has_the_fill_value(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.tensor([1.0, float("nan"), float("inf"), -float("inf"), 2.0]).view(1, 1, 5, 1).expand(1, 1, 5, 2)
    for dtype, mode in (
        (torch.int64, "nearest"),
        (torch.uint8, "nearest"),
        (torch.uint8, "bilinear"),
        (torch.uint8, "bicubic"),
    ):
        image = torch.arange(12, dtype=dtype).view(1, 1, 3, 4)

        def sample(image: Tensor = image, mode: str = mode) -> list[int]:
            found = stn.grid_sample(image, pixels, mode=mode, units="pixel", fill_value=9)
            return [int(number) for number in found.flatten()]

        assert sample() == [5, 9, 9, 9, 10]
        with monkeypatch.context() as without:
            without.delitem(dispatch.KERNELS, "cpu")
            assert sample() == [5, 9, 9, 9, 10]


def test_compilers_and_transforms_keep_labels() -> None:
    image, theta = labels(2, 3, 9, 8, dtype=torch.int64), torch.stack([THETA, THETA / 2])

    def sample(image: Tensor, theta: Tensor) -> Tensor:
        out: Tensor = stn.affine_sample(image, theta, (5, 6), mode="nearest", fill_value=-3)
        return out

    expected = sample(image, theta)
    assert torch.equal(torch.compile(sample, backend="aot_eager", fullgraph=True)(image, theta), expected)
    mapped = torch.func.vmap(sample)(torch.stack([image, image.flip(-1)]), torch.stack([theta, theta]))
    assert torch.equal(mapped[0], expected) and torch.equal(mapped[1], sample(image.flip(-1), theta))
    assert not sample(image, theta.clone().requires_grad_()).requires_grad
    fill, names = torch.tensor(-3), ((5, 6), "nearest", "zeros", False)
    torch.library.opcheck(torch.ops.stn.matrix_sample.default, (image, theta[:, None], fill, *names))


def test_a_mask_and_a_wide_gradient_of_label_maps() -> None:
    image = labels(1, 1, 9, 8, dtype=torch.int16)
    plain, mask = stn.affine_sample(image, THETA, mode="nearest", return_mask=True)
    wide = stn.affine_sample(image, THETA.clone().requires_grad_(), mode="nearest", gradient="wide")
    assert torch.equal(plain, wide) and mask.dtype == torch.float32 and 0 < mask.mean() < 1


@pytest.mark.parametrize(
    "options, said",
    (
        ({}, "mode must be 'nearest' for an image of torch.int16, .*uint8 has all modes.* got 'bilinear'"),
        ({"mode": "lanczos3"}, "mode must be 'nearest' for an image of torch.int16, .* got 'lanczos3'"),
        ({"mode": "nearest", "antialias": True}, "antialias must be False for an image of torch.int16, .* got True"),
        (
            {"mode": "nearest", "fill_value": 0.5},
            "fill_value must be an integer that the dtype of image, torch.int16, holds; got 0.5",
        ),
        (
            {"mode": "nearest", "fill_value": 1 << 15},
            "fill_value must be an integer that the dtype of image, torch.int16, holds; got 32768",
        ),
        (
            {"mode": "nearest", "fill_value": [1, float("nan")]},
            "fill_value must be an integer that .*, holds; got nan",
        ),
    ),
)
def test_what_labels_cannot_do(options: dict[str, Any], said: str) -> None:
    with pytest.raises(stn.InputError, match=said):
        stn.affine_sample(labels(1, 2, 5, 4, dtype=torch.int16), THETA, **options)


# ---- bytes ----


MODES = [("bilinear", name) for name in OPERATORS]
MODES += [(mode, name) for mode in ("bicubic", "catmull_rom", "lanczos3") for name in ("affine", "looks", "field", "volume")]


@pytest.mark.parametrize("mode, name", MODES)
def test_bytes_are_the_rounded_numbers(name: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a copy of the image in floating point."""
    for channels, last, padding in itertools.product((1, 3, 9), (False, True), PADDINGS):
        image = labels(2, channels, 20, 27, dtype=torch.uint8)
        if last and (name != "affine" or channels == 1):
            continue
        image = image.contiguous(memory_format=torch.channels_last) if last else image
        fill: dict[str, Any] = {"fill_value": 77.3} if padding == "zeros" else {}
        how = {"mode": mode, "padding_mode": padding, **fill}
        exact = OPERATORS[name](image.double(), **how).clamp(0, 255)
        with monkeypatch.context() as refusing:
            refusing.setattr(torch.Tensor, "float", lambda self: pytest.fail("a copy in floating point"))
            got = OPERATORS[name](image, **how)
        assert got.dtype == torch.uint8 and (got.double() - exact).abs().max() <= 0.5 + 1e-4
        wide = got.ndim == 4 and last
        assert got.is_contiguous(memory_format=torch.channels_last) or not wide


def test_bytes_have_the_same_bits_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stn.ops.cpu.threads.SMALL", 0)
    image, threads, found = labels(1, 3, 200, 190, dtype=torch.uint8), torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append([stn.affine_sample(image, THETA, mode=mode) for mode in ("nearest", "bilinear", "bicubic")])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))
