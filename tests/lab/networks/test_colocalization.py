"""The network for co-localization."""

import pytest
import torch
from torch import Tensor, nn

import stn
from stn.lab.networks import (
    Codes,
    box_iou,
    boxes_of,
    build_colocalizer,
    random_places,
    similarity_triplet_loss,
    triplet_loss,
)
from tests.helpers import noise, seeded


def test_the_papers_layers() -> None:
    layer = build_colocalizer()
    convolution = layer.localization.get_submodule("0.0")
    assert (convolution.kernel_size, convolution.stride, convolution.out_channels) == ((9, 9), (4, 4), 8)
    dense = [m for m in layer.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in dense] == [(8 * 9 * 9, 8), (8, 8)]
    assert layer.regression.weight.shape == (3, 8)
    x = torch.rand(3, 1, 84, 84, generator=seeded())
    torch.testing.assert_close(layer(x), nn.functional.interpolate(x, (28, 28), mode="bilinear"))  # the whole image
    smooth = build_colocalizer(antialias=True)(x)
    assert smooth.std() < 0.6 * layer(x).std()
    nn.init.normal_(layer.regression.weight, std=0.1)
    layer(x).square().sum().backward()
    for key, p in layer.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().max() > 0, key


def test_codes_are_zero_for_an_empty_crop_and_of_unit_length_in_the_mean() -> None:
    torch.manual_seed(0)
    features = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.5))
    images = torch.rand(40, 1, 28, 28, generator=seeded())
    codes = Codes(features, images)
    assert torch.equal(codes(torch.zeros(3, 1, 28, 28)), torch.zeros(3, 12))
    assert codes(images).square().sum(dim=1).mean().item() == pytest.approx(1, rel=1e-5)
    assert not any(p.requires_grad for p in codes.parameters()) and not features.training
    x = images.clone().requires_grad_()
    codes(x).sum().backward()
    assert x.grad is not None and x.grad.abs().max() > 0


def test_the_similarity_loss_is_the_mean_over_all_pairs() -> None:
    crops, random = (torch.randn(*shape, generator=seeded()) for shape in ((4, 6), (4, 3, 6)))
    costs = []
    for n in range(4):
        for m in range(4):
            if m != n:
                apart = sum(crops[n] @ random[n, k] for k in range(3)) / 3
                costs.append((apart - crops[n] @ crops[m] + 0.2).clamp_min(0))
    torch.testing.assert_close(similarity_triplet_loss(crops, random, margin=0.2), torch.stack(costs).mean())


def test_only_the_similarity_loss_has_no_reward_for_empty_crops() -> None:
    """Compare crops that all hold the object, or are all empty, with random crops that hold it half of the time."""
    thing, empty = torch.eye(1, 5).expand(8, 5), torch.zeros(8, 5)
    random = torch.stack([thing, empty], dim=1)[:, torch.arange(8) % 2].diagonal().T  # (8, 5): object, empty, ..
    found, missed = (similarity_triplet_loss(c, random.unsqueeze(1), margin=0.5).item() for c in (thing, empty))
    assert found < missed == 0.5
    assert triplet_loss(empty, empty, random, margin=0.5) <= triplet_loss(thing, 0.5 * thing, random, margin=0.5)


def test_the_triplet_loss() -> None:
    zero, near, far = torch.zeros(2, 3), torch.full((2, 3), 0.5), torch.full((2, 3), 2.0)
    assert triplet_loss(zero, near, far) == 0  # 0.75 - 12 + 1 < 0
    assert triplet_loss(zero, far, near) == 12 - 0.75 + 1
    assert triplet_loss(zero, near, near, margin=0.3) == pytest.approx(0.3)
    mixed = triplet_loss(zero, torch.stack([near[0], far[0]]), torch.stack([far[0], near[0]]))
    assert mixed == 12.25 / 2  # a good triplet does not compensate for a bad one
    anchor = zero.clone().requires_grad_()
    triplet_loss(anchor, far, near).backward()
    torch.testing.assert_close(anchor.grad, 2 * (near - far) / 2)


def test_random_places_are_all_inside() -> None:
    places = random_places(500, 4, 0.25, seeded())
    assert places.shape == (500, 4, 2) and 0.74 < places.abs().max() <= 0.75
    assert places.mean().abs() < 0.02 and places.std().item() == pytest.approx(0.75 / 3**0.5, rel=0.03)
    assert torch.equal(places, random_places(500, 4, 0.25, seeded()))
    assert random_places(3, 2, 1.0, seeded()).abs().max() == 0 and random_places(3, 2, 1.7, seeded()).abs().max() == 0


def test_boxes_of_looks() -> None:
    theta = torch.tensor([[0.5, 0.25, -0.5], [-0.5, 0.25, -0.5]])  # a mirrored look has the same box
    torch.testing.assert_close(boxes_of(stn.Attention()(theta)), torch.tensor([[-0.25, -1.0, 0.75, 0.0]]).expand(2, -1))
    looks = boxes_of(stn.Affine()(noise(3, 2, 6, dtype=torch.float32)))
    assert looks.shape == (3, 2, 4) and (looks[..., 2:] >= looks[..., :2]).all()


def drawn(box: list[int]) -> Tensor:
    image = torch.zeros(20, 20, dtype=torch.bool)
    image[box[1] : box[3], box[0] : box[2]] = True
    return image


def test_iou_is_that_of_the_pixels() -> None:
    numbers = torch.randint(0, 20, (50, 2, 2, 2), generator=seeded()).sort(dim=2).values + torch.tensor([[0], [1]])
    boxes, others = numbers.flatten(2).unbind(dim=1)
    for box, other, found in zip(boxes.tolist(), others.tolist(), box_iou(boxes.float(), others.float()), strict=True):
        a, b = drawn(box), drawn(other)
        assert found.item() == pytest.approx(((a & b).sum() / (a | b).sum()).item())
    point = torch.ones(1, 4)
    assert box_iou(point, point) == 0
    with pytest.raises(stn.InputError, match=r"others must be \(..., 4\); got \(1, 3\)"):
        box_iou(point, torch.ones(1, 3))


def test_bad_requests() -> None:
    with pytest.raises(stn.InputError, match="side must be an integer of at least 13; got 12"):
        build_colocalizer(12)
    assert build_colocalizer(13)(torch.rand(2, 1, 13, 13)).shape == (2, 1, 28, 28)
