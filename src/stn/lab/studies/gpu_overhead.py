"""The processor time of the host code of a CUDA call, with the launch stubbed out. No GPU is needed.

    python -m stn.lab.studies.gpu_overhead [--rounds 200]

It calls `affine_sample` on tensors without memory, with a stand-in for Triton's driver whose launches do nothing. Kernels
are compiled for sm_90. It prints the least microseconds over rounds, because other work on the machine only adds to them.
PyTorch checks tensors without memory in Python, so a call with gradients also contains the cost of a node of autograd that
does nothing; that node is measured beside it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import stn
from stn.lab.bench.compiled import META, NoDevice
from stn.ops import dispatch, gpu


class Launcher:
    """Stands in for Triton's launcher."""

    def __init__(self, source: Any, metadata: Any) -> None:
        pass

    def __call__(self, *arguments: Any) -> None:
        pass


class Device(NoDevice):
    """A driver whose launches do nothing, and the part of it that loads machine code."""

    launcher_cls = Launcher

    @property
    def utils(self) -> Device:
        return self

    def load_binary(self, *arguments: Any) -> tuple[int, ...]:
        return 1, 1, 0, 0, 1024

    def get_device_properties(self, device: Any) -> dict[str, int]:
        return {"max_shared_mem": 2**17}

    def unload_module(self, module: Any) -> None:
        pass


class Nothing(torch.autograd.Function):
    """A node of autograd that makes the results of a call and computes nothing."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, theta: Tensor) -> Tensor:
        ctx.save_for_backward(image, theta)
        return torch.empty_like(image)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        image, theta = ctx.saved_tensors
        return torch.empty_like(image), torch.empty_like(theta)


def calls() -> dict[str, Callable[[], object]]:
    image, theta = torch.empty(32, 3, 224, 224, device=META), torch.empty(32, 2, 3, device=META)
    learned = image.clone().requires_grad_(), theta.clone().requires_grad_()
    weight = torch.empty_like(image)
    return {
        "forward": lambda: stn.affine_sample(image, theta),
        "forward and both gradients": lambda: torch.autograd.grad(stn.affine_sample(*learned), learned, weight),
        "a node that does nothing, both gradients": lambda: torch.autograd.grad(Nothing.apply(*learned), learned, weight),
    }


def microseconds(rounds: int, repeats: int = 50) -> dict[str, float]:
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    driver.set_active(Device(GPUTarget("cuda", 90, 32)))
    dispatch.KERNELS[META.type] = gpu
    dispatch.kernels_for = lambda rule, image, data, sampling: gpu  # meta counts as cuda
    best: dict[str, float] = {}
    for _ in range(rounds):
        for name, call in calls().items():
            call()
            start = time.process_time()
            for _ in range(repeats):
                call()
            best[name] = min(best.get(name, 1.0), (time.process_time() - start) / repeats)
    return {name: 1e6 * value for name, value in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    for name, value in microseconds(parser.parse_args().rounds).items():
        print(f"{name}: {value:.1f} us")


if __name__ == "__main__":
    main()
