"""The paper's networks, as builders."""

from stn.models.addition import ADDITION_MODELS, build_addition
from stn.models.alignment import ALIGNMENT_MODELS, build_alignment
from stn.models.checkpoints import BenchmarkRectifier, load_benchmark_rectifier
from stn.models.colocalization import (
    Codes,
    box_iou,
    boxes_of,
    build_colocalizer,
    random_places,
    similarity_triplet_loss,
    triplet_loss,
)
from stn.models.digits import MODELS, build, num_parameters
from stn.models.parts import PartsNetwork, build_parts, small_resnet
from stn.models.svhn import SVHN_MODELS, build_svhn
from stn.models.text import TEXT_MODELS, build_text, text_rectifier
from stn.models.volumes import VOLUME_MODELS, build_volumes

__all__ = [
    "ADDITION_MODELS",
    "ALIGNMENT_MODELS",
    "BenchmarkRectifier",
    "Codes",
    "MODELS",
    "PartsNetwork",
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
    "build_svhn",
    "build_text",
    "build_volumes",
    "load_benchmark_rectifier",
    "num_parameters",
    "random_places",
    "similarity_triplet_loss",
    "small_resnet",
    "text_rectifier",
    "triplet_loss",
]
