"""Errors by class and by pair of classes, in Markdown, from the rows of a table whose task names its classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from stn.lab.experiments.rows import Row
from stn.lab.tables.cells import Cell

MOST = 10  # classes, and pairs
Key = tuple[int, ...]  # a class, or a class and the class that was read
Line = tuple[list[str], list[Key]]  # the first cells of a line, and the keys that it counts
Counts = Mapping[str, Mapping[Key, float]]  # label of a network -> key -> errors


def confusions(cells: Sequence[Cell], found: Mapping[str, Sequence[Row]], names: Sequence[str]) -> list[str]:
    """Return the lines of both tables; none if no row has its mistakes.

    found: rows by the name of their cell, with `mistakes`, [place in the test set, class, class read], and `class_sizes`,
    the number of test images of each class. names: of the classes.
    """
    rows = {cell.row: [row for row in found[cell.name] if "mistakes" in row] for cell in cells}
    rows = {label: part for label, part in rows.items() if part}
    if not rows:
        return []
    sizes = next(iter(rows.values()))[0]["class_sizes"]
    by_class = {label: _means(part, slice(1, 2)) for label, part in rows.items()}
    by_pair = {label: _means(part, slice(1, 3)) for label, part in rows.items()}
    worst = _worst(by_class)
    rest: list[Key] = [(key,) for key in range(len(sizes)) if (key,) not in worst]
    body: list[Line] = [([names[key], f"{sizes[key]:,}"], [(key,)]) for (key,) in worst]
    body += [(["all others", f"{sum(sizes[key] for (key,) in rest):,}"], rest)]
    pairs: list[Line] = [([names[truth], names[read]], [(truth, read)]) for truth, read in _worst(by_pair)]
    return [
        "## Errors by class",
        "",
        f"Test images that a network reads wrongly, mean over seeds: the {MOST} classes with most errors, and all others.",
        "",
        *_table(["sign", "test images", *rows], body, by_class),
        "",
        "## Most confused pairs",
        "",
        *_table(["sign", "read as", *rows], pairs, by_pair),
        "",
    ]


def _means(rows: Sequence[Row], part: slice) -> dict[Key, float]:
    """Count the mistakes by a part of [place, class, class read], as a mean over rows."""
    counts = Counter(tuple(mistake[part]) for row in rows for mistake in row["mistakes"])
    return {key: count / len(rows) for key, count in counts.items()}


def _worst(counts: Counts) -> list[Key]:
    """Return the keys with the most errors over all networks."""
    sums: Counter[Key] = Counter()
    for each in counts.values():
        for key, count in each.items():
            sums[key] += round(1000 * count)
    return sorted(sums, key=lambda key: (-sums[key], key))[:MOST]


def _table(headings: Sequence[str], body: Iterable[Line], counts: Counts) -> list[str]:
    lines = [headings, ["---"] * len(headings)]
    for words, keys in body:
        lines.append([*words, *(f"{sum(each.get(key, 0) for key in keys):.1f}" for each in counts.values())])
    return [f"| {' | '.join(cells)} |" for cells in lines]
