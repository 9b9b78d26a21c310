"""How a run is started in a Docker container, and what keeps that container from outliving its task. Standard library only."""

import os
import platform
import re
from pathlib import Path
from typing import Final

from jobs.contract import ImagePin
from launcher.allocation import Allocation
from launcher.engines import Command, NodeOptions, Start
from launcher.engines.contained import CODE, own_variables, variables
from launcher.process import run

RUN_LABEL: Final = "samebits.run"

LEASH: Final = """
import os, signal, sys
stops = {signal.SIGTERM, signal.SIGUSR2, signal.SIGINT}
signal.pthread_sigmask(signal.SIG_BLOCK, stops)
main = os.getpid()
if os.fork() == 0:
    if os.fork():
        os._exit(0)
    try:
        while data := os.read(0, 64):
            for number in data:
                if number in stops:
                    os.kill(main, number)
    finally:
        os.kill(-1, signal.SIGKILL)
        os._exit(0)
os.wait()
null = os.open(os.devnull, os.O_RDONLY)
os.dup2(null, 0)
os.execvp("python", ["python", *sys.argv[1:]])
"""
"""Runs in the container before the run takes its place: `python -I -S -c LEASH ARGUMENTS`.

The container is dockerd's child, not the task's: a SIGKILL of the task would leave it running, outside Slurm's sight. So its
standard input is a pipe that the task alone holds. A grandchild, init's by then, reads it: a byte is a signal for the run, which is
thus not lost while there is no container yet; its end is the end of everything here. The run itself starts with the stop signals
blocked, as with every engine."""


def command(pin: ImagePin, node: NodeOptions, start: Start) -> Command:
    """`docker run` of the image that is pinned, by its id."""
    name = re.sub(r"[^a-zA-Z0-9_.-]", "-", f"samebits-{start.run_id}-attempt-{start.attempt}")
    argv = ["docker", "run", "--rm", "--init", "--interactive", "--pull", "never", "--log-driver", "none"]
    argv += ["--name", name, "--label", f"{RUN_LABEL}={start.run_id}", "--hostname", _hostname()]
    argv += ["--user", f"{os.getuid()}:{os.getgid()}"]
    argv += [part for group in sorted(set(os.getgroups()) - {os.getgid()}) for part in ("--group-add", str(group))]
    argv += ["--read-only", "--tmpfs", "/tmp:rw,exec,nosuid,nodev,mode=1777"]  # noqa: S108 - in the container
    argv += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", start.network]
    argv += [*_limits(start.allocation), *_gpus(start.allocation, node)]
    for path, mode in start.mounts.items():
        argv += ["--mount", _mount(path, mode)]
    fixed = variables(start)
    argv += [part for variable, value in fixed.items() for part in ("--env", f"{variable}={value}")]
    argv += [part for variable in start.env for part in ("--env", variable)]
    argv += [
        "--workdir",
        str(CODE),
        "--entrypoint",
        "python",
        str(pin.layer),
        "-I",
        "-S",
        "-c",
        LEASH,
        *start.arguments,
    ]
    client = own_variables(
        "HOME", "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY"
    )
    return Command(tuple(argv), {**client, **start.env}, Path("/"), leash=True)


def _hostname() -> str:
    """The node's, for the record: a container's own would be a random number."""
    return re.sub(r"[^a-zA-Z0-9.-]", "-", platform.node())[:63].strip("-.") or "node"


def _limits(given: Allocation) -> list[str]:
    """A container is not in the job's cgroup: what Slurm gave must be said again."""
    found = []
    if given.cpus is not None:
        found += ["--cpus", str(given.cpus)]
    if given.cpu_set is not None:
        found += ["--cpuset-cpus", ",".join(map(str, sorted(given.cpu_set)))]
    if given.memory_bytes is not None:
        found += ["--memory", str(given.memory_bytes), "--memory-swap", str(given.memory_bytes)]
    # workers of a loader hand over batches in /dev/shm; it counts as memory
    return [*found, "--shm-size", str(given.memory_bytes or 8 << 30)]


def _gpus(given: Allocation, node: NodeOptions) -> list[str]:
    """Those of the job, and no others. Outside of Slurm (None) those that CUDA_VISIBLE_DEVICES names, which is none without it."""
    if not given.gpus:
        return []
    if node.gpus == "nvidia":
        return ["--gpus", f'"device={",".join(given.gpus)}"']
    if node.gpus == "cdi":
        return [part for gpu in given.gpus for part in ("--device", f"nvidia.com/gpu={gpu}")]
    return [part for gpu in given.gpus for part in ("--device", node.gpu_device.format(gpu))]


def _mount(path: Path, mode: str) -> str:
    """A field of CSV each, so that a path may hold a comma."""
    fields = ["type=bind", f"source={path}", f"target={path}", *(["readonly"] if mode == "ro" else [])]
    return ",".join(
        f'"{field.replace(chr(34), chr(34) * 2)}"' if re.search(r'[,"]', field) else field for field in fields
    )


def clean(run_id: str) -> None:
    """Remove the containers of a run on this node, running or not. Silent where there is no engine: then there is none."""
    listed = run(["docker", "ps", "--all", "--quiet", "--filter", f"label={RUN_LABEL}={run_id}"], timeout=30)
    if listed.ok and (left := listed.stdout.split()):
        run(["docker", "rm", "--force", "--volumes", *left], timeout=60)
