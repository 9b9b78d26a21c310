"""The facts that the bits of a run depend on here. Two runs of one specification with equal facts have equal bits."""

import os
import platform
from importlib import metadata
from typing import TYPE_CHECKING, Final

from jobs import machine

if TYPE_CHECKING:
    import torch

LIBRARIES: Final = ("numpy", "transformers", "peft")
"""Beside torch, those whose code computes, or decides what is computed."""

PINS: Final = ("ATEN_CPU_CAPABILITY", "MKL_CBWR", "ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG")
"""Variables that change bits."""


def numerics(device: "torch.device", reduced_over: int | None = None) -> dict[str, str]:
    """The facts that change bits. Two runs of one specification with equal facts have equal bits; a checkpoint is not continued
    under others, unless the recipe has that marked. On CUDA the CPU's class counts too: weights are drawn there. `reduced_over`:
    so many nodes, where ranks add their gradients in the order of the network."""
    import torch

    facts = {
        "device": device.type,
        "torch": torch.__version__,
        **{name: metadata.version(name) for name in LIBRARIES},
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        **{name: os.environ.get(name, "unset") for name in PINS},
    }
    if device.type == "cuda":
        facts |= {
            "gpu": torch.cuda.get_device_name(device),
            "driver": str(machine.driver()[0]),
            "cuda": str(torch.version.cuda),
            "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
            "tf32_matmul": str(torch.backends.cuda.matmul.allow_tf32),
            "tf32_cudnn": str(torch.backends.cudnn.allow_tf32),
        }
    if device.type == "cuda" and reduced_over:  # gloo adds in an order of its own, whatever the nodes are
        nccl = torch.cuda.nccl.version()  # type: ignore[no-untyped-call]
        facts |= {"nccl": str(nccl), "nodes": str(reduced_over)}
    return facts
