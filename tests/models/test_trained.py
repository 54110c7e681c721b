"""The trained networks of the package: small, with true cards, and better at their task than without their layer."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import stn
from stn.lab.data import as_float, load_digits
from stn.lab.data.draw import Example
from stn.lab.experiments import Run, RunFolder
from stn.lab.experiments.release import release
from stn.lab.experiments.tasks import TASKS
from stn.lab.figures.run import draw_model
from stn.models import cards, load
from stn.models.trained import WEIGHTS, file_of, load_file, save_file
from tests.helpers import seeded

PAGE = Path(__file__).parents[2] / "docs" / "weights.md"
NAMES = sorted(cards())


def examples(name: str, count: int = 300) -> Example:
    """Return test digits of scikit-learn, which no network of the package was trained on, distorted as in its task."""
    test = load_digits().test[:count]
    return TASKS[cards()[name].distortion].evaluated(as_float(test.images), test.labels, seeded())


def error(network: nn.Module, name: str) -> float:
    images, labels, _ = examples(name)
    with torch.inference_mode():
        return TASKS[cards()[name].distortion].wrong(network(images), labels).float().mean().item()


@pytest.mark.parametrize("name", NAMES)
def test_it_reads_digits_of_another_data_set_with_its_layer(name: str) -> None:
    network, known = load(name), cards()[name]
    assert not network.training and examples(name, 2).x.shape[1:] == known.input_shape
    with_layer = error(network, name)
    layer = network.get_submodule("transformer")
    assert isinstance(layer, stn.SpatialTransformer)
    layer.reset_to_identity()
    without = error(network, name)
    assert with_layer < (0.25 if known.distortion == "rts" else 0.5) and without > with_layer + 0.2


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
    images = examples(NAMES[0], 50).x
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


def test_its_pictures_need_no_run(tmp_path: Path) -> None:
    paths = draw_model(NAMES[0], tmp_path, count=3)
    assert {"means.png", "looks.png"} <= {path.name for path in paths} and all(path.stat().st_size > 1000 for path in paths)
    with pytest.raises(stn.InputError, match="model must be one of"):
        draw_model("nothing", tmp_path)
