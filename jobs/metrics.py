"""The metrics: metrics.jsonl is the truth, the trackers copy it, and a person reads lines or a bar."""

import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol

from jobs.determinism import undisturbed
from jobs.files import now
from jobs.linefile import LineFile

SECONDS_BETWEEN_LINES = 2.0


class Tracker(Protocol):
    """What a metrics line goes to besides the file."""

    def log(self, line: Mapping[str, Any]) -> None: ...


class Metrics:
    """`metrics.jsonl`, open for appending, with the trackers behind it."""

    def __init__(self, file: LineFile, tracker: Tracker) -> None:
        self._file, self._tracker = file, tracker

    def append(self, line: Mapping[str, Any]) -> None:
        stamped = {**line, "time": now()}
        self._file.append(stamped)
        with undisturbed():  # what a tracker draws must not reach the bits
            self._tracker.log(stamped)


class Display:
    """What a person sees of it: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, steps: int, epochs: int, label: str) -> None:
        self._steps, self._epochs, self._label = steps, epochs, label
        self._last = 0.0
        self._bar: Any = None
        self._task: Any = None
        if sys.stdout.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns)
            self._bar.start()
            self._task = self._bar.add_task(label, total=steps)

    def step(self, line: Mapping[str, Any]) -> None:
        said = f"epoch {line['epoch']}/{self._epochs} loss {line['loss']:.4f} lr {line['lr']:.1e}"
        if self._bar is not None:
            self._bar.update(self._task, completed=line["step"], description=f"{self._label} {said}")
        elif time.monotonic() - self._last > SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            print(f"step {line['step']}/{self._steps} {said} {line['tokens_per_second']:,.0f} tokens/s", flush=True)

    def evaluation(self, line: Mapping[str, Any]) -> None:
        accuracy = "" if line["accuracy"] is None else f" accuracy {line['accuracy']:.1%}"
        when = f"after epoch {line['epoch']}/{self._epochs}" if line["epoch"] else "before training"
        self.say(f"{when}: validation loss {line['val_loss']:.4f}{accuracy} on {line['rows']} rows")

    def say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
