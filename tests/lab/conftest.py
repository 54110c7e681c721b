"""A small training run on a few hundred digits; it takes seconds."""

from pathlib import Path

import pytest

from stn.lab.experiments import Run, RunFolder


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr("stn.lab.experiments.train.COPIES", {"digits": 1})
    settings = {"distortion": "r", "model": "st-fcn", "optimizer": "muon", "averaging": 0.8, "dropout": 0.1}
    return Run.from_json(settings | {"epochs": 3, "draws": 2, "batch_size": 126, "seed": 2})


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")
