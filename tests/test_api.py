"""Every public name documents its arguments and its result, and has an example that runs."""

import doctest
import inspect
import re
from collections.abc import Callable, Iterator
from types import GenericAlias, ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import stn
import stn.export
import stn.grid
import stn.models
import stn.nn
import stn.transforms

MODULES: tuple[ModuleType, ...] = (stn, stn.transforms, stn.nn, stn.models, stn.export, stn.space)
EXPORT = ("onnx", "onnx_ir", "onnxruntime", "onnxscript")
NEEDED: dict[str, tuple[str, ...]] = {
    "stn.export.to_onnx": EXPORT,
    "stn.export.largest_difference": EXPORT,
}  # packages that the examples need
NEEDED |= {f"stn.{name}": ("nibabel",) for name in ("Volume", "read_nifti", "write_nifti")}
WITHOUT_ARGUMENTS = {"InputError"}  # users catch it and do not create it


def public() -> Iterator[tuple[str, Any]]:
    """Return each object once, under its shortest name."""
    seen: set[int] = set()
    for module in MODULES:
        for name in module.__all__:
            value = getattr(module, name)
            if callable(value) and not isinstance(value, GenericAlias) and id(value) not in seen:
                seen.add(id(value))
                yield f"{module.__name__}.{name}", value
    for name in ("lattice", "normalized_to_pixel", "pixel_to_normalized"):
        yield f"stn.grid.{name}", getattr(stn.grid, name)


PUBLIC = dict(public())


def parameters(value: Callable[..., Any]) -> list[str]:
    """Return the names of the parameters that a caller passes."""
    found = inspect.signature(value).parameters.values()
    return [p.name for p in found if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and not p.name.startswith("_")]


def section(text: str, name: str) -> str:
    found = re.search(rf"^{name}:\n((?:    .*\n?|\n)+)", text, flags=re.MULTILINE)
    return found[1] if found else ""


SAMPLING = {"mode", "padding_mode", "fill_value", "align_corners", "antialias", "gradient", "pyramid"}


@pytest.mark.parametrize("name", PUBLIC)
def test_every_argument_is_described(name: str) -> None:
    text = inspect.getdoc(PUBLIC[name]) or ""
    described = set(re.findall(r"^    \*{0,2}(\w+)(?:, \w+)*:", section(text, "Args"), flags=re.MULTILINE))
    wanted = set() if name.split(".")[-1] in WITHOUT_ARGUMENTS or is_abstract(PUBLIC[name]) else {*parameters(PUBLIC[name])}
    if "options" in described:
        wanted -= SAMPLING
    assert wanted <= described, wanted - described


def is_abstract(value: Any) -> bool:
    return inspect.isclass(value) and (inspect.isabstract(value) or issubclass(value, BaseException))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_argument_has_a_type(name: str) -> None:
    if is_abstract(PUBLIC[name]):
        return
    found = inspect.signature(PUBLIC[name]).parameters.values()
    assert not [p.name for p in found if p.annotation is p.empty]


@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_runs(name: str) -> None:
    for package in NEEDED.get(name, ()):
        pytest.importorskip(package)
    torch.manual_seed(0)
    globs = {"stn": stn, "torch": torch, "nn": torch.nn, "np": np}
    (found,) = doctest.DocTestFinder(recurse=False).find(PUBLIC[name], name, globs=globs)
    assert found.examples, "no example"
    out: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(found, out=out.append)
    assert not out, "".join(out)
