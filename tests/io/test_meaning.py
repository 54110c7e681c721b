"""After a warp, images of every mode and arrays of every dtype keep their meaning, or an error refuses them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import stn
from stn.lab.studies.damage import command
from tests.helpers import seeded

H, W = 24, 32
SMOOTH = torch.nn.functional.interpolate(torch.rand(1, 4, 4, 5, generator=seeded()), (H, W), mode="bicubic").clamp(0, 1)[0]
BYTES = (255 * SMOOTH).round().byte().permute(1, 2, 0).numpy()
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I;16B", "I", "F")
REFUSED = ("LAB",)


def picture(mode: str) -> Image.Image:
    if mode == "F":
        return Image.fromarray(SMOOTH[0].numpy())
    if mode.startswith("I;16"):
        values = (65535 * SMOOTH[0]).round().numpy().astype(">u2" if mode == "I;16B" else np.uint16)
        return Image.fromarray(values)
    if mode == "I":
        return Image.fromarray((4e8 * SMOOTH[0].double() - 1e8).round().numpy().astype(np.int32))
    if mode == "LA":
        return Image.merge("LA", [Image.fromarray(BYTES[..., k]) for k in (0, 3)])
    if mode == "RGBA":
        return Image.fromarray(BYTES)
    colors = Image.fromarray(BYTES[..., :3])
    if mode == "LAB":
        return Image.merge("LAB", [Image.fromarray(BYTES[..., k]) for k in (0, 1, 2)])
    return colors.convert(mode)


def values(image: Image.Image) -> np.ndarray:
    """Return numbers to compare: colors times opacity, and the opacity."""
    if image.mode in ("P", "CMYK", "YCbCr"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode == "1":
        image = image.convert("L")
    numbers = np.asarray(image).astype(np.float64)
    if image.mode in ("LA", "RGBA"):
        numbers[..., :-1] *= numbers[..., -1:] / 255
    return numbers


@pytest.mark.parametrize("mode", MODES)
def test_a_picture_that_is_not_moved_stays_as_it_is(mode: str, tmp_path: Path) -> None:
    before, out = tmp_path / "in.tif", tmp_path / "out.tif"
    picture(mode).save(before)
    with Image.open(before) as there:
        expected = values(there)
    assert command("warp", before, out)[0] == 0
    with Image.open(out) as again:
        np.testing.assert_allclose(values(again), expected, atol=0.51)
        deep = {"I;16": "I;16", "I;16B": "I;16", "I": "I", "F": "F"}
        assert mode not in deep or again.mode == deep[mode]


@pytest.mark.parametrize("mode", MODES)
def test_register_keeps_the_mode_and_the_values(mode: str) -> None:
    found = stn.register(picture(mode), picture(mode), "translation", steps=1, levels=1).image
    expected = picture(mode)
    wanted = {"1": "L", "P": "RGB", "CMYK": "RGB", "YCbCr": "RGB", "I;16B": "I;16"}.get(mode, mode)
    assert isinstance(found, Image.Image) and found.mode == wanted
    scale = np.ptp(values(expected))
    np.testing.assert_allclose(values(found), values(expected), atol=max(0.51, 1e-5 * scale) if mode != "F" else 1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_a_shift_is_the_same_in_every_mode(mode: str, tmp_path: Path) -> None:
    before, out = tmp_path / "in.tif", tmp_path / "out.tif"
    picture(mode).save(before)
    with Image.open(before) as there:
        expected = np.roll(values(there), (-2, 3), (0, 1))
    assert command("warp", before, out, "--translate", 3, -2, "--padding-mode", "wrap")[0] == 0
    with Image.open(out) as again:
        np.testing.assert_allclose(values(again), expected, atol=0.51 + 1e-6 * np.ptp(expected))


def test_modes_that_mean_something_else_are_refused(tmp_path: Path) -> None:
    picture("LAB").save(tmp_path / "in.tif")
    code, _, error = command("warp", tmp_path / "in.tif", tmp_path / "out.png")
    assert code == 2 and "must be a gray or RGB picture; got one of mode LAB" in error
    with pytest.raises(stn.InputError, match="moving must be a gray or RGB picture; got one of mode LAB"):
        stn.register(picture("LAB"), picture("LAB"))
    assert not (tmp_path / "out.png").exists()


def test_16_bits_of_color_are_refused_where_pillow_drops_half_of_them(tmp_path: Path) -> None:
    """A TIFF file of a compression that tifffile does not read alone, and a PIL image; PNG files: `test_png.py`."""
    import cv2

    for ending in (".png", ".tif"):
        cv2.imwrite(str(tmp_path / f"in{ending}"), np.full((8, 8, 3), 30001, np.uint16))
    code, _, error = command("warp", tmp_path / "in.tif", tmp_path / "out.png")
    assert code == 2 and "must have 8 bits per channel if it is colored; got 16" in error
    with Image.open(tmp_path / "in.png") as there, pytest.raises(stn.InputError, match="if it is colored; got 16"):
        stn.register(there, there)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = picture("RGB")
    image.save(tmp_path / "in.png", exif=exif)
    assert command("warp", tmp_path / "in.png", tmp_path / "out.png")[0] == 0
    from PIL import ImageOps

    with Image.open(tmp_path / "in.png") as there, Image.open(tmp_path / "out.png") as found:
        expected = ImageOps.exif_transpose(there)
        assert found.size == expected.size and found.getexif().get(0x0112, 1) == 1
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
        moved = stn.register(there, there, "translation", steps=1, levels=1).image
        np.testing.assert_array_equal(np.asarray(moved), np.asarray(expected))


@pytest.mark.parametrize("kind", ("RGBA", "LA", "P"))
def test_transparency_stays_and_its_colors_do_not_bleed(kind: str, tmp_path: Path) -> None:
    """The left half is white and opaque. The right half is transparent red, which must not appear in the result."""
    if kind == "LA":
        array = np.zeros((16, 16, 2), np.uint8)
        array[:, :8] = 255
        image = Image.merge("LA", [Image.fromarray(array[..., k].copy()) for k in (0, 1)])
    else:
        array = np.zeros((16, 16, 4), np.uint8)
        array[:, :8], array[:, 8:] = 255, (255, 0, 0, 0)
        image = Image.fromarray(array)
    if kind == "P":
        image = image.convert("P")
        image.putpalette([255, 255, 255, 255, 0, 0])
        image.putdata([int(x >= 8) for _ in range(16) for x in range(16)])
        image.info["transparency"] = 1
    image.save(tmp_path / "in.png")
    assert command("warp", tmp_path / "in.png", tmp_path / "out.png", "--translate", 0.5, 0)[0] == 0
    with Image.open(tmp_path / "out.png") as found:
        assert found.mode == ("LA" if kind == "LA" else "RGBA")
        pixels = np.asarray(found)
    assert set(np.unique(pixels[8, :, -1])) == {0, 128, 255}
    assert (pixels[pixels[..., -1] > 0][:, :-1] == 255).all()


@pytest.mark.parametrize("ending", (".jpg", ".bmp", ".ppm"))
def test_where_there_is_no_transparency_the_ground_is_white_and_that_is_said(ending: str, tmp_path: Path) -> None:
    Image.new("RGBA", (16, 16), (0, 0, 255, 0)).save(tmp_path / "in.png")
    code, _, error = command("warp", tmp_path / "in.png", tmp_path / f"out{ending}")
    assert code == 0 and f"a {ending} file has no transparency: it is written on white" in error
    with Image.open(tmp_path / f"out{ending}") as found:
        assert found.mode == "RGB" and np.asarray(found).min() > 250


@pytest.mark.parametrize("mode", ("I;16", "I", "F"))
@pytest.mark.parametrize("ending", (".jpg", ".gif", ".webp", ".bmp", ".tga"))
def test_deep_pictures_are_not_squeezed_into_bytes(mode: str, ending: str, tmp_path: Path) -> None:
    picture(mode).save(tmp_path / "in.tif")
    code, _, error = command("warp", tmp_path / "in.tif", tmp_path / f"out{ending}")
    assert code == 2 and f"OUT must end in .tif or .npy for pixels of mode {mode}" in error
    assert not (tmp_path / f"out{ending}").exists()


def test_gray_of_16_bits_stays_so_in_a_png(tmp_path: Path) -> None:
    picture("I;16").save(tmp_path / "in.png")
    assert command("warp", tmp_path / "in.png", tmp_path / "out.png", "--rotate", 180)[0] == 0
    with Image.open(tmp_path / "in.png") as there, Image.open(tmp_path / "out.png") as found:
        np.testing.assert_array_equal(np.asarray(found), np.asarray(there)[::-1, ::-1])


# ---- arrays ----

DTYPES = ("bool", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", ">u2", ">f4")


def array(dtype: str) -> np.ndarray:
    """Return numbers of both signs if the dtype has them, all small enough for float32 to represent exactly."""
    kind = np.dtype(dtype)
    ramp = np.arange(H * W).reshape(H, W) % 251
    if kind.kind == "b":
        return ramp % 2 == 0
    signed = ramp - 100 if kind.kind in "if" else ramp
    return (signed.clip(-128, 127) if kind.itemsize == 1 and kind.kind == "i" else signed).astype(kind)


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_keep_their_dtype_and_their_values(dtype: str, tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", array(dtype))
    assert command("warp", tmp_path / "in.npy", tmp_path / "out.npy")[0] == 0
    found = np.load(tmp_path / "out.npy")
    assert found.dtype == np.dtype(dtype)
    if np.dtype(dtype).itemsize < 4 or np.dtype(dtype).kind == "f":
        np.testing.assert_array_equal(found, array(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ending", (".png", ".tif"))
def test_an_array_becomes_a_picture_of_its_values_or_is_refused(dtype: str, ending: str, tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", array(dtype))
    code, _, error = command("warp", tmp_path / "in.npy", tmp_path / f"out{ending}")
    if code:
        assert code == 2 and "OUT must end in .npy for an array of 1 channels of" in error
        assert not (tmp_path / f"out{ending}").exists()
        return
    with Image.open(tmp_path / f"out{ending}") as found:
        full = 255 if dtype == "bool" else 1
        np.testing.assert_array_equal(np.asarray(found), full * array(dtype).astype(np.float64))


def test_numbers_between_0_and_1_are_a_picture(tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", SMOOTH[:3].permute(1, 2, 0).numpy())
    assert command("warp", tmp_path / "in.npy", tmp_path / "out.png")[0] == 0
    with Image.open(tmp_path / "out.png") as found:
        np.testing.assert_array_equal(np.asarray(found), BYTES[..., :3])


@pytest.mark.parametrize("shape", ((3,), (2, 3, 4, 5), (0, 4), ()))
def test_arrays_that_are_no_image(shape: tuple[int, ...], tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", np.zeros(shape))
    code, _, error = command("warp", tmp_path / "in.npy", tmp_path / "out.npy")
    assert code == 2 and "must be (H, W), (H, W, C)" in error


@pytest.mark.parametrize("dtype", ("c8", "S3", "U2", "M8[s]"))
def test_arrays_of_no_real_numbers(dtype: str, tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", np.zeros((4, 5), dtype))
    code, _, error = command("warp", tmp_path / "in.npy", tmp_path / "out.npy")
    assert code == 2 and "must be an array of real numbers" in error


# ---- options that are NaN or infinite ----

WARPS: dict[str, list[Any]] = {
    "rotate": ["--rotate"], "scale": ["--scale"], "shear": ["--shear"], "translate": ["--translate", 0],
    "corners": ["--corners", 0, 0, 5, 0, 5, 5, 0],
}  # fmt: skip


@pytest.mark.parametrize("value", ("nan", "inf", "-inf"))
@pytest.mark.parametrize("option", WARPS)
def test_numbers_that_are_none(option: str, value: str, tmp_path: Path) -> None:
    picture("L").save(tmp_path / "in.png")
    words = [*WARPS[option], value]
    code, _, error = command("warp", tmp_path / "in.png", tmp_path / "out.png", *words)
    assert code == 2 and not (tmp_path / "out.png").exists(), error
    assert f"stn: --{option} must be" in error or f"argument --{option}" in error or "expected" in error


@pytest.mark.parametrize("scale", ("0", "-1", "1e-320", "1e308"))
def test_scales_at_which_nothing_is_left(scale: str, tmp_path: Path) -> None:
    picture("L").save(tmp_path / "in.png")
    code, _, error = command("warp", tmp_path / "in.png", tmp_path / "out.png", "--scale", scale)
    assert code == 0 or (code == 2 and "stn: --scale must" in error)


@pytest.mark.parametrize(
    "corners",
    [
        (3, 3, 3, 3, 20, 20, 3, 20),  # two corners are equal
        (3, 3, 10, 3, 20, 3, 3, 20),  # three corners lie on one line
        (3, 3, 20, 20, 20, 3, 3, 20),  # the sides cross
        (3, 3, 20, 3, 5, 5, 3, 20),  # not convex
        (3, 3, 3, 3, 3, 3, 3, 3),
    ],
)
def test_corners_that_are_of_no_quadrilateral(corners: tuple[int, ...], tmp_path: Path) -> None:
    picture("L").save(tmp_path / "in.png")
    code, _, error = command("warp", tmp_path / "in.png", tmp_path / "out.png", "--corners", *corners)
    assert code == 2 and "--corners must form a convex quadrilateral, in order around it" in error


@pytest.mark.parametrize("words", (["--bending", "inf"], ["--bending", "nan"], ["--bending", "-1"]))
def test_registration_of_numbers_that_are_none(words: list[str], tmp_path: Path) -> None:
    picture("L").save(tmp_path / "in.png")
    code, _, error = command("register", tmp_path / "in.png", tmp_path / "in.png", tmp_path / "out.png", *words)
    assert code == 2 and "stn: --bending must" in error


def test_a_flat_picture_registers_with_nothing(tmp_path: Path) -> None:
    picture("L").save(tmp_path / "a.png")
    Image.new("L", (W, H), 90).save(tmp_path / "b.png")
    for pair, name in ((("a", "b"), "FIXED"), (("b", "a"), "MOVING"), (("b", "b"), "MOVING")):
        code, _, error = command("register", *(tmp_path / f"{one}.png" for one in pair), tmp_path / "out.png")
        assert code == 2 and f"stn: {name} must not be constant; all of its pixels are equal" in error


def test_pictures_beyond_the_limit(tmp_path: Path) -> None:
    picture("L").save(tmp_path / "in.png")
    code, _, error = command("warp", tmp_path / "in.png", tmp_path / "out.png", "--max-pixels", H * W - 1)
    assert code == 2 and error.startswith("stn: --max-pixels must be at least the pixels of")
    assert command("warp", tmp_path / "in.png", tmp_path / "out.png", "--max-pixels", H * W)[0] == 0
    code, _, error = command("warp", tmp_path / "in.png", tmp_path / "out.png", "--size", 10**6, 10**6)
    assert code == 2 and "stn: --size must have at most --max-pixels" in error
