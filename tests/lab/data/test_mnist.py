"""The IDX reader and the download, on files that the tests write and a local server."""

import errno
import gzip
import hashlib
import http.server
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stn import InputError
from stn.lab.data import load, load_mnist
from stn.lab.data.download import fetch
from stn.lab.data.mnist import SHA256, read_idx
from tests.mirror import Mirror

IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def make(root: Path, *, packed: bool = True) -> dict[str, np.ndarray]:
    """Write a small MNIST of noise: 40 training images and 12 test images."""
    random, arrays = np.random.default_rng(0), {}
    root.mkdir(parents=True, exist_ok=True)
    for prefix, count in (("train", 40), ("t10k", 12)):
        arrays[f"{prefix}-{IMAGES}"] = random.integers(0, 256, (count, 28, 28))
        arrays[f"{prefix}-{LABELS}"] = np.arange(count) % 10
    for name, array in arrays.items():
        if packed:
            (root / f"{name}.gz").write_bytes(gzip.compress(idx(array), mtime=0))
        else:
            (root / name).write_bytes(idx(array))
    return arrays


@pytest.mark.parametrize("folder", (".", "MNIST/raw"))
@pytest.mark.parametrize("packed", (True, False))
def test_it_reads_what_was_written(tmp_path: Path, packed: bool, folder: str) -> None:
    arrays = make(tmp_path / folder, packed=packed)
    splits = load("mnist", tmp_path)
    assert [len(split) for split in splits] == [36, 4, 12]
    images = torch.cat([splits.train.images, splits.valid.images])
    assert torch.equal(images[:, 0], torch.from_numpy(arrays[f"train-{IMAGES}"]).byte())
    assert splits.test.labels.tolist() == arrays[f"t10k-{LABELS}"].tolist()


def spoil(path: Path, how: str) -> None:
    raw = path.read_bytes()
    whole = gzip.decompress(raw)
    path.write_bytes(
        {
            "truncated": raw[: len(raw) // 2],
            "damaged": raw[:500] + bytes(50) + raw[550:],
            "short": gzip.compress(whole[:-100]),
            "long": gzip.compress(whole + b"x"),
            "another kind": gzip.compress(bytes((0, 0, 13, 3)) + whole[4:]),
            "no header": gzip.compress(whole[:7]),
            "a web page": b"<html>not found</html>",
            "empty": b"",
        }[how]
    )


@pytest.mark.parametrize(
    "how, sentence",
    [
        ("truncated", "must be a complete gzip file; it is truncated or damaged"),
        ("damaged", "must be a complete gzip file; it is truncated or damaged"),
        ("short", r"must hold 31360 bytes after its header, for \[40, 28, 28\]; got 31260"),
        ("long", "must hold 31360 bytes after its header, .*; got 31361"),
        ("another kind", "must begin with the IDX header 00 00 08 03 .*; got '00 00 0d 03'"),
        ("no header", "must begin with the IDX header"),
        ("a web page", "must begin with the IDX header .*; got '3c 68 74 6d'"),
        ("empty", "must begin with the IDX header .*; got ''"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, how: str, sentence: str) -> None:
    make(tmp_path)
    spoil(tmp_path / f"train-{IMAGES}.gz", how)
    with pytest.raises(InputError, match=f"train-{IMAGES}.gz {sentence}"):
        load_mnist(tmp_path)


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / f"train-{LABELS}.gz").write_bytes(gzip.compress(idx(np.zeros(39))))
    with pytest.raises(InputError, match=f"train-{LABELS}.gz must hold one label for each of 40 images; it holds 39"):
        load_mnist(tmp_path)
    (tmp_path / f"train-{LABELS}.gz").write_bytes(gzip.compress(idx(np.full(40, 11))))
    with pytest.raises(InputError, match="labels from 0 to 9; it holds 40 up to 11"):
        load_mnist(tmp_path)
    (tmp_path / f"train-{IMAGES}.gz").write_bytes(gzip.compress(idx(np.zeros((40, 20, 28)))))
    with pytest.raises(InputError, match=r"must hold images of 28x28 pixels; it holds \(20, 28\)"):
        load_mnist(tmp_path)
    (tmp_path / f"t10k-{LABELS}.gz").unlink()
    make(tmp_path)
    (tmp_path / f"t10k-{LABELS}.gz").unlink()
    with pytest.raises(InputError, match=f"root must hold t10k-{LABELS} or t10k-{LABELS}.gz; .* does not"):
        load_mnist(tmp_path)


def test_a_request_that_makes_no_sense(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="data must be one of cub, digits, gtsrb, mnist, svhn; got 'cifar'"):
        load("cifar")
    with pytest.raises(InputError, match="root must name the folder of the files of data='mnist'; got None"):
        load("mnist")
    (tmp_path / "labels").write_bytes(idx(np.zeros((2, 3))))
    with pytest.raises(InputError, match="header 00 00 08 01"):
        read_idx(tmp_path / "labels", ndim=1)


BODY = np.random.default_rng(1).bytes(5_000_000)
CHECKSUM = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def served(mirror: Mirror) -> str:
    (mirror.folder / "file").write_bytes(BODY)
    return f"{mirror.url}/file"


def test_a_download_is_verified_and_done_once(mirror: Mirror, served: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    for _ in range(2):
        assert fetch(path, [served], CHECKSUM) == path and path.read_bytes() == BODY
    assert mirror.asked == [None] and list(path.parent.iterdir()) == [path]


def test_a_broken_connection_is_resumed(mirror: Mirror, served: str, tmp_path: Path) -> None:
    mirror.breaks = 1
    with pytest.raises(InputError, match=r"file could not be downloaded. .*: the connection broke after \d+ of 5000000"):
        fetch(tmp_path / "file", [served], CHECKSUM)
    assert not (tmp_path / "file").exists() and (tmp_path / "file.part").stat().st_size == 2_500_000
    assert fetch(tmp_path / "file", [served], CHECKSUM).read_bytes() == BODY
    assert mirror.asked == [None, "bytes=2500000-"]


@pytest.mark.parametrize("resumes", (True, False))
@pytest.mark.parametrize("left", (b"wrong" * 100, BODY + b"x", BODY, BODY[:10], b""))
def test_a_partial_file_is_never_trusted(mirror: Mirror, served: str, tmp_path: Path, left: bytes, resumes: bool) -> None:
    mirror.resumes = resumes
    (tmp_path / "file.part").write_bytes(left)
    assert fetch(tmp_path / "file", [served], CHECKSUM).read_bytes() == BODY
    assert not (tmp_path / "file.part").exists()
    assert resumes or len(mirror.asked) == 1  # no second request if the server always sends the whole file


def test_a_whole_file_is_not_trusted_either(served: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(BODY[:-1] + b"?")
    assert fetch(tmp_path / "file", [served], CHECKSUM).read_bytes() == BODY


def test_the_next_mirror_is_tried(mirror: Mirror, served: str, tmp_path: Path) -> None:
    (mirror.folder / "other").write_bytes(b"something else")
    urls = [f"{mirror.url}/missing", "http://127.0.0.1:9/nobody", f"{mirror.url}/other", served]
    assert fetch(tmp_path / "file", urls, CHECKSUM).read_bytes() == BODY
    with pytest.raises(
        InputError, match=f"file2 could not .*missing: HTTP Error 404.*refused.*other: its SHA-256 is not {CHECKSUM}"
    ):
        fetch(tmp_path / "file2", urls[:3], CHECKSUM)
    assert not (tmp_path / "file2").exists()


def test_mnist_downloads_what_is_missing_or_damaged(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(mirror.folder)
    for name in SHA256:
        monkeypatch.setitem(SHA256, name, hashlib.sha256((mirror.folder / f"{name}.gz").read_bytes()).hexdigest())
    root = tmp_path / "root"
    assert len(load_mnist(root, download=True, mirrors=[mirror.url]).train) == 36
    spoil(root / f"train-{IMAGES}.gz", "truncated")
    with pytest.raises(InputError, match="truncated"):
        load_mnist(root)
    assert len(load_mnist(root, download=True, mirrors=[mirror.url + "/"]).train) == 36
    assert len(mirror.asked) == 5


def rude(answer: bytes) -> type[http.server.BaseHTTPRequestHandler]:
    """Return a handler that always sends these bytes, none of which are valid HTTP."""

    class Rude(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.wfile.write(answer)

        def log_message(self, *arguments: object) -> None:
            pass

    return Rude


RUDE = {
    "no HTTP": b"hello\r\n\r\n",
    "nothing": b"",
    "no length": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nx",
    "too short": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx",
    "a broken chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nx",
    "elsewhere": b"HTTP/1.1 302 Found\r\nLocation: http://[bad\r\n\r\n",
    "no such scheme": b"HTTP/1.1 302 Found\r\nLocation: ftp://127.0.0.1:1/x\r\n\r\n",
    "an error": b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
    "other bytes": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
}


@pytest.mark.parametrize("answer", RUDE)
def test_every_mirror_is_tried_whatever_the_one_before_said(
    answer: str, mirror: Mirror, served: str, tmp_path: Path
) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), rude(RUDE[answer])) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        first = f"http://127.0.0.1:{server.server_address[1]}/file"
        urls = ["http://127.0.0.1:1/file", first, "nonsense", served]
        assert fetch(tmp_path / "file", urls, CHECKSUM).read_bytes() == BODY
        with pytest.raises(InputError, match="file2 could not be downloaded. "):
            fetch(tmp_path / "file2", urls[:3], CHECKSUM)
        server.shutdown()
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_is_not_the_mirrors_fault(
    mirror: Mirror, served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if self.suffix == ".part":
            raise OSError(errno.ENOSPC, "No space left on device")
        return open(self, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(InputError, match="file.part must be a writable file; the disk is full"):
        fetch(tmp_path / "file", [served, served], CHECKSUM)
    assert len(mirror.asked) == 1
