"""The house: imports run one way, files and functions stay small, and importing the library costs nothing beyond torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "stn"
LAYERS = [
    "_check",
    "io",
    "grid",
    "ops",
    "transforms",
    "nn",
    "export",
    "models",
    "data",
    "registration",
    "experiments",
    "figures",
    "report",
    "bench",
    "cli",
]  # top first
MAX_FILE, MAX_FUNCTION = 350, 50  # lines
FILES = sorted(SOURCE.rglob("*.py"))


def layer(module: str) -> int | None:
    """Place in LAYERS of stn.<layer>..., None for stn itself or another package."""
    parts = module.split(".")
    return LAYERS.index(parts[1]) if parts[0] == "stn" and len(parts) > 1 and parts[1] in LAYERS else None


def imported(tree: ast.AST) -> Iterator[str]:
    """Modules that a file imports, anywhere in it, `from stn import x` as stn.x."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def violations(file: Path, text: str) -> list[str]:
    name = ".".join(("stn", *file.relative_to(SOURCE).with_suffix("").parts))
    own = layer(name)
    if own is None:  # the front page
        return []
    return [module for module in imported(ast.parse(text)) if (layer(module) or 0) > own]


def test_every_module_has_its_layer() -> None:
    assert {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in FILES} == {*LAYERS, "__init__", "__main__"}


@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_run_one_way(file: Path) -> None:
    assert violations(file, file.read_text()) == []


def test_a_wrong_import_is_seen_also_inside_a_function() -> None:
    assert violations(SOURCE / "grid.py", "def f():\n    from stn.ops.sample import affine_sample") != []
    assert violations(SOURCE / "grid.py", "def f():\n    from stn import nn") != []
    assert violations(SOURCE / "nn" / "transformer.py", "import stn.experiments.runs") != []


@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_and_functions_are_small(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= MAX_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
            assert node.end_lineno - node.lineno < MAX_FUNCTION, node.name
            docstring = ast.get_docstring(node)
            if docstring and file.parent.name != "cli":  # there it is the --help
                assert len(docstring.splitlines()) <= 15, node.name


def test_importing_the_library_loads_no_extra() -> None:
    heavy = "numba triton matplotlib PIL sklearn scipy lightning_fabric tensorboard rich tyro onnx onnxscript"
    code = f"import sys, torch; old = set(sys.modules); import stn; print(set({heavy!r}.split()) & (set(sys.modules) - old))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
