"""Published networks with a spatial transformer, each beside its own formula in plain torch, equal to 1e-5."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import stn
from tests.helpers import held, seeded


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def random(module: nn.Module, std: float = 0.05) -> None:
    for p in module.parameters():
        nn.init.normal_(p, std=std, generator=seeded(p.numel()))


def sampled(image: Tensor, theta: Tensor, size: tuple[int, ...] | None = None, align_corners: bool = False) -> Tensor:
    grid = F.affine_grid(theta, [*image.shape[:2], *(size or image.shape[2:])], align_corners=align_corners)
    return F.grid_sample(image, grid, align_corners=align_corners)


class Tutorial(nn.Module):
    """PyTorch's tutorial on spatial transformers, as it is there."""

    def __init__(self) -> None:
        super().__init__()
        features = (
            nn.Conv2d(1, 8, 7),
            nn.MaxPool2d(2, 2),
            nn.ReLU(True),
            nn.Conv2d(8, 10, 5),
            nn.MaxPool2d(2, 2),
            nn.ReLU(True),
        )
        self.localization = nn.Sequential(*features)
        self.fc_loc = nn.Sequential(nn.Linear(10 * 3 * 3, 32), nn.ReLU(True), nn.Linear(32, 3 * 2))

    def forward(self, x: Tensor) -> Tensor:
        theta = self.fc_loc(self.localization(x).view(-1, 10 * 3 * 3)).view(-1, 2, 3)
        return sampled(x, theta)


def test_the_tutorials_network_with_its_own_checkpoint() -> None:
    old = Tutorial()
    random(old)
    with torch.no_grad():
        old.get_parameter("fc_loc.2.bias").add_(torch.tensor([1.0, 0, 0, 0, 1, 0]))
    localization = nn.Sequential(*Tutorial().localization, nn.Flatten(), nn.Linear(90, 32), nn.ReLU())
    layer = stn.SpatialTransformer(localization, "affine", features=32)
    renamed = {"fc_loc.0.": "localization.7.", "fc_loc.2.": "regression."}
    state = {}
    for key, value in old.state_dict().items():
        start = next((prefix for prefix in renamed if key.startswith(prefix)), "")
        state[renamed.get(start, "") + key[len(start) :]] = value
    layer.load_state_dict(state)
    x = torch.rand(5, 1, 28, 28, generator=seeded())
    assert (old(x) - x).abs().max() > 0.1
    close(layer(x), old(x))


def test_harmonious_attention_with_four_strips() -> None:
    """HA-CNN (Li et al. 2018): tanh of a dense layer gives the places of strips of a quarter of the height."""
    places = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 8), nn.Tanh())
    random(places, 0.5)
    strip = stn.fixed(stn.AnisotropicScale(), scale=(1.0, 0.25))
    layer = stn.SpatialTransformer(places, strip, (24, 28), num_transforms=4, regress=False)
    x = torch.rand(3, 6, 32, 28, generator=seeded())
    at = places(x).view(-1, 4, 2)
    scale = torch.tensor([[1.0, 0.0], [0.0, 0.25]]).expand(3, 2, 2)
    expected = [sampled(x, torch.cat([scale, at[:, k, :, None]], dim=2), (24, 28)) for k in range(4)]
    close(layer(x), torch.stack(expected, dim=1))


class Generator(nn.Module):
    """A stand-in for the generator of ST-GAN: it sees the foreground where it is, and the background."""

    out_features = 8

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(7, 4, 5, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 8))

    def forward(self, foreground: Tensor, background: Tensor) -> Tensor:
        found: Tensor = self.features(torch.cat([foreground, background], dim=1))
        return found


def test_composed_homographies_of_a_foreground() -> None:
    """ST-GAN (Lin et al. 2018): p <- p o dp in steps, conditioned on the background, and an RGBA composite."""
    layer = stn.InverseCompositionalTransformer(Generator(), "projective", steps=3)
    random(layer.localization)
    nn.init.normal_(layer.regression.weight, std=0.02, generator=seeded())
    foreground, background = torch.rand(2, 4, 32, 32, generator=seeded()), torch.rand(2, 3, 32, 32, generator=seeded(1))
    moved, warp = layer(foreground, background, return_warp=True)
    alpha = moved[:, 3:]
    composite = alpha * moved[:, :3] + (1 - alpha) * background

    p = torch.eye(3).repeat(2, 1, 1)
    xy = stn.grid.lattice((32, 32)).view(1, -1, 2).expand(2, -1, -1)
    seen = foreground
    for _ in range(3):
        delta = layer.regression(layer.localization(seen, background))
        p = p @ torch.cat([delta, torch.ones(2, 1)], dim=1).view(2, 3, 3)
        lifted = torch.cat([xy, torch.ones(2, 1024, 1)], dim=2) @ p.mT
        seen = F.grid_sample(foreground, (lifted[..., :2] / lifted[..., 2:]).view(2, 32, 32, 2), align_corners=False)
    assert (seen - foreground).abs().mean() > 0.05
    close(composite, seen[:, 3:] * seen[:, :3] + (1 - seen[:, 3:]) * background)


def test_a_similarity_then_a_flow_from_a_larger_copy() -> None:
    """GANgealing (Peebles et al. 2022): both are found at low resolution, and the pixels come from a larger copy."""
    similarity = stn.SpatialTransformer(stn.nn.DenseLocalization(3 * 256), "similarity")
    flow = stn.SpatialTransformer(nn.Conv2d(3, 2, 5, stride=2, padding=2), stn.Displacement(shape=(8, 8)), regress=False)
    random(similarity.localization)
    random(flow.localization)
    nn.init.normal_(similarity.regression.weight, std=0.5, generator=seeded())
    small, large = torch.rand(2, 3, 16, 16, generator=seeded()), torch.rand(2, 3, 64, 64, generator=seeded(1))
    aligned, first = similarity(small, return_warp=True)
    _, second = flow(aligned, return_warp=True)
    found = (first @ second).sample(large, (32, 32), padding_mode="border")

    s, angle, tx, ty = similarity.localize(small).T
    theta = torch.stack([s * angle.cos(), -s * angle.sin(), tx, s * angle.sin(), s * angle.cos(), ty], dim=1).view(2, 2, 3)
    field = F.interpolate(flow.localization(sampled(small, theta)), (32, 32), mode="bilinear", align_corners=False)
    points = stn.grid.lattice((32, 32)) + field.movedim(1, -1)
    grid = points @ theta[:, None, :, :2].mT + theta[:, None, None, :, 2]
    close(found, F.grid_sample(large, grid, padding_mode="border", align_corners=False))


def test_a_convolution_that_returns_the_lattice() -> None:
    """DIRNet (de Vos et al. 2017): a network of convolutions sees both images and returns control points of a B-spline."""
    regressor = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.AvgPool2d(4), nn.ELU(), nn.Conv2d(8, 2, 1))
    random(regressor, 0.2)
    layer = stn.SpatialTransformer(regressor, stn.BSpline(shape=(7, 7)), regress=False)
    moving, fixed = torch.rand(2, 1, 28, 28, generator=seeded()), torch.rand(2, 1, 28, 28, generator=seeded(1))
    pair = torch.cat([moving, fixed], dim=1)
    found = layer(pair, image=moving)

    def kernel(t: Tensor) -> Tensor:
        a = t.abs()
        return torch.where(a < 1, 2 / 3 - a**2 + a**3 / 2, torch.where(a < 2, (2 - a) ** 3 / 6, 0.0))

    u = (torch.arange(28) + 0.5) / 28 * 4 + 1  # in nodes: the image spans the inner four intervals
    weights = kernel(u[:, None] - torch.arange(7))  # (28, 7)
    field = torch.einsum("yi,xj,ncij->nyxc", weights, weights, regressor(pair))
    assert field.abs().max() > 0.02
    close(found, F.grid_sample(moving, stn.grid.lattice((28, 28)) + field, align_corners=False))


class InVoxels(nn.Module):
    """A flow in voxels, (z, y, x) as in voxelmorph, to theta: (x, y, z), normalized with aligned corners."""

    def __init__(self, flow: nn.Module) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x: Tensor) -> Tensor:
        sides = torch.tensor(x.shape[:1:-1]) - 1
        return self.flow(x).flip(1) * (2 / sides).view(1, 3, 1, 1, 1)


def test_a_dense_flow_in_voxels() -> None:
    """The layer of voxelmorph (Balakrishnan et al. 2019) in 3-D, as it is there."""
    flow = nn.Conv3d(2, 3, 3, padding=1)
    random(flow, 0.1)
    dense = stn.Displacement(3, shape=(6, 7, 8), align_corners=True)
    layer = stn.SpatialTransformer(InVoxels(flow), dense, regress=False, align_corners=True)
    moving, fixed = torch.rand(2, 1, 6, 7, 8, generator=seeded()), torch.rand(2, 1, 6, 7, 8, generator=seeded(1))
    pair = torch.cat([moving, fixed], dim=1)
    found = layer(pair, image=moving)

    vectors = [torch.arange(0, s) for s in (6, 7, 8)]
    grid = torch.stack(torch.meshgrid(vectors, indexing="ij")).unsqueeze(0).float()
    new_locs = grid + flow(pair)
    for i, side in enumerate((6, 7, 8)):
        new_locs[:, i] = 2 * (new_locs[:, i] / (side - 1) - 0.5)
    new_locs = new_locs.permute(0, 2, 3, 4, 1)[..., [2, 1, 0]]
    close(found, F.grid_sample(moving, new_locs, align_corners=True))


def test_a_video_with_one_theta_a_clip() -> None:
    """The localization network sees the mean frame; all frames are sampled through one warp."""
    layer = stn.SpatialTransformer(stn.nn.DenseLocalization(3 * 144), "affine")
    nn.init.normal_(layer.regression.weight, std=0.3, generator=seeded())
    clips = torch.rand(2, 5, 3, 12, 12, generator=seeded())  # (N, T, C, H, W)
    found, warp = layer(clips.mean(dim=1), image=clips.flatten(1, 2), return_warp=True)
    assert warp.theta is not None
    theta = warp.theta.view(2, 2, 3).repeat_interleave(5, dim=0)
    close(found.unflatten(1, (5, 3)).flatten(0, 1), sampled(clips.flatten(0, 1), theta))


def test_in_the_middle_of_a_residual_network() -> None:
    before, after = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
    head = nn.Sequential(nn.Conv2d(16, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 7 * 7, 12))
    layer = stn.SpatialTransformer(head, "affine", features=12)
    nn.init.normal_(layer.regression.weight, std=0.3, generator=seeded())
    x = before(torch.rand(2, 3, 16, 16, generator=seeded()))
    found = x + after(layer(x).relu())
    theta = layer.regression(head(x)).view(2, 2, 3)
    close(found, x + after(sampled(x, theta).relu()))
    found.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in (*before.parameters(), *layer.parameters()))


def test_a_backbone_as_localization() -> None:
    """Pretrained features, a pooling and a dense layer; the backbone learns more slowly than the rest."""
    backbone = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3))
    localization = nn.Sequential(backbone, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    layer = stn.SpatialTransformer(localization, "affine", (16, 16), features=16).eval()
    nn.init.normal_(layer.regression.weight, generator=seeded())
    x = torch.rand(2, 3, 32, 32, generator=seeded())
    theta = F.linear(backbone(x).mean(dim=(2, 3)), layer.regression.weight, layer.regression.bias).view(2, 2, 3)
    close(layer(x), sampled(x, theta, (16, 16)))
    localized = stn.param_groups(layer, lr=1e-3, localization_lr=1e-4)[0]
    assert localized["lr"] == 1e-4 and held(localized)[0] is backbone.get_parameter("0.weight")
