"""Names, calls, options, commands and files that pages mention in code marks, and a search for those that do not exist."""

import ast
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import stn

ROOT = Path(__file__).parents[1]
NAMESPACES = (  # the origin of a name without a module in front of it
    *("stn", "stn.models", "stn.nn", "stn.ops", "stn.registration", "stn.transforms", "stn.lab.data", "stn.lab.networks"),
    *(
        "stn.lab.experiments",
        "stn.lab.figures",
        "stn.lab.page",
        "stn.lab.tables",
        "torch",
        "torch.autograd",
        "torch.autograd.functional",
        "torch.func",
        "torch.nn",
    ),
    *("builtins", "torch.fx.experimental.proxy_tensor", "torch.nn.functional", "kornia.geometry"),
)
OBJECTS = {"network": "torch.nn.Module", "warp": "stn.Warp"}  # names that pages use for an object of a class


def marked(text: str) -> list[str]:
    """Return the text between single backticks, outside of code blocks."""
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def resolve(name: str) -> Any:
    """Return the object of a dotted name that begins with a package. Raises: AttributeError or ImportError."""
    first, *rest = name.split(".")
    found = importlib.import_module(first)
    for depth, part in enumerate(rest, start=1):
        if not hasattr(found, part):
            importlib.import_module(".".join((first, *rest[:depth])))
        found = getattr(found, part)
    return found


def named(name: str) -> Any:
    """Return the object that a page means, or None if there is none."""
    first, dot, rest = name.partition(".")
    name = OBJECTS.get(first, first) + dot + rest if dot else name
    for full in (name, *(f"{space}.{name}" for space in NAMESPACES)):
        if full.partition(".")[0] in ("stn", "torch", "kornia", "builtins"):
            try:
                return resolve(full)
            except (AttributeError, ImportError):
                continue
    return None


def public_callables() -> list[Callable[..., Any]]:
    """Return the public functions and classes, and the public methods of the classes."""
    found = [
        value for name, value in vars(stn).items() if name in stn.__all__ and callable(value) and value is not stn.InputError
    ]
    found += [value for value in vars(stn.export).values() if inspect.isfunction(value)]
    methods = [getattr(value, name) for value in found if inspect.isclass(value) for name in dir(value) if name[0] != "_"]
    own = [method for method in methods if str(getattr(method, "__module__", "")).startswith("stn.")]  # also inherited ones
    return found + [method for method in own if callable(method)]


def parameters(function: Callable[..., Any]) -> set[str]:
    """Return the names of the parameters, including options that are passed on to a sampling call or a layer."""
    given = inspect.signature(function).parameters
    names = {name for name, parameter in given.items() if parameter.kind is not parameter.VAR_KEYWORD}
    handed_down = any(parameter.kind is parameter.VAR_KEYWORD for parameter in given.values())
    layers = (stn.affine_sample, stn.SpatialTransformer) if handed_down else ()
    return names.union(*(inspect.signature(layer).parameters for layer in layers))


def refusal(call: ast.Call) -> str | None:
    """Return the reason why a call is invalid, or None. It checks the names and the number of arguments."""
    name = ast.unparse(call.func)
    function = named(name)
    if not callable(function):
        return f"there is no {name}"
    if name.startswith("torch") or not str(getattr(function, "__module__", "")).startswith("stn"):
        return None  # its signature is torch's own, and often in C
    unknown = {keyword.arg for keyword in call.keywords if keyword.arg} - parameters(function)
    if unknown:
        return f"{name} does not take {', '.join(sorted(unknown))}"
    try:
        inspect.signature(function).bind(*call.args, **{keyword.arg: 0 for keyword in call.keywords if keyword.arg})
    except TypeError as error:
        return f"{name}: {error}"
    return None


def wrong_names(text: str) -> Iterator[str]:
    """Return dotted names of this package or of torch, and names of classes, that do not exist."""
    for mark in marked(text):
        if re.fullmatch(r"(stn|torch)(\.\w+)+|([A-Z][a-z0-9]+){2,}(\.\w+)*", mark) and named(mark) is None:
            yield f"there is no {mark}"


def wrong_calls(text: str) -> Iterator[str]:
    """Return invalid calls, and names of arguments that no public function has."""
    taken = set().union(*map(parameters, public_callables()))
    for mark in marked(text):
        try:
            statement = ast.parse(mark).body[0] if mark.isprintable() else None
        except SyntaxError:
            continue
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1 and "==" not in mark:
            name = ast.unparse(statement.targets[0])
            others = ("fullgraph", "is_grads_batched", "vectorize", "STN_QUIET")  # torch's, and an environment variable
            if name not in taken and name not in others:
                yield f"nothing takes {mark}"
            yield from wrong_option(name, statement.value)
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            reason = refusal(statement.value)
            if reason:
                yield f"{mark}: {reason}"


def wrong_option(name: str, value: ast.expr) -> Iterator[str]:
    """Try an option of a sampling call, and yield the error if it fails."""
    if not isinstance(value, ast.Constant) or name not in inspect.signature(stn.affine_sample).parameters:
        return
    option: dict[str, Any] = {name: value.value}
    try:
        stn.affine_sample(torch.zeros(1, 1, 3, 3), torch.eye(2, 3), **option)
    except (ValueError, TypeError) as error:
        yield f"{name}={value.value!r}: {error}"


def wrong_families(text: str) -> Iterator[str]:
    """Return rows `name` | `Class` of a table that are not the name and the class of a family."""
    for name, title in re.findall(r"^\| `(\w+)` \| `(\w+)` \|", text, flags=re.MULTILINE):
        if type(stn.transforms.family(name)).__name__ != title:
            yield f"{name} is not {title}"


def wrong_files(text: str, folders: tuple[str, ...] = ("", "src/stn")) -> Iterator[str]:
    """Return Python files that do not exist, or that lack the name in `file.py: name`."""
    for path, name in re.findall(r"`(?:python )?([\w./-]+\.py)(?:: (\w+))?`", text):
        found = [ROOT / folder / path for folder in folders if (ROOT / folder / path).is_file()]
        if not found:
            yield f"there is no {path}"
        elif name and not re.search(rf"^(?:def |class )?{name}\b", found[0].read_text(), flags=re.MULTILINE):
            yield f"{path} has no {name}"


def wrong_commands(text: str, options: Callable[[str], set[str]], commands: set[str]) -> Iterator[str]:
    """Return lines and marks that call `stn` with an unknown command or option. options: the options of a command."""
    blocks = [code for kind, code in re.findall(r"```(\w*)\n(.*?)```", text, flags=re.DOTALL) if kind in ("", "sh")]
    typed = [call for block in blocks for line in block.splitlines() for call in line.split("#")[0].split("&&")]
    for call in [*typed, *marked(text)]:
        found = re.match(r"\s*stn ([a-z][\w-]*)(.*)", call)
        if found and found[1] not in commands:
            yield f"there is no command {found[1]}: {call.strip()}"
        elif found:
            missing = set(re.findall(r"(?<=\s)--[\w-]+", found[2])) - options(found[1])
            if missing:
                yield f"stn {found[1]} has no {', '.join(sorted(missing))}: {call.strip()}"
