"""Finding what images have in common."""

import pytest
import torch
from torch import Tensor, nn

import stn
from stn.models import box_iou, boxes_of, build_colocalizer, build_encoder, random_places, triplet_loss
from tests.helpers import noise, seeded


def test_the_papers_layers() -> None:
    layer = build_colocalizer()
    convolution = layer.localization.get_submodule("0.0")
    assert (convolution.kernel_size, convolution.stride, convolution.out_channels) == ((9, 9), (4, 4), 8)
    dense = [m for m in layer.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in dense] == [(8 * 9 * 9, 8), (8, 8), (8, 3)]
    x = torch.rand(3, 1, 84, 84, generator=seeded())
    torch.testing.assert_close(layer(x), nn.functional.interpolate(x, (28, 28), mode="bilinear"))  # the start: all of it
    smooth = build_colocalizer(antialias=True)(x)
    assert smooth.std() < 0.6 * layer(x).std()
    nn.init.normal_(layer.regression.weight, std=0.1)
    layer(x).square().sum().backward()
    for key, p in layer.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().max() > 0, key


def test_the_encoder() -> None:
    encoder = build_encoder(7)
    x = torch.rand(4, 1, 28, 28, generator=seeded()).requires_grad_()
    features = encoder.get_submodule("features")(x)
    assert features.ndim == 2 and encoder(x).shape == (4, 7)
    features.square().sum().backward()
    assert x.grad is not None and x.grad.abs().max() > 0


def test_the_triplet_loss() -> None:
    zero, near, far = torch.zeros(2, 3), torch.full((2, 3), 0.5), torch.full((2, 3), 2.0)
    assert triplet_loss(zero, near, far) == 0  # 0.75 - 12 + 1 < 0
    assert triplet_loss(zero, far, near) == 12 - 0.75 + 1
    assert triplet_loss(zero, near, near, margin=0.3) == pytest.approx(0.3)
    mixed = triplet_loss(zero, torch.stack([near[0], far[0]]), torch.stack([far[0], near[0]]))
    assert mixed == 12.25 / 2  # a good triplet does not pay for a bad one
    anchor = zero.clone().requires_grad_()
    triplet_loss(anchor, far, near).backward()
    torch.testing.assert_close(anchor.grad, 2 * (near - far) / 2)


def test_random_places() -> None:
    theta = torch.tensor([[0.25, 3.0, -3.0], [1.0, 0.2, 0.2], [1.7, 0.0, 0.1], [-0.5, 0, 0]]).repeat(500, 1).requires_grad_()
    placed = random_places(theta, seeded())
    assert torch.equal(placed[:, 0], theta[:, 0]) and not placed.requires_grad
    reach = placed[:, 1:].view(-1, 4, 2).abs().amax(dim=0)
    assert (reach[0] > 0.7).all() and (reach[0] <= 0.75).all() and reach[1:3].max() == 0 and 0.45 < reach[3].min() <= 0.5
    assert torch.equal(placed, random_places(theta, seeded())) and not torch.equal(placed, random_places(theta, seeded(1)))
    assert random_places(theta[:0], seeded()).shape == (0, 3)


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
