"""Every code block on every page runs, every name on a page exists, and the pages build without a warning."""

import contextlib
import functools
import inspect
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import tyro

from tests.mentions import marked, wrong_calls, wrong_commands, wrong_families, wrong_files, wrong_names

ROOT = Path(__file__).parents[1]
PAGES = sorted(page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").glob("*.md"))
WITHOUT_CODE = {f"docs/{name}.md" for name in ("api", "benchmarks", "figures", "glossary", "gpu", "runs")}
WITHOUT_CODE |= {"docs/changelog.md", "docs/contributing.md"}  # files of the repository
WITHOUT_CODE |= {"docs/gallery.md", "docs/playground.md"}  # test_gallery.py and test_playground.py run what they show
ELSEWHERE = {"docs/sampling.md"}  # test_examples.py runs these pages and the README, and also checks their results


def code_of(page: str) -> list[str]:
    """Return the page's Python code, with a shorter training run."""
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
    draft = os.environ | {"STN_DOCS_DRAFT": "1"}  # without the pictures of the gallery
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=draft)
    assert done.returncode == 0, done.stderr
    api = (tmp_path / "site" / "api" / "index.html").read_text()
    import stn

    members = [name for name in stn.__all__ if not inspect.ismodule(getattr(stn, name))]
    missing = [name for name in members if f'id="stn.{name}"' not in api]
    assert not missing and 'id="stn.Warp.write"' in api and 'id="stn.Warp.apply"' in api
    assert "<blockquote>" not in api  # an example that is no code: its ">>>" are then quotes in Markdown


ALL_PAGES = ["README.md", *PAGES]


@pytest.mark.parametrize("page", ALL_PAGES)
def test_what_a_page_mentions_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    wrong = [*wrong_names(text), *wrong_calls(text), *wrong_families(text), *wrong_files(text)]
    assert not wrong


def test_the_pages_mention_a_lot() -> None:
    """If the patterns matched nothing, the tests above would always pass."""
    marks = [mark for page in ALL_PAGES for mark in marked((ROOT / page).read_text())]
    assert sum(mark.startswith("stn.") for mark in marks) > 20 and sum("(" in mark for mark in marks) > 12


@pytest.mark.parametrize(
    "find, text",
    (
        (wrong_names, "`stn.affine_samples`"),
        (wrong_names, "`stn.Warp.sampled`"),
        (wrong_names, "`SpatialTransformers`"),
        (wrong_calls, "`stn.register(moving)`"),
        (wrong_calls, "`off_image_loss(warp, far=1)`"),
        (wrong_calls, "`SpatialTransformer(localization, transform, size, antialiased=True)`"),
        (wrong_calls, "`atialias=True`"),
        (wrong_calls, '`mode="cubic"`'),
        (wrong_families, "| `affine` | `Projective` |"),
        (wrong_files, "`ops/references.py`"),
        (wrong_files, "`ops/reference.py: matrix_samples`"),
    ),
)
def test_what_does_not_exist_is_found(find: Callable[[str], Iterator[str]], text: str) -> None:
    assert len([*find(text)]) == 1


@functools.cache
def options_of(command: str) -> set[str]:
    from stn import cli

    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        tyro.cli(cli.loaded(command), prog=f"stn {command}", args=["-h"], config=cli.CONFIG)
    return set(re.findall(r"--[\w-]+", out.getvalue()))


def test_every_command_on_a_page_exists_with_its_options() -> None:
    from stn.cli import COMMANDS

    commands = {name.replace("_", "-") for name in COMMANDS}
    for page in ALL_PAGES:
        assert not [*wrong_commands((ROOT / page).read_text(), options_of, commands)], page
    wrong = "`stn well_ended`, `stn trains`\n```python\n```\n"
    wrong += "```sh\nstn train --epoch 3  # --no option\nstn warp a b && stn figures --all\n```"
    assert len([*wrong_commands(wrong, options_of, commands)]) == 4
