"""Sizes and counts accept integers of any kind, one length serves all axes, and fill values may be of any kind."""

import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import stn
from stn import _check
from stn.nn import DenseLocalization, DigitLocalization, PhotoLocalization, identity_loss, localization_for, look_diagnostics
from stn.transforms import FAMILIES, family
from tests.helpers import noise


class Index:
    """An object with `__index__`."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


KINDS: dict[str, Callable[[int], Any]] = {
    "int": int,
    "index": Index,
    "tensor": torch.tensor,
    **{kind.__name__: kind for kind in (np.int8, np.int32, np.int64, np.uint8, np.uint64)},
}
OTHERS: tuple[Any, ...] = (True, False, np.True_, torch.tensor(True), 2.0, np.float32(2), "2", None, Fraction(2), 2j, [2])
CHECKS: dict[str, Callable[[Any], object]] = {
    "at_least": lambda n: _check.at_least("n", n, 1),
    "dimension": lambda n: _check.dimension(n, (2, 5), "a family"),
    "side": lambda n: _check.side("n", n, (2, 5)),
    "features": lambda n: _check.features(object(), n),
    "lengths": lambda n: _check.lengths("n", (n, n), 2),
    "lengths of any": lambda n: _check.lengths("n", [n, n]),
    "one length": lambda n: _check.lengths("n", n, 3),
    "input_shape": lambda n: _check.input_shape("n", (n, n, n)),
    "lattice_of": lambda n: _check.lattice_of("n", n, 2, least=2),
}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("kind", KINDS)
def test_integers_of_every_kind(kind: str, check: str) -> None:
    """The checks return plain integers, which can be hashed, printed and passed on."""
    found = CHECKS[check](KINDS[kind](5))
    assert found == CHECKS[check](5)
    assert all(type(n) is int for n in (found if isinstance(found, tuple) else (found,)))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("other", OTHERS, ids=repr)
def test_what_is_no_integer_gets_a_sentence(other: Any, check: str) -> None:
    if other is None and check == "features":
        pytest.skip("there it means that the network says so itself")
    if other == [2] and check in ("one length", "lattice_of"):
        pytest.skip("a list of too few lengths, which another sentence names")
    with pytest.raises(stn.InputError, match="must be|must have"):
        CHECKS[check](other)


LISTS: dict[str, Callable[..., Any]] = {
    "tuple": lambda *n: tuple(n),
    "list": lambda *n: list(n),
    "array": lambda *n: np.array(n),
    "size": lambda *n: torch.Size(n),
    "numpy's": lambda *n: tuple(map(np.int64, n)),
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists_of_every_kind(kind: str) -> None:
    assert _check.lengths("n", LISTS[kind](3, 4)) == (3, 4)
    assert _check.input_shape("n", LISTS[kind](1, 3, 4)) == (1, 3, 4)


IMAGE = noise(2, 3, 9, 11)
AFFINE = 0.2 * noise(2, 2, 3) + torch.eye(2, 3)
WARP = stn.MatrixWarp(AFFINE)
SIZED: dict[str, Callable[[Any], Any]] = {
    "affine_sample": lambda size: stn.affine_sample(IMAGE, AFFINE, size),
    "projective_sample": lambda size: stn.projective_sample(IMAGE, WARP.square(), size),
    "thin_plate_sample": lambda size: stn.thin_plate_sample(IMAGE, 0.1 * noise(2, 6, 2), noise(3, 2), size),
    "spatial_transformer_network": lambda size: stn.spatial_transformer_network(IMAGE, AFFINE, size),
    "grid": WARP.grid,
    "sample": lambda size: WARP.sample(IMAGE, size),
    "jacobian": WARP.jacobian,
    "determinant": WARP.jacobian_determinant,
    "fold_share": WARP.fold_share,
    "normalized_to_pixel": lambda size: stn.grid.normalized_to_pixel(AFFINE[..., :2], size),
    "pixel_to_normalized": lambda size: stn.grid.pixel_to_normalized(AFFINE[..., :2], size),
    "residual": lambda size: stn.transforms.InverseWarp(WARP).residual(size),
    "off_image_loss": lambda size: stn.off_image_loss(WARP, size),
    "identity_loss": lambda size: identity_loss(WARP, size),
    "look_diagnostics": lambda size: torch.stack(list(look_diagnostics(WARP, size).values())),
    "to_pixel_matrix": lambda size: WARP.to_pixel_matrix(size, size),
    "from_pixel_matrix": lambda size: stn.from_pixel_matrix(AFFINE, size, size).matrix,
    "layer": lambda size: stn.SpatialTransformer(DenseLocalization(297), size=size).double()(IMAGE).shape,
    "layer for": lambda size: stn.SpatialTransformer.for_input((3, 9, 11), size=size).double()(IMAGE).shape,
    "steps for": lambda size: stn.InverseCompositionalTransformer.for_input((3, 9, 11), size=size).double()(IMAGE).shape,
}


@pytest.mark.parametrize("name", SIZED)
def test_one_length_for_all_axes(name: str) -> None:
    """numpy's integers and arrays give the same result as a pair of integers."""
    expected = SIZED[name]((6, 6))
    for size in (6, np.int64(6), (np.int64(6), np.int32(6)), [6, 6], np.array([6, 6])):
        found = SIZED[name](size)
        assert torch.equal(found, expected) if isinstance(found, Tensor) else found == expected


def test_a_layer_s_own_numbers() -> None:
    """They appear in the layer's repr and in the configuration of a checkpoint."""
    two: Any = np.int64(2)
    layer = stn.SpatialTransformer(DenseLocalization(16), size=2 * two, num_transforms=two)
    assert layer.size == (4, 4) and type(layer.num_transforms) is int and "np.int64" not in repr(layer)
    steps = stn.InverseCompositionalTransformer(DenseLocalization(16), steps=two)
    assert type(steps.steps) is int
    shape: Any = np.array([1, 28, 28])
    for make in (DigitLocalization, PhotoLocalization, localization_for):
        assert make(shape)(torch.rand(2, 1, 28, 28)).shape[0] == 2
    for name in FAMILIES:
        found = family(name, two)
        assert "np.int64" not in repr(found) and type(found.ndim) is int
    assert type(stn.Affine(two).ndim) is int and stn.Affine(two + 1) == stn.Affine(3)
    assert stn.Affine.from_parts(angle=0.1, ndim=two).ndim == 2


@pytest.mark.parametrize(
    "make",
    (
        lambda n: stn.BSpline(shape=n),
        lambda n: stn.Displacement(shape=n),
        lambda n: stn.Velocity(shape=n),
        lambda n: stn.CPAB(cells=n),
        lambda n: stn.ThinPlateSpline(control_points=n),
    ),
)
def test_lattices_of_families(make: Callable[[Any], stn.Family]) -> None:
    expected = make((5, 5))
    theta = expected.identity().expand(2, -1) + 0.05 * noise(2, expected.num_params, dtype=torch.float32)
    for n in (5, np.int64(5), (np.int64(5), np.int16(5)), np.array([5, 5])):
        assert torch.equal(make(n)(theta).grid((4, 4)), expected(theta).grid((4, 4)))


FILLS: tuple[Any, ...] = (
    0.25,
    np.float32(0.25),
    np.float64(0.25),
    np.array(0.25),
    torch.tensor(0.25),
    [0.25] * 3,
    (0.25, np.float32(0.25), torch.tensor(0.25)),
    np.full(3, 0.25),
    np.full(3, 0.25, np.float16),
    torch.full((3,), 0.25),
)


@pytest.mark.parametrize("dtype", (torch.float16, torch.float32, torch.float64, torch.complex64, torch.uint8))
def test_numbers_of_every_kind_fill(dtype: torch.dtype) -> None:
    away = stn.Translation()(torch.tensor([[5.0, 0.0]] * 2)).matrix
    image, factor = IMAGE.abs().to(dtype), 4 if dtype == torch.uint8 else 1
    for fill in FILLS:
        value: Any = [factor * v for v in fill] if isinstance(fill, list | tuple) else factor * fill
        assert (stn.affine_sample(image, away, fill_value=value) == 0.25 * factor).all(), repr(fill)
    for integer in (
        1,
        np.int64(1),
        np.array(1),
        [1, np.uint8(1), 1],
        np.ones(3, int),
        True,
        np.array(True),
        torch.tensor(1),
    ):
        one: Any = integer
        assert (stn.affine_sample(image, away, fill_value=one) == 1).all(), repr(integer)


def test_complex_numbers_fill_complex_images() -> None:
    image, away = IMAGE.to(torch.complex128), stn.Translation()(torch.tensor([[5.0, 0.0]] * 2)).matrix
    for fill in (1 + 2j, np.complex64(1 + 2j), [1 + 2j] * 3, np.full(3, 1 + 2j), torch.tensor(1 + 2j)):
        value: Any = fill
        assert (stn.affine_sample(image, away, fill_value=value) == 1 + 2j).all()


@pytest.mark.parametrize("nothing", (0, 0.0, np.float32(0), np.int64(0), np.array(0.0)))
def test_a_zero_of_any_kind_goes_with_every_padding(nothing: Any) -> None:
    expected = stn.affine_sample(IMAGE, AFFINE, padding_mode="border")
    assert torch.equal(stn.affine_sample(IMAGE, AFFINE, padding_mode="border", fill_value=nothing), expected)


@pytest.mark.parametrize("size", (5, (5, 6), [5, 6]))
@pytest.mark.parametrize("fill", (0.25, np.float32(0.25), [0.25, 0.5, 0.75], np.array([0.25, 0.5, 0.75])))
def test_compiled(fill: Any, size: Any) -> None:
    torch.compiler.reset()

    def run(image: Tensor) -> Any:
        return stn.affine_sample(image, AFFINE, size, fill_value=fill)

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(IMAGE), run(IMAGE))


def test_symbols_of_the_compiler_stay_symbols() -> None:
    torch.compiler.reset()
    graphs = torch._dynamo.utils.counters["stats"]
    run = torch.compile(
        lambda image, n: stn.affine_sample(image, AFFINE, (image.shape[2] + 1, n)),
        fullgraph=True,
        dynamic=True,
        backend="aot_eager",
    )
    before = graphs["unique_graphs"]
    shapes = [tuple(run(noise(2, 3, n, n + 4), n + 2).shape[2:]) for n in (7, 8, 11)]
    assert shapes == [(8, 9), (9, 10), (12, 13)] and graphs["unique_graphs"] == before + 1
    seen: list[object] = []

    def sized(x: Tensor) -> Tensor:
        seen.extend(_check.lengths("size", tuple(x.shape), 2))
        return x + 1

    torch.fx.experimental.proxy_tensor.make_fx(sized, tracing_mode="symbolic")(torch.zeros(3, 4))
    assert seen and all(isinstance(n, torch.SymInt) for n in seen) and [operator.index(n) for n in seen] == [3, 4]  # type: ignore[arg-type]  # a SymInt is an index
