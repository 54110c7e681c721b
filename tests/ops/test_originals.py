"""Operators of published networks in one call, equal to their formula in plain torch."""

import torch
from torch import Tensor
from torch.nn import functional as F

import stn
from tests.helpers import noise


def pwc_warp(image: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """The warp of PWC-Net (Sun et al. 2018) and its mask: flow (N, 2, H, W) in pixels."""
    n, _, h, w = image.shape
    x = torch.arange(w, dtype=image.dtype).view(1, 1, 1, w).expand(n, 1, h, w)
    y = torch.arange(h, dtype=image.dtype).view(1, 1, h, 1).expand(n, 1, h, w)
    grid = torch.cat([x, y], dim=1) + flow
    grid = torch.stack([2 * grid[:, 0] / max(w - 1, 1) - 1, 2 * grid[:, 1] / max(h - 1, 1) - 1], dim=-1)
    out = F.grid_sample(image, grid, align_corners=True)
    mask = F.grid_sample(torch.ones_like(image), grid, align_corners=True)
    mask = (mask >= 0.9999).to(image.dtype)
    return out * mask, mask


def test_the_warp_and_the_mask_of_pwc_net() -> None:
    image, flow = noise(2, 3, 20, 26, dtype=torch.float32), 4 * noise(2, 2, 20, 26, dtype=torch.float32, seed=1)
    expected, mask = pwc_warp(image, flow)
    out, share = stn.grid_sample(image, flow.movedim(1, -1), units="pixel", relative=True, return_mask=True)
    seen = share >= 0.9999
    torch.testing.assert_close(out * seen, expected, atol=1e-5, rtol=0)
    assert torch.equal(seen.expand_as(mask), mask.bool()) and 0.2 < mask.mean() < 0.95
