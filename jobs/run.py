"""The program inside the image, top to bottom: from a run's specification to its finished tree."""

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from jobs import data, evaluate, facts, model, trackers
from jobs.checkpoint import FULL, Checkpoints, Found, Manifest, file_name
from jobs.contract import ATTEMPT_VARIABLE, Event, Exit
from jobs.determinism import make_deterministic, seed_everything
from jobs.errors import Refused
from jobs.feed import feed
from jobs.fence import Fence
from jobs.files import append_line, now, publish_json
from jobs.gpu import Gauge
from jobs.ledger import START, Ledger, steps
from jobs.linefile import LineFile
from jobs.loop import Parts, autocast, make_optimizer, train
from jobs.metrics import Display, Metrics
from jobs.order import Course
from jobs.preemption import StopFlag
from jobs.recipe import Specification
from jobs.rundir import RunDir
from jobs.state import TrainingState


def run(path: Path, stop: StopFlag) -> Exit:
    """Start, resume, or find nothing to do: one path. Raises Refused and Fenced."""
    specification, directory = read_specification(path)
    if directory.done.exists():
        print(f"{directory.name} seed {directory.seed}: done already")
        return Exit.DONE
    attempt = take_attempt(directory)
    fence = Fence(directory, attempt)
    device = pick_device(specification)
    seed_everything(specification.seed)
    make_deterministic(specification.recipe.numerics)
    facts.record(specification, directory, attempt)

    recipe, project = specification.recipe, Path(specification.project_root)
    corpus = data.load(recipe.data, project, model.tokenizer_source(recipe, project))
    network = model.build(recipe, specification.seed, corpus, project).to(device)
    optimizer = make_optimizer(recipe.training, [p for p in network.parameters() if p.requires_grad])
    state = TrainingState(network, optimizer, device)
    # Building drew from the global generators, how often is the libraries' business: from here they are the seed's again.
    seed_everything(specification.seed)
    checkpoints = Checkpoints(directory.checkpoints, recipe.checkpoints.keep, fence)
    logbook = resume(specification, directory, attempt, checkpoints, state)

    training = recipe.training
    course = Course(specification.seed, len(corpus.train), training.batch_size, training.accumulation, training.epochs)
    tracker = trackers.open_trackers(recipe.tracking, directory, specification, state.progress.step)
    display = Display(course.steps, training.epochs, f"{directory.name} seed {directory.seed}")
    gauge = Gauge(device)
    keeper = Keeper(specification, directory, attempt, checkpoints, state, logbook, display.say)

    def collate(examples: Any) -> dict[str, torch.Tensor]:
        return data.collate(examples, corpus.vocabulary.pad_id, recipe.data.max_length)

    def measure() -> evaluate.Evaluation | None:
        return evaluate.evaluate(
            network,
            corpus.validation,
            batch_size=recipe.evaluation.batch_size,
            collate=collate,
            device=device,
            autocast=lambda: autocast(training, device),
            stop=stop,
        )

    progress = state.progress
    parts = Parts(
        training=training,
        course=course,
        batches=feed(
            corpus.train, course, step=progress.step, done=progress.micro, workers=recipe.data.workers, collate=collate
        ),
        evaluate=measure,
        metrics=Metrics(logbook.metrics, tracker),
        ledger=logbook.ledger,
        display=display,
        gauge=gauge,
        save=keeper.save_if_possible,
        every_steps=recipe.checkpoints.every_steps,
        stop=stop,
    )
    code = Exit.BROKEN
    try:
        code = Exit.DONE if train(state, parts) else Exit.SAVED
        keeper.finish() if code is Exit.DONE else keeper.stop(stop)
    finally:
        display.close()
        gauge.close()
        tracker.close(code)
        logbook.close()
    return code


def read_specification(path: Path) -> tuple[Specification, RunDir]:
    try:
        specification = Specification.model_validate_json(path.read_bytes())
        directory = RunDir.of_specification(path)
    except (OSError, ValidationError, ValueError) as error:
        raise Refused(f"{path}: is not a run's specification: {error}") from error
    if (specification.experiment, specification.seed) != (directory.name, directory.seed):
        raise Refused(
            f"{path}: specifies seed {specification.seed} of {specification.experiment}, but lies in the tree of "
            f"seed {directory.seed} of {directory.name}"
        )
    for folder in directory.folders:
        folder.mkdir(parents=True, exist_ok=True)
    return specification, directory


def take_attempt(directory: RunDir) -> int:
    """The number that the task took for us, or, started by hand, the next one."""
    given = os.environ.get(ATTEMPT_VARIABLE, "")
    return int(given) if given.isdecimal() else directory.take_attempt()


def pick_device(specification: Specification) -> torch.device:
    if specification.recipe.numerics.device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise Refused("numerics.device is cuda, but torch finds no GPU here; ask for one: cluster: {gpus: 1}")
    return torch.device("cuda", 0)


@dataclass(slots=True)
class Logbook:
    """The two files that grow with the steps, cut back to where the state stands."""

    metrics: LineFile
    lines: LineFile
    ledger: Ledger

    def sync(self) -> None:
        self.metrics.sync()
        self.lines.sync()

    def close(self) -> None:
        self.metrics.close()
        self.lines.close()


def resume(
    specification: Specification, directory: RunDir, attempt: int, checkpoints: Checkpoints, state: TrainingState
) -> Logbook:
    """Bring `state` to the newest checkpoint that is whole, the logbook with it, and say so in the events."""
    checkpoints.clear_leftovers()
    found = checkpoints.newest(lambda kept: _shortened(directory, kept))
    reached = steps(directory.ledger)
    for skipped in found.skipped:
        print(f"WARNING: skipping the damaged checkpoint {skipped['file']}: it {skipped['reason']}", flush=True)
    book: dict[str, Any] = {"metrics": 0, "ledger": 0, "head": START}
    if found.state is not None:
        _same_numerics(found.state, facts.numerics(state.device))
        state.restore(found.state)
        book = found.state["logbook"]
    append_line(
        directory.events,
        {
            "event": Event.RESUMED,
            "attempt": attempt,
            "time": now(),
            "step": state.progress.step,
            "checkpoint": found.file,
            "skipped": list(found.skipped),
            "lost_steps": max(0, reached - state.progress.step),
        },
    )
    _say_start(specification, attempt, found, state)
    fence = Fence(directory, attempt)
    lines = LineFile(directory.ledger, book["ledger"], fence)
    return Logbook(LineFile(directory.metrics_file, book["metrics"], fence), lines, Ledger(lines, book["head"]))


def _say_start(specification: Specification, attempt: int, found: Found, state: TrainingState) -> None:
    start = "from the start" if found.file is None else f"from step {state.progress.step} ({found.file})"
    mark = " [NOT REPRODUCIBLE: launched with --allow-dirty]" if specification.dirty else ""
    print(f"{specification.experiment} seed {specification.seed}, attempt {attempt}: {start}{mark}", flush=True)


def _shortened(directory: RunDir, kept: dict[str, Any]) -> str | None:
    """Whether the files that grow are shorter than a checkpoint says: they lost lines that it counts on."""
    for path, key in ((directory.metrics_file, "metrics"), (directory.ledger, "ledger")):
        size = path.stat().st_size if path.exists() else 0
        if size < kept["logbook"][key]:
            return f"counts on {kept['logbook'][key]} bytes of {path.name}, which has {size}"
    return None


def _same_numerics(kept: dict[str, Any], here: dict[str, str]) -> None:
    differing = [
        f"{name}: {kept['numerics'].get(name)} -> {here.get(name)}"
        for name in sorted({*kept["numerics"], *here})
        if kept["numerics"].get(name) != here.get(name)
    ]
    if differing:
        raise Refused(
            "this machine would go on to other bits than the checkpoint's began with. Differing: "
            + "; ".join(differing)
            + ". Run it where these are the same, or start a new experiment here."
        )


@dataclass(slots=True)
class Keeper:
    """Saves the state when it is due, and finishes the run."""

    specification: Specification
    directory: RunDir
    attempt: int
    checkpoints: Checkpoints
    state: TrainingState
    logbook: Logbook
    say: Callable[[str], None]

    def save(self, occasion: str) -> Path:
        """`epoch`, `best epoch` or `between`. Raises OSError; the checkpoint before stands then."""
        progress, attempt = self.state.progress, self.attempt
        epoch, after_epoch = max(0, progress.evaluated - 1), "epoch" in occasion
        loss = progress.val_loss if after_epoch and progress.val_loss is not None else progress.last_loss
        name = file_name(self.directory.name, epoch, loss, None if after_epoch else progress.position)
        self.logbook.sync()
        content = {
            "format": 1,
            "experiment": self.specification.experiment,
            "seed": self.specification.seed,
            "epoch": epoch,
            "loss": loss,
            "config": self.specification.recipe.model_dump(mode="json"),
            "commit": self.specification.commit,
            "attempt": attempt,
            "numerics": facts.numerics(self.state.device),
            "logbook": {
                "metrics": self.logbook.metrics.size,
                "ledger": self.logbook.ledger.size,
                "head": self.logbook.ledger.head,
            },
            **self.state.capture(),
        }
        return self.checkpoints.save(
            content,
            name,
            lambda file, size, digest: Manifest(file, size, digest, progress.position, epoch, loss, attempt),
            best=occasion == "best epoch",
        )

    def save_if_possible(self, occasion: str) -> None:
        """A disk without room is no reason to stop: the last good checkpoint stands, and the next one may fit."""
        try:
            self.save(occasion)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self.say(
                f"WARNING: no checkpoint at step {self.state.progress.step}: {error}. Training goes on without it."
            )

    def stop(self, stop: StopFlag) -> None:
        path = self.save("between")
        seconds = time.monotonic() - stop.since
        append_line(
            self.directory.events,
            {
                "event": Event.SAVED,
                "attempt": self.attempt,
                "time": now(),
                "step": self.state.progress.step,
                "checkpoint": path.name,
                "seconds": round(seconds, 3),
            },
        )
        self.say(
            f"{stop.signal}: saved {path.name} {seconds:.2f} s after the signal; the same command goes on from here"
        )

    def finish(self) -> None:
        """Make sure that the last state is saved, then set the done marker."""
        progress = self.state.progress
        newest = next(iter(self.checkpoints.manifests()), None)
        if newest is None or newest.position != progress.position:
            newest_file = self.save("epoch").name
        else:
            newest_file = newest.file
        weights = hashlib.sha256()
        for name, parameter in sorted(self.state.trainable.items()):
            tensor = parameter.detach().to("cpu").contiguous().flatten()
            weights.update(f"{name} {tensor.dtype} {list(parameter.shape)}\n".encode())
            weights.update(tensor.view(torch.uint8).numpy().tobytes())
        publish_json(
            self.directory.done,
            {
                "step": progress.step,
                "epoch": max(0, progress.evaluated - 1),
                "train_loss": progress.last_loss,
                "val_loss": progress.val_loss,
                "accuracy": progress.accuracy,
                "val_loss_before": progress.first_val_loss,
                "accuracy_before": progress.first_accuracy,
                "checkpoint": newest_file,
                "weights_sha256": weights.hexdigest(),
                "attempt": self.attempt,
                "time": now(),
            },
        )
        self.say(f"done after {progress.step} steps: {newest_file}")
