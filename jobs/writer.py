"""One piece of work at a time, done beside the training: the thread that writes checkpoints."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from jobs import preemption


class Writer:
    """At most one piece of work is under way; its outcome is asked for before the next is given.

    The thread has the stop signals blocked: else the system may hand one to it, and the call that the main thread waits in would
    not be interrupted; or, while the interpreter ends, it would be deadly."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint", initializer=preemption.block)
        self._under_way: Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether work is under way that is not done."""
        return self._under_way is not None and not self._under_way.done()

    def give(self, work: Callable[[], None]) -> None:
        """Begin `work`. What was given before must have been asked for."""
        if self._under_way is not None:
            raise RuntimeError("the outcome of the work before was not asked for")
        self._under_way = self._thread.submit(work)

    def outcome(self) -> None:
        """Wait for the end of what was given, if anything was. Raises what it raised."""
        given, self._under_way = self._under_way, None
        if given is not None:
            given.result()

    def close(self) -> None:
        """Wait for the end of what was given; what it raised was asked for, or is of no use any more."""
        self._thread.shutdown(wait=True)
