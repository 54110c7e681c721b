"""A file is written completely or not at all, with several writers and on a failing disk; one process holds a lock."""

import errno
import io
import os
import threading
from pathlib import Path
from typing import IO, Any

import pytest
import torch

from stn import InputError
from stn._check import FileError
from stn.io.files import aside, beside, locked, sweep, write_atomically, write_tensors, write_text

REFUSALS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "quota",
    errno.EROFS: "read-only",
    errno.EACCES: "permission is denied",
    errno.EIO: "reports an error",
    errno.EFBIG: "larger than is allowed",
}


def refusing(number: int) -> Any:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("at", ("write", "fsync", "replace"))
@pytest.mark.parametrize("number", REFUSALS)
def test_a_refused_write_leaves_the_old_file_and_nothing_else(
    number: int, at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    write_text(file, "old")
    if at != "write":
        monkeypatch.setattr(os, at, refusing(number))
    with pytest.raises(FileError, match=f"{file} must be a writable file; .*{REFUSALS[number]}"):
        write_atomically(file, refusing(number) if at == "write" else lambda stream: stream.write(b"new"))
    assert file.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_tensors_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.save alone raises a RuntimeError of its own on a full disk."""

    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", lambda path, mode: Full())
    with pytest.raises(FileError, match="the disk is full"):
        write_tensors(tmp_path / "file.pt", {"x": torch.zeros(10)})
    assert os.listdir(tmp_path) == []


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(stream: IO[bytes]) -> None:
        stream.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", interrupt)
    assert os.listdir(tmp_path) == []


def test_two_writers_of_one_file_each_write_it_whole(tmp_path: Path) -> None:
    """Each writer has its own partial file. With one shared name, one writer renamed the partial file of the other."""
    file, sizes = tmp_path / "file", (1 << 20, 1 << 19)
    failed: list[BaseException] = []

    def write(letter: bytes, size: int) -> None:
        try:
            for _ in range(20):
                write_atomically(file, lambda stream: stream.write(letter * size))
                data = file.read_bytes()
                assert data in (b"a" * sizes[0], b"b" * sizes[1])
        except BaseException as error:
            failed.append(error)

    writers = [threading.Thread(target=write, args=pair) for pair in zip((b"a", b"b"), sizes, strict=True)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failed == [] and os.listdir(tmp_path) == ["file"]


def test_the_partial_files_of_the_dead_are_swept_and_of_the_living_not(tmp_path: Path) -> None:
    dead, living = tmp_path / ".x.999999999-01234567.partial", tmp_path / f".x.{os.getpid()}-01234567.partial"
    old, other = tmp_path / ".last.pt.partial", tmp_path / "my.partial"
    for file in (dead, living, old, other):
        file.touch()
    sweep(tmp_path)
    assert [path.exists() for path in (dead, living, old, other)] == [False, True, False, True]


def test_a_lock_is_held_by_one_and_names_its_owner(tmp_path: Path) -> None:
    file = tmp_path / "deep" / ".lock"
    with locked(file):
        with (
            pytest.raises(InputError, match=f"is in use by process {os.getpid()} on "),
            locked(file, "is in use by {owner}"),
        ):
            pass
    assert not file.exists()
    with locked(file, "is in use by {owner}"):
        pass


def test_who_waits_for_a_lock_gets_it(tmp_path: Path) -> None:
    file, order = tmp_path / ".lock", []

    def work(name: str) -> None:
        for _ in range(50):
            with locked(file):
                order.append(f"{name} begins")
                order.append(f"{name} ends")

    workers = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(order) == 300
    assert all(first[0] == second[0] for first, second in zip(order[::2], order[1::2], strict=True))


def test_a_lock_that_is_removed_while_it_is_looked_at_is_taken_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, fstat, looks = tmp_path / ".lock", os.fstat, 0

    def removed(handle: int) -> os.stat_result:
        nonlocal looks
        looks += 1
        if looks == 1:  # the previous owner removes it
            file.unlink()
        return fstat(handle)

    with monkeypatch.context() as patch:
        patch.setattr("os.fstat", removed)
        with locked(file):
            assert file.exists() and looks == 2


def test_old_files_are_kept_under_names_that_are_free(tmp_path: Path) -> None:
    for text in "abc":
        write_text(tmp_path / "rows.json", text)
        aside(tmp_path / "rows.json")
    assert [(tmp_path / f"rows.old-{n}.json").read_text() for n in (1, 2, 3)] == ["a", "b", "c"]


def test_a_dot_in_a_name_is_no_suffix() -> None:
    assert beside(Path("a/v1.5"), ".md") == Path("a/v1.5.md")
    assert beside(Path("a/t.md"), ".jsonl") == Path("a/t.jsonl") and beside(Path("t"), ".md") == Path("t.md")
