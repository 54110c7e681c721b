"""The film and the figures of a run are made from its folder alone."""

import shutil
import stat
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import stn
from stn.lab.experiments import Run, RunFolder
from stn.lab.experiments.film import Scene
from stn.lab.experiments.train import train
from stn.lab.figures import draw_run, draw_runs
from stn.lab.figures.film import MOST_FRAMES, film, save_gif, save_mp4, thinned


def moving(count: int = 5) -> tuple[torch.Tensor, list[Scene]]:
    images = torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    warps = [stn.Attention(scale=0.5)(torch.full((2, 1, 2), i / count)) for i in range(count)]
    return images, [Scene(10 * i, warp, warp.sample(images)) for i, warp in enumerate(warps)]


@pytest.fixture
def frames() -> list[np.ndarray]:
    images, scenes = moving()
    return list(film(images, scenes, [{"split": "valid", "step": 40, "error_percent": 3.0}]))


def test_every_frame_shows_its_own_look(frames: list[np.ndarray]) -> None:
    assert len(frames) == 5 and {frame.shape for frame in frames} == {frames[0].shape}
    height, width = frames[0].shape[:2]
    assert width == 800 and height % 2 == 0 and frames[0].dtype == np.uint8
    assert all((a != b).any() for a, b in zip(frames, frames[1:], strict=False))

    def middle(frame: np.ndarray) -> float:  # of the look's edge in the first image, in the color of that edge
        colored = np.abs(frame[:, :400].astype(int) - [230, 159, 0]).sum(axis=-1) < 40
        return float(np.nonzero(colored.any(axis=0))[0].mean())

    assert np.all(np.diff([middle(frame) for frame in frames]) > 10)  # it moves to the right


def test_a_long_film_is_thinned() -> None:
    _, scenes = moving(3)
    many = [scenes[0]._replace(step=i) for i in range(500)]
    steps = [scene.step for scene in thinned(many)]
    assert len(steps) == MOST_FRAMES and steps[0] == 0 and steps[-1] == 499 and len(set(steps)) == MOST_FRAMES
    assert [scene.step for scene in thinned(scenes)] == [0, 10, 20]


def test_a_gif_has_all_frames_and_rests_on_the_last(frames: list[np.ndarray], tmp_path: Path) -> None:
    path = save_gif(frames, tmp_path / "deep" / "film.gif")
    with Image.open(path) as picture:
        assert getattr(picture, "n_frames", 1) == 5 and picture.info["loop"] == 0
        picture.seek(4)
        assert picture.info["duration"] == 3000
        last = np.asarray(picture.convert("RGB")).astype(int)
    assert np.abs(last - frames[-1]).mean() < 2
    assert list(path.parent.iterdir()) == [path]


def test_a_video_is_made_where_there_is_ffmpeg(
    frames: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for ffmpeg counts the bytes that it receives, so the test runs on every machine."""
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nfor last; do :; done\nwc -c > "$last"\nexit "${FAIL:-0}"\n')
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    path = save_mp4(frames, tmp_path / "film.mp4")
    assert path is not None
    repeats = 8 + 3 + 24  # the first frame lasts one second, the last frame three
    assert int(path.read_text()) == repeats * frames[0].size
    monkeypatch.setenv("FAIL", "1")
    assert save_mp4(frames, tmp_path / "other.mp4") is None and not list(tmp_path.glob(".*"))
    monkeypatch.setenv("PATH", "")
    assert save_mp4(frames, tmp_path / "other.mp4") is None


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffmpeg is not installed")
def test_the_video_is_one(frames: list[np.ndarray], tmp_path: Path) -> None:
    path = save_mp4([frame[:-1] for frame in frames], tmp_path / "film.mp4")  # an odd height
    query = "ffprobe -v error -count_frames -select_streams v -show_entries stream=width,height,nb_read_frames -of csv=p=0"
    found = subprocess.run([*query.split(), str(path)], capture_output=True, text=True, check=True).stdout
    assert found.strip() == f"800,{frames[0].shape[0] - 2},35"


EVERY = ["curves.png", "film.gif", "looks.png", "means.png"]


@pytest.mark.parametrize(
    "model, transform, names",
    (
        ("st-fcn", "affine", EVERY),
        ("st-fcn", "tps", sorted([*EVERY, "determinant.png", "control_points.png"])),
        ("fcn", "affine", ["curves.png"]),
    ),
)
def test_a_run_is_drawn_into_its_folder(
    model: str, transform: str, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stn.lab.experiments.train.COPIES", {"digits": 1})
    monkeypatch.setattr("stn.lab.figures.film.shutil.which", lambda name: None)
    folder = RunFolder(tmp_path / "run")
    train(Run(model=model, transform=transform, distortion="r", epochs=1, draws=1), folder, quiet=True)
    paths = draw_run(folder, count=3)
    assert sorted(path.name for path in paths) == names == sorted(path.name for path in folder.figures.iterdir())


def test_runs_are_grouped_by_all_but_their_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, int] = {}
    monkeypatch.setattr("stn.lab.figures.run.errors", lambda groups: seen.update({k: len(v) for k, v in groups.items()}))
    monkeypatch.setattr("stn.lab.figures.run.save", lambda figure, path: path)
    settings = ({"seed": 0}, {"seed": 1}, {"lr": 0.1}, {"model": "cnn"})
    folders = [RunFolder(tmp_path / str(i)) for i in range(4)]
    for folder, one in zip(folders, settings, strict=True):
        folder.open(Run(**one))  # type: ignore[arg-type]  # each setting has the right type
    assert draw_runs(folders, tmp_path / "errors.png") == tmp_path / "errors.png"
    assert seen == {"digits-rts-st-cnn-affine, lr 0.003": 2, "digits-rts-st-cnn-affine, lr 0.1": 1, "digits-rts-cnn": 1}
