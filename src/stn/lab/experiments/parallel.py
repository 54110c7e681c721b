"""Data-parallel training: one process per device, with the same result as one process with the whole batch."""

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
    """Return processes per machine, and machines: from `torchrun` if it started this process, otherwise as given."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return asked, 1
    here, everywhere = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    return here, everywhere // here


def process_lost(error: RuntimeError) -> bool:
    """Return True if an error means that another process has ended. gloo has no special class for it."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def leave_process_group() -> None:
    """Destroy the process group at the end of a run, when nothing refers to its training any more.

    Without it, the threads of gloo abort the interpreter at its exit on a busy machine one time in four: they hold a tensor
    and wait for the lock that frees Python objects. For the same reason no other object may keep the group alive. Fabric
    does this only for nccl.
    """
    if dist.is_available() and dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()


class _Mean(Function):
    """Mean over all processes. The gradient is reduced too, because the mean is part of the loss of each process."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        mean = value / dist.get_world_size()
        dist.all_reduce(mean)
        return mean

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Mean.forward(ctx, gradient)


class SharedBatchNorm(_BatchNorm):
    """Batch norm over the batches of all processes, of equal size. SyncBatchNorm of PyTorch works only on GPUs."""

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
        # Not the mean of squares minus the square of the mean, which suffers from cancellation.
        variance: Tensor = _Mean.apply(own_variance + (own_mean - mean).square())
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
            assert self.momentum is not None  # a running mean, as in the networks of the paper
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * (variance + self.eps).rsqrt()
        shape = (-1, *[1] * (input.ndim - 2))
        return (x * scale.view(shape) + (self.bias - mean * scale).view(shape)).to(input.dtype)


def share_batch_norm(network: nn.Module, device: torch.device) -> nn.Module:
    """Return the network with batch norm over all processes and unchanged names of weights."""
    if device.type != "cpu":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for parent in list(network.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, _BatchNorm):
                shared = SharedBatchNorm(module.num_features, module.eps, module.momentum)
                shared.load_state_dict(module.state_dict())
                setattr(parent, name, shared)
    return network
