"""The keeper: a child of the task that holds one container, so that a run in it gets signals, and ends, as one without.

The container is dockerd's child, outside Slurm's sight. What holds it is its standard input, which ends when this process does, and
this process is ended by the kernel with its task. In the container `docker_inner` waits for that end, and takes everything with it.

Not `docker run`: Slurm signals every process of a step, several times, and newer clients give up at the third SIGTERM, under a run
that saves (docker/cli#5171); one that comes before the container runs is lost. Here they are kept until somebody can take them."""

import contextlib
import json
import os
import resource
import select
import signal
import sys
from typing import TYPE_CHECKING, Any, Final

from jobs.contract import STOP_SIGNALS, Exit
from launcher.engines import docker_sdk
from launcher.errors import LaunchError

if TYPE_CHECKING:
    from docker import APIClient

START: Final = "SAMEBITS_START"
"""The variable with what is to be started, as JSON: {"create": arguments of create_container, "host": of create_host_config}."""
KEEPER_LABEL: Final = "samebits.keeper"
"""Which process holds the container, as `identity` names it."""
HEADER: Final = 8
"""Bytes before each block of output: the stream, three of nothing, the block's length."""
SIGNALLED: Final = 128


def identity(pid: int) -> str | None:
    """A process that is never mistaken for a later one of the same number; None where it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else f"{pid}.{fields[19].decode()}"


def main() -> int:
    """Exit code of the run, negative for the signal that it died of; SAVED where it was stopped before it began, UNFIT where this
    node's engine could not run it."""
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(
        wake, warn_on_full_buffer=False
    )  # each signal is a byte there, until the container can be told
    for number in STOP_SIGNALS:
        signal.signal(number, lambda _number, _frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    start = json.loads(os.environ.pop(START))
    start["create"]["labels"][KEEPER_LABEL] = identity(os.getpid())
    try:
        with docker_sdk.client() as engine:
            return _keep(engine.api, start, woken)
    except LaunchError as error:
        print(f"refused here: {error}", *filter(None, [error.evidence]), sep="\n", file=sys.stderr, flush=True)
        return Exit.UNFIT


def _keep(api: "APIClient", start: dict[str, Any], woken: int) -> int:
    host = api.create_host_config(**_host(start["host"]))
    container = api.create_container(host_config=host, **start["create"])["Id"]
    try:
        stream = api.attach_socket(container, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        # Asked before it starts: the answer comes when it has ended and is removed, however soon that is.
        url = f"{api.base_url}/v{api.api_version}/containers/{container}/wait"
        answer = api.post(url, params={"condition": "removed"}, stream=True, timeout=None)
        if select.select([woken], [], [], 0)[0]:
            print("stopped before the run began: nothing to save", file=sys.stderr, flush=True)
            _remove(api, container)
            return Exit.SAVED
        api.start(container)
    except BaseException:
        _remove(api, container)
        raise
    _pass_on(stream, woken)
    try:
        code = int(answer.json()["StatusCode"])
    except (OSError, ValueError, KeyError):
        print("refused here: the Docker engine ended under the run, and the run with it", file=sys.stderr, flush=True)
        return Exit.UNFIT
    return SIGNALLED - code if code > SIGNALLED else code


def _host(given: dict[str, Any]) -> dict[str, Any]:
    from docker.types import DeviceRequest, LogConfig, Mount

    mounts = [Mount(path, path, type="bind", read_only=mode == "ro") for path, mode in given["mounts"].items()]
    gpus = [DeviceRequest(**given["gpus"])] if given["gpus"] else None
    rest = {name: value for name, value in given.items() if name not in {"mounts", "gpus"}}
    return {
        **rest,
        "mounts": mounts,
        "device_requests": gpus,
        "log_config": LogConfig(type="none"),
        "auto_remove": True,
    }


def _remove(api: "APIClient", container: str) -> None:
    from docker.errors import APIError

    with contextlib.suppress(APIError):  # a failed start removes it by itself
        api.remove_container(container, force=True, v=True)


def _pass_on(stream: Any, woken: int) -> None:
    """Output from the container, signals into it, until it has ended."""
    from docker.utils.socket import read

    held = b""
    while True:
        ready, _, _ = select.select([stream, woken], [], [])
        if woken in ready:
            with contextlib.suppress(OSError):  # it has ended; that comes next
                _write(stream, os.read(woken, 64))
        if stream in ready:
            try:
                data = read(stream, 1 << 16)
            except OSError:
                return
            if not data:
                return
            held = _say(held + data)


def _write(stream: Any, data: bytes) -> None:
    """A few bytes to the container's standard input. A UNIX socket comes from the SDK as a file that only reads."""
    if hasattr(stream, "sendall"):
        stream.sendall(data)
    else:
        stream._sock.sendall(data)  # noqa: SLF001 - the SDK gives no other way


def _say(data: bytes) -> bytes:
    """Write every whole block; returns the rest. Both streams become one here, as the task has it."""
    while len(data) >= HEADER and len(data) >= (end := HEADER + int.from_bytes(data[4:HEADER], "big")):
        sys.stdout.buffer.write(data[HEADER:end])
        data = data[end:]
    sys.stdout.buffer.flush()
    return data


def end(code: int) -> None:
    """End as the run did: of the same signal, where it was one."""
    sys.stdout.flush()
    sys.stderr.flush()
    if code >= 0:
        os._exit(code)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if -code not in {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(-code, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [-code])
    os.kill(os.getpid(), -code)
    os._exit(SIGNALLED - code)
