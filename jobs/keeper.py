"""Saves the state of a run: behind the training when due, at once on a stop, at the end with the done marker (R6 to R8)."""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from jobs.checkpoint import Checkpoints, Manifest, Position, file_name
from jobs.checksum import digest
from jobs.contract import Event
from jobs.errors import PASSING, Failed
from jobs.fence import Fence
from jobs.files import append_line, now, publish_new
from jobs.ledger import Ledger
from jobs.linefile import LineFile
from jobs.order import Course
from jobs.preemption import StopFlag
from jobs.recipe import Specification
from jobs.rundir import RunDir
from jobs.state import TrainingState
from jobs.writer import Writer

FORMAT = 1
"""Version of a checkpoint's content."""

WORTH_TELLING: Final = 1.0
"""Seconds that training waits for a checkpoint before it says so."""


@dataclass(slots=True)
class Logbook:
    """The two files that grow with the steps, cut back to where the state stands."""

    metrics: LineFile
    lines: LineFile
    ledger: Ledger

    def marks(self) -> dict[str, Any]:
        """What a checkpoint says of them."""
        return {
            "metrics": asdict(self.metrics.mark()),
            "ledger": asdict(self.lines.mark()),
            "head": self.ledger.head,
            "crossed": list(self.ledger.crossed),
        }

    def flush(self) -> None:
        """Write what waits. Raises OSError when it does not fit."""
        self.metrics.flush()
        self.lines.flush()

    def sync(self) -> None:
        """Make durable what was written; beside the training. Raises OSError."""
        self.metrics.sync()
        self.lines.sync()

    def close(self) -> None:
        self.metrics.close()
        self.lines.close()


@dataclass(frozen=True, slots=True)
class _Written:
    """A checkpoint that was given to the writer."""

    name: str
    position: Position


@dataclass(slots=True)
class Keeper:
    """Of one attempt. `file` and `position` are those of the newest checkpoint that stands.

    What is saved is copied at the boundary where it is due; it is written behind the training, one checkpoint at a time. When the
    next is due before that is done, training waits: none is left out, and a death without notice costs at most the interval and
    what was done while one checkpoint was being written."""

    specification: Specification
    directory: RunDir
    fence: Fence
    checkpoints: Checkpoints
    state: TrainingState
    course: Course
    numerics: Mapping[str, str]
    logbook: Logbook
    say: Callable[[str], None]
    file: str | None
    position: Position
    _writer: Writer = field(default_factory=Writer)
    _written: _Written | None = None
    _waited: bool = False

    def save(self) -> None:
        """A checkpoint is due: copy the state, and begin to write it.

        A disk without room is no reason to stop: the last good checkpoint stands, and the next one may fit. Raises Fenced, and
        OSError for what will not pass."""
        if self._writer.busy:
            started = time.monotonic()
            self._survive(self._outcome())
            self._tell_waiting(time.monotonic() - started)
        else:
            self._survive(self._outcome())
        self._survive(self._begin())

    def look(self) -> None:
        """Between two steps: what became of the checkpoint being written is told as soon as it is known. Raises as `save`."""
        if self._written is not None and not self._writer.busy:
            self._survive(self._outcome())

    def _begin(self) -> OSError | None:
        """Give the state as it is to the writer, unless it stands already; what kept it from beginning."""
        progress = self.state.progress
        if progress.position == self.position:
            return None
        loss, name = self._loss_and_name()
        best = self._after_epoch and progress.best_epoch == progress.epoch
        self._written = _Written(name, progress.position)
        try:
            self.logbook.flush()
        except OSError as error:
            return error
        manifest = partial(
            Manifest, position=progress.position, epoch=progress.epoch, loss=loss, attempt=self.fence.attempt
        )
        content = self._content(loss, best=best)

        def write() -> None:
            self.logbook.sync()
            self.checkpoints.save(content, name, manifest, best=best)

        self._writer.give(write)
        return None

    def _content(self, loss: float, *, best: bool) -> dict[str, Any]:
        """All that a checkpoint holds. Nothing in it changes any more; its tensors last until the next call."""
        return {
            "format": FORMAT,
            "experiment": self.specification.experiment,
            "seed": self.specification.seed,
            "epoch": self.state.progress.epoch,
            "loss": loss,
            "best": best,
            "config": self.specification.recipe.model_dump(mode="json"),
            "commit": self.specification.commit,
            "code": self.specification.image.code,
            "attempt": self.fence.attempt,
            "numerics": {name: str(value) for name, value in self.numerics.items()},
            "logbook": self.logbook.marks(),
            **self.state.capture(),
        }

    def _outcome(self) -> OSError | None:
        """Wait for what is being written, if anything is: it stands now, or this is why it does not. Raises Fenced."""
        try:
            self._writer.outcome()
        except OSError as error:
            return error
        if self._written is not None:
            self.file, self.position = self._written.name, self._written.position
            self._written = None
        return None

    @property
    def _after_epoch(self) -> bool:
        """Whether the state is that of a finished and evaluated epoch: the checkpoint that R6 asks for."""
        progress = self.state.progress
        return (
            progress.micro == 0 and progress.epoch > 0 and progress.step == progress.epoch * self.course.steps_per_epoch
        )

    def _loss_and_name(self) -> tuple[float, str]:
        """After an epoch, and before the first step, the validation loss; in between that of the last step."""
        progress = self.state.progress
        evaluated = self._after_epoch or progress.step == 0
        loss = progress.val_loss if evaluated and progress.val_loss is not None else progress.last_loss
        position = None if self._after_epoch else progress.position
        return loss, file_name(self.directory.name, progress.epoch, loss, position)

    def _survive(self, error: OSError | None) -> None:
        """Say out loud that a checkpoint was not made, and go on; unless it will not pass."""
        if error is None:
            return
        self._unsaved(error, "Training goes on")
        if error.errno not in PASSING:
            raise error

    def _unsaved(self, error: OSError, then: str) -> None:
        position = self.state.progress.position if self._written is None else self._written.position
        self._written = None
        self.say(f"WARNING: no checkpoint at step {_place(position)}: {error}. {then}; {self._standing()}")
        with suppress(OSError):  # the events lie on the same disk
            self._event(Event.UNSAVED, position.step, reason=str(error))

    def _tell_waiting(self, seconds: float) -> None:
        if seconds > WORTH_TELLING and not self._waited:
            self._waited = True
            self.say(
                f"WARNING: training waited {seconds:.1f} s for the checkpoint before: it was still being written when the next "
                "was due. A larger checkpoints.every_steps avoids it. Not said again"
            )

    def stop(self, stop: StopFlag) -> None:
        """Finish what is being written, save where the state is at rest, and say how long it took. What cannot be saved is lost up
        to the last checkpoint that stands. Raises Failed when there is none."""
        error = self._save_now()
        if error is not None:
            when = f"asked to stop by {stop.signal}"
            if self.file is None:
                raise self._failed(when, error)
            self._unsaved(error, f"Stopping, {when}")
        seconds = round(time.monotonic() - stop.since, 3)
        with suppress(OSError):  # the checkpoint stands: a disk that it filled must not make a crash of it
            self._event(Event.SAVED, self.position.step, seconds=seconds)
        self.say(
            f"{stop.signal}: {self._standing()}, {seconds:.2f} s after the signal; the same command goes on from there"
        )

    def finish(self) -> None:
        """Make sure that the last state is saved, then set the done marker. Raises Failed when it cannot be."""
        progress = self.state.progress
        if (error := self._save_now()) is not None:
            raise self._failed("finished", error)
        self.fence()
        told = {
            "step": progress.step,
            "epoch": progress.epoch,
            "train_loss": progress.train_loss,
            "val_loss": progress.val_loss,
            "accuracy": progress.accuracy,
            "val_loss_before": progress.first_val_loss,
            "accuracy_before": progress.first_accuracy,
            "checkpoint": self.file,
            "sha256": digest(self.state.trainable),
            "attempt": self.fence.attempt,
            "time": now(),
        }
        # An older attempt that was overtaken just now may come here as well: the first word stays.
        publish_new(self.directory.done, (json.dumps(told, indent=2, ensure_ascii=False) + "\n").encode())
        self.say(f"done after {progress.step} steps: {self.file}")

    def close(self) -> None:
        """Let what is being written come to its end, and close the files that it counts on. Nothing is raised: what matters was
        asked for before."""
        self._writer.close()
        self.logbook.close()

    def _save_now(self) -> OSError | None:
        """Have the state as it is saved, now; why it is not."""
        if (error := self._outcome()) is not None:
            self._unsaved(error, "Trying the state as it is now")
        return self._begin() or self._outcome()

    def _failed(self, when: str, error: OSError) -> Failed:
        self._unsaved(error, "The run ends")
        failed = Failed(f"{when}, but the state cannot be saved: {error}; {self._standing()}")
        failed.__cause__ = error
        return failed

    def _standing(self) -> str:
        if self.file is None:
            return "no checkpoint stands, the run begins from the start"
        return f"{Path(self.file).name} (step {_place(self.position)}) stands"

    def _event(self, event: Event, step: int, **fields: Any) -> None:
        head = {"event": event, "attempt": self.fence.attempt, "time": now(), "step": step, "checkpoint": self.file}
        append_line(self.directory.events, {**head, **fields})


def _place(position: Position) -> str:
    """As in a checkpoint's name: ``120``, or ``120.2`` in an accumulation."""
    return f"{position.step}" + (f".{position.micro}" if position.micro else "")
