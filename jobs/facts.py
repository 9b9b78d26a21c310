"""What a run ran on: the facts that its bits depend on, and the record of where each of its attempts came from (R11, R13, R21).

Named facts only: the environment is never dumped, since it holds keys."""

import json
import os
import platform
import re
import socket
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobs import conda
from jobs.files import now, publish, publish_json

if TYPE_CHECKING:
    import torch

    from jobs.recipe import Specification
    from jobs.rundir import RunDir

LIBRARIES: Final = ("numpy", "transformers", "peft")
"""Beside torch, those whose code computes, or decides what is computed."""

PINS: Final = ("ATEN_CPU_CAPABILITY", "MKL_CBWR", "ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG")
"""Variables that change bits."""

JOB: Final = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT", "SLURMD_NODENAME")


def numerics(device: "torch.device") -> dict[str, str]:
    """The facts that change bits. Two runs of one specification with equal facts have equal bits; a checkpoint is not
    continued under others. On CUDA the CPU's class counts too: weights are drawn there."""
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
            "driver": str(driver()[0]),
            "cuda": str(torch.version.cuda),
            "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
            "tf32_matmul": str(torch.backends.cuda.matmul.allow_tf32),
            "tf32_cudnn": str(torch.backends.cudnn.allow_tf32),
        }
    return facts


def record(specification: "Specification", rundir: "RunDir", attempt: int) -> None:
    """Write provenance.json and pip-freeze.txt, and say the versions of R11 in the log. An attempt adds itself to those before.

    Raises OSError."""
    import torch

    versions = gpu_versions()
    said = ", ".join(f"{name} {fact['version'] or '(' + str(fact['reason']) + ')'}" for name, fact in versions.items())
    print(f"torch {torch.__version__}, {said}", flush=True)
    history, no_history = conda.export_history()
    rundir.artifacts.mkdir(parents=True, exist_ok=True)
    freeze = "".join(f"{package}\n" for package in packages())
    publish(rundir.artifacts / "pip-freeze.txt", freeze.encode())
    if history is not None:
        publish(rundir.artifacts / "conda-history.yml", history.encode())
    kept = {
        "experiment": specification.experiment,
        "seed": specification.seed,
        "commit": specification.commit,
        "dirty": specification.dirty,
        "config_sha256": specification.config_sha256,
        "image": {name: getattr(specification.image, name) for name in specification.image.__dataclass_fields__},
        "launched": specification.launched,
        "attempts": [*_former_attempts(rundir.provenance, attempt), _attempt(attempt, versions)],
        "packages": freeze.splitlines(),
        "conda": {"file": None if history is None else "conda-history.yml", "reason": no_history},
    }
    publish_json(rundir.provenance, kept)


def packages() -> list[str]:
    """Every installed distribution as `name==version`, sorted, each once."""
    found = {re.sub(r"[-_.]+", "-", d.name).lower(): d.version for d in metadata.distributions() if d.name}
    return sorted(f"{name}=={version}" for name, version in found.items())


def gpu_versions() -> dict[str, dict[str, str | None]]:
    """CUDA, cuDNN and driver: `version`, or null and the `reason`. Whether or not this run uses a GPU."""
    import torch

    def fact(version: Any, reason: str) -> dict[str, str | None]:
        return {"version": str(version), "reason": None} if version else {"version": None, "reason": reason}

    cudnn = torch.backends.cudnn.version() if torch.version.cuda else None  # type: ignore[no-untyped-call]
    no_build = "torch is built without CUDA"
    return {
        "CUDA": fact(torch.version.cuda, no_build),
        "cuDNN": fact(cudnn, no_build),
        "NVIDIA driver": fact(*driver()),
    }


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


def _attempt(number: int, versions: dict[str, dict[str, str | None]]) -> dict[str, Any]:
    """What may be another in each attempt: the machine."""
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "attempt": number,
        "time": now(),
        "command": sys.orig_argv,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **versions,
        "gpus": gpus,
        "cpu": cpu_model(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "pins": {name: os.environ.get(name) for name in PINS},
        "kernel": platform.release(),
        "host": socket.gethostname(),
        "node": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        "slurm": {name: os.environ.get(name) for name in JOB},
    }


def _former_attempts(path: Path, attempt: int) -> list[dict[str, Any]]:
    """Those of a record that is there already. One that cannot be read is set aside, not overwritten."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["attempts"]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError):
        path.replace(path.with_name(f"{path.stem}-before-attempt-{attempt}{path.suffix}"))
        return []
    return [one for one in found if one["attempt"] != attempt]
