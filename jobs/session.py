"""One attempt at a run, from its prepared model and data to the saved or finished state; knows neither transformers nor peft."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from jobs.checkpoint import Checkpoints
from jobs.contract import Exit
from jobs.determinism import deterministic_kernels, seed_everything, undisturbed
from jobs.feed import Batch, feed
from jobs.fence import Fence
from jobs.follower import Follower, restore
from jobs.keeper import Keeper
from jobs.loop import Book, Gauge, Parts, Shown, make_optimizer, train
from jobs.metrics import Display, Metrics, Tracker
from jobs.microbatch import MicroBatches
from jobs.order import Course
from jobs.preemption import StopFlag
from jobs.ranks import ALONE, Ranks
from jobs.recipe import Specification
from jobs.resume import resume
from jobs.rundir import RunDir
from jobs.state import TrainingState


class ClosableTracker(Tracker, Protocol):
    """See `jobs/trackers`."""

    def close(self, exit_code: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Work:
    """What a recipe comes to on this machine."""

    model: torch.nn.Module
    """On its device, with `requires_grad` set on what is trained."""
    device: torch.device
    rows: Any
    """To train on; has a length, and rows by index."""
    collate: Callable[[Sequence[Any]], Batch]
    evaluate: Callable[[Callable[[], bool]], Any]
    """The `loss`, `accuracy` and `rows` of the model as it is; None when the flag it is given was raised meanwhile."""
    numerics: Mapping[str, str]
    """What the bits depend on here."""
    open_tracker: Callable[[int], ClosableTracker]
    """Given the step that the run goes on from."""
    gauge: Gauge
    ranks: Ranks = ALONE


def attempt(specification: Specification, directory: RunDir, fence: Fence, work: Work, stop: StopFlag) -> Exit:
    """Resume, train, and save or finish: Exit.SAVED or Exit.DONE. Raises Refused, Fenced, Failed and PeerLost."""
    training, seed = specification.recipe.training, specification.seed
    optimizer = make_optimizer(training, [p for p in work.model.parameters() if p.requires_grad])
    state = TrainingState(work.model, optimizer, work.device)
    # Building drew from the global generators, how often is the libraries' business: from here they are the seed's again.
    seed_everything(seed)
    course = Course(seed, len(work.rows), training.batch_size, training.accumulation, training.epochs)
    going = Going(specification, directory, fence, work, stop, state, course)
    return _lead(going) if work.ranks.first else _follow(going)


@dataclass(frozen=True, slots=True)
class Going:
    """An attempt under way."""

    specification: Specification
    directory: RunDir
    fence: Fence
    work: Work
    stop: StopFlag
    state: TrainingState
    course: Course

    def parts(
        self,
        *,
        metrics: Book,
        ledger: Book,
        display: Shown,
        gauge: Gauge,
        save: Callable[[], None],
        look: Callable[[], None],
    ) -> Parts:
        """What the loop works with."""
        recipe, work, done = self.specification.recipe, self.work, self.state.progress
        batches = feed(
            work.rows,
            self.course,
            step=done.step,
            done=done.micro,
            workers=recipe.data.workers,
            collate=work.collate,
            ranks=work.ranks,
        )

        def measure() -> Any:
            with deterministic_kernels(), undisturbed():
                return work.evaluate(self.stop)

        return Parts(
            micro_batches=MicroBatches(recipe.training, self.course, batches, work.ranks),
            evaluate=measure,
            metrics=metrics,
            ledger=ledger,
            display=display,
            gauge=gauge,
            save=save,
            look=look,
            every_steps=recipe.checkpoints.every_steps,
            stop=self.stop,
        )


def _follow(going: Going) -> Exit:
    """As a rank that writes nothing."""
    file = going.work.ranks.from_first(None)
    restore(going.specification, going.directory, file, going.state)
    follower = Follower()
    parts = going.parts(
        metrics=follower,
        ledger=follower,
        display=follower,
        gauge=follower,
        save=follower.save,
        look=follower.look,
    )
    try:
        return Exit.DONE if train(going.state, parts) else Exit.SAVED
    finally:
        going.work.gauge.close()


def _lead(going: Going) -> Exit:
    """As the rank that writes: the only one, mostly."""
    specification, directory, fence, state = going.specification, going.directory, going.fence, going.state
    work, course, recipe = going.work, going.course, going.specification.recipe
    checkpoints = Checkpoints(directory.checkpoints, recipe.checkpoints.keep, fence)
    resumed = resume(specification, directory, fence, checkpoints, state, work.numerics, course.steps)
    work.ranks.from_first(resumed.file)
    with undisturbed():
        tracker = work.open_tracker(state.progress.step)
    display = Display(course.steps, recipe.training.epochs, f"{directory.name} seed {specification.seed}")
    keeper = Keeper(
        specification=specification,
        directory=directory,
        fence=fence,
        checkpoints=checkpoints,
        state=state,
        course=course,
        numerics=work.numerics,
        logbook=resumed.logbook,
        say=display.say,
        file=resumed.file,
        position=state.progress.position,
    )
    code = Exit.BROKEN
    try:
        parts = going.parts(
            metrics=Metrics(resumed.logbook.metrics, tracker),
            ledger=resumed.logbook.ledger,
            display=display,
            gauge=work.gauge,
            save=keeper.save,
            look=keeper.look,
        )
        if train(state, parts):
            keeper.finish()
            code = Exit.DONE
        else:
            keeper.stop(going.stop)
            code = Exit.SAVED
    finally:
        display.close()
        work.gauge.close()
        keeper.close()
        if not directory.is_fenced(fence.attempt):
            tracker.close(code)
    return code
