"""Every block of code on every page runs, and the pages build without a warning."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
PAGES = sorted(page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").glob("*.md"))
WITHOUT_CODE = {"docs/api.md", "docs/benchmarks.md", "docs/figures.md", "docs/runs.md"}
ELSEWHERE = {"docs/sampling.md"}  # test_examples.py also looks at what its code finds, and the README's


def code_of(page: str) -> list[str]:
    """The page's Python, as a reader types it, but for the length of a training."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    return [block.replace("steps=600", "steps=20") for block in blocks]


@pytest.mark.parametrize("page", sorted({*PAGES} - ELSEWHERE))
def test_the_code_of_a_page_runs(page: str) -> None:
    blocks = code_of(page)
    assert (len(blocks) == 0) == (page in WITHOUT_CODE)
    torch.manual_seed(0)
    exec(compile("\n".join(blocks), page, "exec"), {"__name__": page})


def test_the_pages_build_strictly(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    api = (tmp_path / "site" / "api" / "index.html").read_text()
    import stn

    missing = [name for name in stn.__all__ if f'id="stn.{name}"' not in api]
    assert not missing


def test_every_commands_name_exists() -> None:
    """Commands that a page tells to type."""
    from stn import cli

    for page in ["README.md", *PAGES]:
        for command in re.findall(r"^stn (\w[\w-]*)", (ROOT / page).read_text(), flags=re.MULTILINE):
            assert command in cli.COMMANDS, f"{page}: stn {command}"
