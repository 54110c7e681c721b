"""Each committed page of results is the one that the code makes from the committed rows."""

import json
from pathlib import Path

import pytest

from stn.lab.bench import bars
from stn.lab.bench import markdown as bench
from stn.lab.studies import birds, export_matrix, gpu_static, step_cost, svhn_step
from stn.lab.tables import TABLES, colocalization, hippocampus
from stn.lab.tables.markdown import markdown

ROOT = Path(__file__).parents[1]
TRAINED = [name for name in TABLES if (ROOT / "results" / f"{name}.jsonl").exists()]


def page(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def lines_of(name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in page(f"results/{name}.jsonl").splitlines()]


def title(path: str) -> str:
    return page(path).splitlines()[0].lstrip("# ")


@pytest.mark.parametrize("name", TRAINED)
def test_a_table_is_made_from_its_rows(name: str) -> None:
    rows = lines_of(name)
    budget = "quick" if all(row["budget"] == "quick" for row in rows) else "full"
    made = markdown(name, TABLES[name], rows, budget, f"{name}.png")
    assert page(f"results/{name}.md") == made
    assert "{" not in made and "None" not in made


def test_the_search_is_made_from_its_rows() -> None:
    rows = lines_of("colocalization")
    assert page("results/colocalization.md") == colocalization.markdown(rows, "colocalization.png")


def test_hippocampi_are_made_from_their_rows() -> None:
    rows = lines_of("hippocampus")
    assert all(map(hippocampus.is_row, rows))
    assert page("results/hippocampus.md") == hippocampus.markdown(rows)


def test_birds_are_made_from_their_rows() -> None:
    rows = lines_of("birds")
    assert page("results/birds.md") == birds.markdown(rows)
    test = [row for row in rows if row["split"] == "test"]
    assert {(row["cell"], row["seed"]) for row in test} == {
        (cell, seed) for cell in (birds.WHOLE, birds.CENTER, birds.LOOK) for seed in range(3)
    }


def test_the_cost_of_a_step_has_the_text_of_its_study() -> None:
    text = page("results/step_cost.md")
    assert text == step_cost.with_section(text, "## " + text.split("\n## ")[-1])


def test_the_benchmark_is_made_from_its_rows() -> None:
    kept = json.loads(page("benchmarks/results/cpu.json"))
    assert page("benchmarks/results/cpu.md") == bench.markdown(kept["machine"], kept["rows"])


def test_the_page_of_cuda_is_made_from_its_rows() -> None:
    kept = json.loads(page("benchmarks/results/cuda.json"))
    assert page("benchmarks/results/cuda.md") == bars.page(kept["machine"], kept["rows"])


def test_the_page_of_machine_code_is_made_from_its_rows() -> None:
    kept = json.loads(page("benchmarks/results/gpu_static.json"))
    assert page("benchmarks/results/gpu_static.md") == gpu_static.markdown(kept["rows"], kept["triton"])


def test_the_exports_are_made_from_their_rows() -> None:
    kept = json.loads(page("benchmarks/results/export.json"))
    assert page("benchmarks/results/export.md") == export_matrix.markdown(kept["header"], kept["rows"])


@pytest.mark.parametrize("name, package", (("svhn_step", ""), ("registration", ""), ("recovery", "skimage")))
def test_a_study_is_made_from_its_rows(name: str, package: str) -> None:
    if package:
        pytest.importorskip(package)
    path, rows = f"benchmarks/results/{name}.md", json.loads(page(f"benchmarks/results/{name}.json"))
    if name == "svhn_step":
        made = svhn_step.table(rows, title(path))
    elif name == "registration":
        from stn.lab.studies import registration

        made = registration.table(rows, title(path))
    else:
        from stn.lab.studies import recovery

        found = {method: {int(distance): share for distance, share in rows[method].items()} for method in recovery.METHODS}
        made = recovery.table(found, 24)
    assert page(path) == made
