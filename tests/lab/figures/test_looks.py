"""The figures of looks agree with theta and the pixels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.transforms import Bbox
from PIL import Image

import stn
from stn.grid import normalized_to_pixel
from stn.lab.experiments import Run
from stn.lab.figures.control import control_points, handles
from stn.lab.figures.determinant import determinants
from stn.lab.figures.lines import box
from stn.lab.figures.looks import looks
from stn.lab.figures.means import means
from stn.lab.figures.style import COLORS, WRONG, hull, rgb, save
from stn.lab.figures.table import Look, picture
from stn.lab.tables import Cell
from stn.transforms import FAMILIES, Family, family
from tests.helpers import near_identity, seeded


def test_the_outline_is_where_the_look_is(tmp_path: Path) -> None:
    images = torch.rand(2, 1, 20, 30)
    theta = torch.tensor([[0.5, 0, 0.5, 0, 0.5, -0.5]]).repeat(2, 1)
    warp = stn.Affine()(theta)
    figure = looks(images, warp, warp.sample(images), ["a", "b"], wrong=[False, True])
    assert len(figure.axes) == 6 and figure.axes[1].get_title() == "b"
    assert [ax.title.get_color() for ax in figure.axes[:2]] == ["black", WRONG]
    outline = np.concatenate([line.get_xydata() for line in figure.axes[0].lines])
    assert outline.min(axis=0) == pytest.approx([14.5, -0.5]) and outline.max(axis=0) == pytest.approx([29.5, 9.5])
    assert len(figure.axes[2].lines) == 18
    path = save(figure, tmp_path / "looks.png")
    with Image.open(path) as picture:
        assert picture.size[0] == 800
    assert list(tmp_path.iterdir()) == [path]


def test_a_look_is_drawn_whole() -> None:
    """The axes hold the image and every edge of its look, and keep the aspect of the image."""
    images, out = torch.rand(2, 1, 20, 30), torch.tensor([[1.0, 0, 0, 0, 1, 0], [0.9, -0.4, 0.8, 0.4, 0.9, -0.7]])
    warp = stn.Affine()(out)
    figure = looks(images, warp, warp.sample(images), ["", ""])
    for n, (above, below) in enumerate(zip(figure.axes[:2], figure.axes[2:4], strict=True)):
        corners = warp[n].points(torch.tensor([[-1.0, -1], [1, -1], [-1, 1], [1, 1]]))[0]
        x, y = (normalized_to_pixel(corners, (20, 30))).T
        for ax in (above, below):
            (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
            assert left < min(-0.5, x.min().item()) and right > max(29.5, x.max().item())
            assert top < min(-0.5, y.min().item()) and bottom > max(19.5, y.max().item())
            assert (right - left) / (bottom - top) == pytest.approx(1.5)
    left, right = figure.axes[0].get_xlim()
    assert right - left < 1.1 * 30  # a look inside the image leaves the image as large as it can be


def test_lines_of_text_are_drawn_three_in_a_row_and_long_titles_are_broken() -> None:
    images, warp = torch.rand(4, 1, 8, 24), stn.Affine()(torch.eye(2, 3).flatten().repeat(4, 1))
    figure = looks(images, warp, warp.sample(images), ["75533, read as 75533"] * 4)
    assert len(figure.axes) == 4 * 3
    lefts = {place.colspan.start for ax in figure.axes if (place := ax.get_subplotspec())}
    assert lefts == {0, 1, 2} and {ax.get_title() for ax in figure.axes} == {"", "75533, read as 75533"}
    shown = [np.asarray(ax.images[0].get_array())[..., 0] for ax in figure.axes if ax.get_title()]
    assert all(np.array_equal(a, b[0].numpy()) for a, b in zip(shown, images, strict=True))
    small = looks(images[..., :8], warp, images[..., :8], ["trucks may overtake\nnot: end of no overtaking by trucks"] * 4)
    assert small.axes[0].get_title() == "trucks may overtake\nnot: end of no overtaking\nby trucks"


def test_a_look_that_reaches_infinity_leaves_the_image_visible() -> None:
    points = torch.tensor([[torch.inf, 0.0], [torch.nan, 1], [1e9, -1e9], [3, 4]])
    left, top, right, bottom = hull((20, 30), points)
    assert (right - left) == pytest.approx(2 * 30 * 1.04) and (bottom - top) == pytest.approx(2 * 20 * 1.04)
    assert hull((20, 30), torch.zeros(0, 2)) == pytest.approx((-1.1, -0.9, 30.1, 19.9))


def test_the_picture_of_a_table_has_a_title_for_each_run_and_a_row_for_each_look() -> None:
    """Titles do not collide: each has the width of its group, and the pictures are as wide as a page."""
    one, two = (Cell(name, "84", Run()) for name in ("LOOK", "2XLOOK"))
    image, edges = torch.rand(1, 20, 20), 10 * torch.ones(2, 4, 33, 2)
    seen = {one: [Look(image, edges[:1], torch.rand(1, 1, 8, 8))] * 4, two: [Look(image, edges, torch.rand(2, 1, 8, 8))] * 4}
    figure = picture(seen, ["84"])
    assert len(figure.axes) == 4 * (2 + 3) and figure.get_figwidth() == 8
    titled = [ax for ax in figure.axes if ax.get_title(loc="left")]
    assert [ax.get_title(loc="left") for ax in titled] == ["LOOK, 84", "2XLOOK, 84"]
    boxes = [ax.get_position() for ax in figure.axes]
    assert all(0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1 for box in boxes)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    height = 0.2 / figure.get_figheight()  # of a title
    rooms = [Bbox.from_extents(0, box.y1, 1, box.y1 + height) for box in (ax.get_position() for ax in titled)]
    assert all(room.y1 <= 1 for room in rooms) and not any(
        room.overlaps(box.padded(-1e-6)) for room in rooms for box in boxes
    )


def test_looks_in_parallel_have_a_colour_each() -> None:
    images = torch.rand(3, 1, 12, 12)
    warp = stn.Attention()(torch.tensor([[[0.5, -0.5, 0], [0.5, 0.5, 0]]]).repeat(3, 1, 1))
    figure = looks(images, warp, warp.sample(images, (6, 6)), ["", "", ""])
    assert len(figure.axes) == 12
    assert {line.get_color() for line in figure.axes[0].lines} == set(COLORS[:2])
    left, right = (patch.get_path().get_extents() for patch in figure.axes[0].patches)  # the tinted areas
    assert (left.x0, left.x1, right.x0, right.x1) == pytest.approx((-0.5, 5.5, 5.5, 11.5))
    frames = [figure.axes[i].spines["top"].get_edgecolor() for i in (0, 6, 9)]
    assert len(set(frames)) == 3


def test_channels_are_seen() -> None:
    first, second = torch.eye(2)[:, :, None, None].expand(2, 2, 4, 5)  # each image has one of two channels on
    assert rgb(first).shape == (4, 5, 3) and not np.allclose(rgb(first), rgb(second))
    colored = torch.rand(3, 4, 5, generator=seeded())
    assert np.array_equal(rgb(colored), colored.movedim(0, -1).numpy())
    assert np.array_equal(rgb(colored[:1])[..., 0], rgb(colored[:1])[..., 2])


def test_means_are_of_classes_before_and_after() -> None:
    images = torch.zeros(4, 1, 6, 6)
    images[torch.arange(4), 0, 0, torch.arange(4)] = torch.tensor([0.5, 0.5, 1.0, 1.0])
    figure = means(images, 2 * images[..., :3].unsqueeze(1).expand(-1, 2, -1, -1, -1), torch.tensor([7, 7, 2, 2]))
    assert [ax.get_title() for ax in figure.axes[:3]] == ["all", "2", "7"] and len(figure.axes) == 9
    shown = [np.asarray(ax.images[0].get_array())[0, :, 0] for ax in figure.axes]
    assert shown[0].tolist() == [0.5, 0.5, 1, 1, 0, 0]  # full brightness
    assert shown[1].tolist() == [0, 0, 1, 1, 0, 0] and shown[2].tolist() == [1, 1, 0, 0, 0, 0]
    assert shown[5].tolist() == [1, 1, 0] and len(means(images, images, torch.zeros(4, 3)).axes) == 2


def test_the_determinant_is_the_area_covered_and_folds_are_marked() -> None:
    images, start = torch.rand(2, 1, 10, 20), torch.tensor([[0.5, 0, 0, 0, 0.5, 0], [-1.0, 0, 0, 0, 1, 0]])
    figure = determinants(images, stn.Affine()(start))
    quarter, mirrored = figure.axes[2], figure.axes[3]
    heat = quarter.images[0].get_array()
    assert heat is not None and heat.shape == (32, 64) and np.allclose(heat, -2) and len(quarter.images) == 1
    assert len(mirrored.images) == 2 and np.allclose(np.asarray(mirrored.images[1].get_array()), 1)
    assert figure.axes[0].get_title(loc="left") == "folded: 50.0 % of the output"
    assert determinants(images, stn.Affine()(start[:1].repeat(2, 1))).axes[0].get_title(loc="left") == "nothing is folded"


MOVING = [name for name in FAMILIES if handles(family(name)) is not None]


def test_families_with_control_points() -> None:
    assert set(MOVING) == {"tps", "bspline", "displacement", "velocity", "cpab", "corners"}
    assert handles(stn.Affine()) is None
    assert handles(stn.bounded(stn.ThinPlateSpline(), offsets=(-1, 1))) is not None


@pytest.mark.parametrize("name", MOVING)
def test_control_points_stand_where_the_family_has_them(name: str) -> None:
    """Moving the parameters of one control point moves that point the most."""
    made: Family = family(name)
    places = handles(made)
    assert places is not None
    point = made.num_params // 2 // 2  # the middle one of theta
    theta = made.identity().unsqueeze(0)
    theta[0, 2 * point : 2 * point + 2] += 0.05
    off = (made(theta).points(places) - places).norm(dim=-1)[0]
    nodes = torch.arange(len(places))
    if name == "corners":
        nodes = torch.tensor([0, 1, 3, 2])  # theta goes around the square
    if name == "cpab":
        nodes = nodes[(places.abs() < 0.9).all(dim=-1)]  # points on the edges are fixed
    assert off.argmax() == nodes[point]


def test_control_points_and_their_ways_are_drawn_in_pixels() -> None:
    images, spline = torch.rand(2, 1, 20, 30), stn.ThinPlateSpline()
    places = handles(spline)
    assert places is not None
    theta = near_identity("tps", 2, dtype=torch.float32)
    warps = [spline(share * theta) for share in (0.0, 0.5, 1.0)]
    figure = control_points(images, places, warps)
    ends = np.asarray(figure.axes[0].lines[-1].get_xydata())
    expected = (places + theta[0].view(-1, 2)) * torch.tensor([15.0, 10]) + torch.tensor([14.5, 9.5])
    assert ends == pytest.approx(expected.numpy(), abs=1e-4)
    trails = figure.axes[2].collections[0]
    assert isinstance(trails, LineCollection) and len(trails.get_segments()) == 2 * len(places)
    assert len(control_points(images, places, warps[-1:]).axes) == 2


def test_the_points_of_a_free_form_deformation_are_drawn_where_its_coefficients_are() -> None:
    made = stn.BSpline(shape=(5, 6))
    places = handles(made)
    assert places is not None and places.shape == (30, 2)
    lattice = places.view(5, 6, 2)  # the inner n - 2 points of each axis span the image
    assert torch.allclose(lattice[2, 1:-1, 0], torch.linspace(-1, 1, 4))
    assert torch.allclose(lattice[1:-1, 2, 1], torch.linspace(-1, 1, 3))
    theta = near_identity(made, 1, dtype=torch.float32)
    figure = control_points(torch.rand(1, 1, 16, 16), places, [made(theta)])
    ends = np.asarray(figure.axes[0].lines[-1].get_xydata())
    assert ends == pytest.approx(((places + theta.view(-1, 2)) * 8 + 7.5).numpy(), abs=1e-4)


def test_the_box_of_a_look_at_a_volume_is_seen_along_its_depth() -> None:
    """The box has twelve edges: four along each of x, y and z. Without rotation, those along z appear as points."""
    half = torch.tensor([[0.5, 0, 0, 0.25, 0, 0.5, 0, 0, 0, 0, 0.5, 0]])
    edges = box(stn.Affine(3)(half), (8, 16, 32))[0, 0]
    assert edges.shape == (12, 33, 2)
    low, high = edges.amin(dim=(0, 1)), edges.amax(dim=(0, 1))
    torch.testing.assert_close(low, torch.tensor([16 * 0.75 - 0.5, 8 * 0.5 - 0.5]))
    torch.testing.assert_close(high, torch.tensor([16 * 1.75 - 0.5, 8 * 1.5 - 0.5]))
    assert (edges[8:].amax(dim=1) == edges[8:].amin(dim=1)).all() and edges[0].amax(dim=0)[0] > edges[0].amin(dim=0)[0]
