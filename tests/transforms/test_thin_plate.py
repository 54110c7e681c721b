"""The thin-plate spline compared with scipy and scikit-image, and at singular systems."""

import numpy as np
import pytest
import torch
from scipy.interpolate import RBFInterpolator
from skimage.transform import ThinPlateSplineTransform

import stn
from stn.grid import lattice
from stn.transforms.spline import ThinPlateWarp
from stn.transforms.warp import ComposedWarp
from tests.helpers import noise


@pytest.mark.parametrize("smoothing", (0.0, 0.01, 1.0))
@pytest.mark.parametrize("scattered", (False, True))
def test_scipy(scattered: bool, smoothing: float) -> None:
    points = noise(9, 2) if scattered else (4, 5)
    spline = stn.ThinPlateSpline(control_points=points, smoothing=smoothing)
    offsets, xy = 0.3 * noise(len(spline.control_points), 2, seed=1), 2 * noise(50, 2, seed=2)
    control = spline.control_points.numpy()
    expected = RBFInterpolator(control, offsets.numpy(), kernel="thin_plate_spline", smoothing=smoothing)(xy.numpy())
    got = spline(offsets.view(1, -1)).points(xy)[0] - xy
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-10)


@pytest.mark.parametrize("smoothing", (0.0, 0.01, 1.0))
@pytest.mark.parametrize("scattered", (False, True))
def test_scipy_in_three_dimensions(scattered: bool, smoothing: float) -> None:
    """Its linear kernel is -r; points, and a volume sampled at the same points."""
    points = noise(9, 3) if scattered else (2, 3, 3)
    spline = stn.ThinPlateSpline(3, control_points=points, smoothing=smoothing)
    offsets, size = 0.2 * noise(2, len(spline.control_points), 3, seed=1), (6, 5, 7)
    warp, target = spline(offsets.flatten(1)), lattice(size, dtype=torch.float64)
    control, image = spline.control_points.numpy(), noise(2, 2, 5, 6, 4, seed=2)
    expected = []
    for own in offsets:
        solved = RBFInterpolator(control, own.numpy(), kernel="linear", degree=1, smoothing=smoothing)
        expected.append(target + torch.from_numpy(solved(target.flatten(0, -2).numpy())).unflatten(0, size))
    grid = torch.stack(expected)
    torch.testing.assert_close(warp.grid(size), grid, atol=1e-10, rtol=0)
    torch.testing.assert_close(warp.sample(image, size), stn.grid_sample(image, grid), atol=1e-8, rtol=0)


def test_skimage() -> None:
    spline = stn.ThinPlateSpline()
    moved = spline.control_points + 0.2 * noise(16, 2)
    theirs = ThinPlateSplineTransform.from_estimate(spline.control_points.numpy(), moved.numpy())
    xy = noise(30, 2, seed=1)
    got = spline((moved - spline.control_points).view(1, -1)).points(xy)[0]
    np.testing.assert_allclose(got.numpy(), theirs(xy.numpy()), atol=1e-6)  # scikit-image adds 1e-8 to r^2


def test_control_points_reach_their_offsets_and_in_which_order() -> None:
    spline = stn.ThinPlateSpline(control_points=(2, 3))
    assert spline.control_points.tolist() == [[-1, -1], [0, -1], [1, -1], [-1, 1], [0, 1], [1, 1]]
    offsets = 0.2 * noise(2, 6, 2)
    moved = spline(offsets.flatten(1)).points(spline.control_points)
    torch.testing.assert_close(moved, spline.control_points + offsets, atol=1e-12, rtol=0)


def test_the_derivative_at_a_control_point_is_finite() -> None:
    """r^2 log r is differentiable at 0, but autograd's log gives NaN there."""
    spline = stn.ThinPlateSpline()
    xy = spline.control_points.clone().requires_grad_()
    spline(0.1 * noise(1, 32)).points(xy).sum().backward()
    assert xy.grad is not None and xy.grad.isfinite().all()


@pytest.mark.parametrize("distance", (0.0, 1e-9, 1e-6, 1e-3))
def test_coincident_control_points_average(distance: float) -> None:
    points = stn.ThinPlateSpline().control_points
    twin = points[5:6] + torch.tensor([[distance, 0.0]], dtype=torch.float64)
    spline = stn.ThinPlateSpline(control_points=torch.cat([points, twin]))
    offsets = 0.1 * noise(17, 2)
    offsets[[5, 16]] = torch.tensor([[0.1, 0.0], [0.3, 0.2]], dtype=torch.float64)
    warp = spline(offsets.view(1, -1))
    assert warp.grid((20, 20)).isfinite().all()
    if distance == 0:
        got = warp.points(points)[0] - points
        torch.testing.assert_close(got[5], torch.tensor([0.2, 0.1], dtype=torch.float64), atol=1e-9, rtol=0)
        others = [i for i in range(16) if i != 5]
        torch.testing.assert_close(got[others], offsets[:16][others], atol=1e-9, rtol=0)
    agreeing = offsets.clone()
    agreeing[16] = agreeing[5]
    plain = stn.ThinPlateSpline()(agreeing[:16].reshape(1, -1)).grid((20, 20))
    tolerance = 1e-9 if distance < 1e-8 else 0.05
    torch.testing.assert_close(spline(agreeing.view(1, -1)).grid((20, 20)), plain, atol=tolerance, rtol=0)


def test_points_on_a_line_stay_finite() -> None:
    line = torch.linspace(-1, 1, 5, dtype=torch.float64)
    spline = stn.ThinPlateSpline(control_points=torch.stack([line, line], dim=-1))
    offsets = 0.1 * noise(1, 10)
    moved = spline(offsets).points(spline.control_points)[0]
    torch.testing.assert_close(moved, spline.control_points + offsets.view(5, 2), atol=1e-9, rtol=0)
    assert torch.equal(
        spline(0 * offsets).grid((4, 4))[0], stn.Affine()(torch.eye(2, 3).double().view(1, 6)).grid((4, 4))[0]
    )


def test_smoothing_bends_less() -> None:
    offsets = 0.3 * noise(1, 32)

    def bend(smoothing: float) -> float:
        grid = stn.ThinPlateSpline(smoothing=smoothing)(offsets).grid((20, 20))[0]
        return float(grid.diff(n=2, dim=0).square().sum() + grid.diff(n=2, dim=1).square().sum())

    bends = [bend(s) for s in (0.0, 0.1, 1.0, 1e3)]
    assert bends == sorted(bends, reverse=True) and bends[-1] < 1e-3 * bends[0]


def test_the_system_is_solved_once_for_any_output_size(monkeypatch: pytest.MonkeyPatch) -> None:
    spline = stn.ThinPlateSpline()
    for name in ("pinv", "inv", "solve", "lstsq", "lu_factor"):
        monkeypatch.delattr(torch.linalg, name)
    for size in ((3, 4), (64, 64), (1, 1)):
        assert spline(torch.zeros(2, 32)).sample(torch.zeros(2, 1, 9, 9), size).shape == (2, 1, *size)


def test_constants_do_not_enter_the_state_dict() -> None:
    """The state dict has the networks' parameters, and the meaning of theta."""
    layer = stn.SpatialTransformer.for_input((1, 28, 28), "tps")
    layer(torch.rand(1, 1, 28, 28))
    others = [key for key in layer.state_dict() if not key.startswith(("localization.", "regression."))]
    assert others == ["_extra_state"]


def test_positions_say_where_the_control_points_look() -> None:
    """Positions are given as by ASTER's localizer. The control points themselves give the identity exactly."""
    spline = stn.ThinPlateSpline(control_points=stn.text_edges(20, margin=0.05), parameters="positions")
    positions = spline.control_points + 0.1 * noise(3, 20, 2)
    reached = spline(positions.flatten(1)).points(spline.control_points)
    torch.testing.assert_close(reached, positions, atol=1e-7, rtol=0)
    image = noise(2, 1, 33, 101, dtype=torch.float32)
    assert torch.equal(spline(spline.identity().expand(2, -1)).sample(image), image)


def test_text_edges() -> None:
    assert stn.text_edges(6).tolist() == [[-1, -1], [0, -1], [1, -1], [-1, 1], [0, 1], [1, 1]]
    assert stn.text_edges(6, margin=0.1)[0].tolist() == [-0.8, -0.8]
    for count, message in ((5, "count must be even; got 5"), (2, "count must be an integer of at least 4; got 2")):
        with pytest.raises(stn.InputError, match=message):
            stn.text_edges(count)
    with pytest.raises(stn.InputError, match="margin must be at least 0 and less than 0.5; got 0.5"):
        stn.text_edges(6, margin=0.5)


@pytest.mark.parametrize("looks", ((), (3,)))
def test_an_affine_map_of_a_spline_is_a_spline(looks: tuple[int, ...]) -> None:
    """So the spline's own kernel samples it. Other compositions are evaluated step by step. `test_laws` covers both."""
    bend = stn.ThinPlateSpline()(0.1 * noise(2, *looks, 32))
    move = stn.Affine()(torch.eye(2, 3).flatten() + 0.3 * noise(2, 6))
    bent, image = move @ bend, noise(2, 1, 9, 9)
    assert isinstance(bent, ThinPlateWarp) and bent.batch == bend.batch
    torch.testing.assert_close(bent.sample(image), ComposedWarp(move, bend).sample(image))
    tilt = stn.Projective()(torch.eye(3, dtype=torch.float64).flatten()[:8].expand(2, -1))
    looked = stn.Affine()(torch.eye(2, 3, dtype=torch.float64).flatten().expand(2, 3, -1))
    assert all(isinstance(other, ComposedWarp) for other in (bend @ move, tilt @ bend))
    assert isinstance(looked @ bend, ThinPlateWarp if looks else ComposedWarp)
