"""Feature maps are in channels-last memory."""

import copy

import pytest
import torch
from torch import nn

from stn.models.blocks import channels_last
from tests.helpers import seeded


@pytest.mark.parametrize("channels", (1, 3))
@pytest.mark.parametrize("ndim", (2, 3))
def test_maps_of_any_image_lie_channels_last(ndim: int, channels: int) -> None:
    """This includes images of one channel, for which torch cannot distinguish the two layouts."""
    conv = {2: nn.Conv2d, 3: nn.Conv3d}[ndim](channels, 4, 3)
    x = torch.rand(2, channels, *[6] * ndim, generator=seeded())
    y = conv(x)
    last = channels_last(copy.deepcopy(conv))
    assert last(x).is_contiguous(memory_format={2: torch.channels_last, 3: torch.channels_last_3d}[ndim])
    torch.testing.assert_close(last(x), y)
    assert all(p.requires_grad for p in last.parameters()) and copy.deepcopy(last)(x).stride() == last(x).stride()
