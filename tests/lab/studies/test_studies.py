"""Studies are modules that load, and say how they are run."""

import importlib
import pkgutil

import pytest

from stn.lab import studies

NAMES = [module.name for module in pkgutil.iter_modules(studies.__path__)]


@pytest.mark.parametrize("name", NAMES)
def test_a_study_says_how_it_is_run(name: str) -> None:
    study = importlib.import_module(f"stn.lab.studies.{name}")
    assert f"python -m stn.lab.studies.{name}" in (study.__doc__ or "") and callable(study.main)
