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

TableName = Literal[
    "table1", "seeds", "addition", "alignment", "strings", "svhn", "cub", "parts", "volumes", "text", "colocalization"
]
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
    from stn.experiments.machine import keep_memory
    from stn.experiments.train import train as fit

    keep_memory()
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
def figures(
    runs: Annotated[Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN")] = (),
    count: int = 8,
    out: Path = Path("runs/figures"),
) -> None:
    """Draw runs: error by epoch, where the transformer looks, mean images, folds, control points, a film of the training.

    Without a RUN: the weights of the sampling kernels, standing and in motion.

    Args:
        runs: Folders of runs. The pictures of each go into its figures/.
        count: How many test digits to show.
        out: Folder of pictures that are of no single run: of several runs their errors.
    """
    from stn.figures import draw_kernels, draw_run, draw_runs

    _check.at_least("count", count, 1)
    folders = [RunFolder(run) for run in runs]
    paths = [path for folder in folders for path in draw_run(folder, count=count)]
    if len(folders) > 1:
        paths.append(draw_runs(folders, out / "errors.png"))
    for path in paths if folders else draw_kernels(out):
        print(path)


@app.command
def report(
    runs: Annotated[Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN")],
    out: Path = Path("runs/report.html"),
) -> None:
    """Write one page about a run, or about several side by side: results, diagnosis in words, curves, looks, settings, rows.

    The page is one file, and needs no network. Pictures that a run does not have yet are drawn first.

    Args:
        runs: Folders of runs.
        out: The HTML file to write.
    """
    from stn.report import write_report

    _check.some("RUN", runs)
    print(write_report([RunFolder(run) for run in runs], out))


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
        image: The picture to read, or an array: a numpy file (.npy) of (H, W) or (H, W, C).
        out: The picture or array to write.
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
    shape = _check.lengths("the image's size", tuple(picture.shape[2:]), 2)
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
def register(
    moving: Annotated[Positional[Path], tyro.conf.arg(metavar="MOVING")],
    fixed: Annotated[Positional[Path], tyro.conf.arg(metavar="FIXED")],
    out: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT")],
    transform: str = "affine",
    loss: Literal["ncc", "mse", "lncc", "mi"] = "ncc",
    bending: float = 1e-3,
    levels: int | None = None,
    steps: int = 200,
    theta: Path | None = None,
) -> None:
    """Warp MOVING so that it looks like FIXED: find the transform between two pictures, or two volumes.

    Found by descent on its parameters, from coarse copies of both images to the images themselves.

    Args:
        moving: The picture to warp, or a numpy file (.npy) of (H, W), (H, W, C), or a volume (D, H, W).
        fixed: The picture that it is to look like.
        out: The warped picture to write; .npy for volumes.
        transform: What may happen between them: translation, rigid, similarity, affine, projective, corners, tps, bspline,
            velocity, ..
        loss: How unlike they are: ncc (correlation: whatever brightness and contrast), mse (the same exposure), lncc
            (light that changes over the image), mi (mutual information: other kinds of image).
        bending: Weight against bending; nothing for affine maps.
        levels: Resolutions, each half of the one before (default: down to 16 pixels).
        steps: At most, on each level.
        theta: A numpy file (.npy) to write the transform's parameters to.
    """
    from stn.data.pictures import read_picture, write_array, write_picture
    from stn.registration import register as find

    picture, goal = (read_picture(path).unsqueeze(0) for path in (moving, fixed))
    a, b = picture, goal
    if a.shape[1] != b.shape[1]:  # one is grey, or transparent
        a, b = (image[:, :3].mean(dim=1, keepdim=True) for image in (a, b))
    found = find(a, b, transform, loss=loss, bending=bending, levels=levels, steps=steps)
    for level, losses in found.losses.items():
        size = "x".join(str(max(1, n >> level)) for n in goal.shape[2:])
        print(f"{size}: {loss} {losses[0]:.4f} -> {min(losses):.4f} in {len(losses)} steps")
    write_picture(found.warp.sample(picture, tuple(goal.shape[2:]))[0], out)
    if theta is not None:
        write_array(found.theta[0], theta)
    print(out)


@app.command
def bench(
    out: Path | None = None,
    suites: tuple[str, ...] = (),
    threads: tuple[int, ...] = (1, 2),
    device: str = "cpu",
    rounds: int = 11,
    trial: bool = False,
    resume: bool = False,
) -> None:
    """Measure the operators beside torch, torch.compile, kornia and OpenCV (about half an hour; nothing else should run).

    Args:
        out: Where to write the rows (.json) and the table (.md), without the suffix (default: runs/bench/ and the device).
        suites: affine, channels_last, thin_plate, opencv, one_image, quality, costs (default: all).
        threads: Numbers of threads to measure with, on the CPU.
        device: cpu, or cuda, for the time between events beside a copy on the device (no opencv, no costs).
        rounds: How often every contender is measured, in turns.
        trial: Small images, to try the machinery.
        resume: Keep the rows that --out has, and measure the rest.
    """
    from stn.bench.run import bench as measure

    out = out or Path("runs/bench") / device.replace(":", "")
    measure(out, suites=suites, threads=threads, device=device, rounds=rounds, trial=trial, resume=resume)
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
        table: table1: distorted MNIST, 8 networks and 4 distortions, and cluttered digits. seeds: two of them from several
            starts, in few passes. addition: the sum of two digits. alignment: one step or several under large perturbation.
            strings: house numbers made of digits. svhn: house numbers. cub: birds. parts: two looks in parallel. volumes:
            3-D looks. text: curved strings, rectified. colocalization: what images have in common.
        root: Folder of the data files.
        seeds: How often to train each cell.
        budget: full, as in the published table, or quick: a part of the epochs, to see that all runs.
        cells: Names or patterns of cells, such as st-cnn-affine/rts or cnn/*, in the order to train them (default: all).
        workers: How many cells to train at once, each on its share of the processor's cores.
        out: Where to write rows (.jsonl), table (.md) and figure (.png) (default: results/ and the table's name).
        runs: Folder of the run folders (default: runs/ and the table's name).
    """
    from stn.experiments.colocalization import reproduce_colocalization
    from stn.experiments.reproduce import reproduce as build
    from stn.experiments.tables import TABLES
    from stn.figures import draw_found, draw_table

    name = table if budget == "full" else f"{table}-{budget}"
    out, runs = out or Path("results") / name, runs or Path("runs") / name
    if table == "colocalization":
        _check.alone("colocalization", {"budget quick": budget == "quick", "workers": workers - 1})
        reproduce_colocalization(root=root, out=out, runs=runs, seeds=seeds, cells=cells)
        picture = draw_found(runs, out.with_suffix(".png"))
    else:
        build(table, root=root, out=out, runs=runs, seeds=seeds, budget=budget, cells=cells, workers=workers)
        picture = draw_table(TABLES[table], runs, out.with_suffix(".png"))
    written = [out.with_suffix(".jsonl"), out.with_suffix(".md"), picture]
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
    from stn.experiments.machine import keep_memory
    from stn.figures import draw_run

    keep_memory()
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
