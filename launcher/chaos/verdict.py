"""What a beaten twin is worth beside the calm one: the same bits, every step once, what each blow cost."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from jobs.contract import Cause, Event
from jobs.files import read_lines
from jobs.rundir import RunDir
from launcher import batch
from launcher.attempts import AttemptRecord, attempts
from launcher.chaos.beater import Dealt
from launcher.chaos.schedule import Course
from launcher.errors import ExitCode
from launcher.history import Goodput, goodput
from launcher.process import run

COMPARE_SECONDS: Final = 900
NOTICED: Final = frozenset({Cause.PREEMPTED, Cause.REQUEUED, Cause.TIME_LIMIT, Cause.CANCELLED, Cause.INTERRUPTED})
UNAIMED: Final = "no blow"


@dataclass(frozen=True, slots=True)
class Loss:
    """Steps that had to be done again after an attempt."""

    attempt: int
    kind: str
    """Of the blow that ended it; `no blow: CAUSE` where none was aimed at it."""
    steps: int
    allowed: int


@dataclass(frozen=True, slots=True)
class RunVerdict:
    """One seed."""

    seed: int
    identical: bool
    compared: str
    """`identical`, or where and in what the two differ first; why there is nothing to compare."""
    gaps: tuple[str, ...]
    """Steps missing, doubled or out of order."""
    losses: tuple[Loss, ...]
    goodput: Goodput
    attempts: int
    causes: Mapping[str, int]

    @property
    def too_much(self) -> tuple[Loss, ...]:
        return tuple(loss for loss in self.losses if loss.steps > loss.allowed)

    @property
    def good(self) -> bool:
        return self.identical and not self.gaps and not self.too_much


def judge(calm: RunDir, beaten: RunDir, dealt: Sequence[Dealt], course: Course, stuck: str = "") -> RunVerdict:
    """`dealt`: the blows on this run."""
    history = attempts(beaten)
    done = beaten.done.exists()
    compared = _compare(calm, beaten) if done else f"not finished: {stuck or 'its last attempt says why'}"
    causes: dict[str, int] = {}
    for record in history:
        name = str(record.cause or "unnamed")
        causes[name] = causes.get(name, 0) + 1
    return RunVerdict(
        seed=beaten.seed,
        identical=compared == "identical",
        compared=compared,
        gaps=tuple(gaps(beaten)) if done else (),
        losses=tuple(losses(history, dealt, course, unsaved(beaten))),
        goodput=goodput(history, course.steps if done else None, course.steps if done else 0),
        attempts=len(history),
        causes=causes,
    )


def _compare(calm: RunDir, beaten: RunDir) -> str:
    """By the program that a user has for it, in the launcher's own environment: what is judged does not judge."""
    argv = [*batch.python(sys.executable), "-m", "jobs.compare", str(calm.specification), str(beaten.specification)]
    answer = run(argv, timeout=COMPARE_SECONDS, kind=ExitCode.RUN)
    if answer.stdout.strip():
        return answer.stdout.strip()
    return f"cannot be compared: {(answer.stderr.strip().splitlines() or [f'exit code {answer.code}'])[-1]}"


def gaps(beaten: RunDir) -> list[str]:
    """What is missing, doubled or out of order in ledger and metrics; by the numbers alone, without the other run."""
    metrics = list(read_lines(beaten.metrics_file))
    found = _sequence("the ledger", [line.get("step") for line in read_lines(beaten.ledger)], 1)
    found += _sequence("the metrics", [line.get("step") for line in metrics if line.get("kind") == "train"], 1)
    epochs = [line.get("epoch") for line in metrics if line.get("kind") == "evaluation"]
    return found + _sequence("the evaluations", epochs, 0)


def _sequence(name: str, numbers: Sequence[Any], first: int) -> list[str]:
    for wanted, number in enumerate(numbers, start=first):
        if number != wanted:
            what = "is doubled" if number in numbers[: wanted - first] else "is missing"
            return [f"{name}: {number if what == 'is doubled' else wanted} {what}"]
    return []


def unsaved(beaten: RunDir) -> Counter[int]:
    """Checkpoints that found no room, by attempt."""
    return Counter(int(line["attempt"]) for line in read_lines(beaten.events) if line.get("event") == Event.UNSAVED)


def losses(
    history: Sequence[AttemptRecord], dealt: Sequence[Dealt], course: Course, without_room: Mapping[int, int]
) -> list[Loss]:
    """For each attempt that did steps and had a successor: what that one found to do again. `without_room`: see `unsaved`."""
    blows = {each.attempt: each.blow.kind for each in dealt if each.landed and not _harmless(each)}
    found: list[Loss] = []
    before: AttemptRecord | None = None
    for record in history:
        if record.first_step is None:
            continue
        if before is not None:
            kind = blows.get(before.number)
            name = kind.name if kind else f"{UNAIMED}: {before.cause or 'unnamed'}"
            noticed = kind.notice if kind else before.cause in NOTICED
            # A checkpoint stands before the next but one begins: training waits for it. One without room is left out.
            most = (2 + without_room.get(before.number, 0)) * course.interval
            found.append(Loss(before.number, name, record.lost_steps, 0 if noticed else most))
        before = record
    return found


def _harmless(each: Dealt) -> bool:
    """A full disk lets the run go on: what ended it was another blow."""
    return each.blow.kind.name == "disk-full"
