"""Every public name has an entry in the API reference and a page that says what it is for; families have a picture."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import stn
import stn.registration
import stn.space
import stn.transforms

ROOT = Path(__file__).parents[1]
MODULES: tuple[ModuleType, ...] = (stn, stn.transforms, stn.nn, stn.models, stn.registration, stn.export, stn.space)
REFERENCE = ("api", "changelog", "contributing", "glossary", "index")  # pages that list names
NO_ENTRY = {  # and no page
    "AbstractSpatialTransformer": "the base of the layers, which have entries",
    "FAMILIES": "a table; stn.transforms.family has an entry",
    "LOSSES": "a table; the page lists the losses",
    "ParamGroup": "the type of an optimizer's group",
}
PICTURED = {"from_boxes", "from_corners", "register", "splat", "text_edges"}  # in the gallery, beside the families
NO_PICTURE = {"Projective": "MovedCorners has the same warps"}
KINDS = {type(stn.transforms.family(name)).__name__: name for name in stn.transforms.FAMILIES}


def public() -> Iterator[tuple[str, str]]:
    """Return the full and the short name of each object, once, with the module that users import it from."""
    seen: set[int] = set()
    for module in MODULES:
        for name in module.__all__:
            value: Any = getattr(module, name)
            if not isinstance(value, ModuleType) and id(value) not in seen:
                seen.add(id(value))
                yield f"{module.__name__}.{name}", name


def texts(folder: str, pattern: str) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted((ROOT / folder).glob(pattern)) if path.stem not in REFERENCE]


def unmentioned(names: set[str], pages: list[str]) -> set[str]:
    """Return the names that no page has as a word; a family may be there under its short name."""
    words = {name: rf"\b({name}|{KINDS.get(name, name)})\b" for name in names}
    return {name for name, word in words.items() if not any(re.search(word, page) for page in pages)}


def test_the_reference_has_every_name() -> None:
    entries = re.findall(r"^::: (\S+)$", (ROOT / "docs/api.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(entries) == len(set(entries)) > 70
    missing = {full for full, name in public() if full not in entries and name not in NO_ENTRY}
    assert not missing


def test_a_page_explains_every_name() -> None:
    names = {name for _, name in public()}
    assert NO_ENTRY.keys() <= names
    assert not unmentioned(names - NO_ENTRY.keys(), texts("docs", "*.md"))


def test_the_gallery_shows_every_family() -> None:
    assert not unmentioned((KINDS.keys() | PICTURED) - NO_PICTURE.keys(), texts("docs/gallery", "*.py"))


def test_a_name_that_is_missing_is_seen() -> None:
    assert unmentioned({"Affine", "Rigid", "register"}, ["`stn.Affine` and registered", "a rigid map"]) == {"register"}
