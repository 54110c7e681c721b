"""A warp can be saved to a file that torch.load reads by default, and loads as the same warp; its repr describes it."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import stn
from stn.transforms import FAMILIES, Family, family
from stn.transforms.load import KINDS
from stn.transforms.saved import VERSION

FLAT = {"corners"}
EVERY = [(name, ndim) for name in FAMILIES for ndim in (2, 3) if ndim == 2 or name not in FLAT]


def some(of: Family, *batch: int, seed: int = 0) -> Tensor:
    """Return parameters near the identity, all different."""
    noise = torch.randn(*batch, of.num_params, generator=torch.Generator().manual_seed(seed))
    return of.identity() + 0.02 * noise


def again(warp: stn.Warp, folder: Path) -> stn.Warp:
    warp.save(folder / "warp.pt")
    return stn.load_warp(str(folder / "warp.pt"))


def same(a: stn.Warp, b: stn.Warp) -> bool:
    xy = torch.rand(9, a.ndim, generator=torch.Generator().manual_seed(1)) * 1.6 - 0.8
    size = (5, 6, 7)[: a.ndim]
    kept = (a.batch, a.ndim, a.dtype, a.device, type(a)) == (b.batch, b.ndim, b.dtype, b.device, type(b))
    return kept and torch.equal(a.points(xy), b.points(xy)) and torch.equal(a.grid(size), b.grid(size))


@pytest.mark.parametrize("name, ndim", EVERY)
def test_a_warp_of_every_family_returns_with_its_composition_and_inverse(name: str, ndim: int, tmp_path: Path) -> None:
    of = family(name, ndim)
    warp = of(some(of, 2))
    shift = stn.Translation(ndim)(some(stn.Translation(ndim), 2, seed=3))
    bend = stn.Displacement(ndim)(some(stn.Displacement(ndim), 1, seed=4))
    for one in (warp, of(some(of, 2, 3)), warp @ shift, shift @ warp, bend @ warp, warp.inverse(), (bend @ warp).inverse()):
        found = again(one, tmp_path)
        assert same(one, found) and repr(found) == repr(one)


@pytest.mark.parametrize(
    "of",
    (
        stn.bounded(stn.Similarity(), scale=(0.5, 1.5)),
        stn.ThinPlateSpline(control_points=stn.text_edges(8), smoothing=0.1, parameters="positions"),
        stn.BSpline(shape=(4, 6)),
        stn.Displacement(shape=(3, 5), align_corners=True),
        stn.Velocity(shape=(4, 5), resolution=20, squarings=3),
        stn.CPAB(cells=(2, 3), boundary="free", steps=3),
    ),
    ids=repr,
)
def test_settings_of_a_family_are_kept(of: Family, tmp_path: Path) -> None:
    warp = of(some(of, 2))
    assert same(warp, again(warp, tmp_path))


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16, torch.float64))
@pytest.mark.parametrize("name", ("affine", "tps", "velocity", "displacement"))
def test_dtypes_are_kept(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    of = family(name)
    warp = of(some(of, 2).to(dtype))
    assert same(warp, again(warp, tmp_path)) and warp.dtype == dtype


def test_the_file_is_small_and_torch_reads_it(tmp_path: Path) -> None:
    theta = torch.zeros(1000, 1000, 6)[0, :1].requires_grad_()  # a view of a larger tensor
    warp = stn.Affine()(theta)
    assert not any(value.requires_grad for value in vars(again(warp, tmp_path)).values() if isinstance(value, Tensor))
    assert (tmp_path / "warp.pt").stat().st_size < 5000
    found = torch.load(tmp_path / "warp.pt")
    assert found["kind"] == "MatrixWarp" and torch.equal(found["matrix"], warp.matrix) and found["stn_warp"] == VERSION
    assert [path.name for path in tmp_path.iterdir()] == ["warp.pt"]  # no partial file is left


def changed(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def damage(path: Path) -> None:
        content = torch.load(path)
        change(content)
        torch.save(content, path)

    return damage


def replaced_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "path must be the file of a warp; .* does not exist"),
    "folder": (replaced_by_a_folder, "path must be the file of a warp; .* is a folder"),
    "text": (lambda path: path.write_text("warp"), "path must be a file that Warp.save wrote; reading .* raised BadZipFile"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:300]), "a file that Warp.save wrote; reading .* raised"),
    "tensor": (lambda path: torch.save(torch.eye(2, 3), path), "a file that Warp.save wrote; reading .* raised"),
    "state dict": (lambda path: torch.save(torch.nn.Linear(2, 3).state_dict(), path), "Warp.save wrote; .* raised KeyError"),
    "kind": (changed(lambda found: found.update(kind="Family")), "Warp.save wrote; reading .* raised KeyError"),
    "part missing": (changed(lambda found: found.pop("matrix")), "Warp.save wrote; reading .* raised KeyError"),
    "part added": (changed(lambda found: found.update(theta=1)), "Warp.save wrote; reading .* raised KeyError"),
    "no tensor": (changed(lambda found: found.update(matrix=1)), "Warp.save wrote; reading .* raised TypeError"),
    "newer": (changed(lambda found: found.update(stn_warp=VERSION + 1)), f"up to format {VERSION}; .* has format 2"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_warp_is_told_in_a_sentence(name: str, tmp_path: Path) -> None:
    damage, message = BAD[name]
    path = tmp_path / "warp.pt"
    stn.MatrixWarp(torch.eye(2, 3)[None]).save(path)
    damage(path)
    with pytest.raises(stn.InputError, match=message):
        stn.load_warp(path)


def test_a_warp_that_cannot_be_kept_is_told_in_a_sentence(tmp_path: Path) -> None:
    class Mine(stn.MatrixWarp):
        """A user's class, which load_warp could not create."""

    mine, path = Mine(torch.eye(2, 3)[None]), tmp_path / "warp.pt"
    for warp in (mine, stn.InverseWarp(mine)):
        with pytest.raises(stn.InputError, match="the warp must be of a class of stn to be saved; got Mine"):
            warp.save(path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(
        stn.InputError,
        match="warp.pt must be a writable file; its folder cannot be created because a file has the same name",
    ):
        stn.InverseWarp(stn.MatrixWarp(torch.eye(2, 3)[None])).save(tmp_path / "file" / "warp.pt")


def kinds(base: type[stn.Warp]) -> set[type[stn.Warp]]:
    """Return all concrete classes of the library below a base class."""
    below = base.__subclasses__()
    own = {kind for kind in below if kind.__module__.startswith("stn.") and not inspect.isabstract(kind)}
    return own.union(*map(kinds, below))


def test_every_kind_of_warp_is_loaded() -> None:
    assert kinds(stn.Warp) == {*KINDS.values()}  # type: ignore[type-abstract]  # Warp is the base


def test_repr_says_what_a_warp_is() -> None:
    affine = stn.Affine()(torch.zeros(8, 6))
    assert repr(affine) == "MatrixWarp(affine, batch=(8,), ndim=2, dtype=torch.float32, device='cpu')"
    bend = stn.BSpline(3, shape=(4, 5, 6))(torch.zeros(1, 2, 360, dtype=torch.float64))
    text = "BSplineWarp(4x5x6 control points, batch=(1, 2), ndim=3, dtype=torch.float64, device='cpu')"
    assert repr(bend) == text and repr(bend.inverse()) == f"InverseWarp({text})"
    spline = stn.ThinPlateSpline()(torch.zeros(8, 32))
    assert repr(stn.Displacement()(torch.zeros(8, 128)) @ spline).endswith(f" @ {spline!r}")
    assert "16 control points" in repr(spline) and "projective" in repr(stn.Projective()(torch.zeros(1, 8)))
    assert "steps=8" in repr(stn.CPAB()(torch.zeros(1, 18))) and "squarings=6" in repr(stn.Velocity()(torch.zeros(1, 98)))
