"""Builders of the networks of the paper."""

from stn.lab.networks.addition import ADDITION_MODELS, build_addition
from stn.lab.networks.alignment import ALIGNMENT_MODELS, build_alignment
from stn.lab.networks.colocalization import (
    Codes,
    box_iou,
    boxes_of,
    build_colocalizer,
    random_places,
    similarity_triplet_loss,
    triplet_loss,
)
from stn.lab.networks.parts import PartsNetwork, build_parts, small_resnet
from stn.lab.networks.signs import SIGN_MODELS, build_signs
from stn.lab.networks.svhn import SVHN_MODELS, build_svhn
from stn.lab.networks.volumes import VOLUME_MODELS, build_volumes
from stn.models.digits import MODELS, build, num_parameters
from stn.models.lines import TEXT_MODELS, build_text

__all__ = [
    "ADDITION_MODELS",
    "ALIGNMENT_MODELS",
    "Codes",
    "MODELS",
    "PartsNetwork",
    "SIGN_MODELS",
    "SVHN_MODELS",
    "TEXT_MODELS",
    "VOLUME_MODELS",
    "box_iou",
    "boxes_of",
    "build",
    "build_addition",
    "build_alignment",
    "build_colocalizer",
    "build_parts",
    "build_signs",
    "build_svhn",
    "build_text",
    "build_volumes",
    "num_parameters",
    "random_places",
    "similarity_triplet_loss",
    "small_resnet",
    "triplet_loss",
]
