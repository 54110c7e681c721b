"""What Jupyter shows for warps and families."""

import re
import xml.etree.ElementTree as ElementTree

import pytest
import torch
from torch import Tensor

import stn
from stn.transforms import FAMILIES, picture

HALF = picture.SIDE / (2 * picture.REACH)


def panels(shown: str) -> list[list[Tensor]]:
    """Return the polylines of each panel in normalized coordinates, after parsing all of it."""
    root = ElementTree.fromstring(f"<div>{shown.replace('<br>', '<br/>')}</div>")
    found = []
    for drawing in root.iter("{http://www.w3.org/2000/svg}svg"):
        lines = [line.attrib["points"] for line in drawing if "stroke-dasharray" not in line.attrib]
        found.append([torch.tensor([[float(x) for x in p.split(",")] for p in line.split()]) / HALF for line in lines])
    return found


@pytest.mark.parametrize("ndim", (1, 2, 3))
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_and_warp_has_a_picture(name: str, ndim: int) -> None:
    try:
        family = stn.transforms.family(name, ndim)
    except stn.InputError:
        return  # of other dimensions
    shown = family._repr_html_()
    assert len(panels(shown)) == min(8, family.num_params) and "http" not in shown.replace("http://www.w3.org/2000/svg", "")
    assert (f"and {family.num_params - 8} more" in shown) == (family.num_params > 8)
    identity = family(family.identity()[None])
    (still,) = panels(identity._repr_html_())
    for moved in panels(shown):
        assert any(not torch.allclose(a, b, atol=0.01) for a, b in zip(still, moved, strict=True))


def test_the_lines_are_the_points_of_the_warp() -> None:
    warp = stn.Affine()(torch.tensor([[0.5, 0.1, 0.2, -0.3, 0.4, 0.0], [1.0, 0, 0, 0, 1, 0]]))
    first, second = panels(warp._repr_html_())
    lines = picture.grid_lines(2)
    assert len(first) == len(lines) == 18
    assert torch.allclose(torch.stack(first), warp[0].points(lines[None])[0], atol=0.01)
    assert torch.allclose(torch.stack(second), lines, atol=0.01)


def test_looks_of_a_batch_are_counted_and_named() -> None:
    theta = stn.Similarity().identity().repeat(3, 4, 1)
    shown = stn.Similarity()(theta.requires_grad_())._repr_html_()
    assert len(panels(shown)) == 8 and "and 4 more" in shown and "warp[1, 3]" in shown and "warp[2, 0]" not in shown
    empty = stn.Similarity()(torch.zeros(0, 4))
    assert panels(empty._repr_html_()) == [] and "batch=(0,)" in empty._repr_html_()


def test_points_on_a_horizon_are_left_out() -> None:
    warp = stn.Projective()(torch.tensor([[1.0, 0, 0, 0, 1, 0, 1.0, 0]]))
    (lines,) = panels(warp._repr_html_())
    assert min(len(line) for line in lines) < picture.STEPS and all(line.isfinite().all() for line in lines)


def test_composed_inverted_and_half_precision_warps_have_a_picture() -> None:
    bent = stn.BSpline()(torch.full((1, 98), 0.1, dtype=torch.float16))
    for warp in (bent, bent.inverse(), bent @ bent, stn.from_boxes(torch.tensor([[1.0, 2, 3, 4]]), (8, 8))):
        assert len(panels(warp._repr_html_())) == 1
    assert not re.search(r"<script|href|src=", bent._repr_html_())
