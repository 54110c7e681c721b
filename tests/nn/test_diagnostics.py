"""The diagnostics of a look are correct in cases with a known answer."""

import math

import pytest
import torch

import stn
from stn.nn import identity_loss, look_diagnostics
from stn.transforms import FAMILIES, family
from tests.helpers import near_identity


@pytest.mark.parametrize("name", FAMILIES)
def test_the_identity_is_inside_unscaled_unfolded_and_costs_nothing(name: str) -> None:
    t = family(name)
    warp = t(t.identity().expand(3, -1))
    assert {key: round(value.item(), 5) for key, value in look_diagnostics(warp).items()} == {
        "off_image_share": 0,
        "mean_scale": 1,
        "fold_share": 0,
    }
    assert identity_loss(warp).item() == pytest.approx(0, abs=1e-10)
    moved = near_identity(name, 3, dtype=torch.float32).requires_grad_()
    identity_loss(t(moved)).backward()
    assert moved.grad is not None and moved.grad.isfinite().all() and moved.grad.abs().max() > 0


def test_closed_forms() -> None:
    half = torch.tensor([[0.5, 0, 1, 0, 0.25, 0]])  # x from 0.5 to 1.5: its right half is outside
    said = look_diagnostics(stn.Affine()(half))
    assert said["off_image_share"].item() == pytest.approx(0.5)
    assert said["mean_scale"].item() == pytest.approx(math.sqrt(0.125))
    mirrored = torch.tensor([[-1.0, 0, 0, 0, 1, 0], [1, 0, 0, 0, 1, 0]])
    assert look_diagnostics(stn.Affine()(mirrored))["fold_share"].item() == pytest.approx(0.5)
    shift = torch.tensor([[[0.3, 0.4], [0.0, 0.0]]])  # two looks
    assert identity_loss(stn.Translation()(shift)).item() == pytest.approx(0.125)
    deep = torch.diag(torch.tensor([2.0, 2, 2])).expand(1, 3, 3)
    volume = stn.Affine(3)(torch.cat([deep, torch.zeros(1, 3, 1)], dim=-1).flatten(1))
    assert look_diagnostics(volume, (4, 4, 4))["mean_scale"].item() == pytest.approx(2)
    with pytest.raises(stn.InputError, match="size must have 2 lengths; got "):
        look_diagnostics(stn.Affine()(half), (4,))


@pytest.mark.parametrize("name", ("affine", "projective", "tps", "velocity", "cpab"))
def test_they_can_be_asked_for_in_inference_mode(name: str) -> None:
    with torch.inference_mode():
        said = look_diagnostics(family(name)(near_identity(name, 2, dtype=torch.float32)))
    assert all(value.isfinite() for value in said.values())
