"""Rows of a reproduced table -> Markdown: ours beside the paper's, and what is not there yet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from statistics import mean, stdev

from stn.lab.experiments.folder import Row
from stn.lab.tables.cells import Cell, Table

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


def markdown(name: str, table: Table, rows: Sequence[Row], budget: str, picture: str = "") -> str:
    """The whole document. picture: the file beside it that shows what the layers look at."""
    rows = [row for row in rows if row["budget"] == budget]
    found = {cell.name: [row for row in rows if row["cell"] == cell.name] for cell in table.cells}
    columns = list(dict.fromkeys(cell.column for cell in table.cells))
    trial = " --budget quick` (a trial)" if budget == "quick" else "`"
    ours = "Ours, with its spread over seeds" + (", and in brackets the paper's." if table.compared else ".")
    bold = " Bold: at or below the paper's." if table.compared else ""
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
        lines += ["", f"![Test images, where the layer looks, and what it hands on]({picture})"]
    lines += ["", *_notes(table, found), "", "## Rows", "", line(headings), line(["---"] * len(headings))]
    lines += [line(row.get(heading, "") for heading in headings) for row in details]
    machines = dict.fromkeys("{machine}, {threads} threads a run, {precision}, torch {torch}".format(**row) for row in rows)
    hours = sum(row["seconds"] for row in rows) / 3600
    return "\n".join([*lines, "", f"Measured on {'; '.join(machines) or 'nothing yet'}. {hours:.1f} hours of training.", ""])


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
    """What a reader must know before believing the table, a line each."""
    there = [cell for cell in table.cells if found[cell.name]]
    missing = [cell.name for cell in table.cells if not found[cell.name]]
    above = [cell.name for cell in there if cell.paper is not None and average(found[cell.name]) > cell.paper]
    pairs = [(cell, found[cell.baseline]) for cell in there if found.get(cell.baseline)]
    worse = [cell.name for cell, baseline in pairs if average(found[cell.name]) >= average(baseline)]
    warned = [f"{row['cell']} seed {row['seed']}" for cell in there for row in found[cell.name] if row["warnings"]]
    by_seed = [_better_seeds(cell.name, found[cell.name], baseline) for cell, baseline in pairs]
    notes = {
        "Not trained yet": missing,
        **({"Above the paper's error": above} if table.compared else {}),
        "Not below the same classifier without a transformer, or with a plainer one": worse,
        "A look collapsed at some epoch": warned,
    }
    if any(by_seed):
        notes["Seeds in which it is below the one of the same seed"] = [words for words in by_seed if words]
    return [f"- {note}: {', '.join(names) or 'none'}." for note, names in notes.items()]


def _better_seeds(name: str, rows: Sequence[Row], baseline: Sequence[Row]) -> str:
    """Of how many that both have; nothing where that is one, for then the error says it."""
    errors, others = ({row["seed"]: row["error_percent"] for row in part} for part in (rows, baseline))
    both = errors.keys() & others.keys()
    return f"{name} {sum(errors[seed] < others[seed] for seed in both)} of {len(both)}" if len(both) > 1 else ""


def _details(row: Row) -> dict[str, str]:
    """By heading. A network without a transformer has no look to tell of."""
    values = row | {"minutes": row["seconds"] / 60}
    found = {}
    for heading, form in DETAILS.items():
        with suppress(KeyError):
            found[heading] = form.format(**values)
    return found


def line(cells: Iterable[object]) -> str:
    """A row of a table."""
    return f"| {' | '.join(map(str, cells))} |"
