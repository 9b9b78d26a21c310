"""The request to stop: a handler sets a flag, the loop asks for it. Standard library only; stands before any heavy import."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from jobs.contract import STOP_SIGNALS


class StopFlag:
    """Whether this process was asked to stop, by which signal, and when."""

    def __init__(self) -> None:
        self.signal: str | None = None
        self.since: float = 0.0
        """time.monotonic() of the first request."""

    def __call__(self) -> bool:
        return self.signal is not None

    def _raise(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self.since = signal.Signals(number).name, time.monotonic()

    def listen(self) -> "StopFlag":
        """Install the handlers, then let in what was blocked meanwhile. Returns itself."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._raise)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        return self


def block() -> None:
    """Hold the stop signals back for good, over an exec too: a handler does not survive it, a blocked signal does."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


@contextmanager
def blocked() -> Iterator[None]:
    """Hold the stop signals back for a while. A process started in it has them blocked for its whole life."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def deafen() -> None:
    """For loader workers: Slurm signals every process of a step, and a stop is their parent's business alone."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
