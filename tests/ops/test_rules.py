"""The reference samples a coordinate rule that has no kernel, with all operators that are made from rules."""

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from stn.grid import Axes, open_lattice
from stn.ops import dispatch, levels
from stn.ops.options import parse
from stn.ops.rules import RULES, Field, Rule, stored
from stn.ops.rules.base import Numbers
from tests.helpers import noise

OUT = (5, 7)


@dataclass(frozen=True)
class Ring(Rule):
    """A rule that samples circles around the center. data: (N, K, 1, 2), smallest and largest radius in half widths."""

    size: tuple[int, ...]

    name = "ring"
    schema = "SymInt[] size"

    @property
    def arguments(self) -> tuple[Any, ...]:
        return (self.size,)

    def out_size(self, data: Tensor) -> tuple[int, ...]:
        return self.size

    def coordinates(self, data: Tensor, axes: Axes) -> list[Tensor]:
        x, y = (u / g for u, g in zip(open_lattice(self.size, data.double()), axes.unit, strict=True))
        least, most = (data[:, :, 0, i, None, None].double() for i in (0, 1))
        radius, angle = least + (most - least) * (y + 1) / 2, math.pi * x
        around = radius * angle.cos(), radius * angle.sin()
        return [h * p + c for h, p, c in zip(axes.half, around, axes.center, strict=True)]

    def numbers(self, data: Tensor, axes: Axes) -> Numbers:
        raise AssertionError("no kernel knows a ring")


RING, RADII = Ring(OUT), torch.tensor([[[[0.2, 0.9]]], [[[0.5, 0.7]]]], dtype=torch.float64)
FILL = torch.zeros(())


@pytest.mark.parametrize("antialias", (False, True, "anisotropic"))
def test_it_is_sampled_as_the_field_of_its_places(antialias: Any) -> None:
    image, sampling = noise(2, 3, 40, 30), parse(antialias=antialias)
    places = stored(RING, RADII, RING.axes(RADII, image.shape[2:], False))
    field = Field("pixel")
    if not antialias:
        found, expected = (dispatch.sample(r, image, d, FILL, sampling) for r, d in ((RING, RADII), (field, places)))
    else:
        requests = [levels.Request(r, d, FILL, sampling) for r, d in ((RING, RADII), (field, places))]
        found, expected = (levels.sample(request, levels.pyramid_of(image, sampling)) for request in requests)
    assert found.shape == (2, 1, 3, *OUT)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    assert found.std() > 0.1


def test_its_derivatives() -> None:
    image = noise(2, 1, 8, 9).requires_grad_()
    sampling = parse("bicubic")
    assert gradcheck(lambda i, d: dispatch.sample(RING, i, d, FILL, sampling), (image, RADII.clone().requires_grad_()))


@pytest.mark.parametrize("rule", RULES)
def test_names_and_schemas(rule: type[Rule]) -> None:
    """torch's registry has an operator and its gradient for each rule, with the rule's arguments before the sampling's."""
    for name in (f"{rule.name}_sample", f"{rule.name}_sample_backward"):
        schema = str(getattr(torch.ops.stn, name).default._schema)
        assert f"{rule.schema}, str mode, str padding_mode, bool align_corners)" in schema
