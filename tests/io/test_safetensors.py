"""Files of tensors: every kind survives, and damaged ones get a sentence."""

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from stn import InputError
from stn.io.safetensors import read_metadata, read_safetensors, write_safetensors

TENSORS = {
    "a": torch.tensor([[1.5, -2.0]], dtype=torch.float16),
    "n": torch.tensor(3),
    "b": torch.tensor([0.25]),
}


def test_every_kind_survives(tmp_path: Path) -> None:
    tensors = {
        "matrix": torch.randn(3, 4, dtype=torch.float64),
        "strided": torch.randn(6, 4)[::2].t(),
        "bytes": torch.arange(7, dtype=torch.uint8),
        "none": torch.zeros(0, 2),
    }
    write_safetensors(tmp_path / "x", tensors, {})
    found, metadata = read_safetensors(tmp_path / "x")
    assert metadata == {} and all(torch.equal(found[name], value) for name, value in tensors.items())


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    write_safetensors(tmp_path / "whole", TENSORS, {"card": "x"})
    return (tmp_path / "whole").read_bytes()


def test_the_words_are_read_alone(tmp_path: Path, whole: bytes) -> None:
    assert read_metadata(tmp_path / "whole") == {"card": "x"}
    assert safetensors.torch.load(whole).keys() == TENSORS.keys()  # the package alone reads it


BAD: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda whole: b"",
    "half a header": lambda whole: whole[:50],
    "half the tensors": lambda whole: whole[:-5],
    "no object": lambda whole: b"\x02" + bytes(7) + b"[]",
    "another file": lambda whole: b"PK\x03\x04" + bytes(40),
    "a dtype": lambda whole: whole.replace(b"F32", b"F99"),
    "a shape": lambda whole: whole.replace(b"[1,2]", b"[1,3]"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_file_is_a_sentence(name: str, tmp_path: Path, whole: bytes) -> None:
    assert BAD[name](whole) != whole
    (tmp_path / "x").write_bytes(BAD[name](whole))
    for read in (read_safetensors, read_metadata):
        with pytest.raises(InputError, match="must be a complete file in the safetensors format; "):
            read(tmp_path / "x")
        with pytest.raises(InputError, match="must be a file of tensors; it does not exist"):
            read(tmp_path / "missing")
