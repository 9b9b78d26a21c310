"""What a blow is given: the twin, its launcher, and what Slurm allows the user; and what blows share."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jobs.contract import Event
from launcher.attempts import AttemptRecord
from launcher.chaos.target import Target
from launcher.chaos.twins import Launcher

PAUSE: Final = 0.02
MOST_TO_FILL: Final = 2 << 30
"""Only so small a file system is filled up: it is one made for this, not one that others need."""
BLOCK: Final = b"\0" * (1 << 20)


class UnableError(Exception):
    """A blow that could not be dealt, with the reason."""


class BreachError(Exception):
    """A blow that was not answered as it must be: what was cancelled came back."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Where the blows fall."""

    launcher: Launcher
    preemptor: str | None
    """A partition whose jobs preempt the run's; None: none was named."""
    account: tuple[str, ...]
    """`--account` and `--qos` of jobs of our own, as sbatch takes them."""
    node_commands: tuple[str, str] | None = None
    """What stops the daemon of the node `{node}`, and what lets it go on, as shell commands."""


Effect = Callable[[], bool]
"""Whether the blow has done what it does."""
Deal = Callable[[Scene, Target, AttemptRecord], AbstractContextManager[Effect]]
"""Deals a blow to the attempt when entered; when left, takes away what it needed. Raises UnableError."""


def over(target: Target, attempt: AttemptRecord) -> Effect:
    return lambda: target.ended(attempt.number)


def wait(condition: Effect, seconds: float) -> bool:
    """Whether it came true in that time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(PAUSE)
    return True


def fillable(tree: Path) -> str:
    """Why the file system of this tree may not be filled up; empty where it may."""
    while not tree.exists():
        tree = tree.parent
    size = shutil.disk_usage(tree).total
    if size <= MOST_TO_FILL:
        return ""
    return (
        f"its file system has {size / 2**30:.0f} GiB: only one of at most {MOST_TO_FILL / 2**30:.0f} GiB is filled up"
    )


@contextmanager
def disk_full(scene: Scene, target: Target, attempt: AttemptRecord) -> Iterator[Effect]:
    """Takes all that is free, and gives it back once a checkpoint could not be written, or the run has ended of it."""
    del scene
    filler = target.run.root / "full"
    if why := fillable(filler):  # asked again: what was mounted there may be gone, and this would be everybody's disk
        raise UnableError(why)
    before = _unsaved(target)
    try:
        _fill(filler)
        yield lambda: _unsaved(target) > before or target.ended(attempt.number)
    finally:
        filler.unlink(missing_ok=True)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for block in (BLOCK, BLOCK[:4096], BLOCK[:1]):
            try:
                while file.write(block):
                    pass
            except OSError:
                continue
        os.sched_yield()


def _unsaved(target: Target) -> int:
    """By its bytes: there may be no room for the whole line."""
    return target.run.events.read_bytes().count(f'"{Event.UNSAVED}'.encode()) if target.run.events.exists() else 0
