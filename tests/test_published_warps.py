"""Published uses of a warp outside a layer, each beside its own formula in plain torch, equal to 1e-5."""

import numpy as np
import torch
from skimage import transform as skimage_transform
from torch import Tensor
from torch.nn import functional as F

import stn
from tests.helpers import seeded


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=seeded(seed))


def theta_of(s: Tensor, x: Tensor, y: Tensor) -> Tensor:
    zero = torch.zeros_like(s)
    return torch.stack([s, zero, x, zero, s, y], dim=-1).view(-1, 2, 3)


def test_attend_infer_repeat_reads_and_writes() -> None:
    """AIR (Eslami et al. 2016): three steps read a window, and add what they reconstruct to the canvas."""
    n, steps, image = 2, 3, uniform(2, 1, 50, 50)
    s, (x, y) = 0.3 + 0.2 * uniform(n, steps), uniform(2, n, steps, seed=1) - 0.5
    windows, presence = uniform(n, steps, 1, 20, 20, seed=2), (uniform(n, steps, seed=3) > 0.3).float()

    where = stn.Attention()(torch.stack([s, x, y], dim=-1))
    read = where.sample(image, 20)
    canvas = where.write(windows * presence[..., None, None, None], 50, reduce="sum")

    for k in range(steps):
        grid = F.affine_grid(theta_of(s[:, k], x[:, k], y[:, k]), [n, 1, 20, 20], align_corners=False)
        close(read[:, k], F.grid_sample(image, grid, align_corners=False))
    expected = torch.zeros(n, 1, 50, 50)
    for k in range(steps):
        inverse = theta_of(1 / s[:, k], -x[:, k] / s[:, k], -y[:, k] / s[:, k])
        grid = F.affine_grid(inverse, [n, 1, 50, 50], align_corners=False)
        written = F.grid_sample(windows[:, k], grid, align_corners=False)
        expected = expected + written * presence[:, k].view(-1, 1, 1, 1)
    assert expected.abs().max() > 0.5
    close(canvas, expected)


def test_space_writes_k_objects_into_one_canvas() -> None:
    """SPACE (Lin et al. 2020): objects with an alpha mask, mixed by a softmax of presence and depth at each pixel."""
    n, k, size = 2, 16, (48, 48)
    where = torch.cat([0.15 + 0.2 * uniform(n, k, 2), 1.6 * uniform(n, k, 2, seed=1) - 0.8], dim=-1)  # sx, sy, tx, ty
    objects, alpha = uniform(n, k, 3, 12, 12, seed=2), uniform(n, k, 1, 12, 12, seed=3)
    depth, presence = 4 * uniform(n, k, 1, 1, 1, seed=4), uniform(n, k, 1, 1, 1, seed=5)
    background, transparent = uniform(n, 3, *size, seed=6), alpha * presence

    warp = stn.AnisotropicScale()(where)
    appearance, cover = warp.write(objects, size, alpha=transparent, reduce=None, return_mask=True)
    weight = (cover * 100 * torch.sigmoid(-depth)).softmax(dim=1)
    mixed = (weight * appearance).sum(dim=1) + (1 - (weight * cover).sum(dim=1)) * background

    def to_canvas(values: Tensor) -> Tensor:
        (sx, sy), (tx, ty), zero = where.flatten(0, 1)[:, :2].T, where.flatten(0, 1)[:, 2:].T, torch.zeros(n * k)
        theta = torch.stack([1 / sx, zero, -tx / sx, zero, 1 / sy, -ty / sy], dim=-1).view(-1, 2, 3)
        flat = values.flatten(0, 1)
        grid = F.affine_grid(theta, [n * k, flat.shape[1], *size], align_corners=False)
        return F.grid_sample(flat, grid, align_corners=False).unflatten(0, (n, k))

    y, a = to_canvas(transparent * objects), to_canvas(transparent)
    importance = torch.softmax(a * 100 * torch.sigmoid(-depth), dim=1)
    expected = (y * importance).sum(dim=1) + (1 - (a * importance).sum(dim=1)) * background
    assert (expected - background).abs().max() > 0.1
    close(mixed, expected)


def test_asters_rectifier_with_twenty_points_and_margins() -> None:
    """ASTER (Shi et al. 2018): 10 control points along both edges of the text, with margins, corners aligned."""
    n, half, (height, width) = 2, 10, (32, 100)
    image, margin = uniform(n, 3, 64, 256), 0.05
    x = torch.linspace(margin, 1 - margin, half, dtype=torch.float64)
    fixed = torch.cat([torch.stack([x, torch.full_like(x, v)], dim=1) for v in (margin, 1 - margin)])
    predicted = fixed + 0.2 * uniform(n, 2 * half, 2, seed=1) - 0.1  # of the network, in [0, 1]

    spline = stn.ThinPlateSpline(control_points=stn.text_edges(2 * half, margin=margin), parameters="positions")
    warp = spline((2 * predicted - 1).flatten(1))
    rectified = warp.sample(image, (height, width), align_corners=True, padding_mode="border")

    def radial(a: Tensor, b: Tensor) -> Tensor:
        d = (a[:, None] - b).square().sum(dim=-1)
        return torch.where(d == 0, 0.0, 0.5 * d * d.log())

    c = fixed
    p = torch.cat([torch.ones(2 * half, 1), c], dim=1)
    system = torch.cat([torch.cat([radial(c, c), p], dim=1), torch.cat([p.mT, torch.zeros(3, 3)], dim=1).double()])
    rows = torch.arange(height).double().repeat_interleave(width) / (height - 1)
    target = torch.stack([torch.arange(width).double().repeat(height) / (width - 1), rows], dim=1)
    basis = torch.cat([radial(target, c), torch.ones(len(target), 1), target], dim=1)
    right = torch.cat([predicted, torch.zeros(n, 3, 2)], dim=1)
    grid = (basis @ torch.linalg.solve(system, right)).view(n, height, width, 2).clamp(0, 1)
    expected = F.grid_sample(image.double(), 2 * grid - 1, align_corners=True)
    assert (grid[0] - target.view(height, width, 2)).abs().max() > 0.05
    close(rectified, expected.float())


def test_ra_cnns_attended_crops() -> None:
    """RA-CNN (Fu et al. 2017): a soft box mask of the image at (tx, ty) with half side tl, cropped and enlarged."""
    n, size, k = 3, 64, 10.0
    image = uniform(n, 3, size, size)
    tx, ty, tl = torch.tensor([30, 22, 40]), torch.tensor([28, 35, 24]), torch.tensor([12, 16, 20])
    x = torch.arange(size)

    def h(t: Tensor) -> Tensor:
        return 1 / (1 + torch.exp(-k * t))

    low, high = torch.stack([tx - tl, ty - tl]), torch.stack([tx + tl, ty + tl])
    along = [h(x - low[i, :, None]) - h(x - high[i, :, None]) for i in (0, 1)]
    masked = image * (along[1][:, None, :, None] * along[0][:, None, None, :])

    boxes = torch.stack([*low, *high], dim=1) + torch.tensor([0.5, 0.5, -0.5, -0.5])  # centers of the outer pixels
    crops = stn.from_boxes(boxes, size, align_corners=True).sample(masked, 56, align_corners=True)

    for i in range(n):
        (a, b), (c, d) = low[:, i].tolist(), high[:, i].tolist()
        cut = masked[i : i + 1, :, b:d, a:c]
        close(crops[i : i + 1], F.interpolate(cut, (56, 56), mode="bilinear", align_corners=True))


class Reprojection(stn.Warp):
    """The pixels of the target view in the source view: K T (depth K^-1 p), a warp of one's own."""

    def __init__(self, depth: Tensor, pose: Tensor, intrinsics: Tensor) -> None:
        self.depth, self.pose, self.intrinsics = depth, pose, intrinsics  # (N, 1, H, W), (N, 3, 4), (N, 3, 3)
        self.batch, self.ndim, self.dtype, self.device = (len(depth),), 2, depth.dtype, depth.device

    def map(self, points: Tensor) -> Tensor:
        size = self.depth.shape[2:]
        z = stn.grid_sample(self.depth, points.unsqueeze(1), padding_mode="border").view(len(points), -1, 1)
        pixels = stn.grid.normalized_to_pixel(points, size)
        rays = torch.cat([pixels, torch.ones_like(z)], dim=-1) @ torch.linalg.inv(self.intrinsics).mT
        scene = torch.cat([z * rays, torch.ones_like(z)], dim=-1) @ (self.intrinsics @ self.pose).mT
        return stn.grid.pixel_to_normalized(scene[..., :2] / scene[..., 2:], size)


def test_sfm_learners_inverse_warp_with_depth() -> None:
    """SfMLearner (Zhou et al. 2017): the source view sampled at the projection of each target pixel, by depth and pose."""
    n, height, width = 2, 24, 40
    source, depth = uniform(n, 3, height, width), 2 + uniform(n, 1, height, width, seed=1)
    intrinsics = torch.tensor([[30.0, 0, 19.5], [0, 30.0, 11.5], [0, 0, 1]]).expand(n, 3, 3)
    turn = stn.Rigid(3)(torch.tensor([[0.02, -0.05, 0.03, 0, 0, 0], [-0.04, 0.02, 0.0, 0, 0, 0]])).matrix[..., :3]
    pose = torch.cat([turn, torch.tensor([[[0.1], [0.05], [0.2]], [[-0.2], [0.1], [0.0]]])], dim=2)

    warp = Reprojection(depth, pose, intrinsics)
    found = warp.sample(source)

    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    p = torch.stack([u, v, torch.ones_like(u)]).float().view(3, -1)
    camera = torch.linalg.inv(intrinsics) @ p * depth.view(n, 1, -1)
    projected = intrinsics @ (pose[:, :, :3] @ camera + pose[:, :, 3:])
    x, y = projected[:, 0] / projected[:, 2], projected[:, 1] / projected[:, 2]
    grid = torch.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], dim=2).view(n, height, width, 2)
    expected = F.grid_sample(source, grid, align_corners=True)
    assert (expected - source).abs().mean() > 0.1
    close(found, expected)


FACE = torch.tensor([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])


def test_landmarks_to_a_face_crop() -> None:
    """ArcFace (Deng et al. 2019): the similarity that takes five landmarks to fixed places of a crop of 112 x 112."""
    photo = uniform(2, 3, 200, 260)
    turned = FACE @ torch.tensor([[0.9, 0.35], [-0.35, 0.9]]) * 1.3 + torch.tensor([70.0, 20.0])
    landmarks = torch.stack([turned, turned * 0.9 + 5]) + 3 * uniform(2, 5, 2, seed=1)

    warp = stn.Similarity().fit(FACE, landmarks, pixels=((200, 260), (112, 112)))
    crops = warp.sample(photo, 112)

    for n in range(2):
        inverse = skimage_transform.estimate_transform("similarity", FACE.double().numpy(), landmarks[n].double().numpy())
        v, u = np.mgrid[:112, :112]
        x, y = inverse(np.stack([u, v], axis=-1).reshape(-1, 2).astype(float)).T
        grid = np.stack([(2 * x + 1) / 260 - 1, (2 * y + 1) / 200 - 1], axis=-1).reshape(1, 112, 112, 2)
        expected = F.grid_sample(photo[n : n + 1].double(), torch.from_numpy(grid), align_corners=False)
        close(crops[n : n + 1], expected.float())


def test_a_plate_from_four_corners() -> None:
    """The homography of four pairs by its eight linear equations, sampled at the source of each pixel."""
    photo = uniform(1, 3, 96, 128).double()
    plate = torch.tensor([[20.0, 30.0], [80.0, 20.0], [82.0, 45.0], [19.0, 52.0]]).double()
    found = stn.from_corners(plate, (96, 128)).sample(photo, (24, 72))

    corners = torch.tensor([[-0.5, -0.5], [71.5, -0.5], [71.5, 23.5], [-0.5, 23.5]]).double()
    rows, right = [], []
    for (u, v), (x, y) in zip(corners.tolist(), plate.tolist(), strict=True):
        rows += [[u, v, 1, 0, 0, 0, -u * x, -v * x], [0, 0, 0, u, v, 1, -u * y, -v * y]]
        right += [x, y]
    h = torch.linalg.solve(torch.tensor(rows).double(), torch.tensor(right).double())
    v, u = torch.meshgrid(torch.arange(24), torch.arange(72), indexing="ij")
    mapped = torch.stack([u, v, torch.ones_like(u)], dim=-1).double() @ torch.cat([h, torch.ones(1)]).view(3, 3).mT
    x, y = mapped[..., 0] / mapped[..., 2], mapped[..., 1] / mapped[..., 2]
    grid = torch.stack([(2 * x + 1) / 128 - 1, (2 * y + 1) / 96 - 1], dim=-1)[None]
    close(found, F.grid_sample(photo, grid, align_corners=False))
