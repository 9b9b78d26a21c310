"""The fence: an attempt writes only while no newer attempt of its run was taken."""

import os

from jobs.contract import ATTEMPT_VARIABLE
from jobs.errors import Fenced
from jobs.rundir import RunDir


class Fence:
    """Called before each write. Raises Fenced once a newer attempt exists."""

    def __init__(self, run: RunDir, attempt: int) -> None:
        self._run, self.attempt = run, attempt

    def __call__(self) -> None:
        if self._run.is_fenced(self.attempt):
            raise Fenced(
                f"attempt {self.attempt} was overtaken by attempt {max(self._run.attempts())}; it writes nothing more"
            )


def take_attempt(directory: RunDir) -> int:
    """The number that the task took for us, or, started by hand, the next one."""
    given = os.environ.get(ATTEMPT_VARIABLE, "")
    return int(given) if given.isdecimal() else directory.take_attempt()
