"""Data-parallel training: one process a device, which together do what one process would do with the whole batch."""

from __future__ import annotations

import gc
import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.modules.batchnorm import _BatchNorm


def processes(asked: int) -> tuple[int, int]:
    """Processes a machine, and machines: as `torchrun` says if it started this one, else as asked."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return asked, 1
    here, everywhere = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    return here, everywhere // here


def process_lost(error: RuntimeError) -> bool:
    """Whether an error tells that another process is no more. gloo raises no kind of its own."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def leave_process_group() -> None:
    """End it, once nothing holds what was trained in it: to be called where a run has come to its end.

    Left to the end of the interpreter, gloo's threads abort it on a busy machine one time in four: they still hold a tensor,
    and wait for the lock that frees Python's objects. For the same reason no other object may be the last to hold the group.
    Fabric does this for nccl alone.
    """
    if dist.is_available() and dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()


class _Mean(Function):
    """Over all processes. So is its gradient: the mean is part of each one's loss."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        mean = value / dist.get_world_size()
        dist.all_reduce(mean)
        return mean

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Mean.forward(ctx, gradient)


class SharedBatchNorm(_BatchNorm):
    """Batch norm over the batches of all processes, of equal size. PyTorch's own does this on GPUs alone."""

    def _check_input_dim(self, input: Tensor) -> None:  # any number of dimensions
        return

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        dims = (0, *range(2, input.ndim))
        x = input.float()
        count = x.numel() // x.shape[1] * dist.get_world_size()
        own_variance, own_mean = torch.var_mean(x, dims, correction=0)  # (C,), (C,)
        mean: Tensor = _Mean.apply(own_mean)
        # Not the mean of squares less the square of the mean, which cancel.
        variance: Tensor = _Mean.apply(own_variance + (own_mean - mean).square())
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
            assert self.momentum is not None  # a running mean, as the paper's networks have it
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * (variance + self.eps).rsqrt()
        shape = (-1, *[1] * (input.ndim - 2))
        return (x * scale.view(shape) + (self.bias - mean * scale).view(shape)).to(input.dtype)


def share_batch_norm(network: nn.Module, device: torch.device) -> nn.Module:
    """The network with batch norm over all processes, under the same names of weights."""
    if device.type != "cpu":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for parent in list(network.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, _BatchNorm):
                shared = SharedBatchNorm(module.num_features, module.eps, module.momentum)
                shared.load_state_dict(module.state_dict())
                setattr(parent, name, shared)
    return network
