"""Numbers of TIFF, PNG, numpy and NIfTI files come back from `stn warp` and `stn register` with their type and values."""

import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

import stn
from stn.io import tiff
from stn.lab.studies.damage import command

H, W = 24, 32
FULL: dict[str, tuple[float, float]] = {
    "int16": (-1000, 3000),
    "uint16": (0, 65535),
    "int32": (-70_000, 1_000_000),
    "uint32": (0, 2**32 - 1),
    "float32": (-2.5, 1000.0),
}


def numbers(dtype: str, shape: tuple[int, ...] = (H, W)) -> np.ndarray:
    """Return waves from the least to the largest value."""
    low, high = FULL[dtype]
    places = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    waves = sum(np.sin((0.3 + 0.1 * i) * place + i) for i, place in enumerate(places))
    return (low + (high - low) * (waves - waves.min()) / np.ptp(waves)).astype(dtype)


def written(path: Path) -> np.ndarray:
    found: np.ndarray = tifffile.imread(path)
    return found


@pytest.mark.parametrize("shape", ((H, W), (H, W, 3), (H, W, 4)))
@pytest.mark.parametrize("dtype", FULL)
def test_a_tiff_keeps_type_and_values(dtype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    """Half a turn moves each pixel to another one, and no value changes."""
    before, given = tmp_path / "in.tif", numbers(dtype, shape)
    tifffile.imwrite(before, given, photometric="rgb" if len(shape) == 3 else "minisblack")
    assert command("warp", before, tmp_path / "out.tif", "--rotate", 180)[0] == 0
    found = written(tmp_path / "out.tif")
    assert found.dtype == given.dtype and found.shape == given.shape
    scale = 0 if dtype != "float32" else 1e-6 * np.ptp(given)
    np.testing.assert_allclose(found.astype(np.float64), given[::-1, ::-1].astype(np.float64), atol=scale, rtol=0)


@pytest.mark.parametrize("dtype", ("int16", "uint16"))
@pytest.mark.parametrize("ending", (".tif", ".npy"))
def test_a_warped_tiff_is_what_opencv_makes_of_it(dtype: str, ending: str, tmp_path: Path) -> None:
    given = numbers(dtype)
    tifffile.imwrite(tmp_path / "in.tif", given)
    motion = ("--rotate", 20, "--translate", 2, -1, "--padding-mode", "border")
    assert command("warp", tmp_path / "in.tif", tmp_path / f"out{ending}", *motion)[0] == 0
    found = np.load(tmp_path / "out.npy").astype(np.float64) if ending == ".npy" else written(tmp_path / "out.tif")
    if ending == ".npy" and dtype == "uint16":  # Pillow reads it, and a numpy file of a picture is in [0, 1]
        found = 65535 * found
    matrix = cv2.getRotationMatrix2D(((W - 1) / 2, (H - 1) / 2), 20, 1)
    matrix[:, 2] += (2, -1)
    expected = cv2.warpAffine(
        given.astype(np.float64), matrix, (W, H), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    assert np.abs(found - expected).max() < 0.02 * np.ptp(given)  # OpenCV may round coordinates to 1/32 pixel


def test_colors_of_planes_become_colors_of_pixels(tmp_path: Path) -> None:
    given = numbers("uint16", (H, W, 3))
    tifffile.imwrite(tmp_path / "in.tif", np.moveaxis(given, -1, 0), photometric="rgb", planarconfig="separate")
    assert command("warp", tmp_path / "in.tif", tmp_path / "out.tif")[0] == 0
    np.testing.assert_array_equal(written(tmp_path / "out.tif"), given)


@pytest.mark.parametrize("ending", (".npy", ".tif"))
def test_a_ct_keeps_its_numbers(ending: str, tmp_path: Path) -> None:
    """A volume of int16 from -1000 to 3000, as pages of a TIFF or as an array; NIfTI: `tests/space`."""
    given = numbers("int16", (16, 18, 20))
    for name in ("moving", "fixed"):
        np.save(tmp_path / f"{name}.npy", given)
        tifffile.imwrite(tmp_path / f"{name}.tif", given, photometric="minisblack")
    out = tmp_path / f"out{ending}"
    words = (tmp_path / f"moving{ending}", tmp_path / f"fixed{ending}", out)
    assert command("register", *words, "--transform", "translation", "--levels", 1, "--steps", 1)[0] == 0
    found = np.load(out) if ending == ".npy" else written(out)
    assert found.dtype == np.int16 and found.shape == given.shape
    assert found.min() <= -990 and found.max() >= 2990
    assert np.abs(found.astype(int) - given).max() <= 2  # one step from the solution moves by less than 1e-3 voxels


def test_a_signed_array_registers_as_it_is() -> None:
    given = numbers("int16")
    found = stn.register(given, given, "translation", levels=1, steps=1).image
    assert isinstance(found, np.ndarray) and found.dtype == np.int16 and found.min() < -900


def test_what_no_format_keeps_is_a_sentence(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "bytes.tif", numbers("float32").astype(np.int8))
    tifffile.imwrite(tmp_path / "wide.tif", numbers("float32").astype(np.float64))
    tifffile.imwrite(tmp_path / "deep.tif", numbers("int16"))
    for name, dtype in (("bytes", "int8"), ("wide", "float64"), ("deep", "int16")):
        code, _, error = command("warp", tmp_path / f"{name}.tif", tmp_path / "out.png")
        assert code == 2 and f"OUT must end in .npy for an array of 1 channels of {dtype}" in error.replace(".tif or ", "")
    assert command("warp", tmp_path / "bytes.tif", tmp_path / "out.npy")[0] == 0
    assert np.load(tmp_path / "out.npy").dtype == np.int8
    assert not (tmp_path / "out.png").exists()


def test_pages_of_colors_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "in.tif", np.zeros((5, H, W, 3), np.uint8), photometric="rgb")
    code, _, error = command("warp", tmp_path / "in.tif", tmp_path / "out.tif")
    assert code == 2 and "the image must be (H, W), (H, W, C) with C = 3 or 4, or pages (D, H, W)" in error


def test_a_large_tiff_is_refused_before_it_is_read(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "in.tif", numbers("int16"))
    code, _, error = command("warp", tmp_path / "in.tif", tmp_path / "out.tif", "--max-pixels", H * W - 1)
    assert code == 2 and error.startswith("stn: --max-pixels must be at least the pixels of")


def test_without_tifffile_pillow_says_what_it_cannot_read(monkeypatch: Any, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "signed.tif", numbers("float32").astype(np.int8))
    tifffile.imwrite(tmp_path / "planes.tif", np.zeros((3, H, W), np.uint16), photometric="rgb", planarconfig="separate")
    tifffile.imwrite(tmp_path / "deep.tif", numbers("int16"))
    monkeypatch.setattr(tiff, "is_tiff", lambda path: False)
    for name, sentence in (("signed", "of which Pillow drops the sign"), ("planes", "of which Pillow reads only 8")):
        with pytest.raises(stn.InputError, match=sentence):
            stn.io.images.read_source(tmp_path / f"{name}.tif")
    assert stn.io.images.read_source(tmp_path / "deep.tif").pixels.min() < 0


def test_a_16_bit_png_keeps_its_numbers(tmp_path: Path) -> None:
    given = numbers("uint16")
    Image.fromarray(given).save(tmp_path / "in.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert command("warp", tmp_path / "in.png", tmp_path / "out.png", "--rotate", 180)[0] == 0
    with Image.open(tmp_path / "out.png") as found:
        np.testing.assert_array_equal(np.asarray(found), given[::-1, ::-1])
