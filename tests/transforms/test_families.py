"""Families are values: frozen, hashable, equal if their settings are equal, and unchanged by copying and pickling."""

import copy
import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import stn
from stn.transforms import FAMILIES, family
from tests.helpers import near_identity

MAKERS: dict[str, Callable[[], stn.Family]] = {
    **{f"{name} {d}-D": (lambda name=name, d=d: family(name, d)) for name in FAMILIES for d in (2, 3)},  # type: ignore[misc]  # mypy cannot tell the type of a default
    "a fixed scale": lambda: stn.Attention(scale=0.5),
    "a fine spline": lambda: stn.BSpline(shape=[4, 5]),
    "a free border": lambda: stn.CPAB(cells=(3, 4), boundary="free", steps=4),
    "aligned corners": lambda: stn.Displacement(shape=(3, 4), align_corners=True),
    "a coarse flow": lambda: stn.Velocity(shape=(4, 5), resolution=20, squarings=3),
    "a wide image": lambda: stn.Rigid(aspect=2.0),
    "a tall image": lambda: stn.Similarity(aspect=(3, 2)),
    "slices": lambda: stn.Rigid(3, aspect=(30, 20, 20)),
    "text": lambda: stn.ThinPlateSpline(control_points=stn.text_edges(8), smoothing=0.1, parameters="positions"),
    "an edge": lambda: stn.ThinPlateSpline(control_points=stn.text_edges(8, margin=0.1)),
    "bounds": lambda: stn.bounded(stn.Similarity(), scale=(0.5, 2.0), angle=(-1.0, 1.0)),
    "other bounds": lambda: stn.bounded(stn.Similarity(), scale=(0.5, 2.5), angle=(-1.0, 1.0)),
    "bounds of one axis": lambda: stn.bounded(stn.AnisotropicScale(), scale=[(0.5, 1.5), None]),
    "bounds of two axes": lambda: stn.bounded(stn.AnisotropicScale(), scale=[(0.5, 1.5), (0.9, 1.1)]),
    "a turn": lambda: stn.fixed(stn.Rigid(), translation=0.0),
    "a turn of a wide image": lambda: stn.fixed(stn.Rigid(aspect=2.0), translation=0.0),
    "a shift": lambda: stn.fixed(stn.Translation(), translation=(None, 0.0)),
    "a bounded part": lambda: stn.fixed(stn.bounded(stn.Similarity(), scale=(0.5, 2.0)), angle=0.1),
    "a bounded spline": lambda: stn.bounded(stn.ThinPlateSpline(), offsets=(-0.2, 0.2)),
}
del MAKERS["corners 3-D"]


@pytest.mark.parametrize("name", MAKERS)
def test_a_family_is_a_value(name: str) -> None:
    one, two = MAKERS[name](), MAKERS[name]()
    fields: Any = dataclasses.fields(one)  # type: ignore[arg-type]  # mypy does not see a dataclass here
    for field in fields:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(one, field.name, None)
    assert one == two and hash(one) == hash(two) and repr(one) == repr(two) and one != "a name"
    assert {one: name}[two] == name


@pytest.mark.parametrize("name", MAKERS)
def test_a_copy_is_equal_and_does_the_same(name: str) -> None:
    one = MAKERS[name]()
    theta, size = near_identity(one, 2, strength=0.05), (4, 5, 3)[: one.ndim]
    for other in (copy.deepcopy(one), copy.copy(one), pickle.loads(pickle.dumps(one))):
        assert other == one and hash(other) == hash(one) and repr(other) == repr(one)
        assert torch.equal(other(theta).grid(size), one(theta).grid(size))


def test_families_differ_where_their_settings_do() -> None:
    made = [make() for make in MAKERS.values()]
    assert len(set(made)) == len(made) > 30
    assert stn.bounded(stn.Rigid(), angle=(-1, 1), translation=(-1, 1)) == stn.bounded(
        stn.Rigid(), translation=(-1, 1), angle=(-1, 1)
    )
    moved = stn.text_edges(8)
    moved[0, 0] += 1e-6
    assert stn.ThinPlateSpline(control_points=moved) != stn.ThinPlateSpline(control_points=stn.text_edges(8))


def test_settings_are_kept_as_plain_numbers() -> None:
    given: Any = (np.int64(2), np.int64(3), np.int32(9), np.array([4, 4, 5]))
    two, three, nine, shape = given
    flow = stn.Velocity(three, shape=shape, resolution=nine, squarings=two)
    assert repr(flow) == "Velocity(ndim=3, shape=(4, 4, 5), resolution=9, squarings=2)"
    assert repr(stn.CPAB(cells=[3, 4], steps=three)) == "CPAB(ndim=2, cells=(3, 4), boundary='fixed', steps=3)"
    points = "ThinPlateSpline(control_points=<8 points>, smoothing=0.0, parameters='offsets')"
    assert repr(stn.ThinPlateSpline(control_points=stn.text_edges(8))) == points
    assert repr(stn.bounded(stn.Rigid(), angle=(-1, 1))) == "Bounded(Rigid(ndim=2), {'angle': (-1, 1)})"
