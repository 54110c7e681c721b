"""Tables name runs that exist, and compare only results that can be compared."""

from typing import get_args

import pytest

from stn.cli.reproduce import OF_THEIR_OWN, TableName
from stn.lab.experiments.tasks import TASKS
from stn.lab.networks import num_parameters
from stn.lab.tables import TABLES
from stn.lab.tables.reproduce import planned


@pytest.mark.parametrize("name", TABLES)
def test_cells_are_runs_and_have_their_baselines(name: str) -> None:
    table = TABLES[name]
    cells = {cell.name: cell for cell in planned(table, root=None, seeds=1, budget="quick")}
    assert len(cells) == len(table.cells) and len({cell.run.name for cell in cells.values()}) == len(cells)
    assert set(table.pictured) <= {cell.run.model for cell in table.cells}
    for cell in cells.values():
        assert cell.run.epochs >= 1 and cell.run.data == (name if name in ("svhn", "cub", "gtsrb") else "mnist")
        if cell.baseline:
            baseline = cells[cell.baseline].run
            task = cell.run.distortion.removesuffix("_56")  # the same images, with their surroundings
            assert (baseline.distortion, baseline.seed) == (task, cell.run.seed)
            assert baseline.model != cell.run.model
    assert any(cell.baseline for cell in cells.values())


def test_the_command_line_knows_every_table() -> None:
    assert get_args(TableName) == (*TABLES, *OF_THEIR_OWN)  # these are no sets of training runs


@pytest.mark.parametrize("name, size", (("addition", 400_000), ("perturbed", 39_000)))
def test_compared_networks_are_of_one_size(name: str, size: int) -> None:
    task = TASKS[name]
    for model in task.models:
        assert 0.95 * size < num_parameters(task.build(model, "affine")) <= size


@pytest.mark.parametrize("name", ("curved", "pairs", "extruded_32", "signs", "strings"))
def test_no_compared_network_is_smaller_by_more_than_three_percent(name: str) -> None:
    task = TASKS[name]
    sizes = [num_parameters(task.build(model, "affine")) for model in task.models]
    assert min(sizes) >= 0.97 * max(sizes)
