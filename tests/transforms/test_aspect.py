"""Rotations on images that are not square, and in voxels that are not cubes, keep shapes."""

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stn
from stn.nn import AbstractSpatialTransformer, DenseLocalization
from stn.transforms import FAMILIES, family
from stn.transforms.turned import Turned
from tests.helpers import near_identity, noise

KINDS = [name for name in FAMILIES if isinstance(family(name), Turned)]
SHAPES: dict[int, tuple[tuple[int, ...], tuple[float, ...]]] = {  # dims -> sizes in pixels, and of a pixel
    2: ((20, 40), (1.0, 1.0)),
    3: ((10, 24, 30), (3.0, 1.0, 1.0)),
}


def in_lengths(warp: stn.Warp, size: tuple[int, ...], spacing: tuple[float, ...]) -> Tensor:
    """The linear part in millimeters: pixels times the size of a pixel."""
    assert isinstance(warp, stn.MatrixWarp)
    pixels = warp.to_pixel_matrix(size, convention="opencv-inverse")[..., :-1, :-1]
    unit = torch.tensor(spacing[::-1], dtype=torch.float64)
    return unit[:, None] * pixels / unit


@pytest.mark.parametrize("ndim", (2, 3))
@pytest.mark.parametrize("name", KINDS)
def test_lengths_and_angles_are_kept(name: str, ndim: int) -> None:
    size, spacing = SHAPES[ndim]
    shaped = family(name, ndim, aspect=[n * step for n, step in zip(size, spacing, strict=True)])
    theta = near_identity(shaped, 3, strength=0.4)
    a = in_lengths(shaped(theta), size, spacing)
    scale = theta[:, :1] if name == "similarity" else torch.ones(3, 1, dtype=theta.dtype)
    torch.testing.assert_close(a.mT @ a, scale[..., None].square() * torch.eye(ndim, dtype=a.dtype).expand(3, -1, -1))
    square = in_lengths(family(name, ndim)(theta), size, spacing)
    assert (square.mT @ square - a.mT @ a).abs().max() > 0.1  # as it was


@pytest.mark.parametrize("ndim", (2, 3))
def test_from_parts_is_the_product_in_lengths(ndim: int) -> None:
    size, spacing = SHAPES[ndim]
    turns = 1 if ndim == 2 else 3
    angle, shear = noise(4, turns), 0.3 * noise(4, turns, seed=1)
    parts: dict[str, Any] = {
        "angle": angle.squeeze(-1) if ndim == 2 else angle,
        "shear": shear.squeeze(-1) if ndim == 2 else shear,
        "scale": 1 + 0.1 * noise(4, ndim, seed=2),
        "translation": noise(4, ndim, seed=3),
        "center": noise(4, ndim, seed=4),
        "ndim": ndim,
    }
    sides = tuple(n * step for n, step in zip(size, spacing, strict=True))
    plain, shaped = stn.Affine.from_parts(**parts), stn.Affine.from_parts(**parts, aspect=sides)
    torch.testing.assert_close(in_lengths(shaped, size, spacing), plain.matrix[..., :-1])
    moved = shaped.points(parts["center"].unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(moved, parts["center"] + parts["translation"])


@pytest.mark.parametrize("ndim", (2, 3))
@pytest.mark.parametrize("name", KINDS)
def test_a_square_is_as_before_bit_for_bit(name: str, ndim: int) -> None:
    plain = family(name, ndim)
    theta = near_identity(plain, 3, strength=0.4, dtype=torch.float32)
    aspects: list[Any] = [(7,) * ndim, (0.5,) * ndim, *([1.0] if ndim == 2 else [])]
    for aspect in aspects:
        assert family(name, ndim, aspect=aspect) == plain and repr(plain) == f"{type(plain).__name__}(ndim={ndim})"
        given = type(plain)(ndim, aspect=aspect)  # type: ignore[call-arg]  # mypy does not know that it turns
        assert torch.equal(given(theta).grid((4,) * ndim), plain(theta).grid((4,) * ndim))
    shaped = family(name, ndim, aspect=SHAPES[ndim][0])
    image = torch.rand(1, 2, *SHAPES[ndim][0])
    assert torch.equal(shaped(shaped.identity()[None]).sample(image), image)


def test_equal_shapes_are_equal_and_survive_copies() -> None:
    one = stn.Similarity(aspect=(200, 300))
    array: Any = np.array([100, 150])
    others = [stn.Similarity(aspect=given) for given in (1.5, array, torch.Size((2, 3)))]
    assert all(one == other and hash(one) == hash(other) for other in others)
    assert repr(one) == "Similarity(ndim=2, aspect=1.5)" and one != stn.Similarity()
    assert one == pickle.loads(pickle.dumps(one)) == copy.deepcopy(one)
    volume = stn.Rigid(3, aspect=(2, 4, 4))
    assert volume == stn.Rigid(3, aspect=(1.5, 3, 3)) and "aspect=(1.0, 2.0, 2.0)" in repr(volume)


def test_a_family_keeps_its_own_aspect() -> None:
    own = stn.bounded(stn.Rigid(aspect=3.0), angle=(-1, 1))
    assert family(own, aspect=(2, 4)) == own and family(stn.Rigid(aspect=1.0), aspect=2.0) == stn.Rigid(aspect=1.0)
    inner = family(stn.bounded(stn.Rigid(), angle=(-1, 1)), aspect=(2, 4))
    assert repr(inner) == "Bounded(Rigid(ndim=2, aspect=2.0), {'angle': (-1, 1)})"
    for name in FAMILIES.keys() - {*KINDS}:
        assert family(name, aspect=2.0) == family(name)


@pytest.mark.parametrize("bad", (True, 0, -1.0, math.nan, math.inf, "2", (1, 2, 3, 4), (1, 0), (1, "2"), (True, 2)))
def test_an_aspect_that_is_none(bad: Any) -> None:
    for call in (
        lambda: stn.Rigid(aspect=bad),
        lambda: stn.Affine.from_parts(aspect=bad),
        lambda: family("affine", aspect=bad),
    ):
        with pytest.raises(stn.InputError, match=r"aspect must be width / height, or \(H, W\), positive and finite; got"):
            call()
    with pytest.raises(stn.InputError, match=r"aspect must be \(D, H, W\)"):
        stn.Rigid(3, aspect=bad)


def layers(shape: tuple[int, int, int], **options: Any) -> list[AbstractSpatialTransformer]:
    trunk = nn.Conv2d(shape[0], 3, 3, padding=1)
    return [
        stn.SpatialTransformer.for_input(shape, "rigid", **options),
        stn.InverseCompositionalTransformer.for_input(shape, "rigid", **options),
        stn.SharedTrunkTransformer.for_input(shape, trunk, "rigid", **options),
    ]


def test_layers_take_the_shape_of_their_input() -> None:
    strip = torch.tensor([[0.5, 0, 0.2], [0, 1.0, 0]])  # the middle half of the columns
    for layer in layers((1, 20, 40)):
        assert layer.family == stn.Rigid(aspect=2.0) and "aspect=2.0" in repr(layer)
    for layer in [*layers((1, 20, 40), start=strip), *layers((1, 32, 32))]:
        assert layer.family == stn.Rigid()
    for layer in layers((1, 20, 40), size=(16, 16)):  # the shape of the input, not of the output
        assert layer.family == stn.Rigid(aspect=2.0)
    assert stn.SpatialTransformer(DenseLocalization(800), "rigid").family == stn.Rigid()


def test_a_quarter_turn_of_a_layer_is_one_of_the_pixels() -> None:
    layer = stn.SpatialTransformer.for_input((1, 20, 40), "rigid").eval()
    with torch.no_grad():
        layer.regression.bias[0] = math.pi / 2
    image = torch.rand(1, 1, 20, 40)
    torch.testing.assert_close(layer(image)[..., 10:30], image[..., 10:30].rot90(1, (2, 3)), atol=1e-5, rtol=0)
