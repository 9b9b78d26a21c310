"""How a run that was beaten comes back: what its user would see in the tree, and the launch that its user would then give."""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from jobs.contract import Action
from launcher.attempts import AttemptRecord
from launcher.chaos.beater import LAUNCHES_IN_VAIN, StuckError
from launcher.chaos.local_blows import processes
from launcher.chaos.target import Target
from launcher.chaos.twins import Launcher
from launcher.process import run
from launcher.runstate import Record, examine

ASK_SECONDS: Final = 10.0
"""Between two questions to Slurm about a run of which the tree says nothing new."""


@dataclass(slots=True)
class Patience:
    """So often a run may be launched in vain."""

    launcher: Launcher
    _vain: Counter[int] = field(default_factory=Counter)

    def struck(self, target: Target) -> None:
        """A blow may end other runs than the one that it was aimed at."""
        del target
        self._vain.clear()

    def launch(self, target: Target) -> None:
        """Raises StuckError."""
        if self._vain[target.seed] >= LAUNCHES_IN_VAIN:
            last = target.last()
            how = f"attempt {last.number}: {_how(last)}" if last else "it never started"
            words = self.launcher.last_words()
            raise StuckError(f"launched {LAUNCHES_IN_VAIN} times without a blow in between; {how}. {words}".strip())
        self._vain[target.seed] += 1
        self.launcher.begin()


def _how(last: AttemptRecord) -> str:
    return str(last.cause or (f"exit code {last.exit_code}" if last.exit_code is not None else "no word"))


class LocalReturn(Patience):
    """One launcher holds all runs: it is given again once it has ended, and nothing of this run lives."""

    def look(self, target: Target) -> None:
        if self.launcher.running or target.done:
            return
        if not any(processes(target)):
            self.launch(target)


@dataclass(slots=True)
class SlurmReturn(Patience):
    """What the arbiter put back comes by itself; what it stopped is launched again. Slurm is asked where the tree says nothing."""

    _asked: dict[int, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self, target: Target) -> None:
        with self._lock:
            if self.launcher.running or target.done:
                return
            if self._stopped(target) or self._lost(target):
                self.launch(target)
                self._asked[target.seed] = time.monotonic()

    def _stopped(self, target: Target) -> bool:
        """By the tree alone: the arbiter has stopped the newest submission."""
        last, record = target.last(), Record.read(target.run)
        if record is None:
            return True
        return last is not None and last.action == Action.STOP and last.job == record.job

    def _lost(self, target: Target) -> bool:
        now = time.monotonic()
        if now - self._asked.setdefault(target.seed, now) < ASK_SECONDS:
            return False
        self._asked[target.seed] = now
        (state,) = examine(self.launcher.request.tree, [target.seed])
        if state.active and state.detail.startswith("held by Slurm") and state.job is not None:
            run(["scontrol", "release", state.job], timeout=15)  # it had to be requeued too often; its owner lets it go
        return not state.active
