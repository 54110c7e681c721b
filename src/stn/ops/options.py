"""The keywords of a sampling call, checked and parsed once to a `Sampling`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypedDict, TypeVar

from torch import Tensor, uint8

from stn import _check
from stn.ops.interpolation import INTERPOLATIONS, Kernel
from stn.ops.padding import PADDINGS
from stn.ops.pyramid import Pyramid
from stn.ops.sampling import Sampling

F = TypeVar("F", bound=Callable[..., Any])
ANTIALIAS, GRADIENT = (False, True, "anisotropic"), ("exact", "wide")


OPTIONS = """
        mode: nearest, bilinear (trilinear in 3-D), bicubic, catmull_rom, bspline, lanczos3, or a `stn.Kernel`.
        padding_mode: zeros, border, reflection or wrap.
        fill_value: The value outside the image with padding_mode="zeros": a number, or one per channel.
        align_corners: Whether -1 and 1 are the centers of the outer pixels (True) or their outer edges (False).
        antialias: True averages over the area that an output pixel covers where the image shrinks; "anisotropic" averages
            over the shorter axis of that area, with several samples along the longer one.
        gradient: "wide" gives theta a gradient from a larger neighborhood. No pixel changes.
        pyramid: `stn.Pyramid(image)`, to share it between several calls with antialias or gradient="wide".
"""  # formatted as entries of `Args`


class SamplingOptions(TypedDict, total=False):
    """The keywords that every sampling call accepts and passes on: see `OPTIONS`."""

    mode: str | Kernel
    padding_mode: str
    fill_value: float | Sequence[float] | Tensor
    align_corners: bool
    antialias: bool | str
    gradient: str


class CallOptions(SamplingOptions, total=False):
    """The keywords of a single call, which may include a pyramid."""

    pyramid: Pyramid | None


def parse(
    mode: str | Kernel = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
    antialias: bool | str = False,
    gradient: str = "exact",
) -> Sampling:
    """Parse the keywords. Raises: InputError, which names the option."""
    if not isinstance(mode, Kernel):
        _check.choice("mode", mode, INTERPOLATIONS)
    _check.choice("antialias", antialias, ANTIALIAS)
    _check.choice("gradient", gradient, GRADIENT)
    _check.choice("padding_mode", padding_mode, PADDINGS)
    interpolation = mode.interpolation if isinstance(mode, Kernel) else INTERPOLATIONS[mode]
    return Sampling(interpolation, PADDINGS[padding_mode], bool(align_corners), antialias, gradient)


parsed_before = lru_cache(maxsize=256, typed=True)(parse)  # for options with a hash; Dynamo warns of a cache


def shows_options(function: F) -> F:
    """Make `help` and `inspect.signature` list each option of `**options`, with its default and its description."""
    if function.__doc__ is not None:  # None under python -OO
        function.__doc__ = re.sub(r"\n *\*\*options: .*\n", lambda _: OPTIONS, function.__doc__)
    signature, defaults = inspect.signature(function), inspect.signature(parse).parameters
    known = {name: entry.default for name, entry in defaults.items()} | {"fill_value": 0.0, "pyramid": None}
    kinds = {name: kind.__forward_arg__ for name, kind in CallOptions.__annotations__.items()}
    options = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=known[n], annotation=kinds[n]) for n in kinds]
    *before, mask, _ = signature.parameters.values()
    setattr(function, "__signature__", signature.replace(parameters=[*before, *options, mask]))  # noqa: B010, mypy knows no such attribute
    return function


PARSED = frozenset(inspect.signature(parse).parameters)  # the options that `parse` takes


def check_options(options: SamplingOptions) -> None:
    """Raise an error for an invalid option, so that a layer fails when it is built and not at its first image."""
    _check.unknown("sampling options", options, SamplingOptions.__annotations__)
    parse(**{key: value for key, value in options.items() if key in PARSED})  # type: ignore[arg-type]  # as parse checks


def for_integers(image: Tensor, sampling: Sampling) -> Sampling:
    """Raise an error where integers other than bytes would be averaged. Nothing is differentiable in their samples."""
    if image.is_complex() or image.dtype == uint8:
        return sampling
    name = sampling.interpolation.name
    _check.mode_of_labels("mode", None if sampling.interpolation.rounds else name, image.dtype)
    _check.mode_of_labels("antialias", sampling.antialias, image.dtype)
    return sampling._replace(gradient="exact")


def reads_levels(sampling: Sampling) -> bool:
    """Return True if a call reads a pyramid, and not the image alone."""
    return bool(sampling.antialias) or sampling.gradient == "wide"
