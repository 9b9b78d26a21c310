"""What machine a run is on: processor, GPUs and their versions, kernel, Slurm (R11). What is not known has a reason."""

import os
import platform
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobs.contract import SLURM_VERSION_VARIABLE

if TYPE_CHECKING:
    import torch

JOB: Final = (
    "SLURM_JOB_ID",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_RESTART_COUNT",
    "SLURM_JOB_NAME",
    "SLURM_JOB_PARTITION",
    "SLURM_JOB_NODELIST",
    "SLURMD_NODENAME",
    "SLURM_CLUSTER_NAME",
)
"""What Slurm says of a job. No other variable of it is kept: some hold tokens."""


def gpu_versions() -> dict[str, dict[str, str | None]]:
    """CUDA, cuDNN and driver: `version`, or null and the `reason`. Whether or not this run uses a GPU."""
    import torch

    cudnn = torch.backends.cudnn.version() if torch.version.cuda else None  # type: ignore[no-untyped-call]
    no_build = "torch is built without CUDA"
    return {
        "CUDA": fact(torch.version.cuda, no_build),
        "cuDNN": fact(cudnn, no_build),
        "NVIDIA driver": fact(*driver()),
    }


def fact(version: Any, reason: str) -> dict[str, str | None]:
    """A version, or the reason why there is none."""
    return {"version": str(version), "reason": None} if version else {"version": None, "reason": reason}


def driver() -> tuple[str | None, str]:
    """Version of the NVIDIA driver, or None and the reason. NVML answers on any machine that has one."""
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            return str(pynvml.nvmlSystemGetDriverVersion()), ""
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        return None, f"NVML: {error}"


def cpu_model() -> str:
    """As the kernel names it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or "unknown"
    found = re.search(r"^(?:model name|Model|cpu model)\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.processor() or "unknown"


def processor() -> dict[str, Any]:
    """Model and capability of the CPU, and how much of it a run uses."""
    import torch

    return {
        "model": cpu_model(),
        "machine": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
    }


def gpus() -> list[dict[str, Any]]:
    """Those that this process sees: model, compute capability, memory in bytes, and the UUID that tells one card from another."""
    import torch

    found = []
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        found.append(
            {
                "model": card.name,
                "capability": f"{card.major}.{card.minor}",
                "memory_bytes": card.total_memory,
                "uuid": str(getattr(card, "uuid", "")) or None,
            }
        )
    return found


def node() -> str:
    """Its name: Slurm's, else the host's."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def of_rank(rank: int, device: "torch.device") -> dict[str, Any]:
    """Where one of several ranks is, and what it computes on."""
    import torch

    card = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    return {
        "rank": rank,
        "node": node(),
        "cpu": cpu_model(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": {"model": card.name, "uuid": str(getattr(card, "uuid", "")) or None} if card else None,
    }


def host() -> dict[str, Any]:
    """Kernel and names. Inside of a container the kernel is the node's, while the host name may be the container's own."""
    return {
        "kernel": f"{platform.system()} {platform.release()}",
        "build": platform.version(),
        "libc": " ".join(platform.libc_ver()),
        "host": socket.gethostname(),
        "node": node(),
    }


def slurm() -> dict[str, Any]:
    """Its version, as the task on the node asked it: there is no Slurm within an image. And the job, by Slurm's own names."""
    inside = os.environ.get("SLURM_JOB_ID") is not None
    reason = "the task could not ask: scontrol --version" if inside else "not run by Slurm"
    version = fact(os.environ.get(SLURM_VERSION_VARIABLE), reason)
    return {**version, **{name: os.environ.get(name) for name in JOB}}
