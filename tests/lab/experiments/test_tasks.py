"""Each task has examples that fit its networks, a loss that decreases, and correct error counts."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import stn
from stn.lab.data import as_float, load_digits
from stn.lab.data.strings import NONE
from stn.lab.experiments import Run, RunFolder
from stn.lab.experiments.evaluate import evaluate, example_images
from stn.lab.experiments.tasks import TASKS, cross_entropy, parts_found
from stn.lab.experiments.train import train
from stn.lab.figures import draw_run
from tests.helpers import seeded
from tests.signs import in_zips

DIGITS = load_digits().train[:16]
SLOW = ("extruded",)  # 60^3 voxels; otherwise the same as extruded_32
OF_DIGITS = [name for name, task in TASKS.items() if "digits" in task.data and name not in SLOW]
NETWORKS = [(name, model) for name in OF_DIGITS for model in TASKS[name].models]


@pytest.mark.parametrize("name, model", NETWORKS)
def test_a_network_learns_its_examples_by_heart(name: str, model: str) -> None:
    """Overfit four examples, which any network can do in a few steps."""
    task = TASKS[name]
    x, y, _ = task.draw(as_float(DIGITS.images[:4]), DIGITS.labels[:4], seeded())
    torch.manual_seed(0)
    network = task.build(model, "affine")
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(20):
        loss = task.loss(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("model", TASKS["birds"].models)
def test_birds_are_seen_in_random_views_and_tested_in_the_middle(model: str) -> None:
    task, images, labels = TASKS["birds"], torch.rand(2, 3, 256, 256), torch.tensor([3, 199])
    assert torch.equal(task.evaluated(images, labels, seeded()).x, images[..., 16:240, 16:240])
    x, y, _ = task.draw(images, labels, seeded())
    torch.manual_seed(0)
    network = task.build(model, "affine")
    logits = network(x)
    assert logits.shape == (2, 200) and task.wrong(logits, y).shape == (2,)
    task.loss(logits, y).backward()
    assert all(p.grad is not None for p in network.parameters())


def test_house_numbers_are_strings_of_three_channels() -> None:
    task, labels = TASKS["numbers"], torch.tensor([[1, 9, NONE, NONE, NONE], [0, 5, 5, 5, 5]])
    x, y, _ = task.draw(torch.rand(2, 3, 64, 64), labels, seeded())
    logits = task.build("st-cnn-single", "affine").eval()(x)
    assert logits.shape == (2, 5, 11) and torch.equal(y, labels) and task.wrong(logits, y).shape == (2,)


@pytest.mark.parametrize("model", TASKS["signs"].models)
def test_a_run_on_traffic_signs(model: str, tmp_path: Path) -> None:
    """Views in training, and the photographs themselves in the evaluation, so that both draws give the same error."""
    in_zips(tmp_path)
    run = Run(data="gtsrb", root=tmp_path, distortion="signs", model=model, epochs=1, draws=2, batch_size=16)
    rows = train(run, RunFolder(tmp_path / "run"), quiet=True)
    assert [row["split"] for row in rows] == ["valid", "test", "test"]
    assert rows[1]["loss"] == rows[2]["loss"] and ("mean_scale" in rows[0]) == (model != "cnn")
    assert evaluate(RunFolder(tmp_path / "run"), draws=1)[0]["loss"] == pytest.approx(rows[1]["loss"], rel=1e-5)


def test_a_task_takes_its_own_images() -> None:
    with pytest.raises(stn.InputError, match="data must be one of svhn; got 'digits'"):
        Run(distortion="numbers", model="cnn")
    with pytest.raises(stn.InputError, match="data must be one of digits, mnist; got 'cub'"):
        Run(data="cub", distortion="rts")


def test_a_string_is_wrong_if_a_place_is() -> None:
    y = torch.tensor([[1, 2, NONE], [3, NONE, NONE], [4, 5, 6]])
    logits = nn.functional.one_hot(y, 11).float()
    logits[1, 2] = nn.functional.one_hot(torch.tensor(7), 11)
    assert TASKS["strings"].wrong(logits, y).tolist() == [False, True, False]
    assert TASKS["rts"].wrong(logits[:, 0], y[:, 1]).tolist() == [True, True, True]
    along = torch.tensor([[1, 1, NONE, 2, NONE], [3, NONE, NONE, NONE, 3], [4, 5, NONE, 6, 7]])
    assert TASKS["curved"].wrong(nn.functional.one_hot(along, 11).float(), y).tolist() == [False, True, True]
    by_place = torch.stack([nn.functional.cross_entropy(logits[:, i], y[:, i]) for i in range(3)])
    torch.testing.assert_close(cross_entropy(logits, y), by_place.mean())


def look_at(*centers: tuple[float, float]) -> stn.Warp:
    return stn.Attention(scale=0.5)(torch.tensor([centers]))


def test_both_parts_are_found_by_a_look_each() -> None:
    digits = torch.tensor([[[-0.8, -0.5, -0.4, -0.1], [0.3, 0.2, 0.7, 0.6]]])  # centers (-0.6, -0.3) and (0.5, 0.4)

    def found(*centers: tuple[float, float]) -> float:
        return parts_found(look_at(*centers), digits)["both_found"].item()

    assert found((-0.5, -0.5), (0.5, 0.5)) == found((0.5, 0.5), (-0.5, -0.5)) == 1
    assert found((-0.5, -0.5), (-0.5, -0.5)) == found((0.5, 0.5), (0.5, -0.5)) == 0  # the second digit is not found
    assert found((-0.5, -0.5)) == 0 and found((0.5, -0.5), (-0.5, -0.5), (0.5, 0.5)) == 1
    wide = stn.Attention()(torch.tensor([[[1.0, 0, 0], [0.1, -0.9, 0.9]]]))  # one look contains both digits, the other none
    assert parts_found(wide, digits)["both_found"] == 0


@pytest.mark.parametrize(
    "name, model",
    (
        ("addition", "2xst-fcn"),
        ("strings", "st-cnn-single"),
        ("pairs", "2xlook"),
        ("curved", "st-crnn"),
        ("extruded_32", "st-cnn"),
    ),
)
def test_a_run_of_each_kind(name: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, read the rows, evaluate with the same errors, and draw the figures."""
    few = load_digits()
    few = few._replace(train=few.train[:64], valid=few.valid[:20], test=few.test[:20])
    for module in ("train", "evaluate"):
        monkeypatch.setattr(f"stn.lab.experiments.{module}.load", lambda *a, **k: few)
    monkeypatch.setattr("stn.lab.experiments.train.COPIES", {"digits": 1})
    folder = RunFolder(tmp_path / "run")
    rows = train(Run(distortion=name, model=model, epochs=1, draws=1, batch_size=32), folder, quiet=True)
    assert [row["split"] for row in rows] == ["valid", "test"] and rows[1]["error_percent"] > 0
    again = evaluate(folder, draws=1)[0]
    keys = {"loss", "error_percent", "off_image_share", *(["both_found"] if name == "pairs" else [])}
    assert {key: rows[1][key] for key in keys} == pytest.approx({key: again[key] for key in keys}, rel=1e-5)
    assert ("looks.png" in [path.name for path in draw_run(folder, count=3)]) == (name != "extruded_32")  # for images only


@pytest.mark.parametrize("name", [name for name in TASKS if name not in SLOW])
def test_networks_read_example_images(name: str, tmp_path: Path) -> None:
    """Without data, an export is traced with images of noise of the task's own size."""
    task, folder = TASKS[name], RunFolder(tmp_path / "run")
    folder.open(Run(data=task.data[0], distortion=name, model=task.models[-1]))
    images = example_images(folder, 2)
    assert len(images) == 2 and images.std() > 0
    with torch.inference_mode():
        assert len(task.build(task.models[-1], "affine").eval()(images)) == 2


def test_smoothing_is_of_training_alone() -> None:
    run = Run(label_smoothing=0.1)
    logits: Tensor = torch.randn(5, 10, generator=seeded())
    y, task = torch.arange(5), TASKS[run.distortion]
    assert task.loss(logits, y, label_smoothing=0.1) != task.loss(logits, y)
    assert dataclasses.replace(run, label_smoothing=0.0) == Run()
