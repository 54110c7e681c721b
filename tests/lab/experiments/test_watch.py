"""The diagnostics notice a layer whose looks collapse, and describe it in words."""

import math
import re

import pytest
import torch

import stn
from stn.lab.data.draw import Example
from stn.lab.experiments import Run, RunFolder
from stn.lab.experiments.train import Trainer, train
from stn.lab.experiments.watch import CollapseWarning, Watch, collapse
from stn.lab.networks import build, build_alignment
from stn.nn import AbstractSpatialTransformer
from tests.helpers import seeded

WELL = {"epoch": 2, "off_image_share": 0.2, "mean_scale": 0.8, "fold_share": 0.0, "theta_gradient": 0.1}


@pytest.mark.parametrize(
    "change, words",
    [
        ({"off_image_share": 0.9}, "90 % of its sampling points lie outside the image (epoch 2). Lower localization_lr"),
        ({"mean_scale": 0.001}, "its mean scale is 0.001, a single point"),
        ({"mean_scale": 40.0}, "its mean scale is 40, many times the image"),
        ({"mean_scale": math.nan}, "its mean scale is nan, a single point"),
        ({"fold_share": 0.75}, "75 % of its sampling points are folded"),
        ({"theta_gradient": 0.0}, "theta gets no gradient"),
    ],
)
def test_each_sign_of_collapse_is_named(change: dict[str, float], words: str) -> None:
    assert collapse(WELL) is None and collapse({"epoch": 1, "loss": 1.0}) is None
    assert words in (collapse(WELL | change) or "")


def test_the_square_of_thetas_gradient() -> None:
    network = build("st-fcn", 28, "translation")
    watch, layer = Watch(network), network[0]
    assert isinstance(layer, AbstractSpatialTransformer) and watch.diagnostics() == {} and watch.squares == 0
    network(torch.rand(1, 1, 28, 28).expand(4, -1, -1, -1)).logsumexp(dim=1).sum().backward()
    assert layer.regression.bias.grad is not None
    # Four equal images each contribute a quarter of the bias's gradient.
    assert watch.squares.item() == pytest.approx(layer.regression.bias.grad.square().sum().item() / 4, rel=1e-4)


@pytest.mark.parametrize("side", (28, 56))
def test_a_recurrent_layer_is_seen_as_a_whole(side: int) -> None:
    network = build_alignment("ic-stn-4", "affine", side=side)
    layer, watch = network.get_submodule("transformer"), Watch(network)
    assert isinstance(layer, AbstractSpatialTransformer)
    with torch.no_grad():
        layer.regression.bias.copy_(torch.tensor([0.9, 0.1, 0.1, -0.1, 0.9, 0.0]))
    for _ in range(2):  # the second pass replaces the first
        _, warp = layer(torch.rand(2, 1, side, side), return_warp=True)
    xy = torch.rand(5, 2, generator=seeded())
    torch.testing.assert_close(watch.warps()[0].points(xy)[:, 0], warp.points(xy))


def test_penalties_are_off_unless_asked_for_and_reach_theta() -> None:
    network = build("st-fcn", 28, "translation")
    watch, layer = Watch(network), network[0]
    assert isinstance(layer, AbstractSpatialTransformer)
    with torch.no_grad():
        layer.regression.bias.copy_(torch.tensor([2.0, 0.0]))
    network(torch.rand(4, 1, 28, 28))
    assert watch.penalty(identity=0.0, off_image=0.0) == 0.0
    loss = watch.penalty(identity=1.0, off_image=0.5)
    assert isinstance(loss, torch.Tensor) and loss.item() > 4  # 2 squared, plus the share beyond the edge
    loss.backward()
    assert layer.regression.bias.grad is not None and layer.regression.bias.grad[0] > 0


def test_a_look_is_held_to_where_it_starts() -> None:
    layer = build("st-fcn", 60)[0]
    assert isinstance(layer, AbstractSpatialTransformer)
    watch, x = Watch(layer), torch.rand(3, 1, 60, 60)
    layer(x)
    assert watch.penalty(identity=1.0, off_image=1.0) == 0  # although the look covers half of the image
    with torch.no_grad():
        layer.regression.bias.add_(torch.tensor([0.0, 0.0, 2.0, 0.0, 0.0, 0.0]))
    layer(x)
    torch.testing.assert_close(watch.penalty(identity=1.0, off_image=0.0), torch.tensor(4.0))
    beyond = stn.off_image_loss(layer(x, return_warp=True)[1])
    torch.testing.assert_close(watch.penalty(identity=0.0, off_image=1.0), beyond)
    assert beyond > 0


def test_rows_hold_the_diagnostics_and_a_collapse_is_announced(
    small: Run, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = train(small, folder, quiet=True)
    for row in rows:
        assert {"off_image_share", "mean_scale", "fold_share"} <= set(row) and "warning" not in row
    assert all(row["theta_gradient"] > 0 for row in rows[:3])
    away = Run(**{**small.__dict__, "epochs": 1, "draws": 1})
    trainer_step = Trainer._step

    def push(self: Trainer, example: Example) -> torch.Tensor:
        sums = trainer_step(self, example)
        with torch.no_grad():
            self.network.get_parameter("transformer.regression.bias")[2] += 5.0
        return sums

    monkeypatch.setattr(Trainer, "_step", push)
    with pytest.warns(CollapseWarning, match=re.escape("100 % of its sampling points lie outside the image")):
        row = train(away, RunFolder(folder.path.parent / "away"), quiet=True)[0]
    assert row["warning"].startswith("the spatial transformer has collapsed")


def test_the_regularizers_hold_a_look_back(small: Run, folder: RunFolder) -> None:
    free = train(small, folder, quiet=True)[2]
    held = Run(**{**small.__dict__, "identity_weight": 100.0, "off_image_weight": 1.0, "clip_norm": 1.0})
    row = train(held, RunFolder(folder.path.parent / "held"), quiet=True)[2]
    assert abs(row["mean_scale"] - 1) < 0.5 * abs(free["mean_scale"] - 1)


def test_label_smoothing_keeps_the_training_loss_above_its_floor(small: Run, folder: RunFolder) -> None:
    plain = {"model": "fcn", "distortion": "none", "optimizer": "adamw", "seed": 0}
    smooth = Run(**{**small.__dict__, **plain, "label_smoothing": 0.2})
    row = train(smooth, folder, quiet=True)[2]
    floor = -0.82 * math.log(0.82) - 9 * 0.02 * math.log(0.02)  # the entropy of the smoothed targets
    assert row["train_error_percent"] < 2 and row["train_loss"] > floor > 0.8
    assert row["loss"] < floor  # the reported loss has no label smoothing
