"""The gallery: each script of docs/gallery becomes a picture, a notebook and a part of the page.

MkDocs calls `on_files` and `on_page_markdown` (`hooks` in mkdocs.yml). `python docs/extensions/gallery.py` executes the
notebooks.
"""

import ast
import io
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

SCRIPTS = Path(__file__).parents[1] / "gallery"
PLACE = "<!-- gallery -->"  # in docs/gallery.md
GROUPS = {
    "Families and grids": "families sampling_grid thin_plate elastic morph diffeomorphic determinant own_warp",
    "Crops, pages and lines of text": "crops looks corners text_line paste augmentation landmarks",
    "Sampling": "antialias kernels padding composition splat",
    "Find a warp": "gradient registration signals",
    "Volumes": "volume",
}
STYLE = {  # readable on a light and on a dark page
    "text.color": "#888888",
    "axes.labelcolor": "#888888",
    "axes.edgecolor": "#888888",
    "xtick.color": "#888888",
    "ytick.color": "#888888",
    "axes.facecolor": "none",
    "savefig.transparent": True,
    "savefig.dpi": 90,
}


class Entry(NamedTuple):
    """A script: its name, its title and first paragraph, and its code without the docstring."""

    name: str
    title: str
    text: str
    code: str


def entries() -> list[Entry]:
    """Read the scripts in the order of GROUPS."""
    found = []
    for name in " ".join(GROUPS.values()).split():
        source = (SCRIPTS / f"{name}.py").read_text(encoding="utf-8")
        title, _, text = (ast.get_docstring(ast.parse(source)) or "").partition("\n\n")
        found.append(Entry(name, title, text, source.split('"""', 2)[2].strip() + "\n"))
    return found


def picture(entry: Entry) -> bytes:
    """Run a script, and return the figure that it shows as a PNG file. A draft of the site has a blank picture."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    if os.environ.get("STN_DOCS_DRAFT"):  # tests/test_gallery.py runs the scripts; other tests only look at pages
        entry = entry._replace(code="import matplotlib.pyplot as plt\nplt.figure(figsize=(7, 2.5))\nplt.show()")
    shown: list[bytes] = []

    def show() -> None:
        file = io.BytesIO()
        plt.savefig(file, format="png")
        shown.append(file.getvalue())

    given, plt.show = plt.show, show
    try:
        with matplotlib.rc_context(STYLE), warnings.catch_warnings():
            # torch's tensors do not yet take an argument with which matplotlib asks numpy for their values
            warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy keyword", DeprecationWarning)
            exec(compile(entry.code, f"docs/gallery/{entry.name}.py", "exec"), {"__name__": "__main__"})
    finally:
        plt.show = given
        plt.close("all")
    (png,) = shown
    return png


def notebook(entry: Entry) -> str:
    """Return the script as a Jupyter notebook (nbformat 4.5): the title, the imports, and the rest."""
    imports, blank, rest = entry.code.partition("\nimport stn\n")
    imports, code = (imports + blank, rest) if blank else ("", entry.code)
    if "from stn" in code.split("\n\n")[0]:
        more, _, code = code.lstrip().partition("\n\n")
        imports += more
    cells: list[dict[str, Any]] = [{"cell_type": "markdown", "source": f"# {entry.title}\n\n{entry.text}"}]
    for text in (imports, code):
        cells.append({"cell_type": "code", "source": text.strip(), "outputs": [], "execution_count": None})
    for number, cell in enumerate(cells):
        cell |= {"id": f"{entry.name.replace('_', '-')}-{number}", "metadata": {}}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    whole = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def section(entry: Entry) -> str:
    return (
        f"### {entry.title} {{ #{entry.name} }}\n\n{entry.text}\n\n![{entry.title}](gallery/{entry.name}.png)\n\n"
        f"```python\n{entry.code}```\n\n"
        f"Download: [script](gallery/{entry.name}.py), [notebook](gallery/{entry.name}.ipynb)\n\n"
    )


def cards(some: list[Entry]) -> str:
    links = [
        f'<a href="#{entry.name}"><img src="{entry.name}.png" alt="" loading="lazy"><span>{entry.title}</span></a>'
        for entry in some
    ]
    return '<div class="gallery">\n' + "\n".join(links) + "\n</div>\n\n"


def body(found: list[Entry]) -> str:
    """Return the Markdown of all entries: cards that link to sections."""
    by_name = {entry.name: entry for entry in found}
    groups = {title: [by_name[name] for name in names.split()] for title, names in GROUPS.items()}
    top = cards(found)
    return top + "".join(f"## {title}\n\n" + "".join(map(section, some)) for title, some in groups.items())


def execute(found: list[Entry]) -> None:
    """Execute notebooks, each in a kernel of its own. Raises: nbclient.exceptions.CellExecutionError."""
    import nbformat
    from nbclient import NotebookClient

    with tempfile.TemporaryDirectory() as folder:
        for entry in found:
            cells = nbformat.reads(notebook(entry), as_version=4)
            nbformat.validate(cells)
            NotebookClient(cells, timeout=600, resources={"metadata": {"path": folder}}).execute()
            outputs = [output for cell in cells.cells if cell.cell_type == "code" for output in cell.outputs]
            pictures = [output for output in outputs if "image/png" in output.get("data", {})]
            if len(pictures) != 1:
                raise ValueError(f"the notebook {entry.name} shows {len(pictures)} pictures instead of one")
            print(f"{entry.name}: executed")


# ---- hooks of MkDocs ----


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    for entry in entries():
        files.append(File.generated(config, f"gallery/{entry.name}.png", content=picture(entry)))
        files.append(File.generated(config, f"gallery/{entry.name}.ipynb", content=notebook(entry)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    return markdown.replace(PLACE, body(entries())) if page.file.src_uri == "gallery.md" else markdown


if __name__ == "__main__":
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    asked = sys.argv[1:]
    execute([entry for entry in entries() if entry.name in asked or not asked])
