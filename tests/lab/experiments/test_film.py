"""The film of a training run shows the looks at each time, has no effect on the training, and is complete after a kill."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import stn
from stn import InputError
from stn.lab.experiments import Run, RunFolder
from stn.lab.experiments.checkpoint import is_film
from stn.lab.experiments.evaluate import trained_network
from stn.lab.experiments.film import FIRST_EPOCH, SAMPLES, WHOLE, Film, developed, first_layer, is_due, scenes, strip
from stn.lab.experiments.train import Trainer, train
from stn.lab.experiments.watch import Watch
from stn.lab.figures import draw_run
from stn.lab.networks import build, build_alignment, build_volumes


def film(folder: RunFolder) -> dict[str, Any]:
    state = folder.load()
    assert state is not None
    found: dict[str, Any] = state["film"]
    return found


@pytest.mark.parametrize("steps, epochs", [(100, 6), (7, 3), (50, 140)])
def test_frames_are_due_at_the_start_often_in_the_first_epoch_and_at_every_end(steps: int, epochs: int) -> None:
    due = [step for step in range(steps * epochs + 1) if is_due(step, steps, epochs)]
    assert due[0] == 0 and {epoch * steps for epoch in range(1, epochs + 1)} <= set(due)
    first = sum(0 < step <= steps for step in due)
    assert first == min(steps, FIRST_EPOCH)
    assert len(due) - 1 - first == (epochs - 1) * min(steps, max(1, WHOLE // epochs))


def test_the_first_frame_is_the_identity_and_the_last_is_what_the_run_keeps(small: Run, folder: RunFolder) -> None:
    train(small, folder, quiet=True)
    found = developed(folder)
    assert found is not None
    _, images, frames = found
    assert len(images) == SAMPLES and [scene.step for scene in frames[:11]] == list(range(11)) and frames[-1].step == 30
    assert torch.equal(frames[0].outputs.squeeze(1), images)
    layer = trained_network(folder).get_submodule("transformer")
    with torch.inference_mode():
        output, warp = layer(images, return_warp=True)
    torch.testing.assert_close(frames[-1].outputs.squeeze(1), output)
    assert not torch.allclose(output, images, atol=1e-3)
    torch.testing.assert_close(frames[-1].warp.grid((3, 3)).squeeze(1), warp.grid((3, 3)))


def test_filming_changes_no_row(small: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = dataclasses.replace(small, epochs=1, identity_weight=0.1)
    filmed = train(run, RunFolder(tmp_path / "filmed"), quiet=True)
    monkeypatch.setattr(Film, "shoot", lambda *arguments, **options: None)
    plain = train(run, RunFolder(tmp_path / "plain"), quiet=True)
    for one, other in zip(filmed, plain, strict=True):
        assert all(one[key] == other[key] for key in one if key not in ("seconds", "images_per_second"))


class Killed(BaseException):
    """Stand-in for SIGKILL."""


@pytest.mark.parametrize("at", (2, 4))  # renames: after the settings; between the rows and the checkpoint of epoch 2
def test_a_resumed_run_has_the_film_of_an_uninterrupted_one(
    small: Run, tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(small, RunFolder(tmp_path / "whole"), quiet=True)
    whole, killed, replace, calls = film(RunFolder(tmp_path / "whole")), RunFolder(tmp_path / "killed"), os.replace, 0

    def kill(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        replace(source, target)
        if calls == at:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", kill)
        with pytest.raises(Killed):
            train(small, killed, quiet=True)
    train(small, killed, resume=True, quiet=True)
    again = film(killed)
    assert [step for step, _ in again["frames"]] == [step for step, _ in whole["frames"]]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(again["frames"], whole["frames"], strict=True))
    assert torch.equal(again["images"], whole["images"])


def test_a_checkpoint_of_an_earlier_version_has_no_film_and_is_gone_on_with(
    small: Run, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_test", None)  # training stops with an error after the last epoch
        with pytest.raises(TypeError):
            train(small, folder, quiet=True)
    state = folder.load()
    assert state is not None
    del state["film"]
    folder.save(state, state["rows"])
    assert developed(folder) is None
    assert len(train(small, folder, resume=True, quiet=True)) == 5


def test_what_has_no_look_at_a_picture_has_no_film(small: Run, folder: RunFolder) -> None:
    assert first_layer(build("cnn", 28)) is None and first_layer(build_volumes("st-cnn", 32)) is None
    train(dataclasses.replace(small, model="fcn", epochs=1), folder, quiet=True)
    assert film(folder) == {} and developed(folder) is None


def test_all_steps_of_a_recurrent_layer_are_kept_as_one_look() -> None:
    network = build_alignment("ic-stn-2", "affine")
    layer = first_layer(network)
    assert layer is not None
    torch.nn.init.normal_(layer.regression.weight, std=0.05, generator=torch.Generator().manual_seed(0))
    camera = Film(network, Watch(network), torch.rand(9, 1, 28, 28))
    camera.shoot(0, steps=5, epochs=2)
    assert camera.frames[0][1].shape == (2, SAMPLES, 6) and all(part.training for part in layer.modules())
    layer.eval()
    (scene,) = scenes(layer, camera.images, camera.frames)
    torch.testing.assert_close(scene.outputs.squeeze(1), layer(camera.images))
    assert camera.picture() is not None


def test_the_strip_has_the_edge_of_the_look_where_it_looks() -> None:
    images = torch.zeros(2, 1, 20, 30)
    warp = stn.Attention(scale=0.5)(torch.tensor([[[0.5, -0.5]], [[-2.0, 0.0]]]))  # the second look lies outside the image
    picture = strip(images, warp, warp.sample(images + 0.25, (10, 10)))
    assert picture.shape == (3, 60 + 90, 180)
    rows, columns = picture[0, :60].gt(0.8).nonzero(as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (0, 30, 44, 89)
    assert picture[:, 60:, :90].min() > 0.1 and picture[:, 60:, 90:].max() == 0


def test_tensorboard_has_the_looks_of_every_epoch(small: Run, folder: RunFolder) -> None:
    from tensorboard.backend.event_processing import event_accumulator  # type: ignore[import-untyped]  # it has no types

    train(dataclasses.replace(small, epochs=2), folder, quiet=True)
    events = event_accumulator.EventAccumulator(str(folder.path / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    shown = events.Images("looks")
    assert [image.step for image in shown] == [10, 20]
    assert shown[0].width == 3 * 28 * SAMPLES and shown[0].encoded_image_string != shown[1].encoded_image_string


@pytest.mark.parametrize(
    "film",
    [
        "x", 3, [], {"images": 3}, {"images": torch.zeros(3), "frames": []},
        {"images": torch.zeros(1, 1, 4, 4), "frames": []},
        {"images": torch.zeros(1, 1, 4, 4), "frames": [(0, "x")]}, {"images": torch.zeros(1, 1, 4, 4), "frames": [3]},
    ],
    ids=str,
)  # fmt: skip
def test_a_film_of_another_form_is_none(film: object) -> None:
    assert not is_film(film) and is_film({})


def test_a_film_that_does_not_fit_its_run_is_told_in_a_sentence(
    small: Run, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(dataclasses.replace(small, epochs=1, draws=1), folder, quiet=True)
    state = folder.load()
    assert state is not None
    film = {"images": state["film"]["images"], "frames": [(0, torch.zeros(1, 6, 99))]}
    folder.save(state | {"film": film}, state["rows"])
    with pytest.raises(InputError, match="last.pt must hold the film of its run; drawing it raised"):
        developed(folder)
    with pytest.raises(InputError, match="count must be at most 64, the number of images; got 65"):
        draw_run(folder, count=65)
