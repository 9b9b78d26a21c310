"""One attempt at a run, from its prepared model and data to the saved or finished state; knows neither transformers nor peft."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from jobs.checkpoint import Checkpoints
from jobs.contract import Exit
from jobs.determinism import deterministic_kernels, seed_everything, undisturbed
from jobs.feed import Batch, feed
from jobs.fence import Fence
from jobs.keeper import Keeper
from jobs.loop import Gauge, Parts, make_optimizer, train
from jobs.metrics import Display, Metrics, Tracker
from jobs.order import Course
from jobs.preemption import StopFlag
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


def attempt(specification: Specification, directory: RunDir, fence: Fence, work: Work, stop: StopFlag) -> Exit:
    """Resume, train, and save or finish: Exit.SAVED or Exit.DONE. Raises Refused, Fenced and Failed."""
    recipe, training, seed = specification.recipe, specification.recipe.training, specification.seed
    optimizer = make_optimizer(training, [p for p in work.model.parameters() if p.requires_grad])
    state = TrainingState(work.model, optimizer, work.device)
    # Building drew from the global generators, how often is the libraries' business: from here they are the seed's again.
    seed_everything(seed)
    checkpoints = Checkpoints(directory.checkpoints, recipe.checkpoints.keep, fence)
    course = Course(seed, len(work.rows), training.batch_size, training.accumulation, training.epochs)
    resumed = resume(specification, directory, fence, checkpoints, state, work.numerics, course.steps)
    progress = state.progress
    with undisturbed():
        tracker = work.open_tracker(progress.step)
    display = Display(course.steps, training.epochs, f"{directory.name} seed {seed}")
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
        position=progress.position,
    )

    def measure() -> Any:
        with deterministic_kernels(), undisturbed():
            return work.evaluate(stop)

    code = Exit.BROKEN
    try:
        parts = Parts(
            training=training,
            course=course,
            batches=_rest(work, course, state, recipe.data.workers),
            evaluate=measure,
            metrics=Metrics(resumed.logbook.metrics, tracker),
            ledger=resumed.logbook.ledger,
            display=display,
            gauge=work.gauge,
            save=keeper.save,
            look=keeper.look,
            every_steps=recipe.checkpoints.every_steps,
            stop=stop,
        )
        if train(state, parts):
            keeper.finish()
            code = Exit.DONE
        else:
            keeper.stop(stop)
            code = Exit.SAVED
    finally:
        display.close()
        work.gauge.close()
        keeper.close()
        if not directory.is_fenced(fence.attempt):
            tracker.close(code)
    return code


def _rest(work: Work, course: Course, state: TrainingState, workers: int) -> Iterator[Batch]:
    """The micro-batches from where the state stands."""
    done = state.progress
    return feed(work.rows, course, step=done.step, done=done.micro, workers=workers, collate=work.collate)
