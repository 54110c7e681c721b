"""Turn the rows of a reproduced table into Markdown: our errors beside the paper's, and notes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from statistics import mean, stdev

from stn.lab.experiments.folder import Row
from stn.lab.experiments.tasks import TASKS
from stn.lab.tables.cells import Cell, Table
from stn.lab.tables.confusions import confusions

DETAILS = {  # heading: what to print of a row
    "cell": "{cell}",
    "seed": "{seed}",
    "test error %": "{error_percent:.2f}",
    "spread of draws": "{draws_spread:.2f}",
    "held-out error %": "{valid_error_percent:.2f}",
    "parameters": "{parameters:,}",
    "optimizer": "{run[optimizer]}",
    "epochs x batch": "{run[epochs]} x {run[batch_size]}",
    "held out": "{run[held_out]:,}",
    "steps": "{step:,}",
    "minutes": "{minutes:.1f}",
    "images/s": "{images_per_second:,.0f}",
    "off image": "{off_image_share:.2f}",
    "scale": "{mean_scale:.2f}",
    "folded": "{fold_share:.3f}",
    "both found": "{both_found:.4f}",
    "theta's gradient": "{theta_gradient:.1g}",
}
LEGEND = (
    "A *look* is one sampled view of an image through one warp. Off image: share of its sampling points outside the image. "
    "Scale: side of the look divided by the side of the image. Folded: share of sampling points where the warp folds. "
    "Theta's gradient: norm of the gradient of the loss in theta. These values are from the last epoch."
)


def markdown(name: str, table: Table, rows: Sequence[Row], budget: str, picture: str = "") -> str:
    """Return the whole document. picture: the file beside it that shows the sampled regions."""
    rows = [row for row in rows if row["budget"] == budget]
    found = {cell.name: [row for row in rows if row["cell"] == cell.name] for cell in table.cells}
    columns = list(dict.fromkeys(cell.column for cell in table.cells))
    trial = " --budget quick` (a trial)" if budget == "quick" else "`"
    ours = "Our error, ± its standard deviation if there are several seeds"
    ours += "; in brackets the error of the paper." if table.compared else "."
    bold = " Bold: not above the error of the paper." if table.compared else ""
    lines = [
        f"# {table.title}",
        "",
        f"`stn reproduce {name} --root DIR{trial}. {ours} {table.protocol}{bold}",
        "",
        table.recipe,
        "",
        line(["", *columns]),
        line(["---"] * (1 + len(columns))),
    ]
    for label in dict.fromkeys(cell.row for cell in table.cells):
        cells = {cell.column: cell for cell in table.cells if cell.row == label}
        lines.append(line([label, *(_number(cells.get(column), found) for column in columns)]))
    details = [_details(row) for cell in table.cells for row in found[cell.name]]
    headings = [heading for heading in DETAILS if any(heading in row for row in details)]
    if picture and any(found[cell.name] for cell in table.cells if cell.run.model in table.pictured):
        lines += ["", f"![Test images, the regions that the layer samples, and its outputs]({picture})"]
    legend = [LEGEND, ""] if "off image" in headings else []
    names = TASKS[table.cells[0].run.distortion].names
    lines += [
        "",
        *_notes(table, found),
        "",
        *confusions(table.cells, found, names),
        "## Rows",
        "",
        *legend,
        line(headings),
        line(["---"] * len(headings)),
    ]
    lines += [line(row.get(heading, "") for heading in headings) for row in details]
    machines = "; ".join(
        dict.fromkeys("{machine}, {precision}, torch {torch}, threads per run: {threads}".format(**row) for row in rows)
    )
    hours = sum(row["seconds"] for row in rows) / 3600
    return "\n".join(
        [*lines, "", f"Measured on {machines or 'no machine yet'}. Training took {hours:.1f} hours in total.", ""]
    )


def average(rows: Sequence[Row]) -> float:
    return mean(row["error_percent"] for row in rows)


def _number(cell: Cell | None, found: dict[str, list[Row]]) -> str:
    if cell is None:
        return ""
    rows = found[cell.name]
    paper = "" if cell.paper is None else f" ({cell.paper})"
    if not rows:
        return f"–{paper}"
    ours = f"{average(rows):.2f}"
    spread = f" ± {stdev(row['error_percent'] for row in rows):.2f}" if len(rows) > 1 else ""
    return (f"**{ours}**" if cell.paper is not None and average(rows) <= cell.paper else ours) + spread + paper


def _notes(table: Table, found: dict[str, list[Row]]) -> list[str]:
    """Return the notes that qualify the table, one line each."""
    there = [cell for cell in table.cells if found[cell.name]]
    missing = [cell.name for cell in table.cells if not found[cell.name]]
    above = [cell.name for cell in there if cell.paper is not None and average(found[cell.name]) > cell.paper]
    pairs = [(cell, found[cell.baseline]) for cell in there if found.get(cell.baseline)]
    worse = [cell.name for cell, baseline in pairs if average(found[cell.name]) >= average(baseline)]
    warned = [f"{row['cell']} seed {row['seed']}" for cell in there for row in found[cell.name] if row["warnings"]]
    by_seed = [_better_seeds(cell.name, found[cell.name], baseline) for cell, baseline in pairs]
    notes = {"Not trained yet": missing}
    if table.compared:
        notes["Above the paper's error"] = above
    if pairs:
        notes["Not better than the baseline, the same classifier without the layer or with a simpler one"] = worse
    notes["Looks collapsed during the training of"] = warned
    if any(by_seed):
        notes["Seeds with fewer errors than the baseline of the same seed"] = [words for words in by_seed if words]
    return [f"- {note}: {', '.join(names) or 'none'}." for note, names in notes.items()]


def _better_seeds(name: str, rows: Sequence[Row], baseline: Sequence[Row]) -> str:
    """Return in how many of the common seeds the network is better; nothing for one seed, where the table shows it."""
    errors, others = ({row["seed"]: row["error_percent"] for row in part} for part in (rows, baseline))
    both = errors.keys() & others.keys()
    return f"{name} {sum(errors[seed] < others[seed] for seed in both)} of {len(both)}" if len(both) > 1 else ""


def _details(row: Row) -> dict[str, str]:
    """Return the texts by heading. A network without a transformer has no values about looks."""
    values = row | {"minutes": row["seconds"] / 60}
    found = {}
    for heading, form in DETAILS.items():
        with suppress(KeyError):
            found[heading] = form.format(**values)
    return found


def line(cells: Iterable[object]) -> str:
    """A row of a table."""
    return f"| {' | '.join(map(str, cells))} |"
