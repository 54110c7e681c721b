"""The part of torchvision that `stn.vision` uses, with the behavior of version 0.23, for where it is not installed.

Classes of `tv_tensors` are subclasses of Tensor that lose their kind in operations, and `Transform` flattens a sample and
calls `make_params` once and `transform` for each tensor. Plain tensors are images if the sample has no `Image`.
"""

from __future__ import annotations

import enum
import sys
import types
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree


class TVTensor(Tensor):
    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


class Image(TVTensor):
    pass


class Video(TVTensor):
    pass


class Mask(TVTensor):
    pass


class BoundingBoxFormat(enum.Enum):
    XYXY = "XYXY"
    XYWH = "XYWH"
    CXCYWH = "CXCYWH"
    XYWHR = "XYWHR"
    CXCYWHR = "CXCYWHR"
    XYXYXYXY = "XYXYXYXY"


class BoundingBoxes(TVTensor):
    format: BoundingBoxFormat
    canvas_size: tuple[int, int]

    def __new__(cls, data: Any, *, format: BoundingBoxFormat | str, canvas_size: tuple[int, int]) -> BoundingBoxes:
        found = torch.as_tensor(data).as_subclass(cls)
        found.format = BoundingBoxFormat[format] if isinstance(format, str) else format
        found.canvas_size = canvas_size
        return found


class KeyPoints(TVTensor):
    canvas_size: tuple[int, int]

    def __new__(cls, data: Any, *, canvas_size: tuple[int, int]) -> KeyPoints:
        found = torch.as_tensor(data).as_subclass(cls)
        found.canvas_size = canvas_size
        return found


def wrap(wrappee: Tensor, *, like: Any, **kwargs: Any) -> Any:
    if isinstance(like, BoundingBoxes):
        size = kwargs.get("canvas_size", like.canvas_size)
        return BoundingBoxes(wrappee, format=kwargs.get("format", like.format), canvas_size=size)
    if isinstance(like, KeyPoints):
        return KeyPoints(wrappee, canvas_size=kwargs.get("canvas_size", like.canvas_size))
    return wrappee.as_subclass(type(like))


class Transform(nn.Module):
    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        raise NotImplementedError

    def forward(self, *inputs: Any) -> Any:
        flat, spec = pytree.tree_flatten(inputs if len(inputs) > 1 else inputs[0])
        plain_is_image = not any(isinstance(value, Image | Video) for value in flat)
        needed = []
        for value in flat:
            plain = isinstance(value, Tensor) and not isinstance(value, TVTensor)
            needed.append(isinstance(value, Tensor) and (not plain or plain_is_image))
            plain_is_image = plain_is_image and not plain
        params = self.make_params([value for value, need in zip(flat, needed, strict=True) if need])
        out = [self.transform(value, params) if need else value for value, need in zip(flat, needed, strict=True)]
        return pytree.tree_unflatten(out, spec)


def modules() -> dict[str, types.ModuleType]:
    """Return the modules under the names by which they are imported."""
    own = sys.modules[__name__]
    found = {name: types.ModuleType(name) for name in ("torchvision", "torchvision.transforms")}
    tensors, v2 = types.ModuleType("torchvision.tv_tensors"), types.ModuleType("torchvision.transforms.v2")
    for name in ("TVTensor", "Image", "Video", "Mask", "BoundingBoxFormat", "BoundingBoxes", "KeyPoints", "wrap"):
        setattr(tensors, name, getattr(own, name))
    v2.Transform = Transform  # type: ignore[attr-defined]  # a module made here
    found["torchvision"].tv_tensors = tensors  # type: ignore[attr-defined]  # likewise
    found["torchvision.transforms"].v2 = v2  # type: ignore[attr-defined]  # likewise
    for module in found.values():
        module.__spec__ = types.SimpleNamespace(name=module.__name__)  # type: ignore[assignment]  # find_spec reads it
        module.__path__ = []
    return found | {"torchvision.tv_tensors": tensors, "torchvision.transforms.v2": v2}
