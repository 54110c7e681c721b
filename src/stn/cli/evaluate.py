"""`stn evaluate`."""

from __future__ import annotations

from stn.cli.options import Device, Download, Folder, Root


def evaluate(run: Folder, draws: int = 3, device: Device = "cpu", root: Root = None, download: Download = False) -> None:
    """Measure the test error of the network of a run.

    Args:
        run: Folder of the run.
        draws: Number of independent distortions of the test set. The first ones are the same as after training.
        device: Device to compute on.
        root: Folder of the data files.
        download: Download data files that are missing in --root.
    """
    from stn.lab.experiments.evaluate import evaluate as measure
    from stn.lab.experiments.evaluate import mean_and_spread
    from stn.lab.experiments.folder import RunFolder

    rows = measure(RunFolder(run), draws=draws, device=device, root=root, download=download)
    for row in rows:
        print(f"draw {row['draw'] + 1}: loss {row['loss']:.4f}, error {row['error_percent']:.2f} %")
    mean, spread = mean_and_spread(rows)
    print(f"test error {mean:.2f} ± {spread:.2f} %")
