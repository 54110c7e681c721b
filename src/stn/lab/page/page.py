"""Write the HTML page from run folders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from stn.io.files import write_atomically
from stn.lab.experiments.evaluate import mean_and_spread
from stn.lab.experiments.folder import Row, RunFolder
from stn.lab.experiments.runs import Run
from stn.lab.figures.style import COLORS
from stn.lab.page.charts import charts
from stn.lab.page.diagnosis import Finding, findings
from stn.lab.page.pictures import Pictures, pictures

COLUMNS = {  # of the table of rows; other values of a row follow
    "epoch": "epoch",
    "step": "step",
    "split": "split",
    "draw": "draw",
    "error_percent": "error, %",
    "train_error_percent": "training error, %",
    "loss": "loss",
    "train_loss": "training loss",
    "off_image_share": "off image",
    "mean_scale": "scale",
    "fold_share": "folded",
    "theta_gradient": "theta's gradient",
    "images_per_second": "images/s",
    "seconds": "seconds",
}
BADGES = {"bad": "problem", "watch": "check", "good": "ok"}


class Told(NamedTuple):
    """One run on the page."""

    run: Run
    rows: list[Row]
    columns: list[str]
    findings: list[Finding]
    pictures: Pictures

    @property
    def test(self) -> str:
        """Mean and spread of the test error."""
        if not any(row["split"] == "test" for row in self.rows):
            return "–"
        mean, spread = mean_and_spread(self.rows)
        return f"{mean:.2f} ± {spread:.2f}"

    @property
    def valid(self) -> Row:
        """The last validation row."""
        return next((row for row in reversed(self.rows) if row["split"] == "valid"), {})


def write_report(folders: Sequence[RunFolder], out: Path, *, root: Path | None = None, download: bool = False) -> Path:
    """Write the page about these runs, in this order. root: the folder of their data, if it has moved.

    Raises: InputError if a folder is not that of a run.
    """
    environment = Environment(
        loader=PackageLoader("stn.lab.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    runs = [tell(folder, root, download) for folder in folders]
    text = environment.get_template("page.html").render(
        runs=runs,
        settings=settings([one.run for one in runs]),
        charts=charts([one.rows for one in runs]),
        names=COLUMNS,
        badges=BADGES,
        colors=[COLORS[k % len(COLORS)] for k in range(len(runs))],
    )
    write_atomically(out, lambda file: file.write(text.encode()))
    return out


def tell(folder: RunFolder, root: Path | None = None, download: bool = False) -> Told:
    run, rows = folder.run(), folder.told()
    extra = sorted({key for row in rows for key in row} - {*COLUMNS, "warning"})
    present = [key for key in COLUMNS if any(key in row for row in rows)]
    return Told(run, rows, [*present, *extra], findings(run, rows), pictures(folder, root, download))


def settings(runs: Sequence[Run]) -> list[tuple[str, list[str], bool]]:
    """Return name, values and whether they differ, for all settings except paths; differing settings first."""
    values = [run.to_json() | {"transform": run.family} for run in runs]
    names = [name for name in values[0] if name not in ("root", "download")]
    table = [(name, [str(one[name]) for one in values], len({str(one[name]) for one in values}) > 1) for name in names]
    return sorted(table, key=lambda line: not line[2])


def number(value: Any) -> str:
    """Format a number with four digits; empty for a missing one."""
    if isinstance(value, float):
        return f"{value:,.0f}" if math.isfinite(value) and abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
