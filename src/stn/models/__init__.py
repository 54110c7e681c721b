"""The paper's networks, as builders."""

from stn.models.digits import MODELS, build, num_parameters

__all__ = ["MODELS", "build", "num_parameters"]
