"""Registration for every dtype and range, in inference mode, and with another default device."""

import math
from typing import Any

import numpy as np
import pytest
import torch

import stn
from stn.io.arrays import to_images
from stn.registration import LOSSES
from tests.helpers import near_identity
from tests.test_register import pair, target_error

TRUE = stn.Affine.from_parts(angle=torch.tensor([0.12]), translation=torch.tensor([[0.1, -0.05]]))
MOVING, FIXED = (image[0, 0].double().numpy() for image in pair(TRUE))  # in [0, 1]
INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
# dtype -> factor and offset for an image in [0, 1]
RANGES: dict[str, tuple[str, float, float]] = {
    **{name: (name, 100, 0) for name in INTEGERS},
    **{f"{name}, all of it": (name, 0.99 * np.iinfo(name).max, 0) for name in INTEGERS},
    **{f"{name}, signed": (name, 200, -100) for name in ("int8", "int16", "int32", "int64")},
    "bool": ("bool", 1, 0),
    "float16": ("float16", 1, 0),
    "float16, small": ("float16", 1e-3, 0),
    "float16, large": ("float16", 6e4, 0),
    "float32": ("float32", 1, 0),
    "float32, small": ("float32", 1e-10, 0),
    "float32, large": ("float32", 1e10, -1e9),
    "float32, huge": ("float32", 3e38, 0),
    "float64": ("float64", 1, 0),
    "float64, small": ("float64", 1e-200, 0),
    "float64, large": ("float64", 1e200, 0),
    "other end first": (">f8", 1e-10, 0),
}


def of_range(name: str, image: np.ndarray) -> np.ndarray:
    dtype, factor, shift = RANGES[name]
    if dtype == "bool":
        return image > 0.5
    found = image * factor + shift
    return (found.round() if dtype in INTEGERS else found).astype(dtype)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", RANGES)
def test_every_dtype_and_range(name: str, loss: str) -> None:
    """The transform is found to a tenth of a pixel. The result has the dtype and the range of `moving`."""
    moving = of_range(name, MOVING)
    found = stn.register(moving, of_range(name, FIXED), loss=loss)
    assert target_error(found.warp, TRUE).item() < 0.1
    assert found.image.dtype == moving.dtype and found.image.shape == moving.shape
    inner = (slice(16, -16),) * 2
    span = np.ptp(moving.astype(np.longdouble))
    apart = np.abs(found.image.astype(np.longdouble) - of_range(name, FIXED))[inner].mean() / span
    assert apart < (0.1 if name == "bool" else 0.03)


@pytest.mark.parametrize("loss", ("ncc", "lncc", "mi"))
def test_two_dtypes_where_contrast_is_nothing(loss: str) -> None:
    for one, other in (("uint8", "int64"), ("float32, small", "float32"), ("int64", "float32, large")):
        found = stn.register(of_range(one, MOVING), of_range(other, FIXED), loss=loss)
        assert target_error(found.warp, TRUE).item() < 0.1, (one, other)


def test_a_pair_of_small_numbers_beside_one_of_usual_ones() -> None:
    """Each pair of a batch has its own scale."""
    moving, fixed = pair(TRUE)
    scale = torch.tensor([1.0, 1e-9]).view(2, 1, 1, 1)
    found = stn.register(moving * scale, fixed * scale, loss="mse")
    alone = stn.register(moving, fixed, loss="mse")
    both = stn.MatrixWarp(torch.cat([TRUE.matrix] * 2))
    assert target_error(found.warp, both).max() < 0.1
    torch.testing.assert_close(found.theta[:1], alone.theta, atol=2e-3, rtol=0)


@pytest.mark.parametrize("dtype", (*INTEGERS, ">i4", "float16", "float32", "float64", "longdouble", ">f4", ">f8", "bool"))
def test_there_and_back(dtype: str) -> None:
    """Negative numbers are kept, and values beyond the range of the dtype are clamped."""
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        numbers: list[float] = [np.iinfo(kind).min, np.iinfo(kind).max, 0, 1, 100, *([-100, -1] if kind.kind == "i" else [])]
    else:
        numbers = [0, 1] if kind.kind == "b" else [-2.5, 0, 1e-4, 3, 1000]
    array = np.array(numbers, dtype=kind).reshape(1, -1)
    images, restore = to_images("moving", array)
    back = restore(images)
    assert back.dtype == kind
    np.testing.assert_array_equal(back, array)
    if kind.kind in "iu":
        beyond = restore(torch.full_like(images, 2.0)), restore(torch.full_like(images, -2.0))
        assert (beyond[0] == np.iinfo(kind).max).all() and (beyond[1] == np.iinfo(kind).min).all()


@pytest.mark.parametrize("transform", ("affine", "projective", "bspline", "tps"))
def test_in_inference_mode(transform: str) -> None:
    """Inputs and the initial warp are made in inference mode. The result is the same, and usable outside of it."""
    moving, fixed = pair(TRUE)
    options: Any = {"levels": 2, "steps": 12}
    expected = stn.register(moving, fixed, transform, start=TRUE, **options)
    with torch.inference_mode():
        made = moving.clone(), fixed.clone()
        family = stn.transforms.family(transform)
        start = stn.Affine()(TRUE.matrix.flatten(1).clone())
        inside = stn.register(*made, transform, start=start, **options)
    outside = stn.register(*made, family, start=start, **options)
    for found in (inside, outside):
        assert torch.equal(found.theta, expected.theta) and torch.equal(found.image, expected.image)
        assert not found.theta.is_inference() and not found.theta.requires_grad
    assert stn.register(moving, fixed, transform, start=inside.warp, **options).theta.isfinite().all()


def test_no_graph_is_left() -> None:
    moving, fixed = pair(TRUE)
    found = stn.register(moving, fixed, levels=1, steps=3)
    assert not found.image.requires_grad and not found.warp.grid((4, 4)).requires_grad


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("transform", ("rigid", "affine", "projective", "corners", "exponential_affine"))
def test_another_default_device_changes_nothing(transform: str, loss: str) -> None:
    moving, fixed = pair(TRUE)
    options: Any = {"loss": loss, "levels": 2, "steps": 6}
    expected = stn.register(moving, fixed, transform, **options)
    with torch.device("meta"):
        found = stn.register(moving, fixed, transform, **options)
    assert torch.equal(found.theta, expected.theta) and torch.equal(found.image, expected.image)


def test_near_the_horizon_bending_is_finite() -> None:
    theta = near_identity("projective", 3, strength=1.5)
    assert stn.registration.problem.bent(stn.Projective()(theta)).isfinite().all()


def test_what_shows_nothing_is_refused_or_warned_of() -> None:
    moving, fixed = (image.float() for image in pair(TRUE))
    flat = torch.full_like(moving, 0.5)
    for name, images in {"moving": (flat, fixed), "fixed": (moving, flat)}.items():
        with pytest.raises(stn.InputError, match=f"{name} must not be constant"):
            stn.register(*images, steps=1)
    with pytest.warns(UserWarning, match="moving is constant at sample 1: all pixels are equal"):
        stn.register(torch.cat([moving, flat]), torch.cat([fixed, fixed]), steps=1)
    for bending in (math.inf, math.nan):
        with pytest.raises(stn.InputError, match="bending must be finite"):
            stn.register(moving, fixed, bending=bending, steps=1)


def test_a_start_is_a_warp() -> None:
    found = stn.register(MOVING, FIXED, "translation", steps=1)
    for start in (found, found.theta):
        with pytest.raises(TypeError, match="start must be a Warp, such as found.warp of an earlier registration; got"):
            stn.register(MOVING, FIXED, "affine", start=start)  # type: ignore[arg-type]  # on purpose
