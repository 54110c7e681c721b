"""Small hippocampi that the tests make: two blobs with a texture, bent differently in each case, with labels, as NIfTI."""

from pathlib import Path

import torch

import stn
from tests.helpers import seeded

FOLDERS = ("imagesTr", "labelsTr")
COUNT = 10
BEND = 0.4  # of theta: points move by about a voxel


def write_case(
    root: Path,
    number: int,
    *,
    folders: tuple[str, str] = FOLDERS,
    labels: torch.Tensor | None = None,
    bend: float = BEND,
) -> None:
    """Write one case of about 20x24x20 voxels, whose values have another range in each file."""
    draws = seeded(number)
    size = tuple(20 + int(torch.randint(0, 3, (), generator=draws)) + extra for extra in (0, 4, 0))
    theta = bend * torch.randn(1, stn.Velocity(3, shape=5).num_params, generator=draws)
    points = stn.Velocity(3, shape=5, resolution=16)(theta).grid(size)[0]
    away = [((points - torch.tensor(place)) / 0.5).square().sum(dim=-1) for place in ((0.0, 0.35, -0.1), (0.1, -0.35, 0.1))]
    texture = (9 * points + torch.tensor([0.0, 1.0, 2.0])).sin().prod(dim=-1)  # which small windows need
    image = sum(torch.exp(-one) for one in away) + 0.3 * texture + 0.02 * torch.rand(size, generator=draws)
    known = torch.where(away[0] < 0.6, 1, torch.where(away[1] < 0.6, 2, 0)).to(torch.uint8) if labels is None else labels
    (root / folders[0]).mkdir(parents=True, exist_ok=True)
    (root / folders[1]).mkdir(parents=True, exist_ok=True)
    name, space = f"hippocampus_{number:03d}.nii.gz", stn.Space(size)
    stn.write_nifti(stn.Volume((100 * (number + 1) * image)[None, None].float(), space), root / folders[0] / name)
    stn.write_nifti(stn.Volume(known[None, None], stn.Space(tuple(known.shape))), root / folders[1] / name)


def write_cases(root: Path, *, count: int = COUNT, folders: tuple[str, str] = FOLDERS, bend: float = BEND) -> Path:
    for number in range(count):
        write_case(root, number, folders=folders, bend=bend)
    return root
