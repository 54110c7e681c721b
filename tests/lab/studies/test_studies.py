"""Studies are modules that can be imported and that document their command."""

import importlib
import pkgutil

import pytest

from stn.lab import studies
from stn.lab.studies import step_cost

NAMES = [module.name for module in pkgutil.iter_modules(studies.__path__)]


@pytest.mark.parametrize("name", NAMES)
def test_a_study_says_how_it_is_run(name: str) -> None:
    study = importlib.import_module(f"stn.lab.studies.{name}")
    assert f"python -m stn.lab.studies.{name}" in (study.__doc__ or "") and callable(study.main)


def test_a_processors_section_is_replaced_and_others_stay() -> None:
    page = ""
    for new in ("## one\n\nslow\n", "## two\n\nfast\n", "## one\n\nquick\n"):
        page = step_cost.with_section(page, new)
    assert page.startswith("# Cost of a training step\n\nThe cost of")
    assert page.endswith("\n\n## one\n\nquick\n\n## two\n\nfast\n") and "slow" not in page
    assert page.count("# Cost of a training step") == 1
