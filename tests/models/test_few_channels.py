"""The convolution for images of few channels agrees with torch's, in its value and its first and second derivatives."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from stn.models.blocks import channels_last
from stn.models.few_channels import ImageConvolution
from tests.helpers import seeded

CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "padded": {"kernel_size": 5, "padding": 2},
    "unpadded": {"kernel_size": 9},
    "oblong": {"kernel_size": (3, 4), "padding": (2, 0), "bias": False},
}
OTHERS: dict[str, dict[str, Any]] = {
    "strided": {"kernel_size": 3, "stride": 2},
    "dilated": {"kernel_size": 3, "dilation": 2},
    "grouped": {"kernel_size": 3, "groups": 2},
    "wrapped": {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
    "same": {"kernel_size": 3, "padding": "same"},
    "far padded": {"kernel_size": 3, "padding": 3},
}


def both(x: Tensor, channels: int, **settings: Any) -> list[list[Tensor]]:
    """Return value, gradients and second derivatives of our convolution and of torch's."""
    torch.manual_seed(0)
    ours, plain = (conv(x.shape[1], channels, **settings).double() for conv in (ImageConvolution, nn.Conv2d))
    plain.load_state_dict(ours.state_dict())
    results = []
    for conv in (ours, plain):
        image = x.clone().requires_grad_()
        wanted = [image, *conv.parameters()]
        y = conv(image)
        first = torch.autograd.grad(y.sin().sum(), wanted, create_graph=True)
        second = torch.autograd.grad(sum((g.square().sum() for g in first), torch.zeros(())), wanted)
        results.append([y, *first, *second])
    return results


@pytest.mark.parametrize("name", CONVOLUTIONS | OTHERS)
@pytest.mark.parametrize("size", ((10, 14), (11, 12)))
def test_it_is_a_convolution(size: tuple[int, int], name: str) -> None:
    x = torch.randn(2, 2, *size, dtype=torch.float64, generator=seeded())
    for ours, theirs in zip(*both(x, 8, **(CONVOLUTIONS | OTHERS)[name]), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_only_a_look_takes_the_other_way(name: str) -> None:
    conv = ImageConvolution(3, 4, **CONVOLUTIONS[name] | {"bias": False})
    image = torch.rand(2, 3, 12, 12, generator=seeded())
    assert "FewChannels" in type(conv(image.clone().requires_grad_()).grad_fn).__name__
    plain = nn.Conv2d(3, 4, **CONVOLUTIONS[name] | {"bias": False})
    plain.load_state_dict(conv.state_dict())
    assert "FewChannels" not in type(conv(image).grad_fn).__name__ and torch.equal(conv(image), plain(image))


@pytest.mark.parametrize("last", (False, True))
@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("channels", (1, 2))
@pytest.mark.parametrize("images", (1, 8, 17))
def test_gradient_of_the_weight_over_many_images(images: int, channels: int, name: str, last: bool) -> None:
    torch.manual_seed(0)
    conv, plain = (conv(channels, 8, **CONVOLUTIONS[name]) for conv in (ImageConvolution, nn.Conv2d))
    plain.load_state_dict(conv.state_dict())
    image = torch.randn(images, channels, 12, 14, generator=seeded())
    for layer in (conv, plain):
        if last:
            image = image.to(memory_format=torch.channels_last)
            channels_last(layer)
        layer(image.detach().requires_grad_()).sin().sum().backward()
    for ours, theirs in zip(conv.parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None and theirs.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-4)  # float32 sums of thousands of terms


def test_no_images() -> None:
    conv = ImageConvolution(1, 4, 5)
    conv(torch.zeros(0, 1, 8, 8, requires_grad=True)).sum().backward()
    assert conv.weight.grad is not None and not conv.weight.grad.any()


def test_under_autocast() -> None:
    conv, plain = ImageConvolution(3, 4, 5, padding=2), nn.Conv2d(3, 4, 5, padding=2)
    plain.load_state_dict(conv.state_dict())
    grads = []
    for layer in (conv, plain):
        x = torch.rand(2, 3, 8, 8, generator=seeded()).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = layer(x)
            assert y.dtype == torch.bfloat16
        y.float().square().sum().backward()
        grads.append([x.grad, *(p.grad for p in layer.parameters())])
    for ours, theirs in zip(*grads, strict=True):
        assert ours is not None and theirs is not None and ours.dtype == torch.float32
        assert (ours - theirs).abs().max() < 0.02 * theirs.abs().max()


def loss_of(conv: nn.Module, parameters: dict[str, Tensor], image: Tensor) -> Tensor:
    """Return the loss of one image (C, H, W)."""
    y: Tensor = torch.func.functional_call(conv, parameters, (image.unsqueeze(0),))
    return y.sin().sum()


def per_sample(conv: nn.Module, parameters: dict[str, Tensor], x: Tensor) -> Any:
    """Return one gradient per image, as differential privacy needs."""
    return torch.func.vmap(torch.func.grad(lambda p, i: loss_of(conv, p, i)), (None, 0))(parameters, x)


def forward_mode(conv: nn.Module, parameters: dict[str, Tensor], x: Tensor) -> Any:
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.cos(x))
        return forward_ad.unpack_dual(conv(dual)).tangent


def batched(conv: nn.Module, parameters: dict[str, Tensor], x: Tensor) -> Any:
    y = conv(x)
    return torch.autograd.grad(y, [x, *conv.parameters()], torch.stack([y.sin(), y.cos(), y * 2]), is_grads_batched=True)


def pulled_under_vmap(conv: nn.Module, parameters: dict[str, Tensor], x: Tensor) -> Any:
    y = conv(x)

    def pull(g: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(y, [x, *conv.parameters()], g, retain_graph=True)

    return torch.func.vmap(pull)(torch.stack([y.sin(), y.cos(), y * 2]).detach())


def checkpointed(conv: nn.Module, parameters: dict[str, Tensor], x: Tensor) -> Any:
    y = checkpoint(lambda image: conv(image).sin(), x, use_reentrant=False)
    return torch.autograd.grad(y.sum(), [x, *conv.parameters()])


def vectorized(conv: nn.Module, parameters: dict[str, Tensor], x: Tensor) -> Any:
    return torch.autograd.functional.jacobian(lambda image: conv(image)[..., 0, 0], x, vectorize=True)


def mapped(conv: nn.Module, parameters: dict[str, Tensor], x: Tensor) -> Any:
    return torch.func.vmap(conv)(x.unsqueeze(1))


def hessian_product(conv: nn.Module, parameters: dict[str, Tensor], x: Tensor) -> Any:
    def loss(image: Tensor) -> Tensor:
        return loss_of(conv, parameters, image)

    return torch.func.jvp(torch.func.grad(loss), (x[0],), (x[1],))[1]


TRANSFORMS: dict[str, Callable[[nn.Module, dict[str, Tensor], Tensor], Any]] = {
    "vmap": mapped,
    "grad": lambda conv, p, x: torch.func.grad(lambda image: loss_of(conv, p, image))(x[0]),
    "jvp": lambda conv, p, x: torch.func.jvp(conv, (x,), (x.cos(),))[1],
    "jacfwd": lambda conv, p, x: torch.func.jacfwd(lambda image: conv(image)[..., 0, 0])(x),
    "jacrev": lambda conv, p, x: torch.func.jacrev(lambda image: conv(image)[..., 0, 0])(x),
    "hessian product": hessian_product,
    "per sample": per_sample,
    "forward mode": forward_mode,
    "is_grads_batched": batched,
    "vmap of a gradient": pulled_under_vmap,
    "vectorized jacobian": vectorized,
    "checkpoint": checkpointed,
}


@pytest.mark.parametrize("settings", CONVOLUTIONS)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_under_the_transforms_of_torch(transform: str, settings: str) -> None:
    """The image may require a gradient that is recorded outside the transform."""
    torch.manual_seed(0)
    ours, plain = (conv(3, 4, **CONVOLUTIONS[settings]).double() for conv in (ImageConvolution, nn.Conv2d))
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 12, 14, dtype=torch.float64, generator=seeded())
    found, expected = (
        TRANSFORMS[transform](conv, dict(conv.named_parameters()), x.clone().requires_grad_()) for conv in (ours, plain)
    )
    torch.testing.assert_close(found, expected)
