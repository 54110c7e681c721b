"""Pictures of a digit, or of a line, at any place and in any brightness, are read as the networks' own images are."""

import itertools
import math

import pytest
import torch
from torch import nn

import stn
from stn.models import load, read_digit, read_line
from stn.models.reading import digit_image, line_image, shows_line
from tests.helpers import noise, seeded
from tests.strokes import line_picture

LINE = "st-crnn-tps/curved"


def picture(angle: float, *, dark: bool = False, size: tuple[int, int] = (90, 120)) -> torch.Tensor:
    """A seven of two strokes, turned, away from the middle, on a ground that is not black."""
    points = torch.tensor([[-12.0, -15.0], [10.0, -15.0], [-3.0, 16.0]])
    turn = torch.tensor(angle).deg2rad()
    matrix = torch.stack([torch.stack([turn.cos(), -turn.sin()]), torch.stack([turn.sin(), turn.cos()])])
    points = points @ matrix.T + torch.tensor([70.0, 40.0])
    y, x = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    at = torch.stack([x, y], dim=-1)
    distance = torch.full(size, 1e3)
    for a, b in ((points[0], points[1]), (points[1], points[2])):
        along = (((at - a) @ (b - a)) / (b - a).square().sum()).clamp(0, 1)
        distance = torch.minimum(distance, (at - a - along[..., None] * (b - a)).norm(dim=-1))
    ink = (2.5 - distance).clamp(0, 1)
    return (0.9 - 0.7 * ink if dark else 0.1 + 0.6 * ink).expand(3, *size)


@pytest.mark.parametrize("dark", (False, True))
@pytest.mark.parametrize("angle", (-30.0, 0.0, 25.0))
def test_a_drawn_seven_is_read(angle: float, dark: bool) -> None:
    probabilities = read_digit(load("st-cnn-affine/rts"), picture(angle, dark=dark))
    assert probabilities.argmax() == 7 and probabilities.sum().item() == pytest.approx(1, abs=1e-5)


def test_a_digit_is_brought_to_the_form_of_the_task() -> None:
    image = digit_image(picture(0.0))
    assert image.shape == (1, 1, 42, 42) and image.min() == 0 and image.max() == 1
    rows = (image[0, 0] > 0.3).any(dim=1).nonzero()
    assert 18 <= rows[-1] - rows[0] + 1 <= 22  # twenty pixels high
    mass = image[0, 0] / image.sum()
    middle = [(mass.sum(dim=axis) * (torch.arange(42) + 0.5)).sum().item() for axis in (0, 1)]
    assert middle == pytest.approx([21, 21], abs=0.5)
    torch.testing.assert_close(digit_image(picture(0.0, dark=True)), image, atol=0.02, rtol=0)


@pytest.mark.parametrize(
    "image, sentence",
    (
        (torch.rand(20, 20), r"image must be \(C, H, W\) of floating-point numbers; got torch.float32 \(20, 20\)"),
        (torch.zeros(1, 20, 20, dtype=torch.uint8), "image must be .*; got torch.uint8"),
        (torch.full((1, 20, 20), 0.5), "image must show a digit .*; its contrast is 0"),
    ),
)
def test_other_images_are_refused(image: torch.Tensor, sentence: str) -> None:
    with pytest.raises(stn.InputError, match=sentence):
        read_digit(nn.Identity(), image)


# ---- lines ----


class Constant(nn.Module):
    """A network whose output does not depend on the image."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits


@pytest.mark.parametrize("bend, slope", ((0.0, 0.2), (1.6, 0.0), (2.4, -0.15), (-1.6, 0.1), (-2.4, 0.0)))
@pytest.mark.parametrize("text, dark, scale", (("1407", False, 2.0), ("52936", True, 3.5), ("780", True, 1.3)))
def test_a_drawn_line_is_read(text: str, dark: bool, scale: float, bend: float, slope: float) -> None:
    image = line_picture(text, bend, dark=dark, scale=scale, slope=slope)
    read, probability = read_line(load(LINE), image)
    assert read == text and 0.2 < probability <= 1


def test_bent_lines_are_read_through_the_layer() -> None:
    draw = seeded(1)
    texts = ["".join(map(str, torch.randint(10, (5,), generator=draw).tolist())) for _ in range(12)]
    images = [line_picture(text, (-1) ** k * 2.4) for k, text in enumerate(texts)]
    network = load(LINE)
    read = [read_line(network, image)[0] == text for image, text in zip(images, texts, strict=True)]
    layer = network.get_submodule("transformer")
    assert isinstance(layer, stn.SpatialTransformer)
    layer.reset_to_identity()
    without = [read_line(network, image)[0] == text for image, text in zip(images, texts, strict=True)]
    assert sum(read) >= 10 and sum(without) <= sum(read) - 5


def test_a_line_is_brought_to_the_form_of_the_task() -> None:
    image = line_image(line_picture("52936", 1.5))
    assert image.shape == (1, 1, 64, 200) and image.min() == 0 and image.max() == 1
    for axis, side in ((0, 200), (1, 64)):
        found = (image[0, 0] > 0.3).any(dim=axis).nonzero()
        assert found[-1] - found[0] + 1 == pytest.approx(0.92 * side, abs=2)
        assert (found[-1] + found[0] + 1) / 2 == pytest.approx(side / 2, abs=1)
    torch.testing.assert_close(line_image(line_picture("52936", 1.5, dark=True)), image, atol=0.02, rtol=0)


def test_the_probability_is_that_of_all_alignments() -> None:
    logits = 2 * noise(1, 4, 11, dtype=torch.float32, seed=3)
    logits[0, 1] = logits[0, 0]  # a repetition
    text, probability = read_line(Constant(logits), line_picture("123"))
    p, total = logits[0].softmax(dim=-1), 0.0
    for path in itertools.product(range(11), repeat=4):
        if "".join(str(k) for k, _ in itertools.groupby(path) if k != 10) == text:
            total += math.prod(p[step, k].item() for step, k in enumerate(path))
    assert len(text) >= 2 and probability == pytest.approx(total, rel=1e-4)
    blank = torch.zeros(1, 4, 11)
    blank[..., 10] = 3
    assert read_line(Constant(blank), line_picture("1")) == ("", pytest.approx(blank.softmax(dim=-1)[0, 0, 10].item() ** 4))


def test_lines_and_digits_are_told_apart() -> None:
    assert all(shows_line(line_picture(text, bend)) for text in ("110", "777", "96842") for bend in (-2.6, 0.0, 2.6))
    assert all(shows_line(line_picture("780", slope=slope)) for slope in (-0.25, 0.25))  # 1.6 times as wide as high
    assert not shows_line(line_picture("11"))  # in pieces, but higher than wide
    assert not any(shows_line(picture(angle)) for angle in (-45.0, 0.0, 45.0))
    assert not any(shows_line(line_picture(digit)) for digit in "0123456789")


def test_a_network_of_the_other_kind_is_refused() -> None:
    with pytest.raises(stn.InputError, match=r"network must be one for single digits, with logits \(1, 10\); got logits"):
        read_digit(load(LINE), picture(0.0))
    with pytest.raises(stn.InputError, match=r"network must be one for lines, which takes images \(1, 1, 64, 200\)"):
        read_line(load("st-cnn-affine/rts"), line_picture("123"))
    with pytest.raises(stn.InputError, match="image must show a line of digits on a ground"):
        read_line(load(LINE), torch.zeros(1, 9, 9))
