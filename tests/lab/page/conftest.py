"""Two runs for reports: one with looks, trained once, and one that consists of rows only."""

from pathlib import Path

import pytest

from stn.lab.experiments import Run, RunFolder
from stn.lab.experiments.train import train
from stn.lab.page import write_report


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    trained, plain = (RunFolder(tmp_path_factory.mktemp("runs") / name) for name in ("trained", "plain"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stn.lab.experiments.train.COPIES", {"digits": 1})
        train(Run(model="st-fcn", transform="tps", distortion="r", epochs=2, draws=2), trained, quiet=True)
    plain.open(Run(model="fcn", distortion="r", epochs=4, draws=2))
    rows = [
        {"epoch": epoch, "step": 10 * epoch, "split": "valid", "loss": 2.0 / epoch, "error_percent": 50.0 / epoch}
        | {"train_error_percent": 40.0 / epoch, "train_loss": 1.5, "images_per_second": 12345.6, "seconds": 1.25 * epoch}
        for epoch in (1, 2, 3)
    ]
    rows[2]["warning"] = "it says <b>this</b>"
    plain.write_rows(rows)
    return [trained, plain]


@pytest.fixture(scope="session")
def page(folders: list[RunFolder], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(folders, tmp_path_factory.mktemp("page") / "deep" / "report.html")
