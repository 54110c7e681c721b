"""Files of tensors: as the package `safetensors` writes and reads them, and sentences for damaged ones."""

import json
from pathlib import Path

import pytest
import torch

from stn import InputError
from stn.io.safetensors import read_metadata, read_safetensors, write_safetensors

# safetensors.torch.save({"a": half [[1.5, -2]], "n": int64 3, "b": float32 [0.25]}, metadata={"card": "x"}), version 0.6
THEIRS = (
    b'\xc0\x00\x00\x00\x00\x00\x00\x00{"__metadata__":{"card":"x"},"n":{"dtype":"I64","shape":[],"data_offsets":[0,8]},'
    b'"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},"a":{"dtype":"F16","shape":[1,2],"data_offsets":[12,16]}}'
    b"\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80>\x00>\x00\xc0"
)
TENSORS = {
    "a": torch.tensor([[1.5, -2.0]], dtype=torch.float16),
    "n": torch.tensor(3),
    "b": torch.tensor([0.25]),
}


def test_their_bytes_are_read_and_ours_are_theirs(tmp_path: Path) -> None:
    path = tmp_path / "theirs.safetensors"
    path.write_bytes(THEIRS)
    found, metadata = read_safetensors(path)
    assert metadata == read_metadata(path) == {"card": "x"} and found.keys() == TENSORS.keys()
    assert all(found[name].dtype == value.dtype and torch.equal(found[name], value) for name, value in TENSORS.items())
    write_safetensors(tmp_path / "ours.safetensors", TENSORS, {"card": "x"})
    assert (tmp_path / "ours.safetensors").read_bytes() == THEIRS


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


def changed(**entry: object) -> bytes:
    """Return their bytes with another entry of the tensor b."""
    length = int.from_bytes(THEIRS[:8], "little")
    header = json.loads(THEIRS[8 : 8 + length])
    header["b"] |= entry
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + THEIRS[8 + length :]


BAD = {
    "nothing": (b"", "must be a complete file in the safetensors format"),
    "half a header": (THEIRS[:50], "must be a complete file in the safetensors format; it is truncated"),
    "half the tensors": (THEIRS[:-5], "must hold the whole tensor"),
    "no object": (b"\x02" + bytes(7) + b"[]", "its header is no object"),
    "another file": (b"PK\x03\x04" + bytes(40), "must be a complete file in the safetensors format"),
    "a dtype": (changed(dtype="F8"), "must hold the whole tensor b of a dtype among F16"),
    "a shape": (changed(shape=[2]), "must hold the whole tensor b"),
    "a negative length": (changed(shape=[-1, -1]), "must hold the whole tensor b"),
    "a place beyond the end": (changed(data_offsets=[1000, 1004]), "must hold the whole tensor b"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_file_is_a_sentence(name: str, tmp_path: Path) -> None:
    content, sentence = BAD[name]
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        read_safetensors(tmp_path / "x")
    with pytest.raises(InputError, match="must be a file of tensors; it does not exist"):
        read_safetensors(tmp_path / "missing")
