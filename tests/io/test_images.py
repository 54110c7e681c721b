"""Image files, and motions in pixels and degrees compared with OpenCV."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import stn
from stn.cli.motions import corners_to_homography, motion_to_theta
from stn.io.images import read_picture, write_picture
from tests.helpers import seeded

SMOOTH = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 8, generator=seeded()), (48, 64), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("channels", (1, 3, 4))
@pytest.mark.parametrize("ending", (".png", ".PNG", ".tif"))
def test_pictures_are_read_as_they_were_written(tmp_path: Path, channels: int, ending: str) -> None:
    image = torch.randint(0, 256, (channels, 5, 7), generator=seeded()) / 255
    path = tmp_path / f"picture{ending}"
    write_picture(image, path)
    torch.testing.assert_close(read_picture(path), image)
    assert list(tmp_path.iterdir()) == [path]


def test_a_palette_becomes_colour(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2), (255, 0, 0)).convert("P").save(tmp_path / "p.png")
    assert read_picture(tmp_path / "p.png").shape == (3, 2, 3)


def test_what_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(stn.InputError, match="the image must be a file; .*none.png does not exist"):
        read_picture(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(stn.InputError, match="must be a complete picture file .*; .*text.png is not"):
        read_picture(tmp_path / "text.png")
    write_picture(SMOOTH[0], tmp_path / "half.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "half.png").read_bytes()[:400])
    with pytest.raises(stn.InputError, match="half.png is not"):
        read_picture(tmp_path / "half.png")
    with pytest.raises(stn.InputError, match="the output must end in .png, .jpg or the suffix of .*; got out.xyz"):
        write_picture(SMOOTH[0], tmp_path / "out.xyz")


@pytest.mark.parametrize(
    "rotate, scale, translate", ((30.0, 1.0, (0.0, 0.0)), (0.0, 1.5, (4.0, -3.0)), (-50.0, 0.8, (5.5, 2.0)))
)
def test_motions_are_opencvs(rotate: float, scale: float, translate: tuple[float, float]) -> None:
    h, w = 48, 64
    matrix = cv2.getRotationMatrix2D(((w - 1) / 2, (h - 1) / 2), rotate, scale)
    matrix[:, 2] += np.array(translate)
    expected = cv2.warpAffine(SMOOTH[0].permute(1, 2, 0).numpy(), matrix, (w, h), flags=cv2.INTER_LINEAR)
    theta = motion_to_theta((h, w), rotate=rotate, scale=scale, translate=translate)
    got = stn.affine_sample(SMOOTH, theta)[0].permute(1, 2, 0).numpy()
    assert np.abs(got - expected).max() < 0.02  # OpenCV may round coordinates to 1/32 pixel


def test_shear_leans_to_the_right() -> None:
    image = torch.zeros(1, 1, 41, 41)
    image[..., 20] = 1
    leaning = stn.affine_sample(image, motion_to_theta((41, 41), shear=45.0))[0, 0]
    assert torch.equal(leaning.argmax(dim=1), torch.arange(40, -1, -1))


def test_corners_cut_out_a_quadrilateral() -> None:
    h, w = 48, 64
    corners = (10.0, 5.0, 50.0, 8.0, 55.0, 40.0, 12.0, 42.0)
    matrix = corners_to_homography((h, w), corners)
    size = torch.tensor([[-0.5, -0.5], [29.5, -0.5], [29.5, 19.5], [-0.5, 19.5]])  # outer corners of 20x30 pixels
    quad = np.array(corners, dtype=np.float32).reshape(4, 2)
    pixels = cv2.getPerspectiveTransform(size.numpy(), quad)
    expected = cv2.warpPerspective(SMOOTH[0, 0].numpy(), pixels, (30, 20), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    got = stn.projective_sample(SMOOTH, matrix, (20, 30))[0, 0].numpy()
    assert np.abs(got - expected).max() < 0.02
    with pytest.raises(stn.InputError, match="corners must form a convex quadrilateral"):
        corners_to_homography((h, w), (0.0,) * 8)


def test_motions_that_make_no_sense() -> None:
    with pytest.raises(stn.InputError, match="scale must be positive; got 0"):
        motion_to_theta((4, 4), scale=0.0)
    with pytest.raises(stn.InputError, match="shear must be between -90 and 90 degrees; got 90"):
        motion_to_theta((4, 4), shear=90.0)
    assert math.isclose(float(motion_to_theta((4, 8), rotate=90.0)[0, 1]), -0.5)  # a rotation in pixels
