"""The first process in the container: starts the run, hands it the signals that the keeper passes on, reports how it ended.

Executed there as a file, by the image's Python with -I -S: standard library only, nothing of this project. As the first process of
a PID namespace it cannot be killed by a signal that comes before it is ready, and when it ends the kernel ends all that is left."""

import contextlib
import json
import os
import select
import signal
import socket
import sys
from typing import Any

SOCKET = "/samebits/keeper/socket"
STOPS = {signal.SIGTERM, signal.SIGUSR2, signal.SIGINT}
NOT_THE_RUNS = ("APPTAINER", "SINGULARITY", "PYTHON", "PIP_", "PS1", "PROMPT_COMMAND", "SAMEBITS", "PWD", "TERM")
"""Variables that Apptainer sets for its own sake, or that an image may not decide."""
DRIVER = "/.singularity.d/libs"
"""Where Apptainer puts the libraries of the node's driver."""
LENGTH = 8


def main() -> int:
    # Blocked for good: Slurm signals every process, and what it says to this one the keeper says once more.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    if os.getpid() != 1:
        print("refused: Apptainer made no PID namespace: processes could outlive their job.", file=sys.stderr)
        print("    In its apptainer.conf: allow pid ns = yes", file=sys.stderr)
        return 79  # Exit.UNFIT
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    with socket.socket(socket.AF_UNIX) as keeper:
        keeper.connect(SOCKET)
        run = start(json.loads(received(keeper)), [keeper.fileno(), woken, wake])
        while True:
            sources: list[socket.socket | int] = [keeper, woken]
            ready, _, _ = select.select(sources, [], [])
            if woken in ready:
                os.read(woken, 512)
                if (status := ended(run)) is not None:
                    report(keeper, status)
                    code = os.waitstatus_to_exitcode(status)
                    return code if code >= 0 else 128 - code
            if keeper in ready:
                numbers = keeper.recv(64)
                if not numbers:  # the keeper is gone, and with it the task: so must everything here
                    return 137
                for number in numbers:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(run, number)


def received(keeper: socket.socket) -> bytes:
    """A message: its length in eight bytes, then itself. Not a byte more is taken: a signal may have followed at once."""
    return exactly(keeper, int.from_bytes(exactly(keeper, LENGTH), "big"))


def exactly(keeper: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        block = keeper.recv(size - len(data))
        if not block:
            sys.exit(137)
        data += block
    return data


def start(message: dict[str, Any], inherited: list[int]) -> int:
    """Start `python ARGUMENTS`. It inherits the mask: it lets the stop signals in once it can answer them."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(NOT_THE_RUNS) and name != "OLDPWD"
    }
    libraries = [part for part in environment.pop("LD_LIBRARY_PATH", "").split(":") if part]
    libraries = [part for part in libraries if part != DRIVER or message["driver"]]
    if libraries:
        environment["LD_LIBRARY_PATH"] = ":".join(libraries)
    environment |= message["environment"]
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for handle in inherited:
            os.close(handle)
        for number in (
            signal.SIGPIPE,
            signal.SIGXFSZ,
        ):  # Python ignores them in itself; a new program starts with the default
            signal.signal(number, signal.SIG_DFL)
        os.makedirs(environment["HOME"], exist_ok=True)
        os.chdir(message["folder"])
        os.execve(sys.executable, [sys.executable, *message["arguments"]], environment)
    except OSError as error:
        print(
            f"refused: {sys.executable} cannot be started in {message['folder']}: {error}", file=sys.stderr, flush=True
        )
    os._exit(78)  # Exit.REFUSED


def ended(run: int) -> int | None:
    """Reap what has ended, orphans of the run as well. The run's status, once it is among them."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == run:
                found = status
    return found


def report(keeper: socket.socket, status: int) -> None:
    with contextlib.suppress(OSError):
        keeper.sendall(b"%d\n" % status)


if __name__ == "__main__":
    sys.exit(main())
