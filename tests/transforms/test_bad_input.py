"""Arguments that a family or a warp refuses, each with a clear message."""

from collections.abc import Callable

import pytest
import torch

import stn

WARP, LOOKS = (
    stn.Affine()(torch.eye(2, 3).view(1, 6).repeat(2, 1)),
    stn.Affine()(torch.eye(2, 3).view(1, 1, 6).repeat(3, 4, 1)),
)
CASES: dict[str, tuple[Callable[[], object], str]] = {
    "bspline shape": (lambda: stn.BSpline(shape=(3, 5)), r"shape must have at least 4 along each axis; got \(3, 5\)"),
    "bspline dims": (lambda: stn.BSpline(3, shape=(5, 5)), r"shape must have 3 lengths; got \(5, 5\)"),
    "tps points in place of ndim": (
        lambda: stn.ThinPlateSpline(stn.text_edges(6)),  # type: ignore[arg-type]  # on purpose
        r"ndim must be 2 or 3 for ThinPlateSpline; got .*\. Other arguments go by name",
    ),
    "tps lattice in place of ndim": (
        lambda: stn.ThinPlateSpline((4, 4)),  # type: ignore[arg-type]  # on purpose
        r"ndim must be 2 or 3 for ThinPlateSpline; got \(4, 4\)\. Other arguments go by name",
    ),
    "bspline ndim": (lambda: stn.BSpline(4), "ndim must be 1, 2 or 3 for BSpline; got 4"),
    "corners ndim": (lambda: stn.MovedCorners(3), "ndim must be 2 for MovedCorners; got 3"),
    "theta": (lambda: stn.BSpline(shape=(4, 5))(torch.zeros(2, 20)), r"theta must be \(N, 40\) or \(N, K, 40\) for BSpline"),
    "field": (lambda: stn.Displacement.from_field(torch.zeros(4, 5, 2)), r"field must be \(N, L, 1\), \(N, H, W, 2\) or"),
    "field d": (
        lambda: stn.Displacement.from_field(torch.zeros(1, 4, 5, 4)),
        r"field must be \(N, L, 1\), \(N, H, W, 2\) or",
    ),
    "cells": (
        lambda: stn.CPAB(cells=(1, 4)),
        "cells must have at least 2 along each axis with boundary='fixed'",
    ),
    "boundary": (lambda: stn.CPAB(boundary="open"), "boundary must be one of fixed, free; got 'open'"),
    "steps": (lambda: stn.CPAB(steps=0), "steps must be an integer of at least 1; got 0"),
    "resolution": (lambda: stn.Velocity(resolution=1), "resolution must be an integer of at least 2; got 1"),
    "scale": (lambda: stn.Attention(scale=0.0), "scale must be positive; got 0.0"),
    "parameters": (lambda: stn.ThinPlateSpline(parameters="x"), "parameters must be one of offsets, positions; got 'x'"),
    "batches": (
        lambda: WARP @ LOOKS,
        r"both warps of a composition must have the same batch, or one of them a batch of 1; got \(2,\) and \(3, 4\)",
    ),
    "images": (
        lambda: LOOKS.sample(torch.zeros(8, 1, 4, 5)),
        r"the warp must have a batch of N = 8, the batch size of image, or of 1; got a warp of batch \(3, 4\)",
    ),
    "point sets": (
        lambda: LOOKS.points(torch.zeros(8, 4, 5, 2)),
        r"xy must be \(P, 2\), or begin with the warp's batch \(3, 4\); got \(8, 4, 5, 2\)",
    ),
    "tolerance": (
        lambda: stn.InverseWarp(WARP).solved((4, 5), tolerance=0.0),
        "tolerance must be positive; got 0.0",
    ),
    "dims": (
        lambda: WARP @ stn.Affine(3)(torch.eye(3, 4).view(1, 12)),
        "both warps of a composition must have the same number of dimensions; got 2 and 3",
    ),
    "size": (lambda: WARP.jacobian((3, 4, 5)), "size must have 2 lengths"),
    "points": (lambda: WARP.inverse().points(torch.zeros(3)), r"xy must be \(..., 2\); got \(3,\)"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_sentence(name: str) -> None:
    call, message = CASES[name]
    with pytest.raises(stn.InputError, match=message):
        call()


@pytest.mark.parametrize("given, got", [("rigid", "'rigid'"), (stn.Rigid, "Rigid"), (None, "NoneType")], ids=str)
@pytest.mark.parametrize(
    "make",
    [
        lambda family: stn.bounded(family, scale=(0.5, 2.0)),
        lambda family: stn.Bounded(family, {}),
        lambda family: stn.fixed(family, translation=0.0),
        lambda family: stn.Fixed(family, {}),
        lambda family: stn.nn.ThetaRegression(4, family),
    ],
    ids=("bounded", "Bounded", "fixed", "Fixed", "ThetaRegression"),
)
def test_what_is_no_family(make: Callable[[object], object], given: object, got: str) -> None:
    with pytest.raises(TypeError, match=rf'family must be a Family, such as stn.Affine\(\) or .*\("affine"\); got {got}$'):
        make(given)
