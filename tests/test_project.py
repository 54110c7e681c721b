"""The project's own files agree: versions, workflows, hooks, and names in CONTRIBUTING."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.mentions import ROOT, marked, wrong_files, wrong_names

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
YAML = sorted([*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml"])
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
FOLDERS = (
    "",
    "src",
    "src/stn",
    "src/stn/ops",
    "src/stn/ops/cpu",
    "src/stn/lab/page",
    "src/stn/cli",
)  # folders to which paths in CONTRIBUTING are relative


def parsed(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def pinned(name: str) -> str:
    found = re.search(rf"^{name}==([\w.]+)", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert found
    return found[1]


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_the_hosts_files_are_yaml(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_workflows_test_the_pythons_that_are_promised() -> None:
    jobs = parsed(".github/workflows/tests.yml")["jobs"]
    matrix = jobs["make"]["strategy"]["matrix"]
    promised = re.findall(r"Python :: (3\.\d+)$", "\n".join(PROJECT["classifiers"]), flags=re.MULTILINE)
    assert matrix["python"] == promised
    assert PROJECT["requires-python"] == f">={promised[0]}"
    systems = {*matrix["os"], *(entry["os"] for entry in matrix["include"]), jobs["windows"]["runs-on"]}
    assert systems == {"ubuntu-latest", "macos-latest", "windows-latest"}
    assert all(isinstance(entry["python"], str) and entry["python"] in promised for entry in matrix["include"])
    others = [step["with"]["python-version"] for job in jobs.values() for step in job["steps"] if "with" in step]
    assert {*others} - {"${{ matrix.python }}"} <= {*promised}


def test_workflows_test_the_oldest_torch_that_is_promised() -> None:
    matrix = parsed(".github/workflows/tests.yml")["jobs"]["make"]["strategy"]["matrix"]
    oldest = next(name for name in PROJECT["dependencies"] if name.startswith("torch>="))
    assert f"{oldest.removeprefix('torch>=')}.0" in {entry["torch"] for entry in matrix["include"]}
    assert f"PINNED := {pinned('torch')}\n" in (ROOT / "Makefile").read_text()


def test_one_version_everywhere() -> None:
    assert f'\n__version__ = "{PROJECT["version"]}"\n' in (ROOT / "src/stn/__init__.py").read_text()
    assert parsed("CITATION.cff")["version"] == PROJECT["version"]
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def test_hooks_have_the_pinned_versions() -> None:
    ruff, local = parsed(".pre-commit-config.yaml")["repos"]
    assert ruff["repo"].endswith("/ruff-pre-commit") and ruff["rev"] == f"v{pinned('ruff')}"
    assert [hook["name"] for hook in local["hooks"]] == [f"mypy {pinned('mypy')}"]


def missing_paths(text: str) -> list[str]:
    """Return files and folders in code marks, or in the list of the layout, that do not exist."""
    layout = re.findall(r"^    ([\w./]+(?:/|\.\w+)) {2,}", text, flags=re.MULTILINE)
    said = [mark for mark in marked(text) if re.fullmatch(r"[\w./-]+(/|\.(py|md|yml|toml|cff|html|txt))", mark)]
    return [path for path in [*layout, *said] if not any((ROOT / folder / path).exists() for folder in FOLDERS)]


def missing_targets(text: str) -> list[str]:
    """Return targets of `make ..`, in code marks or indented lines, that the Makefile does not have."""
    typed = re.findall(r"(?:^    |`)make (\w+)", text, flags=re.MULTILINE)
    rules = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    return [target for target in typed if target not in rules]


def missing_commands(text: str) -> list[str]:
    from stn.cli import COMMANDS

    return [name for name in re.findall(r"`stn ([\w-]+)", text) if name not in COMMANDS]


def test_what_contributing_names_exists() -> None:
    assert len(re.findall(r"^    [\w./]+(?:/|\.\w+) {2,}", CONTRIBUTING, flags=re.MULTILINE)) > 10
    wrong = [*wrong_files(CONTRIBUTING, FOLDERS), *wrong_names(CONTRIBUTING)]
    assert not [*wrong, *missing_paths(CONTRIBUTING), *missing_targets(CONTRIBUTING), *missing_commands(CONTRIBUTING)]


def test_what_does_not_exist_is_found() -> None:
    assert missing_paths("    optics/        kernels\n`ops/reference.py`, `tests/no.yml`") == ["optics/", "tests/no.yml"]
    assert missing_targets("    make tests   # all\n`make lint`") == ["tests"]
    assert missing_commands("`stn benches` and `stn bench`") == ["benches"]
