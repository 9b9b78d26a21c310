"""A run that is being beaten, as its tree shows it: how far it is, what it is doing, which attempt is under way."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from jobs.rundir import RunDir
from launcher.attempts import AttemptRecord, attempts
from launcher.chaos.schedule import Blow, Course, Moment

TAIL: Final = 1 << 14


@dataclass(slots=True)
class Target:
    """One run. Reads are cheap enough to be repeated many times a second."""

    run: RunDir
    course: Course
    _seen: tuple[int, list[AttemptRecord]] = field(default=(-1, []))

    @property
    def seed(self) -> int:
        return self.run.seed

    @property
    def done(self) -> bool:
        return self.run.done.exists()

    def attempts(self) -> list[AttemptRecord]:
        size = self.run.events.stat().st_size if self.run.events.exists() else 0
        if size != self._seen[0]:
            self._seen = (size, attempts(self.run))
        return self._seen[1]

    def last(self) -> AttemptRecord | None:
        return self.attempts()[-1] if self.attempts() else None

    def alive(self) -> AttemptRecord | None:
        """The attempt under way; None between two."""
        last = self.last()
        return last if last is not None and last.ended is None and last.cause is None and last.number else None

    def step(self) -> int:
        """The last one of the ledger."""
        return int(_last_line(self.run.ledger).get("step", 0))

    def saving(self) -> bool:
        return any(self.run.checkpoints.glob(".*.tmp"))

    def doing(self) -> Moment:
        """What the run under way does at this moment, as far as its files tell."""
        attempt = self.alive()
        if attempt is None or attempt.first_step is None:
            return Moment.START
        if self.saving():
            return Moment.SAVE
        step = self.step()
        if step and step % self.course.per_epoch == 0 and _last_line(self.run.metrics_file).get("kind") == "train":
            return Moment.EVALUATION
        return Moment.STEP

    def is_time(self, blow: Blow, after: int) -> bool:
        """Whether the blow may fall. `after`: the attempt that the blow before has struck; none is struck twice."""
        attempt = self.alive()
        if attempt is None or attempt.number <= after:
            return False
        if blow.moment is Moment.START:
            return True
        if attempt.first_step is None:
            return False
        if blow.moment is Moment.SAVE:
            return self.step() > blow.step or (self.step() == blow.step and self.saving())
        return self.step() >= blow.step

    def ended(self, attempt: int) -> bool:
        """Whether this attempt is over, by anybody's word."""
        last = self.last()
        return self.done or (
            last is not None and (last.number > attempt or last.ended is not None or last.cause is not None)
        )


def _last_line(path: Path) -> dict[str, Any]:
    """The last whole line of a file of JSON lines; {} where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return {}
    try:
        found = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
