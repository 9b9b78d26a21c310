"""What Slurm gave to a job on this node: CPUs, memory, GPUs. Standard library only."""

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Allocation:
    """None: no limit is known, as outside of Slurm."""

    cpus: int | None = None
    cpu_set: frozenset[int] | None = None
    """The CPUs that this process may use, where they are fewer than the machine has."""
    memory_bytes: int | None = None
    gpus: tuple[str, ...] | None = None
    """Numbers or UUIDs as the driver counts them on the whole node. () is: none."""


def allocation(environment: Mapping[str, str]) -> Allocation:
    """Of this process, as Slurm's variables and the kernel tell it."""
    inside = "SLURM_JOB_ID" in environment
    usable = frozenset(os.sched_getaffinity(0))
    cpus = _number(environment, "SLURM_CPUS_PER_TASK") or _number(environment, "SLURM_CPUS_ON_NODE")
    return Allocation(
        cpus=cpus if inside else None,
        cpu_set=usable if len(usable) < (os.cpu_count() or 1) else None,
        memory_bytes=_memory(environment, cpus) if inside else None,
        gpus=_gpus(environment, inside=inside),
    )


def _memory(environment: Mapping[str, str], cpus: int | None) -> int | None:
    """Slurm says MiB: per node, per CPU or per GPU. 0 is the whole node."""
    if node := _number(environment, "SLURM_MEM_PER_NODE"):
        return node << 20
    if (per_cpu := _number(environment, "SLURM_MEM_PER_CPU")) and cpus:
        return (per_cpu * cpus) << 20
    gpus = _gpus(environment, inside=True)
    if (per_gpu := _number(environment, "SLURM_MEM_PER_GPU")) and gpus:
        return (per_gpu * len(gpus)) << 20
    return None


def _gpus(environment: Mapping[str, str], *, inside: bool) -> tuple[str, ...] | None:
    """SLURM_STEP_GPUS counts over the whole node; CUDA_VISIBLE_DEVICES may count within the job's cgroup, from 0."""
    for name in ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "CUDA_VISIBLE_DEVICES"):
        value = environment.get(name)
        if value is not None:
            return tuple(part for part in value.split(",") if part and part != "NoDevFiles")
    return () if inside else None


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "")
    return int(text) if text.isdecimal() else None
