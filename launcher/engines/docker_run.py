"""How a run is started in a Docker container, and what an earlier start left on this node. Standard library only at import."""

import json
import os
import platform
import re
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import launcher
from jobs.contract import ImagePin
from launcher.allocation import Allocation
from launcher.engines import Command, NodeOptions, Start, docker_sdk
from launcher.engines.contained import CODE, own_variables, variables
from launcher.engines.docker_keeper import KEEPER_LABEL, START, identity
from launcher.errors import LaunchError

RUN_LABEL: Final = "samebits.run"
KEEPER: Final = """\
import sys
sys.path.insert(0, sys.argv[1])
from launcher.engines import docker_keeper
docker_keeper.end(docker_keeper.main())
"""
"""Executed as `python -I -c KEEPER PLACE RUN ATTEMPT`: the launcher comes from where this one does, its pinned bundle. Run and
attempt are for people who look at `ps`."""
CLIENT: Final = ("HOME", "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY")
NVIDIA: Final = Path("/dev/nvidiactl")
"""Is there where a machine has GPUs of NVIDIA's."""
CLEAN_SECONDS: Final = 30
"""An engine that hangs must not hold up what waits for it."""
SHARED_BYTES: Final = 8 << 30
"""Of shared memory, where the job has no limit: Docker's own 64 MiB are too few for the workers of a loader."""


def command(pin: ImagePin, node: NodeOptions, start: Start) -> Command:
    """The keeper (docker_keeper.py), which starts the image that is pinned, by its id. What is to be started reaches it in its
    environment: neither variables of the run nor their values stand in an argv."""
    devices, gpus = _gpus(start.allocation, node)
    environment = {**variables(start), **start.env, **_seen(start.allocation, devices or gpus)}
    inner = files("launcher.engines").joinpath("docker_inner.py").read_text(encoding="utf-8")
    message = {
        "create": {
            "image": str(pin.layer),
            "name": _name(start),
            "labels": {RUN_LABEL: start.run_id, "samebits.attempt": str(start.attempt)},
            "entrypoint": ["python", "-I", "-S", "-c", inner],
            "command": list(start.arguments),
            "environment": environment,
            "working_dir": str(CODE),
            "user": f"{os.getuid()}:{os.getgid()}",
            "hostname": _hostname(),
            "stdin_open": True,
            "healthcheck": {"test": ["NONE"]},
        },
        "host": {
            "init": True,
            "read_only": True,
            "tmpfs": {"/tmp": "rw,exec,nosuid,nodev,mode=1777"},  # noqa: S108 - the container's own
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "network_mode": start.network,
            "group_add": [str(group) for group in sorted(set(os.getgroups()) - {os.getgid()})],
            "mounts": {str(path): mode for path, mode in start.mounts.items()},
            "devices": devices,
            "gpus": gpus,
            **_limits(start.allocation),
        },
    }
    place = Path(launcher.__file__).parents[1]  # the bundle, or the folder of an installed one
    argv = (sys.executable, "-I", "-c", KEEPER, str(place), start.run_id, str(start.attempt))
    return Command(argv, {**own_variables(*CLIENT), START: json.dumps(message)}, Path("/"))


def _name(start: Start) -> str:
    """One engine may serve several of a job's nodes, as on a machine that plays them all."""
    name = f"samebits-{start.run_id}-attempt-{start.attempt}" + (f"-node-{start.node}" if start.node else "")
    return re.sub(r"[^a-zA-Z0-9_.-]", "-", name)


def _hostname() -> str:
    """The node's, for the record: a container's own would be a random number."""
    return re.sub(r"[^a-zA-Z0-9.-]", "-", platform.node())[:63].strip("-.") or "node"


def _limits(given: Allocation) -> dict[str, Any]:
    """A container is not in the job's control group: what Slurm gave must be said again."""
    found: dict[str, Any] = {"shm_size": given.memory_bytes or SHARED_BYTES}  # it counts as memory
    if given.cpus is not None:
        found["nano_cpus"] = (
            min(given.cpus, os.cpu_count() or given.cpus) * 10**9
        )  # the engine refuses more than there are
    if given.cpu_set is not None:
        found["cpuset_cpus"] = ",".join(map(str, sorted(given.cpu_set)))
    if given.memory_bytes is not None:
        found |= {"mem_limit": given.memory_bytes, "memswap_limit": given.memory_bytes}
    return found


def _gpus(given: Allocation, node: NodeOptions) -> tuple[list[str], dict[str, Any] | None]:
    """Device files, and the request to the engine's GPU driver: the job's and no others; outside of Slurm all that there are."""
    if given.gpus == ():
        return [], None
    if node.gpus == "devices":
        if given.gpus is None:
            first = Path(node.gpu_device.format("[0-9]*"))
            return sorted(map(str, first.parent.glob(first.name))), None
        return [node.gpu_device.format(gpu) for gpu in given.gpus], None
    if given.gpus is None and not NVIDIA.exists():
        return [], None
    if node.gpus == "cdi":
        return [], {"driver": "cdi", "device_ids": [f"nvidia.com/gpu={gpu}" for gpu in given.gpus or ("all",)]}
    wanted = {"device_ids": list(given.gpus)} if given.gpus else {"count": -1}
    return [], {**wanted, "capabilities": [["gpu", "compute", "utility"]]}


def _seen(given: Allocation, shown: object) -> Mapping[str, str]:
    """What CUDA and NVIDIA's runtime are told. In the container its GPUs count from 0, whatever their numbers on the node are."""
    if not shown:
        # An image made for CUDA asks the runtime for all of them by itself.
        return {"NVIDIA_VISIBLE_DEVICES": "void", "CUDA_VISIBLE_DEVICES": ""}
    return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(len(given.gpus))))} if given.gpus else {}


def clean(run_id: str) -> None:
    """Remove containers of this run that nobody holds any more: whose keeper has ended. Silent where there is no engine: then there
    are none."""
    from docker.errors import APIError

    try:
        with docker_sdk.client(CLEAN_SECONDS) as engine:
            for found in engine.api.containers(all=True, filters={"label": f"{RUN_LABEL}={run_id}"}):
                holder = found["Labels"].get(KEEPER_LABEL, "")
                if identity(int(holder.partition(".")[0] or 0)) == holder:
                    continue
                try:
                    engine.api.remove_container(found["Id"], force=True, v=True)
                except APIError:  # being removed at this moment
                    continue
    except LaunchError:
        return
