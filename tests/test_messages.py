"""Each argument of each public function, given a value that it cannot take: the message is one short sentence.

It names the argument, and quotes at most a few numbers of a tensor.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import pytest
import torch

import stn

LONGEST = 300  # characters of a message
IMAGE, SIZE = torch.rand(2, 3, 8, 10), (8, 10)
POINTS = torch.tensor([[-0.5, -0.5], [0.5, -0.4], [0.1, 0.6], [-0.7, 0.3]])
KNOTS = stn.ThinPlateSpline().control_points
AFFINE = torch.tensor([[0.9, 0.1, 0.0, -0.1, 0.9, 0.1]]).expand(2, 6)
WARP = stn.Affine()(AFFINE)
BENT = stn.BSpline(shape=(5, 5)).make(0.05 * torch.ones(2, 50))
SPACE = stn.Space((8, 10))
BOXES = torch.tensor([[1.0, 2.0, 5.0, 6.0], [2.0, 1.0, 8.0, 7.0]])


def layer(kind: Any = stn.SpatialTransformer, **options: Any) -> Any:
    return kind.for_input((3, 8, 10), "affine", size=6, **options)


# name -> a function or method, and arguments that it takes
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "affine_sample": (stn.affine_sample, {"image": IMAGE, "theta": WARP.matrix, "size": SIZE, "fill_value": 0.0}),
    "projective_sample": (stn.projective_sample, {"image": IMAGE, "matrix": torch.eye(3), "size": SIZE}),
    "grid_sample": (stn.grid_sample, {"image": IMAGE, "grid": WARP.grid(SIZE)}),
    "sample_points": (stn.sample_points, {"image": IMAGE, "points": POINTS, "fill_value": 0.0}),
    "thin_plate_sample": (
        stn.thin_plate_sample,
        {"image": IMAGE, "coefficients": torch.zeros(2, len(KNOTS) + 3, 2), "control_points": KNOTS, "size": SIZE},
    ),
    "spatial_transformer_network": (
        stn.spatial_transformer_network,
        {"input_fmap": IMAGE.movedim(1, -1), "theta": AFFINE, "out_dims": SIZE},
    ),
    "splat": (stn.splat, {"values": IMAGE, "where": WARP.matrix, "size": SIZE, "weights": IMAGE[:, :1]}),
    "multi_scale_deformable_attention": (
        stn.multi_scale_deformable_attention,
        {
            "values": torch.rand(2, 20, 1, 4),
            "sizes": [(4, 5)],
            "locations": torch.rand(2, 3, 1, 1, 2, 2),
            "weights": torch.rand(2, 3, 1, 1, 2),
        },
    ),
    "Pyramid": (stn.Pyramid, {"image": IMAGE}),
    "from_boxes": (stn.from_boxes, {"boxes": BOXES, "in_size": SIZE, "format": "xyxy", "index": torch.tensor([0, 1])}),
    "from_corners": (stn.from_corners, {"points": 8 * torch.rand(2, 4, 2), "in_size": SIZE}),
    "from_pixel_matrix": (
        stn.from_pixel_matrix,
        {"matrix": torch.eye(2, 3)[None], "in_size": SIZE, "out_size": SIZE, "convention": "opencv"},
    ),
    "MatrixWarp": (stn.MatrixWarp, {"matrix": torch.eye(2, 3)[None]}),
    "MatrixWarp.to_pixel_matrix": (WARP.to_pixel_matrix, {"in_size": SIZE, "out_size": SIZE}),
    "MatrixWarp.inverse_points": (BENT.inverse_points, {"xy": POINTS}),
    "Warp.points": (WARP.points, {"xy": POINTS, "pixels": (SIZE, SIZE)}),
    "Warp.sample": (WARP.sample, {"image": IMAGE, "size": SIZE}),
    "Warp.grid": (WARP.grid, {"size": SIZE}),
    "Warp.jacobian": (WARP.jacobian, {"size": SIZE}),
    "Warp.fold_share": (BENT.fold_share, {"size": SIZE}),
    "Warp.write": (
        WARP.write,
        {"patches": IMAGE, "size": SIZE, "onto": torch.rand(2, 3, 8, 10), "alpha": IMAGE[:, :1]},
    ),
    "Warp.write, without onto": (WARP.write, {"patches": IMAGE, "size": SIZE}),
    "Warp.apply": (
        WARP.apply,
        {"image": IMAGE, "mask": IMAGE[:, 0].round(), "points": POINTS, "boxes": BOXES, "size": SIZE, "in_size": SIZE},
    ),
    **{
        f"{name}()": (family, {"theta": family.identity().expand(2, -1)})
        for name, family in ((kind, stn.transforms.family(kind)) for kind in stn.transforms.FAMILIES)
    },
    "Family.fit": (
        stn.Affine().fit,
        {"points": POINTS, "targets": POINTS, "weights": torch.ones(4), "pixels": (SIZE, SIZE)},
    ),
    "Affine.from_parts": (stn.Affine.from_parts, {"angle": torch.zeros(2), "translation": torch.zeros(2, 2)}),
    "Displacement.from_field": (stn.Displacement.from_field, {"field": torch.zeros(2, 8, 10, 2)}),
    "ThinPlateSpline": (stn.ThinPlateSpline, {"control_points": KNOTS}),
    "Bounded.constrain": (stn.bounded(stn.Affine(), translation=(-1, 1)).constrain, {"raw": AFFINE}),
    "Fixed.complete": (stn.Fixed(stn.Affine(), {"translation": 0.0}).complete, {"theta": AFFINE[:, :4]}),
    "SpatialTransformer": (layer(), {"x": IMAGE}),
    "SpatialTransformer(start)": (layer, {"start": torch.eye(2, 3)}),
    "SpatialTransformer(image)": (partial(layer(), IMAGE), {"image": IMAGE}),
    "InverseCompositionalTransformer": (layer(stn.InverseCompositionalTransformer), {"x": IMAGE}),
    "InverseCompositionalTransformer(image)": (partial(layer(stn.InverseCompositionalTransformer), IMAGE), {"image": IMAGE}),
    "off_image_loss": (stn.off_image_loss, {"warp": WARP, "size": SIZE}),
    "Space": (stn.Space, {"size": SIZE, "spacing": (1.0, 2.0), "origin": (0.0, 0.0), "direction": torch.eye(2)}),
    "Space.from_affine": (stn.Space.from_affine, {"affine": torch.eye(3), "size": SIZE}),
    "Space.to_mm": (SPACE.to_mm, {"points": POINTS}),
    "Space.to_normalized": (SPACE.to_normalized, {"points": POINTS}),
    "Space.resample": (SPACE.resample, {"volume": IMAGE, "source": SPACE}),
    "register": (
        stn.register,
        {
            "moving": IMAGE,
            "fixed": IMAGE,
            "moving_mask": IMAGE[:, :1] > 0,
            "landmarks": (POINTS, POINTS),
            "steps": 1,
            "levels": 1,
        },
    ),
    "text_edges": (stn.text_edges, {"count": 6, "margin": 0.1}),
}
many = torch.arange(4096.0)
WRONG: dict[str, Any] = {
    "integers": many.long().reshape(2, 2, 1024),
    "numbers": many,
    "image": many.reshape(4, 1, 32, 32),
    "many axes": many.reshape(2, 2, 2, 2, 2, 2, 64),
    "bool": many > 5,
    "complex": many.reshape(1, 4096) * 1j,
    "none": torch.zeros(0, 3),
    "list": many.tolist(),
    "nested list": many.reshape(4, 4, 256).tolist(),
    "array": many.double().reshape(64, 64).numpy(),
    "tensors": [many, many],
    "text": "a sentence. " * 100,
    "a number": 3.5,
}


def takes_tensors(found: Any) -> bool:
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return False
    return any("Tensor" in str(parameter.annotation) for parameter in parameters)


def test_every_public_function_of_tensors_is_tried() -> None:
    results = {"Applied", "Registration", "Volume", "Kernel"}  # they hold what others computed, or a function
    given = {name for name in stn.__all__ if takes_tensors(getattr(stn, name))} - results
    assert given <= {name.split("(")[0] for name in CALLS} | {"SharedTrunkTransformer"}  # it is made as its two bases are
    assert len(given) > 12


@pytest.mark.parametrize("name", CALLS)
def test_the_call_itself_passes(name: str) -> None:
    call, arguments = CALLS[name]
    call(**arguments)


def raised(call: Callable[..., Any], arguments: dict[str, Any]) -> Exception | None:
    try:
        call(**arguments)
    except Exception as error:
        return error
    return None


def wrong(names: Iterable[str], message: str) -> Iterator[str]:
    if len(message) > LONGEST:
        yield f"{len(message)} characters"
    if "\n" in message or re.search(r"tensor\([^)]*(,[^)]*){6}", message) or message.count(", ") > 60:
        yield "it prints numbers"
    if not any(re.search(rf"\b{re.escape(name)}\b", message) for name in names):  # two that do not fit: either is named
        yield "it names no argument"


LONG = {
    "it prints numbers": f"size must be an integer; got {many[:8]}",
    "501 characters": "size must be an integer".ljust(501, "."),
    "it names no argument": "unflatten: Provided sizes [2, 3] don't multiply up to the size_of dim 2",
}


@pytest.mark.parametrize("fault", LONG)
def test_a_message_that_is_wrong_is_seen(fault: str) -> None:
    assert list(wrong(["size"], LONG[fault])) == [fault]
    assert not list(wrong(["size"], "size must be an integer; got tensor([1, 2])"))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_value_gets_a_short_sentence(name: str) -> None:
    call, arguments = CALLS[name]
    faults = []
    for argument in arguments:
        for kind, value in WRONG.items():
            error = raised(call, arguments | {argument: value})
            if error is None:
                continue
            found = list(wrong(arguments, str(error)))
            if not isinstance(error, TypeError | stn.InputError):
                found.append("it is no error about an argument")
            faults += [f"{argument}={kind}: {fault}: {type(error).__name__}: {str(error)[:LONGEST]}" for fault in found]
    assert not faults, "\n".join(faults)
