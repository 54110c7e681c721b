"""The rectifier of text: its start, its result on a slanted line, and its localization network."""

import pytest
import torch

import stn
from stn.models.text import Resize, TextLocalization, text_rectifier
from stn.transforms import ThinPlateSpline, text_edges
from tests.helpers import noise


def test_the_rectifier_starts_as_the_identity() -> None:
    image = noise(2, 1, 32, 100, dtype=torch.float32)
    assert torch.equal(text_rectifier()(image), image)
    large = torch.rand(2, 1, 64, 200)
    halved = torch.nn.functional.avg_pool2d(large, 2)
    torch.testing.assert_close(text_rectifier()(large), halved, atol=1e-5, rtol=0)


def test_the_rectifier_straightens_what_its_spline_bends() -> None:
    """The bias sets the source positions of the points on the edges. Here these follow a line rising by half the height."""
    rectifier = text_rectifier(margin=0.0, padding_mode="zeros")
    edges = text_edges(20)
    rising = torch.stack([torch.zeros(20), -0.5 * edges[:, 0].float()], dim=1)
    rectifier.regression.bias.data.copy_(rising.flatten())
    x = torch.linspace(-1, 1, 200 + 1)[:200] + 1 / 200
    y = (torch.arange(64) + 0.5) / 32 - 1
    image = ((y[:, None] + 0.5 * x).abs() < 0.2).float()[None, None]  # a band along that line
    straight = rectifier(image)[0, 0]
    assert straight.shape == (32, 100)
    assert straight[14:18].min() > 0.95 and straight[:11].max() < 0.05 and straight[21:].max() < 0.05
    assert rectifier.options == {"padding_mode": "zeros"} and text_rectifier().options == {"padding_mode": "border"}


def test_hidden_units_of_the_localisation_cannot_all_die() -> None:
    """Even after a large step has lowered all of them, some units stay above zero for every image."""
    localization = TextLocalization().eval()
    with torch.no_grad():
        next(m for m in localization.modules() if isinstance(m, torch.nn.Linear)).bias.sub_(100)
    assert (localization(torch.rand(4, 1, 64, 200)) > 0).any(dim=1).all()


def test_resizing_does_not_alias() -> None:
    stripes = (torch.arange(200) % 2).float().expand(1, 1, 64, 200)
    assert (Resize((32, 40))(stripes) - 0.5).abs().max() < 0.1
    localization = TextLocalization(1, (16, 48), features=9)
    assert localization(stripes).shape == (1, localization.out_features) == (1, 9)


def test_bad_requests() -> None:
    with pytest.raises(stn.InputError, match="control_points must be even; got 7"):
        text_rectifier(control_points=7)
    assert isinstance(text_rectifier().family, ThinPlateSpline)
