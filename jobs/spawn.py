"""Starts the ranks of one node, hands them the stop signals, and makes one end of theirs. Standard library only: it is no rank."""

import ctypes
import math
import os
import resource
import signal
import subprocess
import sys
import time
from typing import Final

from jobs.contract import STOP_SIGNALS, Exit, worst
from jobs.layout import RANK_VARIABLE, Layout

WAIT_SECONDS: Final = 20.0
"""How long the ranks may outlive one that has failed: they notice at once, unless they are in the middle of something."""

PR_SET_PDEATHSIG: Final = 1


def supervise(layout: Layout) -> int:
    """Run this program once more for each rank of the node. Returns the exit code, or ends by the signal that ended a rank.

    The stop signals are blocked when this is called, and stay so: they are waited for."""
    libc, parent = ctypes.CDLL(None, use_errno=True), os.getpid()

    def die_with_parent() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was gone before
            os._exit(Exit.PEER)

    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    ranks = [
        subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:]],
            env={**os.environ, RANK_VARIABLE: str(rank)},
            preexec_fn=die_with_parent,  # noqa: PLW1509 - nothing else runs in this process
        )
        for rank in layout.of_node
    ]
    code = worst(_wait(ranks))
    if code < 0:
        _die_of(-code)
    return code


def _wait(ranks: "list[subprocess.Popen[bytes]]") -> list[int]:
    """Until all have ended. What has to be ended with SIGKILL, since it did not notice, counts as one that only followed."""
    deadline = math.inf
    late: set[int] = set()
    while True:
        codes = [rank.poll() for rank in ranks]
        left = [rank for rank, code in zip(ranks, codes, strict=True) if code is None]
        if not left:
            ends = zip(ranks, codes, strict=True)
            return [int(Exit.PEER) if rank.pid in late else int(code or 0) for rank, code in ends]
        if deadline == math.inf and any(code not in {None, Exit.DONE, Exit.SAVED} for code in codes):
            deadline = time.monotonic() + WAIT_SECONDS
        if time.monotonic() > deadline:
            late |= {rank.pid for rank in left}
            _send(left, signal.SIGKILL)
        # A second, should a child's end and the look at it have crossed
        found = signal.sigtimedwait([*STOP_SIGNALS, signal.SIGCHLD], 1.0)
        if found is not None and found.si_signo in STOP_SIGNALS:
            _send(left, found.si_signo)


def _send(ranks: "list[subprocess.Popen[bytes]]", number: int) -> None:
    for rank in ranks:
        rank.send_signal(number)


def _die_of(number: int) -> None:
    """End as the rank did, so that whoever waits for this process sees the same."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number not in {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    sys.stdout.flush()
    os.kill(os.getpid(), number)
