"""Tests that need a GPU: the public operators, streams, CUDA graphs and several devices."""

import pytest
import torch
from torch import Tensor

import stn
from tests.helpers import noise, seeded

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
THETA = torch.tensor([[[0.8, -0.3, 0.1], [0.25, 0.7, -0.2]]])
SPLINE = stn.ThinPlateSpline()


def inputs(device: str = "cuda") -> tuple[Tensor, Tensor]:
    image = noise(4, 3, 60, 70, dtype=torch.float32).to(device).requires_grad_()
    theta = (THETA + 0.1 * torch.randn(4, 2, 3, generator=seeded())).to(device).requires_grad_()
    return image, theta


def gradients(out: Tensor, *at: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(out, at, noise(*out.shape, seed=1, dtype=torch.float32).to(out.device))


@pytest.mark.parametrize("family", ("affine", "projective", "tps", "bspline", "displacement"))
def test_warps_are_those_of_the_cpu(family: str) -> None:
    from stn.transforms import family as named

    transform = named(family)
    theta = transform.identity() + 0.1 * torch.randn(4, transform.num_params, generator=seeded())
    image, found = noise(4, 3, 60, 70, dtype=torch.float32), []
    for device in ("cpu", "cuda"):
        pixels, at = image.to(device).requires_grad_(), theta.to(device).requires_grad_()
        out = transform(at).sample(pixels, (50, 40))
        found.append([tensor.cpu() for tensor in (out, *gradients(out, pixels, at))])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5 * float(theirs.abs().max()), rtol=0)


def test_nothing_waits_for_the_device() -> None:
    image, theta = inputs()
    coefficients, points = 0.05 * noise(4, 19, 2).cuda(), SPLINE.control_points.cuda()
    gradients(stn.affine_sample(image, theta), image, theta)  # compiles
    stn.thin_plate_sample(image, coefficients, points)
    weight = torch.ones(4, 3, 60, 70, device="cuda")
    for deterministic in (False, True):
        torch.use_deterministic_algorithms(deterministic)
        torch.cuda.set_sync_debug_mode("error")
        try:
            torch.autograd.grad(stn.affine_sample(image, theta), (image, theta), weight)
            stn.thin_plate_sample(image, coefficients, points)
        finally:
            torch.cuda.set_sync_debug_mode("default")
            torch.use_deterministic_algorithms(False)


def test_a_cuda_graph_is_replayed_on_new_numbers() -> None:
    image, theta = (tensor.detach() for tensor in inputs())
    expected = stn.affine_sample(image, 0.5 * theta)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = stn.affine_sample(image, theta)
    theta.mul_(0.5)
    graph.replay()
    assert torch.equal(out, expected)


def test_a_cuda_graph_holds_forward_and_backward() -> None:
    """Of a layer: the replayed gradients are those of the new image and the new weights."""
    image, theta = inputs()
    weight = noise(4, 2, 3, 60, 70, seed=1, dtype=torch.float32).cuda()

    def step() -> tuple[Tensor, ...]:
        return torch.autograd.grad(stn.affine_sample(image, theta), (image, theta), weight)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # as torch recommends: compiles, and makes what later calls share
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    with torch.no_grad():
        image.mul_(-0.5)
        theta.mul_(0.9)
    graph.replay()
    expected = step()
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=1e-5)  # atomics add in any order
    assert torch.equal(found[1], expected[1])


def test_a_kernel_is_held_per_device_and_alignment() -> None:
    """A view that begins at an address that is no multiple of 16 bytes, after a call of the same shape that does."""
    image, theta = (tensor.detach() for tensor in inputs())
    long = torch.empty(image.numel() + 1, device="cuda")
    shifted = long[1:].view(image.shape).copy_(image)
    for _ in range(3):
        assert torch.equal(stn.affine_sample(shifted, theta), stn.affine_sample(image, theta))


def test_the_current_stream_is_used() -> None:
    image, theta = (tensor.detach() for tensor in inputs())
    expected, stream = stn.affine_sample(image, theta), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        late = image.clone().zero_()
        torch.cuda._sleep(10_000_000)
        late.copy_(image)
        out = stn.affine_sample(late, theta)
    torch.cuda.current_stream().wait_stream(stream)
    assert torch.equal(out, expected)


def test_one_compiled_graph() -> None:
    image, theta = inputs()

    def brighter(image: Tensor, theta: Tensor) -> Tensor:
        out: Tensor = stn.affine_sample(image, theta) + 1
        return out

    compiled = torch.compile(brighter, fullgraph=True)
    out, expected = compiled(image, theta), brighter(image, theta)
    assert torch.equal(out, expected)
    for ours, theirs in zip(gradients(out, image, theta), gradients(expected, image, theta), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)


def test_thetas_gradient_is_the_same_in_every_run() -> None:
    image, theta = inputs()
    first = gradients(stn.affine_sample(image, theta), image, theta)[1]
    assert all(torch.equal(gradients(stn.affine_sample(image, theta), image, theta)[1], first) for _ in range(20))
    offsets = (0.05 * noise(4, 98, dtype=torch.float32)).cuda().requires_grad_()
    found = [gradients(stn.BSpline()(offsets).sample(image), offsets)[0] for _ in range(20)]
    assert found[0].abs().max() > 0 and all(torch.equal(other, found[0]) for other in found)


def test_each_image_is_sampled_on_its_own_device() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    image, theta = inputs("cuda:1")
    out = stn.affine_sample(image, theta)  # the current device is the first
    assert out.device == image.device
    there = gradients(out, image, theta)
    image, theta = inputs("cuda:0")
    here = gradients(stn.affine_sample(image, theta), image, theta)
    torch.testing.assert_close([tensor.cpu() for tensor in there], [tensor.cpu() for tensor in here], atol=1e-5, rtol=1e-5)
