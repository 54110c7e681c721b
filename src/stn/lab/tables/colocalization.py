"""Reproduce the co-localization of the paper: one search and one row per digit and scene; an interrupted call continues."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from statistics import mean

import torch
from rich.console import Console

from stn import _check
from stn.io.files import read_tensors, write_tensors, write_text
from stn.lab.data import load
from stn.lab.data.draw import Example
from stn.lab.experiments.rows import Row
from stn.lab.experiments.search import FEATURES, Found, Search, codes, find
from stn.lab.tables.markdown import line
from stn.lab.tables.results import Results

HEADINGS = {  # heading, and the paper's share for the worst and the best digit, in percent
    "translated_84": ("translated", (100, 100)),
    "cluttered_84": ("among clutter", (75, 93)),
}
HEAD = """# Jaderberg et al. 2015, appendix A.2: digits found without labels, in % of 100 images

`stn reproduce colocalization --root DIR`. The same digit lies anywhere in each of 100 images of 84x84 pixels, alone or among
16 patches of clutter. A digit counts as found if the look and its frame of 28x28 pixels overlap by more than half of their
union (IoU above 0.5). A *look* is one sampled view of an image through one warp. {recipe}
"""
RECIPE = (
    "The localization network and the triplets are those of the paper, with batch norm added. The features are those of "
    "the CNN of Table 1, trained on digits translated by up to 4 pixels and scaled by 0.7 to 1.2, minus the features of "
    "an empty crop. The similarity is their inner product; `stn.lab.networks.similarity_triplet_loss` gives the reason "
    "for not using the paper's squared distance. The look starts with half the side of the image and shrinks to the "
    "known size of the digit in the first half of {steps:,} steps of Adam on all 100 images. Each step translates each "
    "image by up to {shift} pixels."
)


def reproduce_colocalization(
    *,
    root: Path | None,
    out: Path,  # without a suffix: rows go to .jsonl, the table to .md
    runs: Path,  # folder of what is trained and found
    data: str = "mnist",
    seeds: int = 1,
    cells: Sequence[str] = (),  # patterns, such as cluttered/*; (): all
    download: bool = False,
) -> list[Row]:
    """Search for every digit that has no row with the same settings. Returns all rows.

    Raises: InputError, which names the argument.
    """
    _check.at_least("seeds", seeds, 1)
    planned, results = list(searches(seeds, cells)), results_of(out)
    results.begin()
    rows = results.rows()

    def document(rows: Sequence[Row]) -> str:
        return markdown(rows, results.picture.name)

    for scene in FEATURES:
        wanted = [search for search in planned if search.scene == scene and not _known(search, rows)]
        encoder = codes(scene, data=data, root=root, runs=runs, download=download) if wanted else None
        images = load(data, root, download=download).train if wanted else None
        for search in wanted:
            assert encoder is not None and images is not None
            found = find(search, images, encoder)
            _keep(found, runs / found_name(search))
            rows = results.add(found.row, lambda row: row["search"], document)
            Console().print(f"{search.name}, seed {search.seed}: {found.row['found_percent']:.0f} % found")
    write_text(results.document, document(rows))
    return rows


def results_of(out: Path) -> Results:
    return Results(out, is_row, lambda row: row["search"] == Search.again(row["search"]).settings())


def is_row(row: object) -> bool:
    """Whether it has all values that the document prints of a row."""
    if (
        not isinstance(row, dict)
        or not isinstance(row.get("search"), dict)
        or not {"scene", "digit", "seed"} <= set(row["search"])
    ):
        return False
    numbers = all(isinstance(row.get(name), int | float) for name in ("found_percent", "iou", "loss", "seconds", "threads"))
    return numbers and isinstance(row.get("cell"), str) and isinstance(row.get("machine"), str)


def searches(seeds: int, patterns: Sequence[str] = ()) -> Iterator[Search]:
    """Yield all searches with seed 0, then all with seed 1, .. Raises: InputError for a pattern without a match."""
    every = [Search(scene, digit) for scene in FEATURES for digit in range(10)]
    for pattern in patterns:
        if not any(fnmatch(search.name, pattern) for search in every):
            _check.fail(f"cells must be names or patterns among {', '.join(s.name for s in every)}; got {pattern!r}")
    for seed in range(seeds):
        for search in every:
            if any(fnmatch(search.name, pattern) for pattern in patterns or ["*"]):
                yield Search(search.scene, search.digit, seed)


def found_name(search: Search) -> str:
    """Return the name of the file with the result of a search."""
    return f"{search.name.replace('/', '-')}-seed{search.seed}.pt"


def found_in(path: Path) -> tuple[Example, torch.Tensor]:
    """Read the images of a search, with the boxes of their digits, and its looks: (N, 4)."""
    try:
        kept = read_tensors(path)
        return Example(kept["images"].float() / 255, kept["labels"], kept["boxes"]), kept["looks"]
    except Exception as error:  # damaged bytes can raise anything
        _check.fail(
            f"{path} must hold the result of a search; got a file that raises {type(error).__name__}. Delete it and its row"
        )


def _keep(found: Found, path: Path) -> None:
    x, labels, boxes = found.example
    kept = {"images": (255 * x).round().byte(), "labels": labels, "boxes": boxes, "looks": found.boxes}
    write_tensors(path, kept)


def _known(search: Search, rows: Sequence[Row]) -> bool:
    return any(row["search"] == search.settings() for row in rows)


def markdown(rows: Sequence[Row], picture: str = "") -> str:
    """Return the whole document. picture: the file beside it that shows the looks."""
    recipe = RECIPE.format(steps=Search.steps, shift=Search.shift)
    lines = [HEAD.format(recipe=recipe), line(["", *range(10), "mean", "paper"]), line(["---"] * 13)]
    for scene, (heading, (worst, best)) in HEADINGS.items():
        by_digit = [[row["found_percent"] for row in rows if _is(row, scene, digit)] for digit in range(10)]
        there = [mean(found) for found in by_digit if found]
        numbers = [f"{mean(found):.0f}" if found else "–" for found in by_digit]
        paper = f"{worst}" if worst == best else f"{worst} to {best} by digit"
        lines.append(line([heading, *numbers, f"**{mean(there):.1f}**" if there else "–", paper]))
    lines += ["", f"![Images, the digit's frame and the look]({picture})"] if picture and rows else []
    details = ("cell", "seed", "found %", "mean IoU", "last loss", "seconds")
    lines += ["", "## Rows", "", line(details), line(["---"] * len(details))]
    for row in rows:
        measured = f"{row['found_percent']:.0f}", f"{row['iou']:.2f}", f"{row['loss']:.3f}", f"{row['seconds']:.0f}"
        lines.append(line([row["cell"], row["search"]["seed"], *measured]))
    machines = dict.fromkeys(f"{row['machine']}, threads: {row['threads']}" for row in rows)
    return "\n".join([*lines, "", f"Measured on {'; '.join(machines) or 'no machine yet'}.", ""])


def _is(row: Row, scene: str, digit: int) -> bool:
    return bool(row["search"]["scene"] == scene and row["search"]["digit"] == digit)
