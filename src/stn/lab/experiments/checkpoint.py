"""Checkpoints, with the settings of the run, the versions and a checksum, which are all verified when reading."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stn import _check
from stn.io.files import read_tensors, write_tensors
from stn.lab.experiments.rows import Row, is_row
from stn.lab.experiments.runs import Run

State = dict[str, Any]
FORMAT = 1  # format of run folders; 0 for earlier versions, which did not store it
PARTS: dict[str, Any] = dict.fromkeys(("network", "average", "optimizer", "schedule", "evaluated"), Mapping)
PROGRESS: dict[str, Any] = {"epoch": int, "step": int, "seconds": int | float, "rows": list}
WEIGHTS = ("network", "average", "evaluated")


def written_by() -> Row:
    """Return the versions that a run folder stores."""
    return {"format": FORMAT, "stn": stn_version(), "torch": str(torch.__version__)}


def stn_version() -> str:
    try:
        return version("torch-stn")
    except PackageNotFoundError:  # run from its sources
        return "unknown"


def write_checkpoint(path: Path, state: State, run: Run) -> None:
    whole = {key: value for key, value in state.items() if key != "checksum"}
    whole |= {"run": run.to_json(), "versions": written_by()}
    write_tensors(path, whole | {"checksum": checksum(whole)})


def read_checkpoint(path: Path, run: Run) -> State:
    """Read the checkpoint of this run.

    Raises: InputError if it is damaged, from another run, or from a newer version.
    """
    state = _loaded(path)
    if not isinstance(state, dict):
        _check.fail(f"{path} must be a checkpoint of a run; it holds a {type(state).__name__}")
    _check_versions(path, state)
    given = state.get("checksum")
    if given is not None and given != checksum({key: value for key, value in state.items() if key != "checksum"}):
        _check.fail(f"{path} must be an unchanged checkpoint of a run; its checksum does not match")
    _check_parts(path, state, run)
    return state


def _loaded(path: Path) -> Any:
    try:
        return read_tensors(path)
    except Exception as error:  # damaged bytes can raise anything
        _check.fail(f"{path} must be a checkpoint of a run; reading it raised {type(error).__name__}")


def _check_versions(path: Path, state: State) -> None:
    versions = state.get("versions", {})
    number = versions.get("format", 0) if isinstance(versions, dict) else None
    if not isinstance(number, int):
        _check.fail(f"{path} must be a checkpoint of a run; its version is missing")
    if number > FORMAT:
        newer(path, versions)


def newer(path: Path, versions: Mapping[str, Any]) -> None:
    _check.fail(
        f"{path} must be from this version of the library ({stn_version()}) or an earlier one; "
        f"it is from a newer one ({versions.get('stn', 'unknown')})"
    )


def _check_parts(path: Path, state: State, run: Run) -> None:
    for name, kind in (PARTS | PROGRESS).items():
        if not isinstance(state.get(name), kind) or isinstance(state[name], bool):
            _check.fail(f"{path} must be a checkpoint of a run; its part {name!r} is missing or of a wrong type")
    if not all(map(is_row, state["rows"])):
        _check.fail(f"{path} must be a checkpoint of a run; its rows are not rows of a run")
    trained = sum(row["split"] == "valid" for row in state["rows"])
    if not 0 < state["epoch"] == trained <= run.epochs:
        _check.fail(f"{path} must have 1 to {run.epochs} epochs with one row each; got {state['epoch']} and {trained} rows")
    if state["schedule"].get("last_epoch") != state["step"]:
        _check.fail(f"{path} must be a checkpoint of a run; its learning rates do not match step {state['step']}")
    if not is_film(state.get("film", {})):
        _check.fail(f"{path} must be a checkpoint of a run; its film is damaged")
    _check_settings(path, state, run)
    for part in WEIGHTS:
        for name, value in state[part].items():
            if isinstance(value, Tensor) and not value.isfinite().all():
                _check.fail(f"{path} must hold finite weights; {part}.{name} is not")


def is_film(film: Any) -> bool:
    """Images (N, C, H, W) and frames of a step and theta (S, N, P); empty for a network without a 2-D transformer."""
    if not isinstance(film, Mapping) or not film:
        return film == {}
    images, frames = film.get("images"), film.get("frames")
    if not isinstance(images, Tensor) or images.ndim != 4 or not isinstance(frames, list) or not frames:
        return False
    pairs = all(isinstance(frame, tuple | list) and len(frame) == 2 and isinstance(frame[0], int) for frame in frames)
    return pairs and all(isinstance(theta, Tensor) and theta.ndim == 3 for _, theta in frames)


def _check_settings(path: Path, state: State, run: Run) -> None:
    if "run" not in state:  # of an earlier version
        return
    try:
        other = Run.from_json(state["run"])
    except _check.InputError as error:
        _check.fail(f"{path}: {error}")
    differing = [f"{name}={there!r}" for name, (_, there) in run.differences(other).items()]
    if differing:
        _check.fail(f"{path} must be a checkpoint of the run in its folder; it is of a run with {', '.join(differing)}")


def checksum(value: object) -> str:
    """Return the SHA-256 of tensors, numbers and names in lists and dictionaries, in their order."""
    sha256 = hashlib.sha256()
    for piece in _pieces(value):
        sha256.update(piece)
    return sha256.hexdigest()


def _pieces(value: object) -> Iterator[bytes]:
    if isinstance(value, Tensor):
        yield f"tensor {value.dtype} {tuple(value.shape)}".encode()
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, Mapping):
        yield f"mapping {len(value)}".encode()
        for key, item in value.items():
            yield f"{key!r}:".encode()
            yield from _pieces(item)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield f"sequence {len(value)}".encode()
        for item in value:
            yield from _pieces(item)
    else:
        yield f"{type(value).__name__} {value!r};".encode()
