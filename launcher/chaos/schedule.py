"""Which blows fall, on which run, and at what moment: drawn from a seed. Pure."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

Card = TypeVar("Card")


class Moment(StrEnum):
    """What the run is to be doing when the blow is ordered."""

    START = "start"
    """While it imports and loads, after the blow before."""
    STEP = "step"
    SAVE = "save"
    EVALUATION = "evaluation"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of blow."""

    name: str
    notice: bool
    """Whether the run is told in time to save: then no step may be lost."""
    words: str
    """What happens, for a person."""
    patience: float = 120.0
    """Seconds after which its effect will not come any more."""


SLURM: Final = (
    Kind("preempt", notice=True, words="a job of a higher partition takes its node", patience=300),
    Kind("requeue", notice=True, words="scontrol requeue"),
    Kind("time-limit", notice=True, words="its time limit is lowered to what is nearly over", patience=300),
    Kind("signals", notice=True, words="SIGTERM and SIGUSR2 within a moment, by nobody"),
    Kind("scancel", notice=True, words="scancel of its array task, which must stay dead until it is launched again"),
    Kind("cancel", notice=True, words="launch cancel"),
    Kind("launcher-killed", notice=True, words="launch cancel, then SIGKILL to the launcher that brings it back"),
    Kind("kill", notice=False, words="SIGKILL to the whole step"),
    Kind("kill-run", notice=False, words="SIGKILL to the run alone, from another step on its node"),
    Kind("kill-in-grace", notice=False, words="SIGTERM, and SIGKILL while it saves"),
    Kind("node-down", notice=False, words="its node is set DOWN", patience=300),
    Kind("node-silent", notice=False, words="the daemon of its node stops, and the run there goes on", patience=900),
    # A run that ends of it has no room to say so: the disk is not left full until it does
    Kind("disk-full", notice=True, words="no room on the file system of its tree, for a while", patience=30),
)
LOCAL: Final = (
    Kind("term", notice=True, words="SIGTERM to the task"),
    Kind("signals", notice=True, words="SIGTERM and SIGUSR2 within a moment"),
    Kind("interrupt", notice=True, words="Ctrl-C to the launcher"),
    Kind("kill", notice=False, words="SIGKILL to the task, and with it to the run"),
    Kind("kill-run", notice=False, words="SIGKILL to the run alone"),
    Kind("kill-in-grace", notice=False, words="SIGTERM, and SIGKILL while it saves"),
    Kind("launcher-killed", notice=True, words="SIGKILL to the launcher"),
    # A run that ends of it has no room to say so: the disk is not left full until it does
    Kind("disk-full", notice=True, words="no room on the file system of its tree, for a while", patience=30),
)
NEAR_END: Final = 0.95
"""No blow is aimed at the last steps: the run would be done before it falls."""


@dataclass(frozen=True, slots=True)
class Course:
    """What is known of the runs before they are beaten."""

    steps: int
    per_epoch: int
    interval: int
    """Steps between two checkpoints."""


@dataclass(frozen=True, slots=True)
class Blow:
    """One blow of a schedule."""

    number: int
    seed: int
    kind: Kind
    moment: Moment
    step: int
    """The step of the ledger from which it may fall."""
    delay: float
    """Seconds after the moment has come."""

    def __str__(self) -> str:
        when = "while it starts" if self.moment is Moment.START else f"in its {self.moment}, from step {self.step} on"
        return f"blow {self.number} on seed {self.seed}: {self.kind.name} {when}"


def draw(seed: int, count: int, seeds: Sequence[int], kinds: Sequence[Kind], course: Course) -> list[Blow]:
    """The whole schedule, numbered in the order of each run's steps. The same arguments give the same schedule.

    Every kind comes as often as every other, give or take one; so does every run, and every moment."""
    source = random.Random(seed)  # noqa: S311 - to be drawn again, not to be secret
    last = max(1, int(course.steps * NEAR_END))
    rows = []
    for kind, run, moment in zip(
        _dealt(source, kinds, count),
        _dealt(source, seeds, count),
        _dealt(source, list(Moment), count),
        strict=True,
    ):
        step = source.randint(1, last)
        aim, step = _aimed(moment, step, course, last)
        rows.append((run, step, kind, aim, source.random()))
    rows.sort(key=lambda row: (row[0], row[1]))
    return [
        Blow(number, run, kind, moment, step, delay if moment is Moment.START else 0.0)
        for number, (run, step, kind, moment, delay) in enumerate(rows, start=1)
    ]


def _dealt(source: random.Random, cards: Sequence[Card], count: int) -> list[Card]:
    """So many cards, dealt from full packs, each shuffled anew."""
    found: list[Card] = []
    while len(found) < count:
        pack = list(cards)
        source.shuffle(pack)
        found += pack
    return found[:count]


def _aimed(moment: Moment, step: int, course: Course, last: int) -> tuple[Moment, int]:
    """The step at which a save or an evaluation begins, nearest above; in a step where there is none left."""
    grid = {Moment.SAVE: course.interval, Moment.EVALUATION: course.per_epoch}.get(moment)
    if grid is None:
        return moment, step
    at = -(-step // grid) * grid
    if at > last:
        at = last // grid * grid
    return (moment, at) if at > 0 else (Moment.STEP, step)
