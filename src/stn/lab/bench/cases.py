"""The cases of the benchmark, by suite."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stn.lab.bench.families import PLANAR, theta_of
from stn.lab.bench.patterns import IN_VOLUMES, PATTERNS, Pattern
from stn.transforms import FAMILIES

TASKS = ("forward", "theta", "both")  # no gradient; the gradient in theta alone; in image and theta


@dataclass(frozen=True)
class Case:
    """One call: `shape` images sampled to their own size over `shrink`, with the gradients that `task` asks for."""

    suite: str
    shape: tuple[int, ...]  # (N, C, H, W) or (N, C, D, H, W)
    task: str = "forward"
    rule: str = "affine"  # affine, projective, thin_plate, grid, attention
    channels_last: bool = False
    shrink: int = 1
    device: str = "cpu"
    pattern: str = ""  # of the grid, an entry of PATTERNS
    family: str = ""  # of transforms, an entry of FAMILIES, in place of a rule
    mode: str = "bilinear"
    dtype: torch.dtype = torch.float32  # of the image

    @property
    def name(self) -> str:
        size = "x".join(map(str, self.shape))
        small = f" to {'x'.join(map(str, self.size))}" if self.shrink > 1 else ""
        rule = self.pattern or self.family or self.rule.replace("_", "-")
        rule += "" if self.mode == "bilinear" else f" {self.mode}"
        rule += "" if self.dtype is torch.float32 else f" {str(self.dtype).removeprefix('torch.')}"
        return f"{size}{small}{' channels last' if self.channels_last else ''} {rule}"

    @property
    def size(self) -> tuple[int, ...]:
        size = tuple(n // self.shrink for n in self.shape[2:])
        return self.stored.size(size) if self.pattern else size

    @property
    def stored(self) -> Pattern:
        return PATTERNS[self.pattern]

    def inputs(self, image: Tensor, theta: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors whose gradient the task needs, prepared for autograd."""
        found = {"forward": (), "theta": (theta,), "both": (image, theta)}[self.task]
        return tuple(tensor.requires_grad_() for tensor in found)

    def image(self) -> Tensor:
        """Return white noise, which hides no error."""
        generator = torch.Generator().manual_seed(0)
        if self.dtype is torch.uint8:
            return self.laid_out(torch.randint(0, 256, self.shape, generator=generator, dtype=torch.uint8))
        return self.laid_out(torch.randn(self.shape, generator=generator))

    def weight(self) -> Tensor:
        """Return the gradient of the output."""
        weight = torch.randn(*self.shape[:2], *self.size, generator=torch.Generator().manual_seed(2))
        return self.laid_out(weight)

    def laid_out(self, tensor: Tensor) -> Tensor:
        form = torch.channels_last if self.channels_last else torch.contiguous_format
        return tensor.to(self.device).contiguous(memory_format=form)

    def theta(self) -> Tensor:
        """A rotation by 20 degrees with scale 0.8 (and some perspective), or offsets of 4x4 control points. Whole images
        are turned to be shrunk. A stored grid takes the place of theta."""
        n, d = self.shape[0], len(self.shape) - 2
        if self.pattern:
            return self.stored.grid(n, self.shape[2:]).to(self.device)
        if self.family:
            return theta_of(self.family, n, d).to(self.device)
        if self.rule == "thin_plate":
            return 0.1 * torch.randn(n, 32, generator=torch.Generator().manual_seed(1)).to(self.device)
        matrix = torch.eye(d + (self.rule == "projective"), d + 1)
        turn, scale = math.radians(20), 0.8 if self.shrink == 1 else 1.0
        matrix[:2, :2] = scale * torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        matrix[d:, 0] = 0.1
        return matrix.expand(n, -1, -1).contiguous().to(self.device)


SHAPES = (
    (256, 1, 42, 42),
    (32, 3, 224, 224),
    (16, 3, 512, 512),
    (8, 64, 56, 56),
    (1, 64, 256, 256),
    (1, 3, 2048, 2048),
    (2, 1, 96, 96, 96),
)
SMALL = (  # digits, feature maps, one photograph: the overhead of a call
    (1, 1, 28, 28),
    (8, 1, 28, 28),
    (32, 1, 28, 28),
    (128, 1, 28, 28),
    (1, 3, 64, 64),
    (64, 3, 32, 32),
    (8, 32, 14, 14),
    (16, 64, 7, 7),
    (1, 3, 224, 224),
)
PHOTOGRAPHS = tuple((1, c, n, n) for n in (224, 512, 1024, 2048) for c in (1, 3))
GRIDS: list[tuple[tuple[int, ...], str]] = [((16, 3, 128, 128), pattern) for pattern in PATTERNS]
GRIDS += [((2, 2, 32, 32, 32), pattern) for pattern in IN_VOLUMES]
DIGITS, IMAGES, VOLUMES, PHOTOGRAPH = (64, 1, 28, 28), (16, 3, 128, 128), (2, 1, 96, 96, 96), (1, 3, 512, 512)
OF_FAMILIES: list[tuple[tuple[int, ...], str]] = [(shape, name) for name in FAMILIES for shape in (DIGITS, IMAGES)]
OF_FAMILIES += [(VOLUMES, name) for name in FAMILIES if name not in PLANAR]
MODES = ("nearest", "bicubic", "bspline", "lanczos3")

SUITES: dict[str, tuple[Case, ...]] = {
    "affine": tuple(Case("affine", shape, task) for task in TASKS for shape in SHAPES),
    "small": tuple(Case("small", shape, task) for task in TASKS for shape in SMALL),
    "channels_last": tuple(
        Case("channels_last", shape, task, channels_last=True)
        for task in TASKS
        for shape in ((8, 64, 56, 56), (1, 64, 256, 256), (32, 3, 224, 224))
    ),
    "thin_plate": tuple(Case("thin_plate", (32, 3, 224, 224), task, "thin_plate") for task in TASKS),
    "grids": tuple(Case("grids", shape, task, "grid", pattern=name) for task in TASKS for shape, name in GRIDS),
    "opencv": tuple(Case("opencv", shape, rule=rule) for rule in ("affine", "projective") for shape in PHOTOGRAPHS),
    "one_image": tuple(
        Case("one_image", shape, task)
        for task in TASKS
        for shape in ((1, 3, 512, 512), (1, 64, 256, 256), (1, 3, 2048, 2048))
    ),
    "families": tuple(Case("families", shape, task, family=name) for task in TASKS for shape, name in OF_FAMILIES),
    "kernels": tuple(
        Case("kernels", shape, task, mode=mode)
        for task in TASKS
        for mode in MODES
        for shape in (DIGITS, IMAGES, PHOTOGRAPH)
        if (mode, task) != ("nearest", "theta")
    ),
    "bytes": tuple(
        Case("bytes", (1, c, n, n), channels_last=c > 1, mode=mode, dtype=torch.uint8)
        for mode in ("nearest", "bilinear", "bicubic")
        for n in (512, 2048)
        for c in (1, 3)
    ),
    "attention": tuple(Case("attention", (2, 256, 100, 134), task, "attention") for task in ("forward", "both")),
    "quality": tuple(Case("quality", (16, 3, 512, 512), task, shrink=4) for task in TASKS),
}
NAMES = (*SUITES, "costs", "first_use")  # the last two measure new processes, in files of these names


def traffic(case: Case) -> int:
    """Return the bytes that a call must at least move, in the dtype of the image: the image and the result once; in backward
    the gradient of the output and the image once, and the gradient of the image if needed. A stored grid is read in each
    pass."""
    image = math.prod(case.shape)
    result = math.prod((*case.shape[:2], *case.size))
    passes = {"forward": 1, "theta": 2, "both": 2}[case.task]
    grid = case.shape[0] * math.prod(case.size) * (len(case.shape) - 2) if case.pattern else 0
    gradients = (image if case.task == "both" else 0) + (grid if case.task != "forward" else 0)
    return case.dtype.itemsize * (passes * (image + result + grid) + gradients)


def quick(case: Case) -> Case:
    """Return the case with 1/8 of the length of each axis and at most two images, for a trial."""
    n, c, *size = case.shape
    return replace(case, shape=(min(n, 2), c, *(max(8, length // 8) for length in size)))
