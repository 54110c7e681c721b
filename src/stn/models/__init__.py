"""The paper's networks, as builders."""

from stn.models.addition import ADDITION_MODELS, build_addition
from stn.models.alignment import ALIGNMENT_MODELS, build_alignment
from stn.models.colocalization import box_iou, boxes_of, build_colocalizer, build_encoder, random_places, triplet_loss
from stn.models.digits import MODELS, build, num_parameters
from stn.models.parts import PartsNetwork, build_parts, small_resnet
from stn.models.svhn import SVHN_MODELS, build_svhn
from stn.models.volumes import VOLUME_MODELS, build_volumes

__all__ = [
    "ADDITION_MODELS",
    "ALIGNMENT_MODELS",
    "MODELS",
    "PartsNetwork",
    "SVHN_MODELS",
    "VOLUME_MODELS",
    "box_iou",
    "boxes_of",
    "build",
    "build_addition",
    "build_alignment",
    "build_colocalizer",
    "build_encoder",
    "build_parts",
    "build_svhn",
    "build_volumes",
    "num_parameters",
    "random_places",
    "small_resnet",
    "triplet_loss",
]
