"""Published weights: the rectifier of `deep-text-recognition-benchmark` (Baek et al. 2019, ICCV).

Its modules have the names of the checkpoints, so that state dicts load in both directions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol, overload

import torch
from torch import Tensor, nn

from stn import _check
from stn.grid import lattice
from stn.models.text import SIZE
from stn.nn.recording import recording, refuse_script
from stn.ops.context import unrounded
from stn.transforms import ThinPlateSpline, Warp, text_edges

PREFIX = "Transformation."  # of the rectifier's names in a checkpoint, after `module.` where that was trained in parallel


class RectifierCall(Protocol):
    """The type of the call of `BenchmarkRectifier`. Torch itself types every call as Any."""

    @overload
    def __call__(self, x: Tensor, *, image: Tensor | None = None, return_warp: Literal[False] = False) -> Tensor: ...
    @overload
    def __call__(self, x: Tensor, *, image: Tensor | None = None, return_warp: Literal[True]) -> tuple[Tensor, Warp]: ...
    @overload
    def __call__(self, x: Tensor, *, image: Tensor | None = None, return_warp: bool) -> Tensor | tuple[Tensor, Warp]: ...


class BenchmarkRectifier(nn.Module):
    """The thin-plate rectifier of `deep-text-recognition-benchmark`: (N, C, H, W) -> (N, C, *size).

    The benchmark's images are 32x100, gray, in [-1, 1]. The initial weights are those with which its training started:
    the line of text is assumed to rise (RARE, figure 6a).

    Args:
        size: Output size (H, W) in pixels.
        control_points: Number of control points along the upper and the lower edge together; even, at least 4.
        in_channels: C.
        half_pixel_flaw: Sample as the benchmark's code does where torch's `grid_sample` has, or is given,
            align_corners=True. Its output lattice takes -1 and 1 as the edges of the image, its sampling as the centers
            of the outer pixels. All outputs therefore shrink by 1 / W and 1 / H about the middle, half a pixel at the
            borders. Published weights were trained this way. False: both follow `stn.grid`.

    Raises:
        InputError: An argument has a wrong value, which the message names.

    Source: Baek et al. 2019, Shi et al. 2016 (RARE).

    Example:
        >>> from stn.models import BenchmarkRectifier
        >>> rectifier = BenchmarkRectifier().eval()
        >>> rectifier(2 * torch.rand(4, 1, 32, 100) - 1).shape
        torch.Size([4, 1, 32, 100])
    """

    __call__: RectifierCall

    def __init__(
        self,
        size: int | Sequence[int] = SIZE,
        *,
        control_points: int = 20,
        in_channels: int = 1,
        half_pixel_flaw: bool = False,
    ) -> None:
        super().__init__()
        self.size = _check.lengths("size", size, 2)
        self.half_pixel_flaw = half_pixel_flaw
        points = text_edges(control_points)
        self.family = ThinPlateSpline(control_points=points, parameters="positions")
        self.LocalizationNetwork = LocalizationNetwork(control_points, in_channels)
        self.GridGenerator = GridGenerator(points, self.size)

    def localize(self, x: Tensor) -> Tensor:
        """Find theta (N, 2 F): for each of the F control points, the normalized input point (x, y) that it reads.

        Args:
            x: Images (N, C, H, W).
        """
        positions: Tensor = self.LocalizationNetwork(x)
        if not self.half_pixel_flaw:
            return positions
        # Points x' counted from pixel centers lie at x' (W - 1) / W counted from edges; a spline of scaled positions is
        # the scaled spline, since linear maps are among the splines.
        height, width = x.shape[2:]
        return (positions.unflatten(-1, (-1, 2)) * positions.new_tensor([1 - 1 / width, 1 - 1 / height])).flatten(1)

    @overload
    def forward(self, x: Tensor, *, image: Tensor | None = None, return_warp: Literal[False] = False) -> Tensor: ...
    @overload
    def forward(self, x: Tensor, *, image: Tensor | None = None, return_warp: Literal[True]) -> tuple[Tensor, Warp]: ...
    @overload
    def forward(self, x: Tensor, *, image: Tensor | None = None, return_warp: bool) -> Tensor | tuple[Tensor, Warp]: ...
    def forward(self, x: Tensor, *, image: Tensor | None = None, return_warp: bool = False) -> Tensor | tuple[Tensor, Warp]:
        """Rectify images.

        Args:
            x: Images (N, C, H, W).
            image: The images to sample, such as larger copies, (N, C', H', W'). None: x.
            return_warp: Also return the warp.

        Returns:
            (N, C, *size), or a pair of it and the warp.
        """
        with recording():
            warp: Warp = self.family(self.localize(x))
            y = warp.sample(x if image is None else image, self.size, padding_mode="border")
        return (y, warp) if return_warp else y

    def __prepare_scriptable__(self) -> None:
        refuse_script(self)

    def extra_repr(self) -> str:
        return f"size={self.size}, half_pixel_flaw={self.half_pixel_flaw}"


class LocalizationNetwork(nn.Module):
    """Four convolutions, a mean over the image, two dense layers: (N, C, H, W) -> (N, 2 F)."""

    def __init__(self, control_points: int, in_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((in_channels, 64, 128, 256), (64, 128, 256, 512), strict=True):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
        self.conv = nn.Sequential(*layers[:-1], nn.AdaptiveAvgPool2d(1))
        self.localization_fc1 = nn.Sequential(nn.Linear(512, 256), nn.ReLU())
        self.localization_fc2 = nn.Linear(256, 2 * control_points)
        x = torch.linspace(-1, 1, control_points // 2)
        rising = torch.stack([torch.cat([x, x]), torch.cat([-(x + 1) / 2, (1 - x) / 2])], dim=-1)
        nn.init.zeros_(self.localization_fc2.weight)
        self.localization_fc2.bias.data.copy_(rising.flatten())

    def forward(self, x: Tensor) -> Tensor:
        features = self.localization_fc1(self.conv(x).flatten(1))
        with unrounded(x.device):
            theta: Tensor = self.localization_fc2(features.to(self.localization_fc2.weight.dtype))
        return theta


class GridGenerator(nn.Module):
    """Buffers that the benchmark's own code stores with the weights. This library takes their content from the family.

    inv_delta_C: the inverse of ((1, C, U(C)), (0, 0, C^T), (0, 0, 1)) over control points C. P_hat: (1, P, U(P)) at the
    pixels P of the output. U(r) = r^2 log r.
    """

    inv_delta_C: Tensor  # (F + 3, F + 3)
    P_hat: Tensor  # (H W, F + 3)

    def __init__(self, points: Tensor, size: Sequence[int]) -> None:
        super().__init__()
        pixels = lattice(size, dtype=points.dtype).flatten(0, 1)
        system = torch.cat([_functions(points, points), points.new_zeros(3, len(points) + 3)])
        system[-3:, 3:] = torch.cat([points, torch.ones_like(points[:, :1])], dim=1).T
        self.register_buffer("inv_delta_C", torch.linalg.inv(system).float())
        self.register_buffer("P_hat", _functions(pixels, points).float())


def load_benchmark_rectifier(
    checkpoint: Path | str | Mapping[str, Tensor], size: int | Sequence[int] = SIZE, *, half_pixel_flaw: bool = False
) -> BenchmarkRectifier:
    """Load the rectifier of a checkpoint of `deep-text-recognition-benchmark` (any of its TPS-.. models).

    Other parts of the model are left out. The numbers of control points and of colors follow from the weights.

    Args:
        checkpoint: Path of the file, or its state dict.
        size: Size (H, W) of the rectified images in pixels. The checkpoint's buffers must agree with it.
        half_pixel_flaw: Sample as the published weights were trained: see `BenchmarkRectifier`.

    Returns:
        The rectifier, in evaluation mode.

    Raises:
        InputError: The checkpoint cannot be read, lacks weights, or contains others than expected; the message names
            them.

    Example:
        >>> from stn.models import BenchmarkRectifier, load_benchmark_rectifier
        >>> weights = BenchmarkRectifier(control_points=12).state_dict()  # or the path of a checkpoint
        >>> state = {f"module.Transformation.{name}": value for name, value in weights.items()}
        >>> load_benchmark_rectifier(state, half_pixel_flaw=True).family
        ThinPlateSpline(control_points=<12 points>, smoothing=0.0, parameters='positions')
    """
    state = _rectifier_state(_read(Path(checkpoint)) if isinstance(checkpoint, Path | str) else checkpoint)
    first, last = (state.get(f"LocalizationNetwork.{name}") for name in ("conv.0.weight", "localization_fc2.bias"))
    if first is None or last is None or first.ndim != 4 or last.ndim != 1 or len(last) % 4:
        _check.fail(f"checkpoint must hold {PREFIX}LocalizationNetwork's weights; got {_some(state)}")
    rectifier = BenchmarkRectifier(
        size, control_points=len(last) // 2, in_channels=first.shape[1], half_pixel_flaw=half_pixel_flaw
    )
    _check_state(state, rectifier.state_dict(), rectifier.size)
    rectifier.load_state_dict(state)
    return rectifier.eval()


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        _check.fail(f"checkpoint must be a file; {path} does not exist")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes can raise anything
        _check.fail(f"checkpoint must be a complete file of torch.save with tensors only; {path} is not ({error})")
    if not isinstance(state, Mapping):
        _check.fail(f"checkpoint must hold a state dict; {path} holds a {type(state).__name__}")
    return state


def _rectifier_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the part of a state dict that belongs to the rectifier, with its names."""
    bare = {str(name).removeprefix("module."): value for name, value in state.items()}
    for name, value in bare.items():
        if name.startswith(PREFIX) and not isinstance(value, Tensor):
            _check.fail(f"checkpoint must hold tensors; {name} is a {type(value).__name__}")
    return {name.removeprefix(PREFIX): value for name, value in bare.items() if name.startswith(PREFIX)}


def _check_state(state: Mapping[str, Tensor], ours: Mapping[str, Tensor], size: Sequence[int]) -> None:
    missing, unknown = ours.keys() - state.keys(), state.keys() - ours.keys()
    if missing or unknown:
        _check.fail(
            "checkpoint must contain the weights of a TPS rectifier; "
            f"missing: {_some(missing)}; unexpected: {_some(unknown)}"
        )
    for name, value in ours.items():
        if state[name].is_floating_point() and not state[name].isfinite().all():
            _check.fail(f"checkpoint must hold finite weights; {PREFIX}{name} is not")
        if state[name].shape != value.shape:
            _check.fail(f"{PREFIX}{name} must be {tuple(value.shape)} for size={size}; got {tuple(state[name].shape)}")
        # 1e-4, because its radial functions are r^2 log(r + 1e-6) in float32.
        if name.startswith("GridGenerator.") and not torch.allclose(state[name].to(value), value, rtol=1e-4, atol=1e-4):
            _check.fail(f"{PREFIX}{name} must match control points on the two edges and size={size}; it does not")


def _some(names: Iterable[str]) -> str:
    some = sorted(names)
    return ", ".join(some[:3]) + (f" and {len(some) - 3} more" if len(some) > 3 else "") if some else "none"


def _functions(at: Tensor, points: Tensor) -> Tensor:  # (P, 2), (F, 2) -> (P, F + 3)
    """(1, x, y, U(|x - p_1|), .., U(|x - p_F|)): the order of the benchmark's buffers."""
    square = (at[:, None] - points).square().sum(dim=-1)
    return torch.cat([torch.ones_like(at[:, :1]), at, torch.xlogy(square, square) / 2], dim=-1)
