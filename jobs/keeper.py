"""Saves the state of a run when it is due, when it was asked to stop, and at its end with the done marker (R6 to R8)."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.checkpoint import Checkpoints, Manifest, Position, file_name
from jobs.contract import Event
from jobs.errors import FULL, Failed
from jobs.fence import Fence
from jobs.files import append_line, now, publish_json
from jobs.ledger import Ledger, digest
from jobs.linefile import LineFile
from jobs.order import Course
from jobs.preemption import StopFlag
from jobs.recipe import Specification
from jobs.rundir import RunDir
from jobs.state import TrainingState

FORMAT = 1
"""Version of a checkpoint's content."""


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
        }

    def sync(self) -> None:
        self.metrics.sync()
        self.lines.sync()

    def close(self) -> None:
        self.metrics.close()
        self.lines.close()


@dataclass(slots=True)
class Keeper:
    """Of one attempt. `file` and `position` are those of the newest checkpoint that stands."""

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

    def save(self) -> None:
        """Publish the state as it is, unless it stands already. Raises OSError; the checkpoint before stands then."""
        progress = self.state.progress
        if progress.position == self.position:
            return
        loss, name = self._loss_and_name()
        best = self._after_epoch and progress.best_epoch == progress.epoch
        content = {
            "format": FORMAT,
            "experiment": self.specification.experiment,
            "seed": self.specification.seed,
            "epoch": progress.epoch,
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
        self.logbook.sync()
        self.checkpoints.save(
            content,
            name,
            lambda file, size, sha256: Manifest(
                file, size, sha256, progress.position, progress.epoch, loss, self.fence.attempt
            ),
            best=best,
        )
        self.file, self.position = name, progress.position

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

    def save_if_possible(self) -> None:
        """A disk without room is no reason to stop: the last good checkpoint stands, and the next one may fit."""
        try:
            self.save()
        except OSError as error:
            if error.errno not in FULL:
                raise
            step = self.state.progress.step
            self.say(f"WARNING: no checkpoint at step {step}: {error}. Training goes on; {self._standing()}")
            with suppress(OSError):  # the events lie on the same disk
                self._event(Event.UNSAVED, checkpoint=self.file, reason=str(error))

    def stop(self, stop: StopFlag) -> None:
        """Save where the state is at rest, and say how long it took. Raises Failed when it cannot be saved."""
        self._save_or_fail(f"asked to stop by {stop.signal}")
        seconds = round(time.monotonic() - stop.since, 3)
        with suppress(OSError):  # the checkpoint stands: a disk that it filled must not make a crash of it
            self._event(Event.SAVED, checkpoint=self.file, seconds=seconds)
        self.say(
            f"{stop.signal}: {self._standing()}, {seconds:.2f} s after the signal; the same command goes on from there"
        )

    def finish(self) -> None:
        """Make sure that the last state is saved, then set the done marker. Raises Failed when it cannot be."""
        progress = self.state.progress
        self._save_or_fail("finished")
        self.fence()
        publish_json(
            self.directory.done,
            {
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
            },
        )
        self.say(f"done after {progress.step} steps: {self.file}")

    def _save_or_fail(self, when: str) -> None:
        try:
            self.save()
        except OSError as error:
            raise Failed(f"{when}, but the state cannot be saved: {error}; {self._standing()}") from error

    def _standing(self) -> str:
        if self.file is None:
            return "no checkpoint stands, the run begins from the start"
        return f"{Path(self.file).name} (step {self.position.step}) stands"

    def _event(self, event: Event, **fields: Any) -> None:
        head = {"event": event, "attempt": self.fence.attempt, "time": now(), "step": self.state.progress.step}
        append_line(self.directory.events, {**head, **fields})
