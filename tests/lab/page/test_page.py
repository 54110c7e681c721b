"""The report shows the rows, and is one complete file."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from stn import _check
from stn.lab.experiments import Run, RunFolder
from stn.lab.page import write_report
from stn.lab.page.page import number, settings

VOID = {"meta", "img", "input", "line", "br"}


class Reader(HTMLParser):
    """A parser of the page: a tag that is not closed, or closed wrongly, is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.open and {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data.strip()

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def read(page: Path) -> Reader:
    return Reader(page.read_text())


def cells(rows: list[dict[str, Any]], keys: list[str]) -> list[list[str]]:
    return [[number(row[key]) if key in row else "" for key in keys] for row in rows]


def test_the_tables_are_the_rows(read: Reader, folders: list[RunFolder]) -> None:
    for table, folder in zip(read.tables[1:], folders, strict=True):
        rows = folder.rows()
        keys = [tag["data-key"] for tag in read.of("th") if "data-key" in tag]
        keys = keys[: len(table[0])] if folder is folders[0] else keys[-len(table[0]) :]
        assert set(keys) == {key for row in rows for key in row} - {"warning"}
        assert table[1:] == cells(rows, keys)
        place = keys.index("error_percent")
        assert [float(line[place]) for line in table[1:]] == pytest.approx([row["error_percent"] for row in rows], rel=1e-3)


def test_settings_stand_side_by_side_and_say_where_runs_differ(read: Reader, folders: list[RunFolder]) -> None:
    table = {line[0]: line[1:] for line in read.tables[0]}
    assert table["model"] == ["st-fcn", "fcn"] and table["epochs"] == ["2", "4"] and table["lr"] == ["0.003"] * 2
    differing = [name for name, _, differs in settings([folder.run() for folder in folders]) if differs]
    assert list(table)[1:4] == differing == ["model", "transform", "epochs"]
    hidden = settings([Run(root=Path("/somebody/at/home"))])
    assert not any("root" in name or "home" in str(values) for name, values, _ in hidden)


def test_nothing_outside_the_file_is_asked_for(read: Reader, page: Path) -> None:
    sources = [tag[key] for _, tag in read.tags for key in ("src", "href") if key in tag]
    assert len(sources) > 5 and all(source.startswith(("data:image/png;base64,", "#")) for source in sources)
    assert not any(tag in ("link", "iframe") for tag, _ in read.tags)
    text = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", page.read_text())
    assert "http://" not in text and "https://" not in text and "url(" not in text and "{{" not in text
    policy = next(tag["content"] for tag in read.of("meta") if tag.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")


def test_it_is_an_honest_page(read: Reader) -> None:
    assert read.of("html") == [{"lang": "en"}]
    assert any(tag.get("name") == "viewport" for tag in read.of("meta"))
    assert all(tag["alt"] for tag in read.of("img")) and len(read.of("img")) == 5  # the film and four figures
    ids = [tag["id"] for _, tag in read.tags if "id" in tag]
    assert len(ids) == len(set(ids)) == 6
    assert {tag["href"][1:] for tag in read.of("a")} == set(ids)


def test_what_is_written_by_others_is_escaped(page: Path) -> None:
    assert "it says &lt;b&gt;this&lt;/b&gt;" in page.read_text()


def test_words_for_results_and_for_what_is_missing(read: Reader) -> None:
    text = " ".join(" ".join(read.texts).split())
    assert "2 runs side by side" in text and "not tested yet" in text and "3 of 4 epochs are complete" in text
    assert "Pictures could not be drawn: the run folder must hold a checkpoint" in text


def test_pictures_that_are_there_are_not_drawn_again(
    folders: list[RunFolder], page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[RunFolder] = []
    monkeypatch.setattr("stn.lab.page.pictures.draw_run", lambda folder, **options: drawn.append(folder))
    again = write_report(folders[:1], tmp_path / "one.html")
    assert drawn == [] and len(Reader(again.read_text()).of("img")) == 5
    folders[0].checkpoint.touch()
    write_report(folders[:1], tmp_path / "one.html")
    assert drawn == folders[:1]
    (folders[0].figures / "curves.png").touch()


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(_check.InputError, match="the run folder must hold config.json"):
        write_report([RunFolder(tmp_path)], tmp_path / "none.html")
    assert not (tmp_path / "none.html").exists()


def test_numbers() -> None:
    shown = [number(value) for value in (12345.6, 0.123456, 3, 12345, "valid", float("nan"), 0.0)]
    assert shown == ["12,346", "0.1235", "3", "12,345", "valid", "nan", "0"]
