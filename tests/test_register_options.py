"""Registration with masks, landmarks, chains and the symmetric loss, and the squares behind it."""

import base64
import importlib.util
import io
import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import stn
from stn.grid import lattice
from stn.ops import Pyramid
from stn.registration.lattices import coarser, refined
from stn.registration.losses import LOSSES, Pair
from stn.registration.newton import CHUNK, Samples
from stn.registration.problem import Landmarks, Problem, bent
from stn.transforms import Family, Warp
from tests.helpers import near_identity, seeded
from tests.test_register import pair, photo, target_error

TRUE = stn.Affine.from_parts(angle=torch.tensor([0.15]), translation=torch.tensor([[0.15, -0.1]]))
SIDE = 64


def smooth(ndim: int, seed: int, side: int = 32) -> Tensor:  # (2, 2, *size)
    """Return images whose linear interpolation has nearly the slope of central differences."""
    x = lattice((side,) * ndim, dtype=torch.float64)
    waves = torch.randn(4, 6, ndim, generator=seeded(seed), dtype=torch.float64)
    phase = 6 * torch.rand(4, 6, generator=seeded(seed + 50), dtype=torch.float64)
    angles = torch.einsum("...d,kwd->...kw", 1.5 * x, waves) + phase
    return angles.sin().sum(dim=-1).movedim(-1, 0).unflatten(0, (2, 2)).float()


@pytest.mark.parametrize("loss", ("mse", "ncc"))
@pytest.mark.parametrize("family", (stn.Affine(), stn.Projective(), stn.Rigid(3), stn.Affine(3)), ids=repr)
def test_the_squares_are_the_loss_and_its_slope(loss: str, family: Family) -> None:
    """The loss, its gradient by autograd, and beside the solution its second derivative.

    Autograd has the slope of the interpolated image, which differs by 5 % from central differences here, in 3-D too (and by
    14 % with half as many pixels).
    """
    moving, fixed = smooth(family.ndim, 0), smooth(family.ndim, 1)
    points = tuple(0.5 * torch.rand(2, 4, family.ndim, generator=seeded(k)) for k in (2, 3))
    places = Landmarks(points[0], points[1], 1e-4)
    pyramids = (Pyramid(moving), Pyramid(fixed), None, None)
    problem = Problem(pyramids, family, LOSSES[loss], None, 1e-3, places)
    assert problem.is_quadratic and fixed[0, 0].numel() != CHUNK
    x = 0.05 * torch.randn(2, 3, family.num_params, generator=seeded(4), dtype=torch.float64)
    found = problem.quadratic(x, Samples(problem.level(0), 1, scales=problem.ignores_contrast))
    slopes: list[Tensor] = []
    for k in range(3):
        position = x[:, k].float().requires_grad_()
        losses = problem.losses(problem.identity + problem.unit * position, problem.level(0))
        slopes += torch.autograd.grad(losses.sum(), position)
        torch.testing.assert_close(found.loss[:, k], losses.detach().double(), rtol=2e-3, atol=0)
    slope = torch.stack(slopes, dim=1)
    assert (found.slope - slope).norm() < 0.1 * slope.norm()
    same = Problem((pyramids[0], pyramids[0], None, None), family, LOSSES[loss], None, 0.0)
    samples, small = Samples(same.level(0), 1, scales=same.ignores_contrast), 1e-3
    ahead, back = (
        same.quadratic(torch.full((2, 1, family.num_params), s, dtype=torch.float64), samples) for s in (small, -small)
    )
    change = (ahead.slope - back.slope) / (2 * small)
    own = same.quadratic(torch.zeros(2, 1, family.num_params, dtype=torch.float64), samples).curvature.sum(dim=-1)
    assert (change - own).norm() < 0.15 * own.norm()


def test_every_third_pixel_is_where_it_was() -> None:
    """On a lattice of samples, the loss of equal images is 0 at the identity, and the minimum of ncc is found."""
    image = smooth(2, 0)
    samples = Samples(Pair(image, image), 3, scales=True)
    assert samples.size == (11, 11)
    eye = torch.eye(2, 3, dtype=torch.float64).expand(2, 1, 2, 3)
    assert samples.quadratic(eye).loss.abs().max() < 1e-4 and samples.quadratic(eye).slope.abs().max() < 1e-4
    sums = samples.gram(eye)[:, 0]
    expected = (samples.fixed**2).sum(dim=-1).double()
    torch.testing.assert_close(sums[..., -2, -2], expected, rtol=1e-5, atol=0)


def hidden(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return a pair in which a block moves with the camera and not with the scene, and masks of what counts."""
    moving, fixed = (image.clone() for image in pair(TRUE, seed=seed))
    masks = torch.ones(2, 1, 1, SIDE, SIDE, dtype=torch.bool)
    masks[:, ..., 18:46, 20:50] = False
    block = photo(1, SIDE, seed=seed + 9)[..., 18:46, 20:50] * 4
    for image in (moving, fixed):
        image[..., 18:46, 20:50] = block
    return moving, fixed, *masks


@pytest.mark.parametrize("loss", LOSSES)
def test_masks(loss: str) -> None:
    moving, fixed, *masks = hidden(0)
    options: Any = {"loss": loss, "levels": 3}
    assert target_error(stn.register(moving, fixed, **options).warp, TRUE).item() > 1
    found = stn.register(moving, fixed, moving_mask=masks[0], fixed_mask=masks[1], **options)
    assert target_error(found.warp, TRUE).item() < 0.25


def test_what_a_mask_hides_may_be_anything() -> None:
    """NaN there, another scale of the weights, and an array change nothing."""
    moving, fixed, *masks = hidden(1)
    found = stn.register(moving, fixed, moving_mask=masks[0], fixed_mask=masks[1])
    lost = moving.masked_fill(~masks[0], math.nan)
    again = stn.register(lost, fixed, moving_mask=7.5 * masks[0].float(), fixed_mask=masks[1][0, 0].numpy())
    torch.testing.assert_close(again.theta, found.theta, atol=1e-6, rtol=0)
    assert found.image.isfinite().all() and again.image.isfinite().all()


@pytest.mark.parametrize("family", (stn.Translation(), stn.BSpline(shape=(4, 4))), ids=("squares", "descent"))
def test_landmarks_decide_where_images_do_not(family: Family) -> None:
    """Stripes match at every period. Two landmarks say which of them."""
    x = lattice((48, 48))
    stripes = (12 * math.pi * x[..., 0]).sin()[None, None] + 0.2 * x[..., 1]
    moving = stn.Translation()(torch.tensor([[0.02, 0.0]])).sample(stripes, padding_mode="border")
    shift = torch.tensor([1 / 3 - 0.02, 0.0])  # two periods, less what the images were moved by
    there = torch.tensor([[-0.5, -0.5], [0.3, 0.4], [-0.2, 0.6], [0.1, -0.7]])
    options: Any = {"levels": 1, "start": stn.Translation()(torch.zeros(1, 2))}
    plain = stn.register(moving, stripes, family, **options)
    found = stn.register(moving, stripes, family, landmarks=(there + shift, there), landmark_weight=1.0, **options)
    assert plain.landmark_errors is None and found.landmark_errors is not None
    assert found.landmark_errors.shape == (1, 4) and found.landmark_errors.max() < 0.5
    away = (plain.warp.points(there) - there - shift)[0].norm(dim=-1) * 24
    assert away.min() > 4


def test_a_chain_is_one_warp() -> None:
    bend = stn.BSpline(shape=(5, 5))
    true = TRUE @ bend(near_identity(bend, 1, strength=0.08, dtype=torch.float32))
    moving, fixed = pair(true)
    found = stn.register(moving, fixed, ["rigid", "affine", bend])
    assert [type(stage.family).__name__ for stage in found.stages] == ["Rigid", "Affine", "BSpline"]
    assert (
        torch.equal(found.theta, found.stages[-1].theta) and found.family == bend and found.losses is found.stages[-1].losses
    )
    first, second, last = (stage.family(stage.theta) for stage in found.stages)
    torch.testing.assert_close((first @ second @ last).grid((5, 5)), found.warp.grid((5, 5)))
    torch.testing.assert_close(found.warp.sample(moving), found.image)
    rigid = stn.register(moving, fixed, "rigid")
    assert target_error(found.warp, true).item() < 0.1 < target_error(rigid.warp, true).item()
    assert found.bending_energy.item() > 1e-3 > rigid.bending_energy.item() and found.fold_share.tolist() == [0.0]
    ones = torch.ones_like(fixed)
    expected = LOSSES["ncc"](found.warp.sample(moving, padding_mode="border"), fixed, ones * found.warp.sample(ones))
    torch.testing.assert_close(found.residual, expected, atol=1e-4, rtol=0.1)
    assert (
        repr(found).startswith("Registration(Rigid, Affine, BSpline, batch=(1,), levels=3, loss=") and len(repr(found)) < 90
    )


@pytest.mark.parametrize("family", (stn.BSpline(shape=(7, 11)), stn.Velocity(3, shape=(5, 7, 11), resolution=48)), ids=repr)
def test_a_finer_lattice_has_the_same_spline(family: stn.BSpline | stn.Velocity) -> None:
    few = coarser(family, 1)
    assert isinstance(few, type(family))
    assert few.shape == tuple((n - 3) // 2 + 3 for n in family.shape) and coarser(stn.Affine(), 3) == stn.Affine()
    theta = torch.randn(2, few.num_params, generator=seeded(0), dtype=torch.float64)
    many = refined(theta, few, family)
    splines = [stn.BSpline(f.ndim, shape=f.shape) for f in (few, family)]
    points = 2 * torch.rand(20, family.ndim, generator=seeded(1), dtype=torch.float64) - 1
    torch.testing.assert_close(splines[0](theta).points(points), splines[1](many).points(points), atol=1e-9, rtol=0)


def test_exchanged_images_have_the_inverse_warp() -> None:
    family = stn.Velocity(shape=(5, 5))
    true = family(near_identity(family, 1, strength=0.1, dtype=torch.float32))
    moving, fixed = pair(true)
    still: Warp = family(torch.zeros(1, family.num_params))

    def inconsistent(symmetric: bool) -> float:
        ahead, back = (
            stn.register(*images, family, symmetric=symmetric).warp for images in ((moving, fixed), (fixed, moving))
        )
        if symmetric:
            assert target_error(ahead, true).item() < 0.2
        return target_error(ahead @ back, still).item()

    assert inconsistent(True) < 0.01 < inconsistent(False)


def test_exchanged_images_have_the_same_objective() -> None:
    """With the bending, which differs between a warp and its inverse."""
    family = stn.Velocity(shape=(4, 6), resolution=24)
    theta = near_identity(family, 2, strength=0.3, dtype=torch.float32)
    pyramids = Pyramid(photo(2)), Pyramid(photo(2, seed=5))
    ahead, back = (
        Problem((a, b, None, None), family, LOSSES["mse"], None, 10.0, symmetric=True) for a, b in (pyramids, pyramids[::-1])
    )
    found, exchanged = ahead.losses(theta, ahead.level(0)), back.losses(-theta, back.level(0))
    torch.testing.assert_close(found, exchanged, atol=0, rtol=1e-5)
    bending = found - replace(ahead, bending=0.0).losses(theta, ahead.level(0))
    halves = [bent(family(half)) for half in (theta / 2, -theta / 2)]
    assert (halves[0] - halves[1]).abs().min() > 1e-3 * halves[0].max()
    torch.testing.assert_close(bending, 5 * (halves[0] + halves[1]), rtol=1e-4, atol=0)


def test_the_figure() -> None:
    moving, fixed = pair(TRUE)
    figure = stn.register(moving, fixed, steps=20).figure()
    before, after, board, _ = (axes.images[0].get_array() for axes in figure.axes[:4])
    assert before is not None and after is not None and board is not None

    def apart(overlay: np.ndarray) -> float:
        return float(np.abs(overlay[12:-12, 12:-12, 0] - overlay[12:-12, 12:-12, 1]).mean())

    assert apart(after) < 0.3 * apart(before)
    assert np.array_equal(board[:8, :8], after[:8, :8, 0]) and np.array_equal(board[:8, 8:16], after[:8, 8:16, 1])
    assert not np.array_equal(after[:16, :16, 0], after[:16, :16, 1]) and len(figure.axes[3].lines) == 34
    volumes = torch.rand(1, 1, 8, 12, 16, generator=seeded(0))
    assert len(stn.register(volumes, volumes, steps=1, levels=1).figure().axes) == 4


def test_jupyter_shows_the_figure_of_the_first_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    moving, fixed = (torch.cat([image, image.flip(-1)]) for image in pair(TRUE))
    found = stn.register(moving, fixed, steps=5)
    shown = found._repr_html_()
    (png,) = re.findall(r'src="data:image/png;base64,([^"]+)"', shown)
    drawn, file = Image.open(io.BytesIO(base64.b64decode(png))), io.BytesIO()
    found.figure().savefig(file, dpi=drawn.width / 10)
    assert drawn.width == 600 and np.array_equal(np.asarray(drawn), np.asarray(Image.open(file)))
    assert shown.startswith("<pre>Registration(Affine, batch=(2,)") and "and 1 more: figure(1)" in shown
    signal = torch.rand(1, 1, 32, generator=seeded(0))
    curve = stn.register(signal, signal, "translation", steps=1)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # an environment without matplotlib
    for one in (curve, found):
        shown = one._repr_html_()
        assert "<img" not in shown and shown.endswith(one.warp._repr_html_()) and shown.count("Registration(") == 1


@pytest.mark.parametrize(
    "options, sentence",
    (
        ({"moving_mask": torch.ones(7, 8)}, r"moving_mask must be \(8, 8\) or \(1, 1, 8, 8\), the size of .*; got \(7, 8\)"),
        ({"fixed_mask": torch.zeros(8, 8)}, "fixed_mask must count at least one pixel of each image; all .* are 0"),
        ({"fixed_mask": -torch.eye(8)}, "fixed_mask must be finite and not negative; got weights from -1 to"),
        ({"landmarks": torch.zeros(3, 2)}, r"landmarks must be a pair \(points of moving, points of fixed\); got Tensor"),
        ({"landmarks": (torch.zeros(3, 3),) * 2}, r"landmarks of moving must be finite, \(P, 2\) or .*; got \(3, 3\)"),
        ({"landmarks": (torch.zeros(3, 2), torch.zeros(2, 2))}, "landmarks must be as many of moving as of fixed"),
        ({"landmark_weight": -1.0}, "landmark_weight must not be negative; got -1"),
        ({"transform": []}, "transform must be the name of a family, .* at least one; got an empty one"),
        ({"transform": ["rigid", "afine"]}, "transform must be one of affine, .*; got 'afine'"),
        ({"symmetric": True}, "symmetric must be False for families other than velocity, .*; got True for Affine"),
    ),
)
def test_bad_requests_end_with_a_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(stn.InputError, match=sentence):
        stn.register(torch.eye(8)[None, None], torch.eye(8)[None, None], **options)
