"""The loop that deals: a full disk ends no attempt, so the next blow falls on the same one; meanwhile no other blow falls."""

import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from launcher.attempts import AttemptRecord
from launcher.chaos.beater import Beater
from launcher.chaos.schedule import SLURM, Blow, Moment

KINDS = {kind.name: kind for kind in SLURM}
BACK = SimpleNamespace(look=lambda target: None, struck=lambda target: None)


class Run:
    """A target whose attempts end by blows alone; done after the last one."""

    def __init__(self, seed: int, attempts: int) -> None:
        self.seed, self.left = seed, attempts
        self.records = [AttemptRecord(1)]

    done = property(lambda self: self.left == 0)

    def is_time(self, _blow: Blow, after: int) -> bool:
        return self.records[-1].number > after

    def alive(self) -> AttemptRecord | None:
        return None if self.done else self.records[-1]

    def attempts(self) -> list[AttemptRecord]:
        return self.records

    def ended(self, attempt: int) -> bool:
        return self.records[-1].number > attempt

    def step(self) -> int:
        return 1

    def doing(self) -> Moment:
        return Moment.STEP

    def end(self) -> None:
        self.records[-1].exit_code = 75
        self.records.append(AttemptRecord(self.records[-1].number + 1))


def blows(seed: int, *names: str) -> list[Blow]:
    return [Blow(number, seed, KINDS[name], Moment.STEP, 1, 0.0) for number, name in enumerate(names, start=1)]


def beater(deals: Any) -> Beater:
    return Beater(SimpleNamespace(), deals, BACK, lambda line: None)  # type: ignore[arg-type]


def test_chaos_after_a_full_disk_the_next_blow_falls_on_the_same_attempt() -> None:
    run = Run(0, attempts=2)

    @contextmanager
    def fill(_scene: Any, _target: Any, _attempt: AttemptRecord) -> Any:
        yield lambda: True

    @contextmanager
    def kill(_scene: Any, target: Run, _attempt: AttemptRecord) -> Any:
        target.end()
        yield lambda: True
        target.left = 0

    found = beater({"disk-full": fill, "kill": kill})
    found.run([run], blows(0, "disk-full", "kill"))  # type: ignore[list-item]
    assert [(each.blow.kind.name, each.attempt, each.landed) for each in found.dealt] == [
        ("disk-full", 1, True),
        ("kill", 1, True),
    ]


def test_chaos_while_a_disk_is_full_no_other_blow_falls() -> None:
    runs, full, seen = [Run(0, 9), Run(1, 9)], threading.Event(), []

    @contextmanager
    def fill(_scene: Any, _target: Any, _attempt: AttemptRecord) -> Any:
        full.set()
        time.sleep(0.05)
        yield lambda: True
        full.clear()

    @contextmanager
    def kill(_scene: Any, target: Run, _attempt: AttemptRecord) -> Any:
        seen.append(full.is_set())
        time.sleep(0.01)
        target.end()
        yield lambda: True
        seen.append(full.is_set())

    found = beater({"disk-full": fill, "kill": kill})
    schedule = [*blows(0, *["disk-full", "kill"] * 5), *blows(1, *["kill"] * 20)]
    ends = threading.Timer(5.0, found.stop.set)
    ends.start()
    waiting = threading.Thread(target=lambda: found.run(runs, schedule))  # type: ignore[arg-type]
    waiting.start()
    while sum(each.landed for each in found.dealt) < len(schedule) and not found.stop.is_set():
        time.sleep(0.01)
    found.stop.set()
    ends.cancel()
    for run in runs:
        run.left = 0
    waiting.join()
    assert sum(each.landed for each in found.dealt) == len(schedule)
    assert len(seen) == 50
    assert not any(seen)
