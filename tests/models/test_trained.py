"""The trained networks of the package: small, with true cards, and better at their task than without their layer."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import stn
from stn.lab.data import DISTORTIONS, as_float, load_digits
from stn.lab.experiments import Run, RunFolder
from stn.lab.experiments.release import release
from stn.lab.figures.run import draw_model
from stn.models import cards, load, read_digit
from stn.models.reading import digit_image
from stn.models.trained import WEIGHTS, file_of, load_file, save_file
from tests.helpers import seeded

PAGE = Path(__file__).parents[2] / "docs" / "weights.md"
NAMES = sorted(cards())


def digits(count: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    """Return test digits of scikit-learn, which no network of the package was trained on, distorted as in its task."""
    test = load_digits().test[:count]
    return DISTORTIONS["rts"].apply(as_float(test.images), seeded()), test.labels


def error(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    with torch.inference_mode():
        return (network(images).argmax(dim=1) != labels).float().mean().item()


@pytest.mark.parametrize("name", NAMES)
def test_it_reads_digits_of_another_data_set_with_its_layer(name: str) -> None:
    network = load(name)
    assert not network.training
    images, labels = digits()
    with_layer = error(network, images, labels)
    layer = network.get_submodule("transformer")
    assert isinstance(layer, stn.SpatialTransformer)
    layer.reset_to_identity()
    without = error(network, images, labels)
    assert with_layer < 0.25 and without > with_layer + 0.2


def test_the_files_are_small_and_the_page_has_the_cards() -> None:
    files = sorted(WEIGHTS.glob("*.safetensors"))
    assert sum(path.stat().st_size for path in files) <= 4_000_000 and [file_of(name) for name in NAMES] == files
    page = " ".join(PAGE.read_text().split())
    for card in cards().values():
        assert f"| `{card.name}` | {card.error_percent:.2f} |" in page
        assert card.recipe in page and card.data in page and card.license in page and card.test in page
    assert len(re.findall(r"\| `st-", page)) == len(NAMES)


def test_an_unknown_name_is_a_sentence() -> None:
    with pytest.raises(stn.InputError, match="name must be one of .*st-cnn-affine/rts.*; got 'rts'"):
        load("rts")


def test_half_precision_changes_little(tmp_path: Path) -> None:
    """Also for a network whose theta is not the identity. Kernels have 11 bits, theta's start and all norms 24."""
    torch.manual_seed(0)
    network = load(NAMES[0])
    images, _ = digits(50)
    for weight in network.parameters():
        weight.data += 0.01 * torch.randn_like(weight)
    card = dataclasses.replace(cards()[NAMES[0]], name="other")
    save_file(tmp_path / "x", network, card)
    again = load_file(tmp_path / "x")
    with torch.inference_mode():
        expected, found = network(images), again(images)
    assert (found - expected).abs().max() < 0.02 * expected.abs().max()
    assert torch.equal(
        again.state_dict()["transformer.regression.bias"], network.state_dict()["transformer.regression.bias"]
    )


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    card = cards()[NAMES[0]]
    save_file(tmp_path / "x", nn.Linear(2, 3), card)
    with pytest.raises(stn.InputError, match="must hold the weights of the network of its card; .*size|Missing"):
        load_file(tmp_path / "x")


def test_only_complete_runs_of_the_task_are_released(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.open(Run(data="mnist", distortion="rts", model="st-cnn"))
    with pytest.raises(stn.InputError, match="the run folder must hold a checkpoint"):
        release(folder, "x", tmp_path / "x")


# ---- reading a picture ----


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


def test_its_pictures_need_no_run(tmp_path: Path) -> None:
    paths = draw_model(NAMES[0], tmp_path, count=3)
    assert {"means.png", "looks.png"} <= {path.name for path in paths} and all(path.stat().st_size > 1000 for path in paths)
    with pytest.raises(stn.InputError, match="model must be one of"):
        draw_model("nothing", tmp_path)
