"""The architecture: imports run one way, files and functions are short, and importing the library loads only torch."""

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

import stn

SOURCE = Path(__file__).parents[1] / "src" / "stn"
LAYERS = [
    "_check",
    "io",
    "grid",
    "ops",
    "transforms",
    "space",
    "vision",
    "nn",
    "export",
    "models",
    "registration",
    "lab._check",
    "lab.data",
    "lab.networks",
    "lab.experiments",
    "lab.tables",
    "lab.figures",
    "lab.page",
    "lab.bench",
    "cli",
    "lab.studies",
]  # a module imports only from layers above it
LABORATORY = next(i for i, name in enumerate(LAYERS) if name.startswith("lab."))
MAX_FILE, MAX_FUNCTION = 350, 50  # lines, without a docstring
MAX_DOCSTRING, MAX_PUBLIC = 15, 40  # lines, without and with an example
FILES = sorted(SOURCE.rglob("*.py"))


def layer(module: str) -> int | None:
    """Return the index in LAYERS of stn.<layer>..; for stn.lab, that of its first layer; None for stn and other packages."""
    parts = module.split(".")
    if parts[0] != "stn" or len(parts) == 1:
        return None
    names = [".".join(parts[1:3]), LAYERS[LABORATORY]] if parts[1] == "lab" else [parts[1]]
    return next((LAYERS.index(name) for name in names if name in LAYERS), None)


def imported(tree: ast.AST) -> Iterator[str]:
    """Return the modules that a file imports, anywhere in it. `from stn import x` counts as stn.x."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_name(file: Path) -> str:
    """Return the name under which a file is imported: stn.nn for nn/__init__.py."""
    parts = ("stn", *file.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def violations(file: Path, text: str) -> list[str]:
    name = ".".join(("stn", *file.relative_to(SOURCE).with_suffix("").parts))
    own = LABORATORY - 1 if name == "stn.__init__" else layer(name)
    if own is None:  # this module leads to the command line
        return []
    return [module for module in imported(ast.parse(text)) if (layer(module) or 0) > own]


def test_every_module_has_its_layer() -> None:
    inside = [path.relative_to(SOURCE).with_suffix("").parts for path in FILES]
    names = {".".join(parts[:2]) if parts[0] == "lab" else parts[0] for parts in inside}
    assert names == {*LAYERS, "__init__", "__main__", "lab.__init__"}


@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_run_one_way(file: Path) -> None:
    assert violations(file, file.read_text()) == []


def test_a_wrong_import_is_seen_also_inside_a_function() -> None:
    assert violations(SOURCE / "grid.py", "def f():\n    from stn.ops.sample import affine_sample") != []
    assert violations(SOURCE / "grid.py", "def f():\n    from stn import nn") != []
    assert violations(SOURCE / "nn" / "transformer.py", "import stn.lab.experiments.runs") != []
    assert violations(SOURCE / "models" / "text.py", "def f():\n    from stn import lab") != []
    assert violations(SOURCE / "__init__.py", "from stn.lab.networks import build") != []
    assert violations(SOURCE / "lab" / "data" / "draw.py", "from stn.lab.experiments import Run") != []
    assert violations(SOURCE / "lab" / "figures" / "lines.py", "from stn import cli") != []


def import_graph(texts: Mapping[str, str]) -> dict[str, set[str]]:
    """Map each module to the modules that it imports by name, including imports in functions and for type checkers.

    Parent packages do not count: the __init__ of a package imports its modules.
    """

    def nearest(name: str) -> str:
        while name and name not in texts:
            name = name.rpartition(".")[0]
        return name

    return {module: {nearest(name) for name in imported(ast.parse(text))} - {""} for module, text in texts.items()}


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return groups of modules that import each other, directly or indirectly."""

    def reached(module: str) -> set[str]:
        found, ahead = set[str](), [module]
        while ahead:
            new = graph[ahead.pop()] - found
            found |= new
            ahead += new
        return found

    reach = {module: reached(module) for module in graph}
    groups = {frozenset(other for other in reach[module] if module in reach[other]) for module in graph}
    return sorted(sorted(group) for group in groups if group)


@pytest.mark.parametrize("top", dict.fromkeys(name.split(".")[0] for name in LAYERS))
def test_no_modules_import_one_another(top: str) -> None:
    """This includes imports in functions and for type checkers."""
    found = circles(import_graph({module_name(file): file.read_text() for file in FILES}))
    assert [group for group in found if any(f"{name}.".startswith(f"stn.{top}.") for name in group)] == []


def test_a_circle_is_seen() -> None:
    texts = {
        "stn": "from stn import a",
        "stn.a": "def f():\n    from stn.b import g",
        "stn.b": "if TYPE_CHECKING:\n    from stn import c",
        "stn.c": "from stn.a import f\nimport torch",
        "stn.d": "from stn.a import f",
    }
    assert circles(import_graph(texts)) == [["stn.a", "stn.b", "stn.c"]]
    assert circles(import_graph(texts | {"stn.b": ""})) == []
    assert circles(import_graph({"stn.x": "import stn.x"})) == [["stn.x"]]


def test_the_library_names_no_module_of_the_laboratory() -> None:
    """Not even a string may name it, because a string can be imported."""
    named = [file for file in FILES if "stn.lab" in file.read_text()]
    assert {file.relative_to(SOURCE).parts[0] for file in named} == {"lab", "cli"}


def test_commands_load_the_laboratory_only_when_they_run() -> None:
    """Exceptions are commands with options that are made from contents of the laboratory."""
    eager = []
    for file in sorted((SOURCE / "cli").glob("*.py")):
        module = ast.parse(file.read_text())
        found = [name for node in module.body if not isinstance(node, ast.FunctionDef) for name in imported(node)]
        eager += [file.stem for name in found if name.startswith("stn.lab")]
    assert eager == ["bench", "train"]


@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_and_functions_are_small(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= MAX_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
            docstring = ast.get_docstring(node)
            lines = node.end_lineno - node.lineno - len((docstring or "").splitlines())
            assert lines < MAX_FUNCTION, node.name
            if docstring and file.parent.name != "cli":  # in cli, the docstring is the text of --help
                most = MAX_PUBLIC if "\nExample:\n" in docstring else MAX_DOCSTRING
                assert len(docstring.splitlines()) <= most, node.name


def test_importing_the_library_loads_no_extra() -> None:
    heavy = "numba triton matplotlib PIL sklearn scipy lightning_fabric tensorboard rich tyro onnx onnxscript"
    code = f"import sys, torch; old = set(sys.modules); import stn; print(set({heavy!r}.split()) & (set(sys.modules) - old))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_the_models_are_loaded_when_they_are_used() -> None:
    code = (
        "import sys, stn; before = 'stn.models' in sys.modules; stn.models.text_rectifier; print(before, hasattr(stn, 'x'))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False False"


def inherited_from_concrete(classes: Iterable[type]) -> list[str]:
    """Return our classes that inherit from a concrete class of ours."""
    return [
        f"{one.__qualname__}({base.__qualname__})"
        for one in classes
        for base in one.__bases__
        if base.__module__.startswith("stn.") and not inspect.isabstract(base)
    ]


def classes_of(*packages: str) -> Iterator[type]:
    for file in FILES:
        name = module_name(file)
        if name.split(".")[1:2] and name.split(".")[1] in packages:
            module = importlib.import_module(name)
            yield from (value for value in vars(module).values() if inspect.isclass(value) and value.__module__ == name)


def test_a_class_is_abstract_or_no_base() -> None:
    """For layers, networks, families and warps: a class inherits only members that fit. (No @final: users may subclass.)"""
    classes = list(classes_of("nn", "transforms", "models"))
    assert len(classes) > 30 and inherited_from_concrete(classes) == []


def test_a_concrete_base_is_seen() -> None:
    class Two(stn.SpatialTransformer):
        pass

    class Three(stn.Warp):
        pass

    assert inherited_from_concrete([Two, Three]) == [f"{Two.__qualname__}(SpatialTransformer)"]
