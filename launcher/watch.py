"""What a person sees while runs go on here: a bar per seed on a terminal, plain lines elsewhere. Read from the trees."""

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from jobs.contract import Exit
from jobs.files import read_lines
from jobs.rundir import RunDir, Tree
from launcher.progress import Progress, progress


def outcome(found: Progress) -> str:
    """Validation loss and accuracy, in words; empty before the first evaluation."""
    parts = []
    if found.val_loss is not None:
        parts.append(f"validation loss {found.val_loss:.4f}")
    if found.accuracy is not None:
        parts.append(f"accuracy {found.accuracy:.1%}")
    return ", ".join(parts)


class Watch:
    """Shows runs from their start to their end."""

    def __init__(self, tree: Tree, seeds: Sequence[int]) -> None:
        self._tree, self._seeds = tree, seeds
        self._epochs = dict.fromkeys(seeds, -1)
        self._bars: dict[int, Any] = {}
        self._rich: Any = None
        self._active: dict[int, RunDir] = {}

    def __enter__(self) -> Self:
        if sys.stdout.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._rich = Progress(
                TextColumn("seed {task.fields[seed]}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
            )
            self._bars = {seed: self._rich.add_task("waits", seed=seed, total=None) for seed in self._seeds}
            self._rich.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rich is not None:
            self._rich.stop()

    def say(self, text: str) -> None:
        if self._rich is not None:
            self._rich.console.print(text, markup=False, highlight=False)
        else:
            print(text, flush=True)

    def started(self, run: RunDir) -> None:
        self._active[run.seed] = run
        last = max((line["epoch"] for line in self._evaluations(run)), default=-1)
        self._epochs[run.seed] = last
        if self._rich is not None:
            self._rich.update(self._bars[run.seed], description="starts")
        else:
            self.say(f"seed {run.seed}: {'goes on' if run.attempts() else 'starts'}")

    def ended(self, run: RunDir, code: int) -> None:
        self._look_at(run)
        self._active.pop(run.seed, None)
        found = progress(run)
        words = {Exit.DONE: "done", Exit.SAVED: f"saved at step {found.step or 0}"}
        text = words.get(Exit(code), f"exit code {code}") if code in list(Exit) else f"exit code {code}"
        if code == Exit.DONE and (result := outcome(found)):
            text = f"done, {result}"
        if self._rich is not None:
            self._rich.update(self._bars[run.seed], description=text)
        else:
            self.say(f"seed {run.seed}: {text}")

    def look(self) -> None:
        for run in self._active.values():
            self._look_at(run)

    def _look_at(self, run: RunDir) -> None:
        if self._rich is not None:
            found = progress(run)
            if found.step is not None:
                bar = self._bars[run.seed]
                self._rich.update(bar, completed=found.step, total=found.steps, description=outcome(found))
            return
        for line in self._evaluations(run):
            if line["epoch"] > self._epochs[run.seed]:
                self._epochs[run.seed] = line["epoch"]
                when = f"epoch {line['epoch']}" if line["epoch"] else "before training"
                result = outcome(Progress(val_loss=line["val_loss"], accuracy=line["accuracy"]))
                self.say(f"seed {run.seed}: {when}: {result}")

    @staticmethod
    def _evaluations(run: RunDir) -> list[dict[str, Any]]:
        return [line for line in read_lines(run.metrics_file) if line.get("kind") == "evaluation"]
