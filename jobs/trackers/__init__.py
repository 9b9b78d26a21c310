"""Where metrics go besides metrics.jsonl. Trackers copy the truth; a broken one is named and left out, and the run goes on."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from jobs.recipe import Specification, Tracking
from jobs.rundir import RunDir


class Tracker(Protocol):
    """The seam: a module per tracker, whose `start` returns one of these. May raise anything; must not draw random numbers
    that a run could see, which `open_trackers`'s caller makes sure of."""

    def log(self, line: Mapping[str, Any]) -> None:
        """Take one line of metrics.jsonl."""

    def close(self, exit_code: int) -> None:
        """Write out what is held back. `exit_code` is one of `jobs.contract.Exit`."""


class Trackers:
    """All trackers of a run behind one. Never raises."""

    def __init__(self) -> None:
        self._open: dict[str, Tracker] = {}

    def start(self, name: str, start: Callable[[], Tracker]) -> None:
        try:
            self._open[name] = start()
        except Exception as error:  # noqa: BLE001 - a tracker never ends a run
            _warn(name, "cannot be started", error)

    def log(self, line: Mapping[str, Any]) -> None:
        for name, tracker in list(self._open.items()):
            try:
                tracker.log(line)
            except Exception as error:  # noqa: BLE001
                _warn(name, "fails", error)
                del self._open[name]

    def close(self, exit_code: int) -> None:
        for name, tracker in self._open.items():
            try:
                tracker.close(exit_code)
            except Exception as error:  # noqa: BLE001
                _warn(name, "cannot be closed", error)
        self._open.clear()


def open_trackers(tracking: Tracking, rundir: RunDir, specification: Specification, resumed_step: int) -> Trackers:
    """Start the trackers of a recipe. The run goes on from `resumed_step`, and metrics.jsonl is cut back to it already: what a
    tracker holds of later steps is void."""
    trackers = Trackers()
    if tracking.tensorboard:
        from jobs.trackers import tensorboard

        trackers.start("tensorboard", lambda: tensorboard.start(rundir, resumed_step))
    settings = tracking.wandb
    if settings is not None:
        from jobs.trackers import wandb

        trackers.start("wandb", lambda: wandb.start(settings, rundir, specification))
    return trackers


def numbers(line: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a line by the name under which every tracker shows them: `train/loss`, `evaluation/val_loss` ..."""
    return {
        f"{line['kind']}/{key}": float(value)
        for key, value in line.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and key != "step"
    }


def _warn(name: str, what: str, error: Exception) -> None:
    reason = " ".join(str(error).split()) or type(error).__name__
    print(f"WARNING: {name} {what}: {reason}. It is left out from here on; metrics.jsonl has everything", flush=True)
