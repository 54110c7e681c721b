"""PNG files of colors of 16 bits: values as OpenCV reads and writes them, all filters and passes, damage as a sentence."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

import stn
from stn.io import png
from stn.io.images import read_picture
from stn.lab.studies.damage import command

H, W = 21, 30


def colors(channels: int, height: int = H, width: int = W) -> np.ndarray:
    """Return waves and noise, uint16 (H, W, C)."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(channels), indexing="ij")
    waves = 32768 + 30000 * np.sin(0.2 * x + 0.3 * y + c)
    noise = np.random.default_rng(channels).integers(-2000, 2000, waves.shape)
    return (waves + noise).clip(0, 65535).astype(np.uint16)


def unchanged(path: Path) -> np.ndarray:
    found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert found is not None
    return found


def swapped(values: np.ndarray) -> np.ndarray:
    """Exchange red and blue, whose order in OpenCV is another one."""
    return values[..., [2, 1, 0, 3][: values.shape[-1]]]


def encoded(values: np.ndarray, filters: tuple[int, ...], interlaced: bool) -> bytes:
    """Encode with given filters, row by row and byte by byte, as the standard says it."""
    height, width, channels = values.shape
    stream, size = b"", 2 * channels
    for top, left, down, right in png.PASSES if interlaced else png.WHOLE:
        part = values[top::down, left::right]
        above = bytes(size * part.shape[1])
        for number, row in enumerate(part if part.size else ()):
            line, kind = row.astype(">u2").tobytes(), filters[number % len(filters)]
            out = bytearray([kind])
            for i, value in enumerate(line):
                a, c = (line[i - size], above[i - size]) if i >= size else (0, 0)
                b = above[i]
                near = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
                out.append((value - (0, a, b, (a + b) // 2, near)[kind]) % 256)
            stream, above = stream + bytes(out), line
    header = struct.pack(">IIBBBBB", width, height, 16, png.COLOR_TYPES[channels], 0, 0, interlaced)
    return b"".join([png.SIGNATURE, *(chunk(*one) for one in ((b"IHDR", header), (b"IDAT", zlib.compress(stream))))]) + END


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data), name) + data + struct.pack(">I", zlib.crc32(name + data))


END = chunk(b"IEND", b"")


@pytest.mark.parametrize("channels", (3, 4))
def test_values_are_those_of_opencv(channels: int, tmp_path: Path) -> None:
    given = colors(channels)
    assert cv2.imwrite(str(tmp_path / "theirs.png"), swapped(given))
    with (tmp_path / "theirs.png").open("rb") as file:
        np.testing.assert_array_equal(png.read(file), given)
    png.write(given, tmp_path / "ours.png")
    np.testing.assert_array_equal(swapped(unchanged(tmp_path / "ours.png")), given)


@pytest.mark.parametrize("channels", (2, 3, 4))
@pytest.mark.parametrize("interlaced", (False, True))
@pytest.mark.parametrize("filters", ((0,), (1,), (2,), (3,), (4,), (4, 1, 3, 2, 0)))
def test_every_filter_and_pass(filters: tuple[int, ...], interlaced: bool, channels: int, tmp_path: Path) -> None:
    """Pillow decodes the high bytes of the same file, an independent reader of filters and passes."""
    given = colors(channels)
    data = encoded(given, filters, interlaced)
    np.testing.assert_array_equal(png.read(io.BytesIO(data)), given)
    with Image.open(io.BytesIO(data)) as picture:
        channel = slice(None) if channels > 2 else [0, 3]  # to Pillow gray with opacity is RGBA
        np.testing.assert_array_equal(np.asarray(picture)[..., channel], given >> 8)


@pytest.mark.parametrize("size", ((1, 1), (1, 5), (3, 1), (2, 2)))
def test_small_pictures_miss_some_passes(size: tuple[int, int]) -> None:
    given = colors(3, *size)
    np.testing.assert_array_equal(png.read(io.BytesIO(encoded(given, (4,), True))), given)


def test_a_color_may_be_transparent(tmp_path: Path) -> None:
    given = colors(3)
    key = chunk(b"tRNS", given[4, 7].astype(">u2").tobytes())
    data = encoded(given, (1,), False)
    (tmp_path / "in.png").write_bytes(data[:33] + key + data[33:])
    found = read_picture(tmp_path / "in.png")
    assert found.shape == (4, H, W) and found[3].sum() == H * W - 1 and found[3, 4, 7] == 0
    np.testing.assert_array_equal((found[:3] * 65535).round().numpy(), given.transpose(2, 0, 1))


@pytest.mark.parametrize("ending", (".png", ".tif"))
@pytest.mark.parametrize("channels", (3, 4))
def test_a_warp_keeps_the_values(channels: int, ending: str, tmp_path: Path) -> None:
    given = colors(channels)
    if channels == 4:
        given[..., 3] = 65535
    png.write(given, tmp_path / "in.png")
    assert command("warp", tmp_path / "in.png", tmp_path / f"out{ending}", "--rotate", 180)[0] == 0
    found = unchanged(tmp_path / f"out{ending}")
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(swapped(found), given[::-1, ::-1])


def test_gray_with_opacity_keeps_both(tmp_path: Path) -> None:
    given = colors(2)
    given[..., 1] |= 0x8000  # opaque enough to divide by
    png.write(given, tmp_path / "in.png")
    assert command("warp", tmp_path / "in.png", tmp_path / "out.png", "--rotate", 180)[0] == 0
    with (tmp_path / "out.png").open("rb") as file:
        assert np.abs(png.read(file).astype(int) - given[::-1, ::-1]).max() <= 1  # one division


def test_arrays_of_deep_colors_become_pictures(tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", colors(3))
    assert command("warp", tmp_path / "in.npy", tmp_path / "out.png")[0] == 0
    np.testing.assert_array_equal(swapped(unchanged(tmp_path / "out.png")), colors(3))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright_and_keep_their_profile(orientation: int, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    deep = colors(3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray((deep >> 8).astype(np.uint8)).save(tmp_path / "plain.png", exif=exif)
    png.write(deep, tmp_path / "deep.png", profile)
    data = (tmp_path / "deep.png").read_bytes()
    exif_chunk = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    (tmp_path / "deep.png").write_bytes(data[:33] + exif_chunk + data[33:])
    with Image.open(tmp_path / "plain.png") as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
    found = (read_picture(tmp_path / "deep.png") * 65535).round().numpy().astype(np.uint16)
    np.testing.assert_array_equal(found.transpose(1, 2, 0) >> 8, expected)
    assert command("warp", tmp_path / "deep.png", tmp_path / "out.png")[0] == 0
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.info["icc_profile"] == profile


def test_formats_of_8_bits_are_refused_before_the_work(tmp_path: Path) -> None:
    png.write(colors(3), tmp_path / "in.png")
    code, _, error = command("warp", tmp_path / "in.png", tmp_path / "out.jpg")
    assert code == 2 and "OUT must end in .png, .tif or .npy for pixels of mode RGB;16; got out.jpg" in error
    assert not (tmp_path / "out.jpg").exists()


@pytest.mark.parametrize("damage", ("checksum", "cut", "filter", "short"))
def test_damage_is_a_sentence(damage: str, tmp_path: Path) -> None:
    data = bytearray(encoded(colors(3), (4,), False))
    if damage == "checksum":
        data[len(data) // 2] ^= 1
    elif damage == "cut":
        del data[len(data) // 2 :]
    elif damage == "filter":
        data = bytearray(encoded_with(b"\x07"))
    else:
        data = bytearray(encoded_with(b""))
    (tmp_path / "in.png").write_bytes(data)
    with pytest.raises(stn.InputError, match="the image must be a complete picture file"):
        read_picture(tmp_path / "in.png")


def encoded_with(first: bytes) -> bytes:
    """Encode one row of black pixels that begins with these bytes."""
    header = struct.pack(">IIBBBBB", 4, 1, 16, 2, 0, 0, 0)
    row = zlib.compress(first + bytes(24))
    return png.SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", row) + END
