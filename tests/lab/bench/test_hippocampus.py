"""The table of hippocampi, on small volumes that the tests make: measures, rows, the network and its training."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import stn
from stn import InputError
from stn.lab.bench import hippocampus as bench
from stn.lab.data.hippocampus import Hippocampi, load_hippocampus, pairs
from stn.lab.experiments import registration as training
from stn.lab.experiments.registration import FRAME, Learning, placed, template_of, train_registration, trained_registration
from stn.lab.networks.registration import RegistrationNetwork
from stn.lab.tables import hippocampus as table
from tests.helpers import seeded
from tests.hippocampi import write_cases

pytest.importorskip("nibabel")
SHORT = Learning(steps=4)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cases(tmp_path_factory.mktemp("hippocampi"))


@pytest.fixture(scope="module")
def data(root: Path) -> Hippocampi:
    return load_hippocampus(root)


def randomized() -> RegistrationNetwork:
    torch.manual_seed(0)
    network = RegistrationNetwork((16, 24, 16))
    torch.nn.init.normal_(network.get_parameter("transformer.localization.last.weight"), std=0.2)
    return network.eval()


def shifted(by: float) -> bench.Found:
    """Return a shift, whose inverse misses by a quarter of a voxel on each axis."""
    return bench.Found(lambda p: p + by, lambda p: p - by + 0.25)


def always(found: bench.Found) -> bench.Find:
    return lambda pair: found


# ---- measures ----


def test_labels_are_read_at_the_nearest_voxel_and_are_0_outside() -> None:
    labels = np.arange(24).reshape(2, 3, 4)
    points = np.array([[0, 0, 0], [3.4, 1.6, 0.6], [-0.6, 0, 0], [0, 2.6, 0], [3, 2, 1]])  # x first
    assert bench.at(labels, points).tolist() == [0, labels[1, 2, 3], 0, 0, 23]


def test_dice_of_both_labels() -> None:
    a, b = np.array([1, 1, 1, 2, 0, 0]), np.array([1, 0, 1, 2, 2, 0])
    assert bench.dice(a, b) == pytest.approx([4 / 5, 2 / 3])


def test_folds_are_counted_by_the_determinant() -> None:
    points = bench.voxels((6, 7, 8)).reshape(6, 7, 8, 3)
    assert bench.fold_share(points) == 0
    mirrored = points * [-1, 1, 1]
    assert bench.fold_share(mirrored) == 1
    turned = points[..., [1, 0, 2]] * [-1, 1, 1]  # by a quarter of a turn
    assert bench.fold_share(turned) == 0
    folded = points.copy()
    folded[..., 0] = np.where(points[..., 0] > 3, 6 - points[..., 0], points[..., 0])
    assert 0.4 < bench.fold_share(folded) < 0.7


def test_a_known_shift_has_its_dice_and_its_inverse(data: Hippocampi) -> None:
    case = data.test[0]
    rows = [bench.measured(always(shifted(k)), (case, case)) for k in (0, 2)]
    assert rows[0]["dice"] == [1.0, 1.0] and rows[0]["fold_share"] == 0 and max(rows[1]["dice"]) < 0.9
    away = np.linalg.norm([0.25] * 3)
    for row in rows:
        np.testing.assert_allclose(row["inverse_voxels"], [away, away], atol=1e-4)


def test_a_failure_is_a_row(data: Hippocampi) -> None:
    def fails(pair: object) -> bench.Found:
        raise RuntimeError("no room")

    assert bench.measured(fails, pairs(data.train, 1)[0]) == {"exception": "RuntimeError: no room"}


# ---- rows ----


def test_pairs_are_registered_once_and_an_interrupted_table_goes_on(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "PAIRS", 2)
    calls: list[tuple[str, str]] = []
    measured = bench.measured

    def counted(find: bench.Find, pair: Any) -> dict[str, Any]:
        calls.append((pair[0].name, pair[1].name))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return measured(find, pair)

    monkeypatch.setattr(bench, "measured", counted)
    options: dict[str, Any] = {"root": root, "out": tmp_path / "t", "runs": tmp_path, "cells": ("centers", "velocity")}
    with pytest.raises(KeyboardInterrupt):
        bench.reproduce_hippocampus(**options)
    assert len((tmp_path / "t.jsonl").read_text().splitlines()) == 3
    rows = bench.reproduce_hippocampus(**options)
    assert len(calls) == 5 and len(rows) == 4  # the one that was interrupted, once more
    bench.reproduce_hippocampus(**options)
    assert len(calls) == 5
    mean = {name: np.mean([row["dice"] for row in rows if row["cell"] == name]) for name in ("centers", "velocity")}
    assert mean["velocity"] > mean["centers"] + 0.1 and mean["velocity"] > 0.85, mean
    assert all(row["fold_share"] == 0 and row["inverse_voxels"][0] < 0.05 for row in rows)
    page = (tmp_path / "t.md").read_text()
    assert page == table.markdown(rows) and "None" not in page and "{" not in page
    assert f"| before: centers aligned | 2 | **{mean['centers']:.3f}** |" in page
    assert "Not run yet: affine, learned, learned-steps, SimpleITK, greedy, ANTs, ANTs-full." in page


def test_rows_of_other_settings_are_put_aside(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "PAIRS", 1)
    options: dict[str, Any] = {"root": root, "out": tmp_path / "t", "runs": tmp_path, "cells": ("centers",)}
    row = bench.reproduce_hippocampus(**options)[0] | {"cell": "velocity", "settings": {"steps": 3}}
    with (tmp_path / "t.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    assert len(bench.reproduce_hippocampus(**options)) == 1
    assert len((tmp_path / "t.old-1.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "options, sentence",
    (
        ({"cells": ("x",)}, "cells must be names or patterns among centers, affine, .*; got 'x'"),
        ({"root": None}, "root must name the folder of the volumes; got None"),
        ({"download": True}, "download must be False for hippocampus"),
        ({"seeds": 0}, "seeds must be"),
    ),
)
def test_wrong_arguments_are_sentences(options: dict[str, Any], sentence: str, root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=sentence):
        bench.reproduce_hippocampus(**({"root": root, "out": tmp_path / "t", "runs": tmp_path} | options))


# ---- the network ----


def test_exchanging_the_volumes_gives_the_inverse() -> None:
    network, draws = randomized(), seeded()
    a, b = (torch.rand(2, 1, 16, 24, 16, generator=draws) for _ in range(2))
    with torch.no_grad():
        (_, ahead), (_, back) = network(a, b), network(b, a)
    torch.testing.assert_close(ahead.theta, -back.theta)
    points = 0.5 * torch.rand(20, 3, generator=draws)
    assert (ahead.points(points) - points).norm(dim=-1).min() > 1e-3
    torch.testing.assert_close(back.points(points)[0], ahead.inverse().points(points)[0])


def test_shifted_volumes_have_shifted_velocities() -> None:
    """Far from the border, which the receptive field reaches from up to 40 voxels away."""
    network = randomized().get_submodule("transformer.localization")
    torch.manual_seed(1)
    x = torch.zeros(1, 2, 128, 16, 16)
    x[:, :, 56:64] = torch.rand(1, 2, 8, 16, 16)
    with torch.no_grad():
        here, there = network(x), network(x.roll(8, dims=2))
    assert here.shape == (1, 3, 35, 7, 7) and here[:, :, 14:19].abs().min(dim=2)[0].max() > 1e-3
    torch.testing.assert_close(there[:, :, 16:21], here[:, :, 14:19], atol=1e-5, rtol=1e-4)


def test_a_size_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(InputError, match="size must be multiples of 8 voxels; got"):
        RegistrationNetwork((16, 20, 16))


# ---- its training ----


def test_cases_lie_upon_the_template(tmp_path: Path) -> None:
    """Cases that hardly differ by more than an affine map."""
    data = load_hippocampus(write_cases(tmp_path, bend=0.02))
    template = template_of(data.train)
    assert template.shape == (1, 1, *FRAME) and template.isfinite().all()
    for case in data.test:
        there = placed(case, template)
        before = case.centered(FRAME).sample(case.image, FRAME, padding_mode="border")
        alike = [np.corrcoef(x.flatten(), template.flatten())[0, 1] for x in (there.image, before)]
        assert alike[0] > alike[1] and alike[0] > 0.9
        assert 0 < there.inside.mean() < 1


def test_an_interrupted_training_ends_with_the_same_weights(
    data: Hippocampi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVED", 2)
    whole, row = train_registration(data.train, tmp_path / "whole", SHORT)
    assert row["step"] == 4 and 0 < row["loss"] < 1
    loss, calls = training._loss, []

    def stops(*given: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return loss(*given)

    monkeypatch.setattr(training, "_loss", stops)
    with pytest.raises(KeyboardInterrupt):
        train_registration(data.train, tmp_path / "half", SHORT)
    half, last = train_registration(data.train, tmp_path / "half", SHORT)
    assert len(calls) == 6 and last["loss"] == row["loss"]
    for key, value in whole.state_dict().items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, half.state_dict()[key]), key
    again, _ = trained_registration(tmp_path / "half")
    assert torch.equal(again.template, whole.template) and again.template.abs().max() > 0
    with pytest.raises(InputError, match="runs must be a folder without another training"):
        train_registration(data.train, tmp_path / "half", dataclasses.replace(SHORT, bending=1.0))


def test_training_never_reads_labels(data: Hippocampi, tmp_path: Path) -> None:
    blind = [dataclasses.replace(case, labels=None) for case in data.train]  # type: ignore[arg-type]  # on purpose
    assert train_registration(blind, tmp_path, Learning(steps=1))[1]["step"] == 1


def test_training_lowers_the_loss_of_a_pair(data: Hippocampi) -> None:
    """A volume and the same, bent: two blobs differ after the affine maps by their noise, which no warp removes."""
    fixed = placed(data.train[2], template_of(data.train[:2]))
    family = stn.Velocity(3, shape=5, resolution=24)
    bend = family(0.06 * torch.randn(1, family.num_params, generator=seeded()))
    pair = fixed._replace(image=bend.sample(fixed.image, FRAME, padding_mode="border")), fixed
    network = training._network(SHORT)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(8):
        loss = training._loss(network, pair[0], pair[1], SHORT)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


def test_a_trained_network_registers_pairs(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: Hippocampi
) -> None:
    monkeypatch.setattr(bench, "PAIRS", 1)
    monkeypatch.setattr(bench, "_learning", lambda seed, budget: dataclasses.replace(SHORT, seed=seed))
    options: dict[str, Any] = {"root": root, "out": tmp_path / "t", "runs": tmp_path / "runs"}
    rows = bench.reproduce_hippocampus(**options, cells=("centers", "learned*"))
    by_cell = {row["cell"]: row for row in rows}
    assert list(by_cell) == ["centers", "learned", "learned-steps"]
    assert np.mean(by_cell["learned"]["dice"]) > np.mean(by_cell["centers"]["dice"])  # by the affine maps
    steps, training = (by_cell["learned-steps"]["settings"][key] for key in ("steps", "training steps"))
    assert (steps, training) == (table.STEPS_AFTER, SHORT.steps) and by_cell["learned"]["training_seconds"] > 0
    assert by_cell["learned"]["inverse_voxels"][0] < 0.05


def test_the_arguments_of_the_table_are_those_of_register() -> None:
    family = table.velocity()["transform"][-1]
    assert isinstance(family, stn.Velocity) and family.shape == table.SHAPE


def test_the_finer_flow_has_a_better_inverse(data: Hippocampi, monkeypatch: pytest.MonkeyPatch) -> None:
    moving, fixed = data.train[:2]
    start = moving.centered(fixed.size)
    found = stn.register(moving.image, fixed.image, **table.velocity() | {"steps": 2}, start=start)
    inverse = [bench._of_warp(warp, (moving, fixed)) for warp in (found.warp, bench.finely(start, found))]
    coarse, fine = (bench.measured(always(one), (moving, fixed)) for one in inverse)
    assert 0 < fine["inverse_voxels"][0] < coarse["inverse_voxels"][0] / 2
    monkeypatch.setattr(table, "FLOW_RESOLUTION", table.RESOLUTION)
    monkeypatch.setattr(table, "FLOW_SQUARINGS", table.SQUARINGS)
    points = torch.rand(20, 3, generator=seeded())
    assert torch.equal(bench.finely(start, found).points(points), found.warp.points(points))
