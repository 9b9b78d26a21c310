"""The fence: an attempt writes only while no newer attempt of its run was taken."""

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
