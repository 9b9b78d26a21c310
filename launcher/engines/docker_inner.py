"""The program that a container begins with: starts the run, hands it the signals that the keeper passes on, ends with the leash.

Executed by the image's Python as `python -I -S -c TEXT ARGUMENTS`: standard library only, nothing of this project. docker-init is
its parent: once this program ends, however it ends, docker-init does, and with it every process in the container."""

import contextlib
import os
import select
import signal
import sys

STOPS = {signal.SIGTERM, signal.SIGUSR2, signal.SIGINT}
KILLS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")
"""Where the kernel counts what it killed for want of memory: control groups version 2, version 1."""


def main() -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    run = start()
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for known in (*STOPS, signal.SIGCHLD):
        signal.signal(known, lambda _number, _frame: None)
    signal.pthread_sigmask(
        signal.SIG_UNBLOCK, STOPS
    )  # `docker stop`, the engine's own end: the run is to hear of it, too
    status = ended(run)  # before there was a handler
    while status is None:
        ready, _, _ = select.select([0, woken], [], [])
        numbers = os.read(woken, 512) if woken in ready else b""
        if 0 in ready:
            said = os.read(0, 64)
            if not said:  # the keeper is gone, and with it the task: so must everything here
                return 137
            numbers += said
        for number in numbers:
            if number in STOPS:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(run, number)
        status = ended(run)
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGKILL and killed():
        print("Killed: the container reached the limit of its memory, which is the job's.", file=sys.stderr, flush=True)
    return code if code >= 0 else 128 - code


def start() -> int:
    """Start `python ARGUMENTS`. It inherits the mask: it lets the stop signals in once it can answer them."""
    run = os.fork()
    if run:
        return run
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        # Python ignores these in itself; a new program starts with the default.
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])  # noqa: S606 - the image's own Python
    except OSError as error:
        print(f"refused: {sys.executable} cannot be started: {error}", file=sys.stderr, flush=True)
    os._exit(78)  # Exit.REFUSED


def ended(run: int) -> "int | None":
    """The run's status, once it has ended. Its orphans are docker-init's."""
    pid, status = os.waitpid(run, os.WNOHANG)
    return status if pid else None


def killed() -> bool:
    for path in KILLS:
        with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:  # noqa: PTH123 - in a hurry to start
            for line in file:
                name, _, count = line.partition(" ")
                if name == "oom_kill" and int(count):
                    return True
    return False


if __name__ == "__main__":
    sys.exit(main())
