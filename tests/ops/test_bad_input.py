"""Bad input raises an error that names the argument, the expected value and the actual value."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import stn

IMAGE, VOLUME, EYE = torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 4, 5, 6), torch.eye(2, 3)
GRID = torch.zeros(2, 4, 5, 2)
old = stn.spatial_transformer_network


def bad(value: Any) -> Any:
    """Return calls that no type checker would accept."""
    return value


KNOTS = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [0.0, 1.0], [0.5, 0.5]])
CASES: list[tuple[Callable[[], Any], str]] = [
    (lambda: stn.affine_sample([[1.0]], EYE), "image must be a torch.Tensor; got list"),  # type: ignore[call-overload]  # on purpose
    (lambda: stn.affine_sample(IMAGE.long(), EYE), "mode must be 'nearest' for an image of torch.int64, .*; got 'bilinear'"),
    (
        lambda: stn.affine_sample(IMAGE.to(torch.uint16), EYE, mode="nearest"),
        "image must have a floating-point dtype, a complex one, uint8, or .* bool or int8 to int64; got torch.uint16",
    ),
    (lambda: stn.Pyramid(IMAGE.long()), "image must have a floating-point dtype, a complex one, or uint8; got torch.int64"),
    (
        lambda: stn.affine_sample(IMAGE[0], EYE),
        r"image must be \(N, C, H, W\) for theta \(2, 3\); got \(3, 4, 5\), which is read as",
    ),
    (lambda: stn.affine_sample(torch.zeros(1, 1, 0, 3), EYE), "image must have at least one pixel .*got .1, 1, 0, 3."),
    (lambda: stn.affine_sample(IMAGE, torch.zeros(8, 2, 3)), r"theta must be \(2, 3\), .* with N = 2, .*; got \(8, 2, 3\)"),
    (lambda: stn.affine_sample(IMAGE, torch.zeros(2, 6)), r"theta must be .*; got \(2, 6\)"),
    (lambda: stn.affine_sample(VOLUME, EYE), r"theta must be \(3, 4\), .*; got \(2, 3\)"),
    (lambda: stn.affine_sample(IMAGE, EYE.long()), "theta must have a floating-point dtype; got torch.int64"),
    (lambda: stn.affine_sample(IMAGE, EYE.to("meta")), "theta must be on cpu, the device of image; got meta"),
    (lambda: stn.affine_sample(IMAGE, EYE, (4,)), r"size must have 2 lengths; got \(4,\)"),
    (lambda: stn.affine_sample(IMAGE, EYE, (4, 0)), r"size must have positive lengths; got \(4, 0\)"),
    (
        lambda: stn.affine_sample(IMAGE, EYE, bad((4, 2.5))),
        r"size must be an integer or a sequence of 2 integers; got \(4, 2.5\)",
    ),
    (lambda: stn.affine_sample(IMAGE, EYE, bad(4.5)), "size must be an integer or a sequence of 2 integers; got 4.5"),
    (
        lambda: stn.affine_sample(IMAGE, EYE, mode="cubic"),
        "mode must be one of bicubic, bilinear, .*; got 'cubic'",
    ),
    (lambda: stn.affine_sample(IMAGE, EYE, padding_mode="mirror"), "padding_mode must be one of .*; got 'mirror'"),
    (
        lambda: stn.affine_sample(IMAGE, EYE, fill_value=[1.0, 2.0]),
        r"fill_value .* C = 3 numbers, one per channel of image; got \(2,\)",
    ),
    (lambda: stn.affine_sample(IMAGE, EYE, bad(True)), "size must be an integer or a sequence of 2 integers; got True"),
    (lambda: stn.affine_sample(IMAGE, EYE, bad((4, True))), r"size must be .* integers; got \(4, True\)"),
    (lambda: stn.affine_sample(IMAGE, EYE, bad("45")), "size must be an integer or a sequence of 2 integers; got '45'"),
    (lambda: stn.grid.lattice(bad(4)), "size must be a sequence of 1, 2 or 3 integers; got 4"),
    (lambda: stn.affine_sample(IMAGE, EYE, fill_value=bad("white")), "fill_value must be a number, .*; got 'white'"),
    (lambda: stn.affine_sample(IMAGE, EYE, fill_value=bad(None)), "fill_value must be a number, .*; got None"),
    (lambda: stn.affine_sample(IMAGE, EYE, fill_value=bad([1, "a", 2])), r"fill_value must be .*; got \[1, 'a', 2\]"),
    (lambda: stn.affine_sample(IMAGE, EYE, fill_value=bad([[1.0], [2.0], [3.0]])), "fill_value must be a number, .*; got "),
    (lambda: stn.affine_sample(IMAGE, EYE, fill_value=bad(np.array(["a"]))), "fill_value must be a number, .*; got array"),
    (lambda: stn.affine_sample(IMAGE, EYE, fill_value=bad(np.zeros((3, 1)))), r"fill_value .* C = 3 .*; got \(3, 1\)"),
    (lambda: stn.affine_sample(IMAGE, EYE, fill_value=bad(1j)), "fill_value must be real, because image is; got 1j"),
    (lambda: stn.affine_sample(IMAGE, EYE, fill_value=torch.tensor(1j)), "fill_value must be real, because image is; got "),
    (lambda: stn.affine_sample(IMAGE, EYE, fill_value=1.0, padding_mode="wrap"), "fill_value requires .*; got .*'wrap'"),
    (lambda: stn.projective_sample(IMAGE, EYE), r"matrix must be \(3, 3\), .*; got \(2, 3\)"),
    (
        lambda: stn.thin_plate_sample(IMAGE, torch.zeros(2, 6, 2), KNOTS),
        r"coefficients must be \(7, 2\), .*; got \(2, 6, 2\)",
    ),
    (
        lambda: stn.thin_plate_sample(VOLUME, torch.zeros(2, 7, 2), KNOTS),
        r"control_points must be \(T, 3\) with T >= 4, .*; got",
    ),
    (
        lambda: stn.grid_sample(IMAGE, torch.zeros(3, 4, 5, 2)),
        r"grid must be \(N, H, W, 2\) .* N = 2, .*; got \(3, 4, 5, 2\)",
    ),
    (lambda: stn.grid_sample(VOLUME, GRID), r"grid must be \(N, D, H, W, 3\) .*; got \(2, 4, 5, 2\)"),
    (lambda: stn.grid_sample(IMAGE, GRID[:, :0]), "grid must have at least one point .*; got .2, 0, 5, 2."),
    (lambda: stn.grid_sample(IMAGE, GRID, units="px"), "units must be one of normalized, pixel; got 'px'"),
    (lambda: old(IMAGE[0], torch.zeros(2, 6)), r"input_fmap must be \(B, H, W, C\) .*; got \(3, 4, 5\)"),
    (lambda: old(IMAGE, torch.zeros(2, 5)), r"theta must be \(B, 6\) or \(B, 2, 3\) with B = 2, .*; got \(2, 5\)"),
    (lambda: old(IMAGE, torch.zeros(2, 6), (0, 4)), r"out_dims must have positive lengths; got \(0, 4\)"),
    (lambda: stn.Affine(4), "ndim must be 1, 2 or 3 for Affine; got 4"),
    (lambda: stn.Rigid(4), "ndim must be 2 or 3 for Rigid; got 4"),
    (lambda: stn.Affine()(torch.zeros(2, 5)), r"theta must be \(N, 6\) or \(N, K, 6\) for Affine; got \(2, 5\)"),
    (lambda: stn.Affine()(torch.zeros(2, 6)).points(torch.zeros(4, 3)), r"xy must be \(..., 2\); got \(4, 3\)"),
    (lambda: stn.Affine()(torch.zeros(2, 6)).points(torch.zeros(3, 4, 2)), r"xy must .* batch \(2,\); got \(3, 4, 2\)"),
    (
        lambda: stn.Affine()(torch.zeros(3, 6)).sample(IMAGE),
        "the warp must have a batch of N = 2, the batch size of image, or of 1",
    ),
    (lambda: stn.Affine()(torch.zeros(2, 6)).sample(VOLUME), r"image must be \(N, C, H, W\) for a warp of 2 dim.*; got"),
    (
        lambda: stn.ThinPlateSpline(control_points=(4, 1)),
        r"control_points must have at least 2 along each axis; got \(4, 1\)",
    ),
    (lambda: stn.ThinPlateSpline(control_points=torch.zeros(2, 2)), r"control_points must be \(T, 2\).*; got \(2, 2\)"),
    (lambda: stn.ThinPlateSpline(control_points=torch.full((4, 2), torch.nan)), "control_points must be finite; got"),
    (lambda: stn.ThinPlateSpline(smoothing=-1.0), "smoothing must not be negative; got -1.0"),
]


@pytest.mark.parametrize("call, sentence", CASES, ids=[sentence[:48] for _, sentence in CASES])
def test_sentences(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises((stn.InputError, TypeError), match=sentence):
        call()
