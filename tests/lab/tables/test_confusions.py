"""Errors by class and by pair, and the whole table of traffic signs on a made-up data set."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from stn.cli.reproduce import reproduce as command
from stn.lab.experiments import Run, RunFolder
from stn.lab.experiments.rows import read_rows
from stn.lab.figures import draw_corrected
from stn.lab.tables import TABLES, Cell
from stn.lab.tables.confusions import confusions
from tests.signs import in_zips

NAMES = ("a", "b", "c")
CELLS = [Cell("CNN", "32", Run()), Cell("ST-CNN", "32", Run(), baseline="cnn/32"), Cell("NONE", "32", Run())]


def row(*mistakes: tuple[int, int, int]) -> dict[str, Any]:
    return {"mistakes": [list(mistake) for mistake in mistakes], "class_sizes": [1000, 20, 3]}


def test_errors_are_counted_by_class_and_by_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stn.lab.tables.confusions.MOST", 2)
    found = {
        "cnn/32": [row((0, 0, 1), (5, 0, 2), (7, 1, 2)), row((0, 0, 1), (9, 2, 0))],
        "st-cnn/32": [row((0, 0, 2), (1, 0, 2))],
        "none/32": [],
    }
    text = "\n".join(confusions(CELLS, found, NAMES))
    assert "| sign | test images | CNN | ST-CNN |" in text
    assert "| a | 1,000 | 1.5 | 2.0 |\n| b | 20 | 0.5 | 0.0 |\n| all others | 3 | 0.5 | 0.0 |" in text
    assert text.endswith("| a | c | 0.5 | 2.0 |\n| a | b | 1.0 | 0.0 |\n")
    assert confusions(CELLS, dict.fromkeys(found, []), NAMES) == []


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    in_zips(tmp_path / "data")
    table = TABLES["gtsrb"]
    runs = [dataclasses.replace(cell.run, epochs=1, batch_size=16) for cell in table.cells[:2]]
    cells = tuple(dataclasses.replace(cell, run=run) for cell, run in zip(table.cells, runs, strict=False))
    monkeypatch.setitem(TABLES, "gtsrb", dataclasses.replace(table, cells=cells))
    return tmp_path


def test_the_table_of_traffic_signs(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two networks, each with its mistakes; the picture stays with the run, because it shows photographs."""
    command("gtsrb", root=tiny / "data", seeds=1, out=tiny / "signs", runs=tiny / "runs")
    rows = read_rows(tiny / "signs.jsonl")
    assert [row["cell"] for row in rows] == ["cnn/32", "st-cnn-single/32"]
    for row in rows:
        assert row["error_percent"] == pytest.approx(100 * len(row["mistakes"]) / 5, abs=1e-3)
        assert sum(row["class_sizes"]) == 5 and all(truth != read for _, truth, read in row["mistakes"])
    text = (tiny / "signs.md").read_text()
    assert "## Errors by class" in text and "| limit 60 | 3 | " in text and ".png" not in text
    assert not (tiny / "signs.png").exists()
    rows[0]["mistakes"], rows[1]["mistakes"] = [[0, 3, 17], [4, 3, 17]], [[4, 3, 1]]
    run = RunFolder(tiny / "runs" / TABLES["gtsrb"].cells[1].run.name)
    assert draw_corrected(TABLES["gtsrb"], rows, tiny / "runs") == [run.figures / "corrected.png"]
    assert (run.figures / "corrected.png").stat().st_size > 1000
    rows[1]["mistakes"] = rows[0]["mistakes"]
    assert draw_corrected(TABLES["gtsrb"], rows, tiny / "runs") == []
