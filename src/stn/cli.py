"""The command line: parse and call."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

import stn
from stn import _check
from stn.experiments.folder import RunFolder
from stn.experiments.runs import Run

TableName = Literal["table1", "addition", "alignment", "strings", "parts", "volumes", "text"]
app = tyro.extras.SubcommandApp()


@app.command
def train(run: Annotated[Run, tyro.conf.arg(name="")], out: Path | None = None, resume: bool = False) -> None:
    """Train one of the paper's networks on distorted digits, then test it.

    The run's folder then holds config.json, rows.jsonl, checkpoints/ and tensorboard/. Killed at any moment, the same
    command with --resume goes on to the same result.

    Args:
        run: What to train, and how.
        out: Folder of the run (default: runs/ and a name made of the settings).
        resume: Continue the run in --out from its last epoch; start it if there is none.
    """
    from stn.experiments.evaluate import mean_and_spread
    from stn.experiments.train import train as fit

    folder = RunFolder(out or Path("runs") / run.name)
    rows = fit(run, folder, resume=resume)
    mean, spread = mean_and_spread(rows)
    if os.environ.get("LOCAL_RANK", "0") == "0":  # one of several processes speaks
        print(f"{run.name}: test error {mean:.2f} ± {spread:.2f} % ({run.draws} draws). Run: {folder.path}")


@app.command
def evaluate(run: Annotated[Positional[Path], tyro.conf.arg(metavar="RUN")], draws: int = 3, device: str = "cpu") -> None:
    """Test a run's network on distorted test digits.

    Args:
        run: Folder of the run.
        draws: How many independent distortions of the test set; the first are those of the training's own test.
        device: Where to compute: cpu, cuda, ..
    """
    from stn.experiments.evaluate import evaluate as measure
    from stn.experiments.evaluate import mean_and_spread

    rows = measure(RunFolder(run), draws=draws, device=device)
    for row in rows:
        print(f"draw {row['draw'] + 1}: loss {row['loss']:.4f}, error {row['error_percent']:.2f} %")
    mean, spread = mean_and_spread(rows)
    print(f"test error {mean:.2f} ± {spread:.2f} %")


@app.command
def figures(run: Annotated[Positional[Path], tyro.conf.arg(metavar="RUN")], count: int = 8) -> None:
    """Draw a run: its error by epoch, and where its transformer looked.

    Args:
        run: Folder of the run. The pictures go into its figures/.
        count: How many test digits to show.
    """
    from stn.figures import draw_run

    _check.at_least("count", count, 1)
    for path in draw_run(RunFolder(run), count=count):
        print(path)


@app.command
def export(
    run: Annotated[Positional[Path], tyro.conf.arg(metavar="RUN")],
    out: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT")],
    opset: int = 20,
    lowering: Literal["grid_sample", "gather"] = "grid_sample",
) -> None:
    """Write a run's network as ONNX, of standard operators, for batches of any size; and compare it with the network.

    Args:
        run: Folder of the run.
        out: The file to write (model.onnx).
        opset: Of ONNX, 16 to 20. Volumes have GridSample from 20 on.
        lowering: What looks become: grid_sample (one operator), or gather, for runtimes that lack it, and for volumes
            before opset 20.
    """
    from stn.experiments.evaluate import example_images, trained_network
    from stn.export import largest_difference, to_onnx

    folder = RunFolder(run)
    network, images = trained_network(folder), example_images(folder, count=3)
    exported = to_onnx(network, images, path=out, opset=opset, lowering=lowering)
    print(f"{out}: opset {opset}, at most {largest_difference(exported, network, images):.1e} from the network")


@app.command
def warp(
    image: Annotated[Positional[Path], tyro.conf.arg(metavar="IMAGE")],
    out: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT")],
    rotate: float = 0.0,
    scale: float = 1.0,
    translate: tuple[float, float] = (0.0, 0.0),
    shear: float = 0.0,
    corners: tuple[float, float, float, float, float, float, float, float] | None = None,
    size: tuple[int, int] | None = None,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
) -> None:
    """Warp a picture: the library's sampler on a photograph of yours.

    The content is sheared, scaled and turned about the middle, then moved. Or --corners cuts a quadrilateral out of the
    picture and makes it upright.

    Args:
        image: The picture to read.
        out: The picture to write.
        rotate: Degrees, counter-clockwise.
        scale: Factor; 2 shows the middle twice as large.
        translate: Pixels to the right and down.
        shear: Degrees by which upright lines lean to the right.
        corners: x y of the top left, top right, bottom right and bottom left corner of what to cut out, in pixels.
        size: Height and width of the result (default: as the picture).
        mode: nearest, bilinear, bicubic, catmull_rom, bspline or lanczos3.
        padding_mode: What lies outside the picture: zeros, border, reflection or wrap.
    """
    from stn.data.pictures import corners_to_homography, motion_to_theta, read_picture, write_picture
    from stn.ops import affine_sample, projective_sample

    picture = read_picture(image).unsqueeze(0)
    shape = picture.shape[2:]
    if corners is None:
        theta = motion_to_theta(shape, rotate=rotate, scale=scale, shear=shear, translate=translate)
        warped = affine_sample(picture, theta, size, mode=mode, padding_mode=padding_mode)
    else:
        _check.alone("corners", {"rotate": rotate, "scale": scale - 1, "translate": any(translate), "shear": shear})
        matrix = corners_to_homography(shape, corners)
        warped = projective_sample(picture, matrix, size, mode=mode, padding_mode=padding_mode)
    write_picture(warped[0], out)
    print(out)


@app.command
def bench(
    out: Path = Path("runs/bench/cpu"),
    suites: tuple[str, ...] = (),
    threads: tuple[int, ...] = (1, 2),
    rounds: int = 11,
    trial: bool = False,
    resume: bool = False,
) -> None:
    """Measure the operators beside torch, torch.compile, kornia and OpenCV (about half an hour; nothing else should run).

    Args:
        out: Where to write the rows (.json) and the table (.md), without the suffix.
        suites: affine, channels_last, thin_plate, opencv, one_image, quality, costs (default: all).
        threads: Numbers of threads to measure with.
        rounds: How often every contender is measured, in turns.
        trial: Small images, to try the machinery.
        resume: Keep the rows that --out has, and measure the rest.
    """
    from stn.bench.run import bench as measure

    measure(out, suites=suites, threads=threads, rounds=rounds, trial=trial, resume=resume)
    print(out.with_suffix(".md"))


@app.command
def reproduce(
    table: Annotated[Positional[TableName], tyro.conf.arg(metavar="TABLE")],
    root: Path | None = None,
    seeds: int = 3,
    budget: Literal["quick", "full"] = "full",
    cells: tuple[str, ...] = (),
    workers: int = 1,
    out: Path | None = None,
    runs: Path | None = None,
) -> None:
    """Reproduce a table of the paper: train its networks, and set our errors beside the paper's.

    Rows, the table and a figure are written as results come. Stopped at any moment, the same command goes on where it was.

    Args:
        table: table1: distorted MNIST, 8 networks and 4 distortions, and cluttered digits. addition: the sum of two digits.
            alignment: one step or several under large perturbation. strings: house numbers made of digits. parts: two looks
            in parallel. volumes: 3-D looks. text: curved strings, rectified.
        root: Folder of the data files.
        seeds: How often to train each cell.
        budget: full, as in the published table, or quick: a sixth of the epochs, to see that all runs.
        cells: Names or patterns of cells, such as st-cnn-affine/rts or cnn/*, in the order to train them (default: all).
        workers: How many cells to train at once, each on its share of the processor's cores.
        out: Where to write rows (.jsonl), table (.md) and figure (.png) (default: results/ and the table's name).
        runs: Folder of the run folders (default: runs/ and the table's name).
    """
    from stn.experiments.reproduce import reproduce as build
    from stn.experiments.tables import TABLES
    from stn.figures import draw_table

    name = table if budget == "full" else f"{table}-{budget}"
    out, runs = out or Path("results") / name, runs or Path("runs") / name
    build(table, root=root, out=out, runs=runs, seeds=seeds, budget=budget, cells=cells, workers=workers)
    written = [out.with_suffix(".jsonl"), out.with_suffix(".md"), draw_table(TABLES[table], runs, out.with_suffix(".png"))]
    for path in filter(None, written):
        print(path)


@app.command
def demo(out: Path = Path("runs/demo"), seed: int = 0) -> None:
    """Watch a CNN with a spatial transformer beat the same CNN without one (about two minutes on two cores).

    Args:
        out: Folder of the two runs; those of an earlier demonstration are replaced.
        seed: Of the initial weights, the order of the images and their distortions.
    """
    from stn.experiments.demo import demo as show
    from stn.figures import draw_run

    for path in draw_run(show(out, seed=seed)):
        print(f"wrote {path}")


def main() -> None:
    try:
        app.cli(prog="stn", description=stn.__doc__, config=(tyro.conf.FlagCreatePairsOff,))
    except _check.InputError as error:
        print(f"stn: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nstn: interrupted; the same command goes on, that of a run with --resume", file=sys.stderr)
        sys.exit(130)
