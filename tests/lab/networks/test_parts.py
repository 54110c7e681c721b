"""Networks with parallel looks, one for each part."""

import copy

import pytest
import torch
from torch import nn

import stn
from stn.lab.networks import PartsNetwork, build_parts, small_resnet
from stn.lab.networks.parts import tile_centers
from tests.helpers import held, seeded


def features(pooled: bool) -> nn.Sequential:
    """Return a backbone that a user passes: it returns features, or maps if it does not pool."""
    layers = [nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU()]
    return nn.Sequential(*layers, *([nn.AdaptiveAvgPool2d(1), nn.Flatten()] if pooled else []))


@pytest.mark.parametrize("looks", (1, 2, 3, 4))
@pytest.mark.parametrize("backbone", (None, features(True), features(False)))
def test_any_backbone(backbone: nn.Module | None, looks: int) -> None:
    network = build_parts(5, 32, num_looks=looks, backbone=backbone)
    nn.init.normal_(network.transformer.regression.weight, std=0.01)
    logits, warp = network(torch.rand(3, 3, 32, 32, generator=seeded()), return_warp=True)
    assert logits.shape == (3, 5) and warp.points(torch.zeros(2)).numel() == 3 * looks * 2
    logits.logsumexp(dim=1).sum().backward()
    for key, p in network.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().max() > 0, key


def test_four_looks_tile_the_image() -> None:
    network = build_parts(2, 16, num_looks=4, backbone=features(False))
    x = torch.rand(2, 3, 16, 16, generator=seeded())
    tiles = [x[..., top : top + 8, left : left + 8] for top in (0, 8) for left in (0, 8)]
    torch.testing.assert_close(network.transformer(x), torch.stack(tiles, dim=1))


def test_where_looks_start() -> None:
    assert tile_centers(1, 0.5).tolist() == [[0, 0]]
    assert tile_centers(2, 0.5).tolist() == [[-0.5, 0], [0.5, 0]]
    assert tile_centers(3, 0.5).tolist() == [[-0.5, -0.5], [0.5, -0.5], [0, 0.5]]
    assert tile_centers(6, 0.25)[:3].tolist() == [[-0.75, -0.75], [0, -0.75], [0.75, -0.75]]
    assert tile_centers(4, 1.5).abs().max() == 0


def test_the_scale_is_fixed_and_the_look_has_its_own_size() -> None:
    network = build_parts(2, 32, look=24, scale=0.25, backbone=features(False))
    nn.init.normal_(network.transformer.regression.weight)
    network.transformer.warns = False
    looks, warp = network.transformer(torch.rand(3, 3, 32, 32, generator=seeded()), return_warp=True)
    assert looks.shape == (3, 2, 3, 24, 24)
    assert isinstance(warp, stn.MatrixWarp)
    assert torch.equal(warp.matrix[..., :2], 0.25 * torch.eye(2).expand(3, 2, 2, 2))
    assert warp.matrix[:, 0, :, 2].std(dim=0).min() > 0  # but the position differs from image to image


def test_one_localisation_network_and_one_backbone() -> None:
    two, four = (build_parts(2, 32, num_looks=k, backbone=features(False)) for k in (2, 4))
    backbones = [sum(p.numel() for p in n.backbone.parameters()) for n in (two, four)]
    localizations = [sum(p.numel() for p in n.transformer.localization.parameters()) for n in (two, four)]
    assert backbones[0] == backbones[1] and localizations[0] == localizations[1]
    groups = stn.param_groups(four, lr=1.0, localization_lr=1e-4)
    assert [len(held(g)) for g in groups] == [4 + 2, 4 + 6, 2]
    taken = [id(p) for g in groups for p in held(g)]
    assert len(taken) == len(set(taken)) == len(list(four.parameters()))  # the localization has a copy of the backbone


def test_features_of_the_looks_are_joined_in_their_order() -> None:
    network = build_parts(2, 16, num_looks=2, backbone=features(False)).eval()
    x = torch.rand(2, 3, 16, 16, generator=seeded())
    looks = network.transformer(x)
    joined = torch.cat([network.backbone(looks[:, k]).mean(dim=(2, 3)) for k in (0, 1)], dim=1)
    torch.testing.assert_close(network(x), network.classifier(joined))


def test_a_pretrained_backbone_is_the_start_of_both() -> None:
    backbone = features(False)
    before = copy.deepcopy(backbone.state_dict())
    network = build_parts(2, 32, backbone=backbone)
    assert network.backbone is backbone
    for key, value in network.get_submodule("transformer.localization.1").state_dict().items():
        assert torch.equal(value, before[key]) and torch.equal(backbone.state_dict()[key], before[key]), key
    assert backbone.training


def test_it_learns_a_class_of_two_parts() -> None:
    """The class is given by two shapes, one on the left and one on the right, each at its own height."""
    torch.manual_seed(0)
    n, draw = 32, seeded(1)
    heights, y = torch.randint(0, 20, (n, 2), generator=draw), torch.randint(0, 4, (n,), generator=draw)
    x = torch.zeros(n, 1, 32, 32)
    for image, tops, label in zip(x, heights.tolist(), y.tolist(), strict=True):
        for top, left, hollow in zip(tops, (2, 20), (label % 2, label // 2), strict=True):
            image[0, top : top + 10, left : left + 10] = 1
            image[0, top + 2 : top + 8, left + 2 : left + 8] = 1 - hollow
    network = build_parts(4, 32, channels=1)
    optimizer = torch.optim.AdamW(stn.param_groups(network, 2e-3, 1e-3))
    for _ in range(25):
        loss = nn.functional.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1


def test_its_localisation_stays_alive_at_a_high_rate() -> None:
    """Units that are zero for every image do not learn, and the looks stop. Without batch norm, 6 of 10 units are zero."""
    torch.manual_seed(0)
    network, x, y = build_parts(4, 32, channels=1), torch.rand(16, 1, 32, 32), torch.arange(16) % 4
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(30):
        loss = nn.functional.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (network.transformer.localization(x) > 0).any(dim=0).float().mean() > 0.9


def test_bad_requests() -> None:
    with pytest.raises(stn.InputError, match="num_looks must be an integer of at least 1; got 0"):
        build_parts(2, 32, num_looks=0)
    with pytest.raises(
        stn.InputError, match=r"backbone must return features \(N, F\) or \(N, F, h, w\); got \(1, 16, 256\)"
    ):
        build_parts(2, 32, backbone=nn.Sequential(nn.Conv2d(3, 16, 1), nn.Flatten(2)))
    with pytest.raises(stn.InputError, match="scale must be positive; got 0"):
        build_parts(2, 32, scale=0)


@pytest.mark.parametrize("channels", (1, 3))
def test_the_default_backbone(channels: int) -> None:
    network = small_resnet(channels)
    maps = network(torch.rand(2, channels, 42, 42))
    assert maps.shape == (2, 256, 3, 3) and isinstance(build_parts(2, 32, channels=channels), PartsNetwork)
    maps.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())
